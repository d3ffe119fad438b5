/**
 * `ostraka node list|status|drain|remove`: which nodes there are, what one of them knows of its groups, and how to take
 * one out: drained, it holds nothing and may come back; removed, it never does.
 */
import type { Command } from "commander";
import { parseInteger } from "../../node/config.js";
import {
  addConnectionOptions,
  type ConnectionFlags,
  NO_TIMEOUT_MS,
  resolveUrl,
  withDatabase,
} from "../connection.js";
import { CommandFailure, EXIT } from "../exit.js";
import { type JsonRecord, printJson, printRecords } from "../tables.js";

interface NodeFlags extends ConnectionFlags {
  readonly json?: boolean;
  readonly node?: string;
  readonly undo?: boolean;
  readonly wait?: boolean;
}

export function addNodeCommand(program: Command): void {
  const nodes = program.command("node").description("nodes of the cluster");
  const list = nodes.command("list").description("all nodes, and whether they can be reached");
  addConnectionOptions(list)
    .option("--json", "JSON for machines")
    .action(async (flags: NodeFlags) => {
      const nodes = await ask<JsonRecord[]>(flags, "node.list");
      if (flags.json === true) printJson(nodes);
      else printRecords(nodes, COLUMNS);
    });
  const status = nodes
    .command("status")
    .description("a node (by default the one that answers) and its groups");
  addConnectionOptions(status)
    .argument("[node]", "its number")
    .option("--node <n>", "the same")
    .option("--json", "JSON for machines")
    .action(async (id: string | undefined, flags: NodeFlags) => {
      const answer = await ask<{ node: unknown; clusterId: unknown; groups: JsonRecord[] }>(
        flags,
        "node.status",
        (id ?? flags.node) === undefined ? {} : { node: nodeNumber(id, flags) },
      );
      if (flags.json === true) return printJson(answer);
      process.stdout.write(`node ${String(answer.node)} of cluster ${String(answer.clusterId)}\n`);
      printRecords(answer.groups, ["group", "kind", "role", "leader", "term", "applied", "commit"]);
    });
  const drain = nodes.command("drain").description("move everything off a node; it stays in the cluster");
  addConnectionOptions(drain)
    .argument("[node]", "its number")
    .option("--node <n>", "the same")
    .option("--undo", "let it hold data again")
    .option("--no-wait", "do not wait until it is empty")
    .option("--json", "JSON for machines")
    .action(async (id: string | undefined, flags: NodeFlags) => {
      const { undo = false, wait = true } = flags;
      const node = nodeNumber(id, flags);
      const answer = await ask<JsonRecord>(flags, "node.drain", { node, undo, wait });
      if (flags.json === true) return printJson(answer);
      const what = undo ? "takes data again" : wait ? "is empty" : "is being drained";
      process.stdout.write(`node ${node} ${what}\n`);
    });
  const remove = nodes.command("remove").description("take a node out of the cluster, for ever");
  addConnectionOptions(remove)
    .argument("[node]", "its number; it is never used again")
    .option("--node <n>", "the same")
    .option("--no-wait", "do not wait until it is gone")
    .option("--json", "JSON for machines")
    .action(async (id: string | undefined, flags: NodeFlags) => {
      const { wait = true } = flags;
      const node = nodeNumber(id, flags);
      const answer = await ask<JsonRecord>(flags, "node.remove", { node, wait });
      if (flags.json === true) return printJson(answer);
      process.stdout.write(`node ${node} is ${wait ? "removed" : "being removed"}\n`);
    });
}

const COLUMNS = ["id", "address", "http", "status", "state", "voter", "ranges", "leads", "incarnation"];

function nodeNumber(id: string | undefined, flags: NodeFlags): number {
  const text = id ?? flags.node;
  if (flags.node !== undefined && flags.node !== text)
    throw new CommandFailure(EXIT.failure, "the node is given twice, as an argument and as --node");
  if (text === undefined) throw new CommandFailure(EXIT.failure, "which node: its number is needed");
  return parseInteger("NODE", text, 1, 2 ** 31 - 1);
}

async function ask<T>(
  flags: ConnectionFlags,
  verb: string,
  args: Readonly<Record<string, unknown>> = {},
): Promise<T> {
  return withDatabase(
    flags,
    resolveUrl(flags),
    async (database) => (await database.admin(verb, args, { timeoutMs: NO_TIMEOUT_MS })) as T,
  );
}

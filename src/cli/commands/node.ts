/** `ostraka node list|status`: which nodes there are, and what the one that answers knows of its groups. */
import type { Command } from "commander";
import { addConnectionOptions, type ConnectionFlags, resolveUrl, withDatabase } from "../connection.js";
import { type JsonRecord, printJson, printRecords } from "../tables.js";
import { addPlanned } from "./planned.js";

interface NodeFlags extends ConnectionFlags {
  readonly json?: boolean;
}

export function addNodeCommand(program: Command): void {
  const node = program.command("node").description("nodes of the cluster");
  const list = node.command("list").description("all nodes, and whether they can be reached");
  addConnectionOptions(list)
    .option("--json", "JSON for machines")
    .action(async (flags: NodeFlags) => {
      const nodes = await ask<JsonRecord[]>(flags, "node.list");
      if (flags.json === true) printJson(nodes);
      else printRecords(nodes, ["id", "address", "http", "status", "voter", "incarnation"]);
    });
  const status = node.command("status").description("the node that answers, and its groups");
  addConnectionOptions(status)
    .option("--json", "JSON for machines")
    .action(async (flags: NodeFlags) => {
      const answer = await ask<{ node: unknown; clusterId: unknown; groups: JsonRecord[] }>(
        flags,
        "node.status",
      );
      if (flags.json === true) return printJson(answer);
      process.stdout.write(`node ${String(answer.node)} of cluster ${String(answer.clusterId)}\n`);
      printRecords(answer.groups, ["group", "kind", "role", "leader", "term", "applied", "commit"]);
    });
  addPlanned(node, "drain", "move everything off a node");
  addPlanned(node, "remove", "take a node out of the cluster");
}

async function ask<T>(flags: ConnectionFlags, verb: string): Promise<T> {
  return withDatabase(flags, resolveUrl(flags), async (database) => (await database.admin(verb)) as T);
}

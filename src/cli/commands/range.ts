/** `ostraka range list|split|merge|move|transfer`: the pieces that the database is made of, and where they are. */
import type { Command } from "commander";
import { parseInteger } from "../../node/config.js";
import {
  addConnectionOptions,
  type ConnectionFlags,
  NO_TIMEOUT_MS,
  resolveUrl,
  withDatabase,
} from "../connection.js";
import { type JsonRecord, printJson, printRecords } from "../tables.js";

interface RangeFlags extends ConnectionFlags {
  readonly json?: boolean;
  readonly table?: string;
  readonly at?: readonly string[];
  readonly range?: string;
  readonly from?: string;
  readonly to?: string;
}

const COLUMNS = [
  "range_id",
  "table_name",
  "start_key",
  "end_key",
  "leader_node",
  "replicas",
  "row_count",
  "byte_size",
  "applied_index",
  "term",
  "generation",
];

export function addRangeCommand(program: Command): void {
  const range = program.command("range").description("the ranges that the database is divided into");
  addJson(range.command("list").description("all ranges, in key order")).action(async (flags: RangeFlags) => {
    const ranges = await ask<JsonRecord[]>(flags, "range.list");
    if (flags.json === true) printJson(ranges);
    else printRecords(ranges, COLUMNS);
  });
  addJson(range.command("split").description("divide a range"))
    .requiredOption("--table <name>", "the table whose rows are divided")
    .requiredOption(
      "--at <value,…>",
      "where the new range begins: a value of the table's key; for a key of several columns, their values; " +
        "for a key of one column, several places. May be given again",
      (value: string, before: readonly string[] = []) => [...before, value],
    )
    .action(async (flags: RangeFlags) => {
      const answer = await ask<{ ranges: { range: number; at: string; existed: boolean }[] }>(
        flags,
        "range.split",
        { table: flags.table, at: flags.at },
      );
      if (flags.json === true) return printJson(answer);
      for (const { range: id, at, existed } of answer.ranges)
        process.stdout.write(`${at}: range ${id} begins there${existed ? " already" : ""}\n`);
    });
  addJson(range.command("merge").description("make one range of this one and its right neighbour"))
    .requiredOption("--range <id>", "the left one of the two")
    .action(async (flags: RangeFlags) => {
      const answer = await ask<JsonRecord>(flags, "range.merge", { range: number("--range", flags.range) });
      if (flags.json === true) return printJson(answer);
      process.stdout.write(`range ${String(answer.merged)} is part of range ${String(answer.range)}\n`);
    });
  addJson(range.command("move").description("move a replica to another node"))
    .requiredOption("--range <id>", "the range")
    .requiredOption("--from <node>", "the node that has a replica")
    .requiredOption("--to <node>", "the node that is to have it instead")
    .action(async (flags: RangeFlags) => {
      const answer = await ask<JsonRecord>(flags, "range.move", {
        range: number("--range", flags.range),
        from: number("--from", flags.from),
        to: number("--to", flags.to),
      });
      if (flags.json === true) return printJson(answer);
      const replicas = (answer.replicas as readonly number[]).join(", ");
      process.stdout.write(`range ${String(answer.range)} is on nodes ${replicas}\n`);
    });
  addJson(range.command("transfer").description("let another replica lead"))
    .requiredOption("--range <id>", "the range")
    .requiredOption("--to <node>", "the node that is to lead it")
    .action(async (flags: RangeFlags) => {
      const answer = await ask<JsonRecord>(flags, "range.transfer", {
        range: number("--range", flags.range),
        to: number("--to", flags.to),
      });
      if (flags.json === true) return printJson(answer);
      process.stdout.write(`node ${String(answer.leader)} leads range ${String(answer.range)}\n`);
    });
}

function addJson(command: Command): Command {
  return addConnectionOptions(command).option("--json", "JSON for machines");
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

function number(flag: string, text: string | undefined): number {
  return parseInteger(flag, text ?? "", 1, 2 ** 31 - 1);
}

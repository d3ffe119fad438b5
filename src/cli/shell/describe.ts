/** The backslash commands that show the schema, as psql shows it. */

import type { Value } from "../../driver/types.js";
import { likePattern } from "../dump.js";
import { tablePrinter } from "../format/aligned.js";
import { quoteName, terminated } from "../format/literals.js";
import { DEFAULT_PRINT_OPTIONS } from "../format/printer.js";
import { printable } from "../format/width.js";
import type { MetaCommand } from "./meta.js";
import { MetaError, type Shell } from "./shell.js";

export async function printTable(
  shell: Shell,
  columns: readonly string[],
  rows: readonly Value[][],
): Promise<void> {
  const printer = tablePrinter(DEFAULT_PRINT_OPTIONS);
  await shell.output.write(printer.head(columns));
  for (const row of rows) await shell.output.write(printer.row(row));
  await shell.output.write(printer.end());
}

/** psql's patterns (* and ?) and SQLite's (% and _). */
function matcher(pattern: string | undefined): (name: string) => boolean {
  if (pattern === undefined) return () => true;
  return likePattern(pattern.replaceAll("*", "%").replaceAll("?", "_"));
}

async function list(shell: Shell, types: readonly string[], pattern: string | undefined): Promise<void> {
  const matches = matcher(pattern);
  const rows = await shell.query(
    "select name, type, tbl_name from sqlite_schema union all select name, 'temp ' || type, tbl_name from sqlite_temp_schema order by 1",
  );
  const shown = rows.filter((row) => {
    const name = String(row[0]);
    return (
      types.includes(String(row[1]).replace("temp ", "")) && !name.startsWith("sqlite_") && matches(name)
    );
  });
  if (shown.length === 0) {
    shell.note(pattern === undefined ? "Nothing there.\n" : `Nothing named ${printable(pattern)}.\n`);
    return;
  }
  const indexes = types.length === 1 && types[0] === "index";
  await printTable(
    shell,
    indexes ? ["Name", "Type", "Table"] : ["Name", "Type"],
    shown.map((row) => (indexes ? row : row.slice(0, 2))),
  );
}

async function describe(shell: Shell, args: readonly string[]): Promise<void> {
  const [name] = args;
  if (name === undefined) return list(shell, ["table", "view"], undefined);
  const rows = await shell.query(
    "select name, type, sql, tbl_name from sqlite_schema where lower(name) = lower(?1) " +
      "union all select name, type, sql, tbl_name from sqlite_temp_schema where lower(name) = lower(?1)",
    [name],
  );
  const object = rows[0];
  if (object === undefined) {
    if (/[*?%]/.test(name)) return list(shell, ["table", "view"], name);
    throw new MetaError(`there is nothing named ${name}`);
  }
  const [actual, type, sql] = object.map((value) => String(value ?? ""));
  const title = `${type![0]!.toUpperCase()}${type!.slice(1)} ${printable(actual!)}`;
  await shell.output.write(`${title}\n`);
  if (type === "table" || type === "view") await describeColumns(shell, actual!);
  if (type === "table") await describeTableParts(shell, actual!);
  else await shell.output.write(`${terminated(sql!)}\n`);
}

async function describeColumns(shell: Shell, name: string): Promise<void> {
  const columns = await shell.query(`PRAGMA table_xinfo(${quoteName(name)})`);
  const kinds = ["", "hidden", "generated", "generated stored"];
  await printTable(
    shell,
    ["Column", "Type", "Nullable", "Default", "Key"],
    columns.map((row) => {
      const key = Number(row[5]) > 0 ? "primary key" : (kinds[Number(row[6])] ?? "");
      return [row[1] ?? "", row[2] ?? "", Number(row[3]) === 0 ? "" : "not null", row[4] ?? null, key];
    }),
  );
}

async function describeTableParts(shell: Shell, name: string): Promise<void> {
  const indexes = await shell.query(`PRAGMA index_list(${quoteName(name)})`);
  if (indexes.length > 0) await shell.output.write("Indexes:\n");
  for (const index of indexes) {
    const columns = await shell.query(`PRAGMA index_info(${quoteName(String(index[1]))})`);
    const parts = columns.map((row) => String(row[2] ?? "<expression>")).join(", ");
    const origin = { pk: "primary key, ", u: "unique constraint, " }[String(index[3])] ?? "";
    const unique = Number(index[2]) === 1 && origin === "" ? "unique, " : "";
    await shell.output.write(printable(`    ${String(index[1])} ${origin}${unique}(${parts})`).concat("\n"));
  }
  const keys = await shell.query(`PRAGMA foreign_key_list(${quoteName(name)})`);
  if (keys.length > 0) await shell.output.write("Foreign keys:\n");
  for (const id of new Set(keys.map((row) => String(row[0])))) {
    const own = keys.filter((row) => String(row[0]) === id);
    const from = own.map((row) => String(row[3])).join(", ");
    const to = own.every((row) => row[4] !== null) ? ` (${own.map((row) => String(row[4])).join(", ")})` : "";
    const actions = `${action("on update", own[0]![5])}${action("on delete", own[0]![6])}`;
    await shell.output.write(
      printable(`    (${from}) references ${String(own[0]![2])}${to}${actions}`).concat("\n"),
    );
  }
  const triggers = await shell.query(
    "select name, sql from sqlite_schema where type = 'trigger' and lower(tbl_name) = lower(?) order by name",
    [name],
  );
  if (triggers.length > 0) await shell.output.write("Triggers:\n");
  for (const row of triggers) await shell.output.write(printable(`    ${String(row[0])}`).concat("\n"));
}

function action(when: string, what: Value | undefined): string {
  return what === undefined || what === null || String(what) === "NO ACTION"
    ? ""
    : ` ${when} ${String(what).toLowerCase()}`;
}

export const describeCommands: readonly MetaCommand[] = [
  {
    names: ["\\d"],
    usage: "\\d [NAME]",
    help: "Tables and views, or what this one is made of",
    run: describe,
  },
  {
    names: ["\\dt"],
    usage: "\\dt [PATTERN]",
    help: "Tables",
    run: (shell, args) => list(shell, ["table"], args[0]),
  },
  {
    names: ["\\dv"],
    usage: "\\dv [PATTERN]",
    help: "Views",
    run: (shell, args) => list(shell, ["view"], args[0]),
  },
  {
    names: ["\\di"],
    usage: "\\di [PATTERN]",
    help: "Indexes",
    run: (shell, args) => list(shell, ["index"], args[0]),
  },
  {
    names: ["\\l"],
    usage: "\\l",
    help: "Databases: one a cluster",
    run: (shell) => printTable(shell, ["Name", "URL"], [["main", shell.url]]),
  },
];

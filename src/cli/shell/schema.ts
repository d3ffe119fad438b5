/** The dot commands that show the schema, as sqlite3 shows it. */
import { terminated } from "../format/literals.js";
import { displayWidth, printable } from "../format/width.js";
import type { MetaCommand } from "./meta.js";
import type { Shell } from "./shell.js";

const USER_OBJECTS = "name not like 'sqlite\\_%' escape '\\'";

async function names(
  shell: Shell,
  types: string,
  pattern: string | undefined,
  column: string,
): Promise<string[]> {
  const rows = await shell.query(
    `select name from sqlite_schema where type in (${types}) and ${USER_OBJECTS} and ${column} like ? ` +
      `union all select name from sqlite_temp_schema where type in (${types}) and ${USER_OBJECTS} and ${column} like ? ` +
      "order by 1",
    [pattern ?? "%", pattern ?? "%"],
  );
  return rows.map((row) => printable(String(row[0])));
}

/** Side by side, down the columns, within the screen. */
export function inColumns(items: readonly string[], screenWidth: number): string {
  if (items.length === 0) return "";
  const width = Math.max(...items.map(displayWidth)) + 2;
  const across = Math.max(1, Math.floor((screenWidth + 2) / width));
  const down = Math.ceil(items.length / across);
  let out = "";
  for (let line = 0; line < down; line++) {
    let text = "";
    for (let i = line; i < items.length; i += down)
      text += items[i]! + " ".repeat(width - displayWidth(items[i]!));
    out += `${text.trimEnd()}\n`;
  }
  return out;
}

async function tables(shell: Shell, args: readonly string[]): Promise<void> {
  const found = await names(shell, "'table','view'", args[0], "name");
  await shell.output.write(inColumns(found, process.stdout.columns ?? 80));
}

async function indexes(shell: Shell, args: readonly string[]): Promise<void> {
  const rows = await shell.query(
    "select name from sqlite_schema where type = 'index' and tbl_name like ? order by 1",
    [args[0] ?? "%"],
  );
  await shell.output.write(
    inColumns(
      rows.map((row) => printable(String(row[0]))),
      process.stdout.columns ?? 80,
    ),
  );
}

async function schema(shell: Shell, args: readonly string[]): Promise<void> {
  const pattern = args.find((arg) => !arg.startsWith("-")) ?? "%";
  const rows = await shell.query(
    "select sql from (select sql, tbl_name, name, 1 as origin, rowid as place from sqlite_schema union all " +
      "select sql, tbl_name, name, 2, rowid from sqlite_temp_schema) " +
      "where sql is not null and (tbl_name like ?1 or name like ?1) " +
      (pattern === "%" ? `and ${USER_OBJECTS} ` : "") +
      "order by origin, place",
    [pattern],
  );
  for (const row of rows) await shell.output.write(`${terminated(String(row[0]))}\n`);
}

export const schemaCommands: readonly MetaCommand[] = [
  { names: [".tables"], usage: ".tables [PATTERN]", help: "Names of tables and views", run: tables },
  { names: [".indexes", ".indices"], usage: ".indexes [TABLE]", help: "Names of indexes", run: indexes },
  {
    names: [".schema"],
    usage: ".schema [PATTERN]",
    help: "The statements that made the schema",
    run: schema,
  },
  {
    names: [".databases"],
    usage: ".databases",
    help: "The database this is",
    run: (shell) => shell.output.write(`main: ${shell.url}\n`),
  },
];

/**
 * Applies row images: the changes that a transaction made elsewhere, where its text must not run again. The rows are
 * final, so nothing may react to them: triggers of the tables touched are dropped and created again in their order,
 * foreign key actions and CHECK constraints are off (the caller sets the flags). All rows that change are deleted
 * before any is inserted, so that no intermediate state can violate a unique constraint; a violation is an error,
 * whatever the constraint says is to be done about it.
 *
 * Rows of shadow tables are put in place like others, without their module: what it remembers of them is forgotten.
 *
 * Called inside a savepoint; any error leaves its undoing to the caller.
 */
import { UserError } from "../../base/errors.js";
import type { SqlValue } from "../../base/values.js";
import type { RangeConnection } from "./connection.js";
import { PRIMARY_KEY_INDEX } from "./table-facts.js";
import type { RowChange } from "./types.js";

export interface TableShape {
  readonly name: string;
  readonly remove: string;
  readonly insert: string;
  /** What `insert` takes, in its order. */
  readonly select: string;
  readonly columns: number;
  /** The rowid is not among the columns and precedes them in the insert. */
  readonly hiddenRowid: boolean;
  readonly shadow: boolean;
}

const ROWID_NAMES = ["rowid", "_rowid_", "oid"];

/** Answers whether triggers were dropped and made again: what undoes it undoes a change of the schema. */
export function applyRowImages(connection: RangeConnection, changes: readonly RowChange[]): boolean {
  const shapes = new Map<string, TableShape>();
  for (const { table } of changes) if (!shapes.has(table)) shapes.set(table, shapeOf(connection, table));
  const shadows = [...shapes.values()].some(({ shadow }) => shadow);
  const put = (): void => {
    // sqlite_sequence follows the inserts that change it by themselves.
    const ordinary = changes.filter((change) => !isSequence(change.table));
    for (const { table, key } of ordinary) run(connection, shapes.get(table)!.remove, key);
    for (const { table, key, row } of ordinary)
      if (row !== undefined) insertRow(connection, shapes.get(table)!, key, row);
    for (const change of changes) if (isSequence(change.table)) applySequence(connection, change);
  };
  return withoutTriggers(connection, [...shapes.keys()], () => {
    if (shadows) writeShadows(connection, put);
    else put();
  });
}

/** Only an undefended connection may write shadow tables. */
function writeShadows(connection: RangeConnection, put: () => void): void {
  connection.writeVirtualTables();
  connection.database.unsafeMode(true);
  try {
    put();
  } finally {
    connection.database.unsafeMode(false);
    connection.forgetVirtualTables();
  }
}

/** Runs something while these tables have no triggers. Answers whether they had any. */
export function withoutTriggers(
  connection: RangeConnection,
  tables: readonly string[],
  run: () => void,
): boolean {
  const triggers = dropTriggers(connection, tables);
  run();
  for (const sql of triggers) connection.database.exec(sql);
  if (triggers.length > 0) connection.schemaChanged();
  connection.disturbed();
  return triggers.length > 0;
}

function isSequence(table: string): boolean {
  return table.toLowerCase() === "sqlite_sequence";
}

function applySequence(connection: RangeConnection, { key, row }: RowChange): void {
  run(connection, "DELETE FROM main.sqlite_sequence WHERE rowid = ?", key);
  if (row === undefined) return;
  run(connection, "DELETE FROM main.sqlite_sequence WHERE name = ?", [row[0]!]);
  run(connection, "INSERT INTO main.sqlite_sequence(rowid, name, seq) VALUES (?, ?, ?)", [...key, ...row]);
}

function insertRow(
  connection: RangeConnection,
  shape: TableShape,
  key: readonly SqlValue[],
  row: readonly SqlValue[],
): void {
  if (row.length !== shape.columns)
    throw new UserError(
      "SQLITE_SCHEMA",
      `a row of ${row.length} values for ${shape.name}, which has ${shape.columns}`,
    );
  run(connection, shape.insert, shape.hiddenRowid ? [...key, ...row] : row);
}

function run(connection: RangeConnection, sql: string, values: readonly SqlValue[]): void {
  connection.internal(sql).run(values);
}

export function shapeOf(connection: RangeConnection, table: string): TableShape {
  const listed = connection
    .internal("SELECT type, wr FROM pragma_table_list(?) WHERE schema = 'main'")
    .get(table) as unknown as [string, bigint] | undefined;
  if (listed === undefined || listed[0] === "view")
    throw new UserError("SQLITE_ERROR", `no such table: ${table}`);
  const columns = connection
    .internal("SELECT name, type, pk FROM pragma_table_xinfo(?, 'main') WHERE hidden = 0 ORDER BY cid")
    .all(table) as unknown as [string, string, bigint][];
  const name = `main.${quote(table)}`;
  const shadow = listed[0] === "shadow";
  const names = columns.map(([column]) => quote(column));
  if (listed[1] === 1n) {
    // By the key's own collations, which need not be those of its columns: only by these it is one row's.
    const key = connection.internal(PRIMARY_KEY_INDEX).all(table) as unknown as [string, bigint, string][];
    const where = key.map(([column, , coll]) => `${quote(column)} COLLATE ${quote(coll)} IS ?`).join(" AND ");
    return {
      name: table,
      remove: `DELETE FROM ${name} WHERE ${where}`,
      insert: insertText(name, names),
      select: `SELECT ${names.join(", ")} FROM ${name}`,
      columns: names.length,
      hiddenRowid: false,
      shadow,
    };
  }
  const taken = new Set(columns.map(([column]) => column.toLowerCase()));
  const rowid = ROWID_NAMES.find((candidate) => !taken.has(candidate));
  const alias = rowid ?? integerPrimaryKey(columns);
  if (alias === undefined)
    throw new UserError(
      "OSTRAKA_UNSUPPORTED",
      `the rowid of ${table} cannot be named: its columns take all its names`,
    );
  const inserted = rowid === undefined ? names : [quote(rowid), ...names];
  return {
    name: table,
    remove: `DELETE FROM ${name} WHERE ${quote(alias)} = ?`,
    insert: insertText(name, inserted),
    select: `SELECT ${inserted.join(", ")} FROM ${name}`,
    columns: names.length,
    hiddenRowid: rowid !== undefined,
    shadow,
  };
}

function integerPrimaryKey(columns: readonly [string, string, bigint][]): string | undefined {
  const key = columns.filter(([, , pk]) => pk > 0n);
  return key.length === 1 && key[0]![1].toUpperCase() === "INTEGER" ? key[0]![0] : undefined;
}

function insertText(table: string, columns: readonly string[]): string {
  return `INSERT OR ABORT INTO ${table}(${columns.join(", ")}) VALUES (${columns.map(() => "?").join(", ")})`;
}

function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Drops the triggers of these tables and answers the texts to create them again, in their order. */
function dropTriggers(connection: RangeConnection, tables: readonly string[]): string[] {
  const { database } = connection;
  const find = connection.internal(
    `SELECT name, sql FROM main.sqlite_schema
     WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE ORDER BY rowid`,
  );
  const texts: string[] = [];
  for (const name of tables)
    for (const [trigger, sql] of find.all(name) as unknown as [string, string][]) {
      database.exec(`DROP TRIGGER main.${quote(trigger)}`);
      texts.push(sql);
    }
  return texts;
}

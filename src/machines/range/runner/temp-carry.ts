/**
 * Moves a session's TEMP objects to another connection: when the replica's file has been replaced, or a private copy
 * takes its place. SQLite ties TEMP objects to their connection, so they are made again, with their rows and rowids.
 *
 * Rows go before indexes, views and triggers, so that nothing fires and nothing is indexed twice. Objects that no
 * longer fit (a trigger on a table that is gone) are left behind, as SQLite would leave them without effect.
 */
import Database from "better-sqlite3";
import type { SqlValue } from "../../../base/values.js";
import type { RangeConnection } from "../connection.js";
import { asTemp, INTERNAL_PREFIX, IS_HIDDEN_BEHIND, onShared, quoteName } from "../temp-objects.js";

interface TempObject {
  readonly type: string;
  readonly name: string;
  readonly sql: string | null;
  readonly hidden: bigint;
}

const OURS = `substr(name, 1, ${INTERNAL_PREFIX.length}) = '${INTERNAL_PREFIX}' OR substr(tbl_name, 1, ${INTERNAL_PREFIX.length}) = '${INTERNAL_PREFIX}'`;

export function hasTempObjects(connection: RangeConnection): boolean {
  const found = connection.database
    .prepare(`SELECT 1 FROM temp.sqlite_temp_schema WHERE NOT (${OURS}) LIMIT 1`)
    .get();
  return found !== undefined;
}

/** Neither connection may be inside a transaction. */
export function carryTemp(from: RangeConnection, to: RangeConnection): void {
  const objects = from.database
    .prepare(
      `SELECT type, name, sql, ${IS_HIDDEN_BEHIND} AS hidden FROM temp.sqlite_temp_schema o
       WHERE NOT (${OURS}) ORDER BY rowid`,
    )
    .all() as TempObject[];
  if (objects.length === 0) return;
  const kinds = new Map(
    from.database.prepare("SELECT name, type FROM pragma_table_list WHERE schema = 'temp'").raw().all() as [
      string,
      string,
    ][],
  );
  to.database.pragma("foreign_keys = OFF");
  // What was written while CHECK constraints were ignored is there all the same.
  to.database.pragma("ignore_check_constraints = ON");
  // The rows of virtual tables lie in shadow tables, which only an undefended connection may write.
  to.database.unsafeMode(true);
  to.database.exec("BEGIN");
  try {
    const tables = objects.filter(({ type }) => type === "table");
    for (const { name, sql } of tables)
      if (sql !== null && !name.startsWith("sqlite_") && kinds.get(name) !== "shadow")
        attempt(to, asTemp(sql));
    for (const { name } of tables)
      if (kinds.get(name) !== "virtual" && !name.startsWith("sqlite_stat")) carryRows(from, to, name);
    for (const { type, sql, hidden } of objects)
      if (type !== "table" && sql !== null) attempt(to, asTemp(hidden ? onShared(sql) : sql));
    to.database.exec("COMMIT");
  } catch (error) {
    if (to.database.inTransaction) to.database.exec("ROLLBACK");
    throw error;
  } finally {
    to.database.unsafeMode(false);
    to.database.pragma("foreign_keys = ON");
    to.database.pragma("ignore_check_constraints = OFF");
    to.schemaChanged();
  }
}

function attempt(to: RangeConnection, sql: string): void {
  try {
    to.database.exec(sql);
  } catch (error) {
    if (!(error instanceof Database.SqliteError) || error.code !== "SQLITE_ERROR") throw error;
  }
}

function carryRows(from: RangeConnection, to: RangeConnection, table: string): void {
  const columns = insertableColumns(from, table);
  const target = `temp.${quoteName(table)}`;
  const exists = to.database.prepare("SELECT 1 FROM temp.sqlite_temp_schema WHERE name = ?").get(table);
  if (exists === undefined) return;
  // Virtual tables put rows into their shadow tables when they are made.
  to.database.exec(`DELETE FROM ${target}`);
  const names = columns.join(", ");
  const insert = to.database.prepare(
    `INSERT INTO ${target}(${names}) VALUES (${columns.map(() => "?").join(", ")})`,
  );
  const rows = from.database.prepare(`SELECT ${names} FROM ${target}`).raw().safeIntegers().iterate();
  for (const row of rows as IterableIterator<SqlValue[]>) insert.run(row);
}

/** Quoted columns that can be inserted into, the hidden rowid among them where there is one that can be named. */
function insertableColumns(from: RangeConnection, table: string): string[] {
  const columns = from.database
    .prepare("SELECT name, hidden FROM pragma_table_xinfo(?, 'temp')")
    .raw()
    .all(table) as [string, bigint][];
  const [withoutRowid] = from.database
    .prepare("SELECT wr FROM pragma_table_list(?) WHERE schema = 'temp'")
    .raw()
    .get(table) as [bigint];
  const quoted = columns.filter(([, hidden]) => hidden === 0n).map(([name]) => quoteName(name));
  if (withoutRowid === 1n) return quoted;
  const taken = new Set(columns.map(([name]) => name.toLowerCase()));
  const rowid = ["rowid", "_rowid_", "oid"].find((name) => !taken.has(name));
  return rowid === undefined ? quoted : [rowid, ...quoted];
}

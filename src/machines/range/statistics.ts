/**
 * What ANALYZE leaves in the tables of statistics. It goes through the tables in the order of a hash that SQLite keeps of
 * them, which depends on what a connection has seen of the schema, and through our own, of which one has more rows or
 * fewer where a batch ends. So its rows are put into an order of their own, without those of our tables.
 */
import type Database from "better-sqlite3";
import { HIDDEN_PREFIX } from "./connection-setup.js";

const COLUMNS: readonly (readonly [table: string, columns: string])[] = [
  ["sqlite_stat1", "tbl, idx, stat"],
  ["sqlite_stat4", "tbl, idx, neq, nlt, ndlt, sample"],
];

/** Right after ANALYZE, before anything else is done with what it found. */
export function settleStatistics(database: Database.Database): void {
  const exists = database.prepare("SELECT 1 FROM main.sqlite_schema WHERE name = ?");
  for (const [table, columns] of COLUMNS) {
    if (exists.get(table) === undefined) continue;
    const rows = database
      .prepare(
        `SELECT ${columns} FROM main.${table} WHERE tbl IS NULL OR substr(tbl, 1, 9) <> '${HIDDEN_PREFIX}'
         ORDER BY tbl, idx, rowid`,
      )
      .raw(true)
      .safeIntegers(true)
      .all() as unknown[][];
    database.prepare(`DELETE FROM main.${table}`).run();
    const marks = columns.replace(/\w+/g, "?");
    const insert = database.prepare(`INSERT INTO main.${table}(${columns}) VALUES (${marks})`);
    for (const row of rows) insert.run(row);
  }
}

/** What every connection begins with: pinned pragmas, and TEMP objects of ours. */
import type Database from "better-sqlite3";
import { assert } from "../../base/assert.js";
import type { ConnectionOptions } from "./connection.js";

/** Prefix of our own tables inside the range's file. */
export const HIDDEN_PREFIX = "_ostraka_";

/**
 * Our own objects are hidden by name and by the table that they belong to. Made in one transaction: for each of its own
 * SQLite would read the schema anew.
 */
export const TEMP_OBJECTS = `
BEGIN;
CREATE TEMP TABLE _ostraka_prime(id INTEGER PRIMARY KEY);
CREATE TEMP VIEW _ostraka_schema_view AS
SELECT type, name, tbl_name, rootpage, sql FROM main.sqlite_schema
  WHERE substr(tbl_name, 1, 9) <> '${HIDDEN_PREFIX}';
CREATE TEMP VIEW _ostraka_schema_rowid_view AS
SELECT type, name, tbl_name, rootpage, sql, rowid FROM main.sqlite_schema
  WHERE substr(tbl_name, 1, 9) <> '${HIDDEN_PREFIX}';
CREATE TEMP VIEW _ostraka_temp_schema_view AS
SELECT type, name, tbl_name, rootpage, sql FROM temp.sqlite_schema
  WHERE substr(tbl_name, 1, 9) <> '${HIDDEN_PREFIX}' AND substr(name, 1, 9) <> '${HIDDEN_PREFIX}';
CREATE TEMP VIEW _ostraka_temp_schema_rowid_view AS
SELECT type, name, tbl_name, rootpage, sql, rowid FROM temp.sqlite_schema
  WHERE substr(tbl_name, 1, 9) <> '${HIDDEN_PREFIX}' AND substr(name, 1, 9) <> '${HIDDEN_PREFIX}';
COMMIT;
`;

export function pinPragmas(database: Database.Database, { readonly, role, spill }: ConnectionOptions): void {
  if (role === "apply" && !readonly) {
    const mode = database.pragma("journal_mode = WAL", { simple: true });
    assert(mode === "wal", `the replica's file must be in WAL mode, not ${String(mode)}`);
  }
  const settings = [
    `synchronous = ${role === "apply" ? "NORMAL" : "OFF"}`,
    ...(role === "apply" || role === "read" ? ["wal_autocheckpoint = 0"] : []),
    // The log shrinks when it starts over, so that its file's size says how much of it is in use.
    ...(role === "apply" ? ["journal_size_limit = 0"] : []),
    `temp_store = ${spill === true ? "FILE" : "MEMORY"}`,
    `cache_size = ${role === "read" ? -8000 : -16000}`,
    "foreign_keys = ON",
    "recursive_triggers = OFF",
    "ignore_check_constraints = OFF",
    "legacy_alter_table = OFF",
    // Our functions are called from defaults, triggers and views, which an untrusted schema would forbid.
    "trusted_schema = ON",
  ];
  database.exec(settings.map((setting) => `PRAGMA ${setting};`).join(" "));
}

/**
 * How the tables of a range are spread over the keyspace: their ids, and what their rows are sharded by.
 *
 * Ids are given at apply, in `_ostraka_tables`, when a statement has made a table. Every range applies every schema
 * change in the same order, so that they agree without being told.
 *
 * Invariants:
 * 1. A table has one id for life, whatever it is renamed to; an id is never given twice.
 * 2. What a table is sharded by follows from the schema alone.
 *
 * "home" are virtual tables and their shadow tables; tables whose key cannot be ordered bytewise or named; and tables
 * whose triggers or foreign key actions, or those of tables that they write, may write a virtual table: such rows are
 * written together with the virtual table's, which cannot be told apart by key.
 */
import type Database from "better-sqlite3";
import { HOME_TABLE_ID } from "../../base/keys.js";
import type { TableKey } from "../../placement/descriptor.js";
import { deriveTableFacts, OURS, readTableFacts, type TableFacts } from "./table-facts.js";

/** A table as this range's file has it. */
export interface RegisteredTable extends TableFacts {
  readonly id: number;
  /** The id it has, or would have if it were not "home". */
  readonly registeredId: number;
}

export const TABLES_SCHEMA = `
CREATE TABLE IF NOT EXISTS _ostraka_tables(
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
);`;

/** All tables of the user's, by name. */
export function readTableKeys(database: Database.Database): TableKey[] {
  return readTables(database).map(({ name, id, shard, keyColumns, autoincrement }) => ({
    name,
    id,
    shard,
    keyColumns,
    autoincrement,
  }));
}

/** Names, in lower case, of those that are "home"; of a database that need not be a range's. */
export function homeTables(database: Database.Database): ReadonlySet<string> {
  return new Set(
    deriveTableFacts(database)
      .filter(({ shard }) => shard === "home")
      .map(({ name }) => name),
  );
}

/** `database` must be a RangeConnection's. */
export function readTables(database: Database.Database): RegisteredTable[] {
  const rows = database
    .prepare("SELECT name, id FROM main._ostraka_tables")
    .raw(true)
    .safeIntegers(false)
    .all() as [string, number][];
  const ids = new Map(rows);
  return readTableFacts(database).map((facts) => {
    const registeredId = ids.get(facts.actualName) ?? HOME_TABLE_ID;
    return { ...facts, registeredId, id: facts.shard === "home" ? HOME_TABLE_ID : registeredId };
  });
}

/** Keeps `_ostraka_tables` in step with the schema, inside the batch that changes it. */
export class TableRegistry {
  readonly #database: Database.Database;
  /** Tables by root page, before the statement that is about to run; undefined when not known. */
  #roots: Map<number, string> | undefined;
  #tables: readonly RegisteredTable[] | undefined;

  constructor(database: Database.Database) {
    this.#database = database;
  }

  /** All tables as the writer sees them now. */
  get tables(): readonly RegisteredTable[] {
    this.#tables ??= readTables(this.#database);
    return this.#tables;
  }

  /** By name in lower case. */
  table(name: string): RegisteredTable | undefined {
    return this.tables.find((table) => table.name === name);
  }

  /** After a rollback, or a change made without it. */
  forget(): void {
    this.#roots = undefined;
    this.#tables = undefined;
  }

  /** To be called before a statement that may change the schema. */
  before(): void {
    this.#roots ??= this.#readRoots();
  }

  /** To be called after it: gives ids to what is new, in the order of names. `nextId` answers a fresh one. */
  after(nextId: () => number): void {
    const before = this.#roots ?? new Map<number, string>();
    const now = this.#readRoots();
    this.#roots = now;
    this.#tables = undefined;
    const names = new Set(now.values());
    const known = new Set(before.values());
    const renamed = new Map<string, string>();
    for (const [page, name] of now) {
      const old = before.get(page);
      if (old !== undefined && old !== name && !names.has(old) && !known.has(name)) renamed.set(old, name);
    }
    for (const [old, name] of renamed)
      this.#database.prepare("UPDATE _ostraka_tables SET name = ? WHERE name = ?").run(name, old);
    for (const name of known)
      if (!names.has(name) && !renamed.has(name))
        this.#database.prepare("DELETE FROM _ostraka_tables WHERE name = ?").run(name);
    const made = [...names].filter((name) => !known.has(name) && ![...renamed.values()].includes(name));
    for (const name of made.sort())
      this.#database
        .prepare("INSERT INTO _ostraka_tables(id, name) VALUES (?, ?)")
        .run(BigInt(nextId()), name);
  }

  #readRoots(): Map<number, string> {
    const rows = this.#database
      .prepare(
        `SELECT rootpage, name FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0 AND ${OURS}`,
      )
      .raw(true)
      .safeIntegers(false)
      .all() as [number, string][];
    return new Map(rows);
  }
}

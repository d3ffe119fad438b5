/**
 * Which rows of a private copy a transaction has changed, and what they are in the end: what is proposed instead of
 * text that must not run again.
 *
 * TEMP triggers on every ordinary table call a function with the key of each row that is written, also by other
 * triggers, foreign key actions and UPSERT. Only keys are kept; rows are read when the transaction commits. A
 * function, not a table, collects them, so that total_changes() and last_insert_rowid() stay what they are.
 *
 * REPLACE deletes the rows in its way without firing triggers (unless recursive_triggers is on, which would change
 * what the user's own triggers do). So before each insert or update, rows that agree with the new one on a unique
 * index are noted as possible victims: those that are gone in the end were deleted.
 *
 * Too many keys are told by `changes`, as is everything that triggers cannot see: writes to virtual tables, changes of
 * the schema, and REPLACE on a table with a unique index over expressions or part of the rows.
 */
import { UserError } from "../../../base/errors.js";
import { encodeVector, type SqlValue } from "../../../base/values.js";
import { SessionFlag } from "../../../sql/types.js";
import type { RangeConnection } from "../connection.js";
import { bindArguments, planParameters } from "../parameters.js";
import { INTERNAL_PREFIX, quoteName } from "../temp-objects.js";
import type { RowChange, StampedStatement } from "../types.js";

const MAX_KEYS = 1_000_000;
const TOUCH = `${INTERNAL_PREFIX}touch`;
const WRITTEN = 0n;

interface UniqueIndex {
  readonly columns: readonly { readonly name: string; readonly collation: string }[];
}

interface CapturedTable {
  readonly name: string;
  /** Expressions of the key in the table itself: a rowid's name, or the primary key's columns. */
  readonly key: readonly string[];
  readonly columns: readonly string[];
  readonly unique: readonly UniqueIndex[];
  readonly written: Map<string | bigint, readonly SqlValue[]>;
  readonly victims: Map<string | bigint, readonly SqlValue[]>;
}

export class Capture {
  readonly #connection: RangeConnection;
  readonly #tables: CapturedTable[] = [];
  readonly #triggers: string[] = [];
  readonly #schemaCookie: number;
  readonly #hasVirtualTables: boolean;
  /** Some table's REPLACE victims cannot be looked up. */
  #blindToReplace = false;
  #schemaReplaces: boolean;
  #keys = 0;
  /** Why the changes cannot be told. */
  #failure: string | undefined;

  /** Outside a transaction, so that no rollback takes the triggers away. */
  constructor(connection: RangeConnection) {
    this.#connection = connection;
    const { database } = connection;
    const traits = database
      .prepare(
        `SELECT coalesce(max(sql LIKE 'create virtual %'), 0), coalesce(max(instr(lower(sql), 'replace') > 0), 0)
         FROM (SELECT sql FROM main.sqlite_schema UNION ALL SELECT sql FROM temp.sqlite_temp_schema)`,
      )
      .raw()
      .get() as [bigint, bigint];
    this.#hasVirtualTables = traits[0] === 1n;
    this.#schemaReplaces = traits[1] === 1n;
    database.function(TOUCH, { varargs: true, safeIntegers: true }, (...args: unknown[]) =>
      this.#touch(args as SqlValue[]),
    );
    for (const name of this.#ordinaryTables()) this.#watch(name);
    this.#schemaCookie = connection.schemaCookie();
    connection.schemaChanged();
  }

  /** Before each statement: notes what triggers will not show. */
  observe(statement: StampedStatement): void {
    if (this.#failure !== undefined) return;
    const recursive = (statement.flags & SessionFlag.RecursiveTriggers) !== 0;
    if (this.#blindToReplace && !recursive && (this.#schemaReplaces || /replace/i.test(statement.sql)))
      this.#failure = "REPLACE on a table with a unique index over expressions or part of its rows";
    if (this.#hasVirtualTables && this.#writesVirtualTable(statement.sql))
      this.#failure = "writing to a virtual table";
  }

  /** Final rows of all keys that were written; deletions first. */
  changes(): readonly RowChange[] {
    if (this.#connection.schemaCookie() !== this.#schemaCookie) this.#failure ??= "changing the schema";
    if (this.#keys > MAX_KEYS)
      throw new UserError("OSTRAKA_TOO_LARGE", `the transaction writes more than ${MAX_KEYS} rows`);
    if (this.#failure !== undefined)
      throw new UserError(
        "OSTRAKA_UNSUPPORTED",
        `${this.#failure} cannot be replicated as row changes; run it in a transaction of its own`,
      );
    const deleted: RowChange[] = [];
    const present: RowChange[] = [];
    for (const table of this.#tables) {
      if (table.written.size === 0 && table.victims.size === 0) continue;
      const read = this.#connection.database
        .prepare(
          `SELECT ${table.columns.join(", ")} FROM main.${quoteName(table.name)}
           WHERE ${table.key.map((part) => `${part} = ?`).join(" AND ")}`,
        )
        .raw()
        .safeIntegers();
      for (const [id, key] of table.written) {
        table.victims.delete(id);
        const row = read.get(...key) as SqlValue[] | undefined;
        (row === undefined ? deleted : present).push({ table: table.name, key, row });
      }
      for (const key of table.victims.values())
        if (read.get(...key) === undefined) deleted.push({ table: table.name, key, row: undefined });
    }
    return [...deleted, ...present];
  }

  /** Takes the triggers away; outside a transaction. */
  close(): void {
    for (const trigger of this.#triggers)
      this.#connection.database.exec(`DROP TRIGGER IF EXISTS temp.${trigger}`);
    this.#connection.schemaChanged();
  }

  #touch(args: readonly SqlValue[]): null {
    const [index, how, ...key] = args;
    const table = this.#tables[Number(index)] as CapturedTable;
    if (this.#keys > MAX_KEYS) return null;
    const first = key[0];
    const id =
      key.length === 1 && typeof first === "bigint"
        ? first
        : Buffer.from(encodeVector(key)).toString("latin1");
    const into = how === WRITTEN ? table.written : table.victims;
    if (!into.has(id)) {
      into.set(id, key);
      this.#keys++;
    }
    return null;
  }

  #ordinaryTables(): string[] {
    const names = this.#connection.database
      .prepare(
        `SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
         AND substr(name, 1, 7) <> 'sqlite_' AND substr(name, 1, ${INTERNAL_PREFIX.length}) <> '${INTERNAL_PREFIX}'
         ORDER BY name`,
      )
      .pluck()
      .all();
    return names as string[];
  }

  #watch(name: string): void {
    const table = this.#describe(name);
    if (table === undefined) {
      this.#failure ??= `a table whose columns hide its rowid (${name})`;
      return;
    }
    const index = this.#tables.length;
    this.#tables.push(table);
    const keyOf = (row: string): string => table.key.map((part) => `${row}.${part}`).join(", ");
    const wrote = (row: string): string => `SELECT ${TOUCH}(${index}, ${WRITTEN}, ${keyOf(row)});`;
    this.#trigger(name, index, "AFTER INSERT", wrote("new"));
    this.#trigger(name, index, "AFTER UPDATE", wrote("old") + wrote("new"));
    this.#trigger(name, index, "AFTER DELETE", wrote("old"));
    for (const { columns } of table.unique) {
      const matches = columns.map(
        (c) => `${quoteName(c.name)} = new.${quoteName(c.name)} COLLATE ${quoteName(c.collation)}`,
      );
      const body = `SELECT ${TOUCH}(${index}, 1, ${table.key.join(", ")}) FROM main.${quoteName(name)} WHERE ${matches.join(" AND ")};`;
      this.#trigger(name, index, "BEFORE INSERT", body);
      this.#trigger(
        name,
        index,
        `BEFORE UPDATE OF ${columns.map((c) => quoteName(c.name)).join(", ")}`,
        body,
      );
    }
  }

  #trigger(table: string, index: number, event: string, body: string): void {
    const name = `${INTERNAL_PREFIX}capture_${index}_${this.#triggers.length}`;
    this.#connection.database.exec(
      `CREATE TEMP TRIGGER ${name} ${event} ON main.${quoteName(table)} BEGIN ${body} END`,
    );
    this.#triggers.push(name);
  }

  #describe(name: string): CapturedTable | undefined {
    const { database } = this.#connection;
    const all = database
      .prepare("SELECT name, type, pk, hidden FROM pragma_table_xinfo(?, 'main') ORDER BY cid")
      .raw()
      .all(name) as [string, string, bigint, bigint][];
    const [withoutRowid] = database
      .prepare("SELECT wr FROM pragma_table_list(?) WHERE schema = 'main'")
      .raw()
      .get(name) as [bigint];
    const columns = all.filter(([, , , hidden]) => hidden === 0n).map(([column]) => quoteName(column));
    let key: string[];
    if (withoutRowid === 1n) {
      const parts = all.filter(([, , pk]) => pk > 0n).sort((a, b) => Number(a[2] - b[2]));
      key = parts.map(([column]) => quoteName(column));
    } else {
      const taken = new Set(all.map(([column]) => column.toLowerCase()));
      const rowid =
        ["rowid", "_rowid_", "oid"].find((alias) => !taken.has(alias)) ?? this.#rowidAlias(name, all);
      if (rowid === undefined) return undefined;
      key = [rowid];
    }
    return { name, key, columns, unique: this.#uniqueIndexes(name), written: new Map(), victims: new Map() };
  }

  /** INTEGER PRIMARY KEY, when it is the rowid: it then has no index of its own. */
  #rowidAlias(table: string, columns: readonly [string, string, bigint, bigint][]): string | undefined {
    const parts = columns.filter(([, , pk]) => pk > 0n);
    const only = parts[0];
    if (parts.length !== 1 || only === undefined || only[1].toUpperCase() !== "INTEGER") return undefined;
    const indexed = this.#connection.database
      .prepare("SELECT 1 FROM pragma_index_list(?, 'main') WHERE origin = 'pk'")
      .get(table);
    return indexed === undefined ? quoteName(only[0]) : undefined;
  }

  /** Those on which REPLACE may find victims with another key. */
  #uniqueIndexes(table: string): UniqueIndex[] {
    const { database } = this.#connection;
    const indexes = database
      .prepare(`SELECT name, partial, origin FROM pragma_index_list(?, 'main') WHERE "unique" = 1`)
      .raw()
      .all(table) as [string, bigint, string][];
    const found: UniqueIndex[] = [];
    for (const [index, partial] of indexes) {
      const columns = database
        .prepare("SELECT cid, name, coll FROM pragma_index_xinfo(?, 'main') WHERE key = 1 ORDER BY seqno")
        .raw()
        .all(index) as [bigint, string | null, string][];
      if (partial === 1n || columns.some(([cid]) => cid < 0n)) this.#blindToReplace = true;
      else
        found.push({ columns: columns.map(([, name, collation]) => ({ name: name as string, collation })) });
    }
    return found;
  }

  #writesVirtualTable(sql: string): boolean {
    const plan = planParameters(sql);
    const program = this.#connection.database.prepare(`EXPLAIN ${plan.sql}`);
    const nulls = bindArguments(plan, new Array<null>(plan.count).fill(null));
    return (program.all(...nulls) as { opcode: string }[]).some(({ opcode }) => opcode === "VUpdate");
  }
}

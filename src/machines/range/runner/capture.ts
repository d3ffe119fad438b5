/**
 * Which rows of a private copy or a scratch database a transaction has changed, and what they are in the end: what is
 * proposed instead of text that must not run again.
 *
 * TEMP triggers on the tables that a statement's program writes call a function with the key of each row that is
 * written, also by other triggers, foreign key actions and UPSERT. Only keys are kept; rows are read when the
 * transaction commits. A function, not a table, collects them, so that total_changes() and last_insert_rowid() stay
 * what they are.
 *
 * REPLACE deletes the rows in its way without firing triggers (unless recursive_triggers is on, which would change
 * what the user's own triggers do). So before each insert or update, rows that agree with the new one on a unique
 * index are noted as possible victims: those that are gone in the end were deleted.
 *
 * Changes of the schema are not captured, nor the rows that they rewrite: whoever replicates them runs their texts in
 * order, and then applies the changes captured here, which are as of the last schema. Tables keep their keys when they
 * are renamed; what a dropped table had is forgotten; all rows of a table that came with rows (CREATE TABLE AS) are
 * captured.
 *
 * Invariants:
 * 1. A table is watched before a statement that can write it runs, by a trigger of its present shape.
 * 2. Rolling back to a savepoint forgets the keys written since.
 *
 * Virtual tables have no triggers: their shadow tables are compared (shadows.ts), on scratch databases.
 *
 * Too many keys are told by `changes`, as is everything that cannot be seen: writes to statistics, to virtual tables of
 * a private copy, REPLACE on a table with a unique index over expressions or part of the rows, and what a TEMP trigger
 * behind it lets stand by RAISE(IGNORE), by which SQLite passes over the triggers that have not run yet.
 */
import { UserError } from "../../../base/errors.js";
import type { SqlValue } from "../../../base/values.js";
import { lowerAscii } from "../../../sql/tokenizer.js";
import { SessionFlag } from "../../../sql/types.js";
import type { RangeConnection } from "../connection.js";
import { bindArguments, planParameters } from "../parameters.js";
import { INTERNAL_PREFIX, quoteName } from "../temp-objects.js";
import type { RowChange, StampedStatement } from "../types.js";
import { keyId } from "./key-id.js";
import { SequenceWatch } from "./sequences.js";
import { type NotedShadows, ShadowWatch } from "./shadows.js";
import { shapeOf, type TableShape } from "./shapes.js";
import type { SchemaDifference } from "./table-history.js";
import { uniqueIndexes } from "./unique-indexes.js";
import { UniqueKeys } from "./unique-keys.js";

const MAX_KEYS = 1_000_000;
const TOUCH = `${INTERNAL_PREFIX}touch`;
const ADDED = `${INTERNAL_PREFIX}added`;
const TRIGGER_PREFIX = `${INTERNAL_PREFIX}capture_`;
const WRITTEN = 0n;
/** Between tokens. */
const GAP = String.raw`(?:\s|--.*\n|/\*[^]*?\*/)*`;
const IGNORES_AFTERWARDS = new RegExp(String.raw`\bafter\b[^]*\braise${GAP}\(${GAP}ignore\b`, "i");
/** They write the schema, indexes and statistics; their text is what replicates them. */
const SCHEMA_WORDS: ReadonlySet<string> = new Set(["create", "drop", "alter", "analyze", "reindex"]);
const UNRELATED_WORDS: ReadonlySet<string> = new Set(["savepoint", "release", "rollback", "pragma"]);

type Keys = Map<string | bigint, readonly SqlValue[]>;

interface CapturedTable {
  name: string;
  readonly written: Keys;
  readonly victims: Keys;
}

/** What a statement's program writes. */
interface Program {
  /** Root pages of tables of the user's. */
  readonly roots: readonly number[];
  readonly virtualTables: boolean;
  readonly statistics: boolean;
  readonly sequence: boolean;
}

interface Watched {
  /** REPLACE may delete there what cannot be looked up. */
  readonly blind: boolean;
  /** A TEMP trigger of the user's may keep ours from running. */
  readonly ignored: boolean;
  /** Of the columns of each unique index. */
  readonly collations: readonly (readonly string[])[];
}

export interface CaptureMark {
  readonly tables: readonly {
    readonly root: number;
    readonly name: string;
    readonly table: CapturedTable;
    readonly written: number;
    readonly victims: number;
  }[];
  readonly shadows: NotedShadows | undefined;
  readonly failure: string | undefined;
}

export class Capture {
  readonly #connection: RangeConnection;
  /** By root page. */
  #tables = new Map<number, CapturedTable>();
  /** By the root page of the table that triggers watch. */
  readonly #watched = new Map<number, Watched>();
  readonly #programs = new Map<string, Program>();
  readonly #owners = new Map<number, { readonly name: string; readonly root: number }>();
  readonly sequences: SequenceWatch;
  readonly uniqueKeys = new UniqueKeys();
  /** Of a scratch database, which has all rows of the virtual tables that it writes and no others. */
  readonly shadows: ShadowWatch | undefined;
  /** The schema that programs and owners are of. */
  #schemaCookie = -1;
  #keys = 0;
  /** Why the changes cannot be told. */
  #failure: string | undefined;

  constructor(connection: RangeConnection) {
    this.#connection = connection;
    this.sequences = new SequenceWatch(connection);
    this.shadows = connection.role === "scratch" ? new ShadowWatch(connection) : undefined;
    connection.database.function(TOUCH, { varargs: true, safeIntegers: true }, (...args: unknown[]) =>
      this.#touch(args as SqlValue[]),
    );
    connection.database.function(ADDED, { varargs: true, safeIntegers: true }, (...args: unknown[]) =>
      this.#added(args as SqlValue[]),
    );
  }

  /** Before each statement, with its settings in force; answers whether it may write. Throws the statement's error if it does not compile. */
  observe(statement: StampedStatement, word: string): boolean {
    if (UNRELATED_WORDS.has(word)) return false;
    const changesSchema = SCHEMA_WORDS.has(word);
    if (!changesSchema && this.#connection.isReadonly(statement.sql)) return false;
    // DROP TABLE may delete from other tables, by foreign key actions; the others act on their own table only.
    if (!changesSchema || word === "drop") this.#watchTargets(statement, changesSchema);
    return true;
  }

  #watchTargets(statement: StampedStatement, changesSchema: boolean): void {
    // Also after what cannot be told: until COMMIT is refused, what was deleted stays away.
    const program = this.#programOf(statement.sql);
    if (program.virtualTables) this.#noteShadows(changesSchema);
    if (program.statistics && !changesSchema) this.#failure ??= "writing to a statistics table";
    if (program.sequence) this.sequences.touched = true;
    for (const root of program.roots) {
      const { blind, ignored } = this.#watch(root);
      if (ignored) this.#failure ??= "what a TEMP trigger ends by RAISE(IGNORE)";
      const recursive = (statement.flags & SessionFlag.RecursiveTriggers) !== 0;
      if (blind && !recursive && (/replace/i.test(statement.sql) || this.#schemaReplaces()))
        this.#failure ??= "REPLACE on a table with a unique index over expressions or part of its rows";
    }
  }

  #noteShadows(changesSchema: boolean): void {
    if (this.shadows !== undefined) this.shadows.note();
    else if (!changesSchema) this.#failure = "writing to a virtual table";
  }

  /** Before ALTER: a trigger on what it renames or drops would make it fail, or be rewritten. */
  beforeAlter(): void {
    this.#unwatch();
  }

  afterSchemaChange({ made, dropped, renamed }: SchemaDifference): void {
    this.#unwatch();
    this.#schemaCookie = -1;
    for (const root of dropped) this.#tables.delete(root);
    for (const [root, name] of renamed) {
      const table = this.#tables.get(root);
      if (table !== undefined) table.name = name;
    }
    for (const root of made) this.#takeRows(root);
    this.shadows?.schemaChanged();
  }

  /** Whether the row with this key must be left as it is: the transaction has written, perhaps deleted it. */
  writtenKeys(table: string): ((key: readonly SqlValue[]) => boolean) | undefined {
    for (const { name, written, victims } of this.#tables.values()) {
      if (lowerAscii(name) !== lowerAscii(table) || written.size + victims.size === 0) continue;
      return (key) => {
        const id = keyId(key);
        return written.has(id) || victims.has(id);
      };
    }
    return undefined;
  }

  mark(): CaptureMark {
    const tables = [...this.#tables].map(([root, table]) => ({
      root,
      name: table.name,
      table,
      written: table.written.size,
      victims: table.victims.size,
    }));
    return { tables, shadows: this.shadows?.mark(), failure: this.#failure };
  }

  /** After the database has been rolled back to where it was marked. */
  restore({ tables, shadows, failure }: CaptureMark): void {
    // The rollback has brought back triggers of then.
    this.#dropTriggers();
    if (shadows !== undefined) this.shadows?.restore(shadows);
    this.#failure = failure;
    this.#tables = new Map();
    this.#keys = 0;
    for (const { root, name, table, written, victims } of tables) {
      table.name = name;
      truncate(table.written, written);
      truncate(table.victims, victims);
      this.#keys += written + victims;
      this.#tables.set(root, table);
    }
  }

  /** Whether anything was written; throws like `changes`. */
  *changes(): Generator<RowChange> {
    if (this.#keys > MAX_KEYS)
      throw new UserError("OSTRAKA_TOO_LARGE", `the transaction writes more than ${MAX_KEYS} rows`);
    if (this.#failure !== undefined)
      throw new UserError(
        "OSTRAKA_UNSUPPORTED",
        `${this.#failure} cannot be replicated as row changes; run it in a transaction of its own`,
      );
    for (const table of this.#tables.values())
      if (table.written.size + table.victims.size > 0) yield* this.#changesOf(table);
    if (this.shadows !== undefined) yield* this.shadows.changes();
    yield* this.sequences.changes();
  }

  /** Takes the triggers away; outside a transaction. */
  close(): void {
    this.#unwatch();
  }

  *#changesOf(table: CapturedTable): Generator<RowChange> {
    const shape = this.#shape(table.name);
    if (shape === undefined) return;
    const read = this.#connection.database
      .prepare(
        `SELECT ${shape.columns.map(quoteName).join(", ")} FROM main.${quoteName(shape.name)}
         WHERE ${shape.hasKey}`,
      )
      .raw()
      .safeIntegers();
    const keyAt = shape.withoutRowid ? shape.keyAt : undefined;
    const rowOf = (id: string | bigint, key: readonly SqlValue[]): SqlValue[] | undefined => {
      const row = read.get(...key) as SqlValue[] | undefined;
      // Keys that compare equal need not be the same (collations, 1 and 1.0): the row then has the other one.
      if (row !== undefined && keyAt !== undefined && keyId(keyAt.map((at) => row[at]!)) !== id)
        return undefined;
      return row;
    };
    for (const [id, key] of table.written) {
      const row = rowOf(id, key);
      if (row !== undefined && !shape.withoutRowid) this.sequences.present(shape.name, key[0]!);
      yield { table: shape.name, key, row };
    }
    for (const [id, key] of table.victims)
      if (!table.written.has(id) && rowOf(id, key) === undefined)
        yield { table: shape.name, key, row: undefined };
  }

  #touch(args: readonly SqlValue[]): null {
    const [root, how, ...key] = args;
    const table = this.#tables.get(Number(root)) as CapturedTable;
    this.#add(how === WRITTEN ? table.written : table.victims, key);
    return null;
  }

  /** A row has these values in a unique index; without any, in one that cannot be looked into. */
  #added([root, at, ...values]: readonly SqlValue[]): null {
    const table = lowerAscii((this.#tables.get(Number(root)) as CapturedTable).name);
    const collations = this.#watched.get(Number(root))?.collations[Number(at)];
    if (collations === undefined) this.uniqueKeys.noteUnknown(table);
    else this.uniqueKeys.note(table, Number(at), values, collations);
    return null;
  }

  #add(into: Keys, key: readonly SqlValue[]): void {
    if (this.#keys > MAX_KEYS) return;
    const id = keyId(key);
    if (into.has(id)) return;
    into.set(id, key);
    this.#keys++;
  }

  /** All rows of a table that came with rows. */
  #takeRows(root: number): void {
    const owner = this.#owner(root);
    const shape = owner && this.#shape(owner.name);
    if (shape === undefined) return;
    const rows = this.#connection.database
      .prepare(`SELECT ${shape.key.join(", ")} FROM main.${quoteName(shape.name)}`)
      .raw()
      .safeIntegers()
      .iterate() as IterableIterator<SqlValue[]>;
    const { written } = this.#table(root, shape.name);
    for (const key of rows) this.#add(written, key);
  }

  /** Undefined, and remembered as a failure, when its rows cannot be named by a key. */
  #shape(name: string): TableShape | undefined {
    try {
      return shapeOf(this.#connection.database, name);
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      this.#failure ??= `a table whose columns hide its rowid (${name})`;
      return undefined;
    }
  }

  #table(root: number, name: string): CapturedTable {
    let table = this.#tables.get(root);
    if (table === undefined) {
      table = { name, written: new Map(), victims: new Map() };
      this.#tables.set(root, table);
    }
    return table;
  }

  #watch(root: number): Watched {
    let watched = this.#watched.get(root);
    if (watched !== undefined) return watched;
    const owner = this.#owner(root);
    const shape = owner && this.#shape(owner.name);
    if (shape === undefined || shape.kind !== "table")
      watched = { blind: false, ignored: false, collations: [] };
    else {
      this.#table(root, shape.name);
      watched = this.#createTriggers(root, shape);
    }
    this.#watched.set(root, watched);
    return watched;
  }

  #createTriggers(root: number, { name, key }: TableShape): Watched {
    const { database } = this.#connection;
    let count = 0;
    const create = (event: string, body: string): void => {
      const trigger = `${TRIGGER_PREFIX}${root}_${count++}`;
      database.exec(`CREATE TEMP TRIGGER ${trigger} ${event} ON main.${quoteName(name)} BEGIN ${body} END`);
    };
    const keyOf = (row: string): string => key.map((part) => `${row}.${part}`).join(", ");
    const wrote = (row: string): string => `SELECT ${TOUCH}(${root}, ${WRITTEN}, ${keyOf(row)});`;
    const { indexes, blind } = uniqueIndexes(database, name);
    const added = indexes.map((columns, at) => {
      const values = columns.map((column) => `new.${quoteName(column.name)}`);
      return `SELECT ${ADDED}(${root}, ${at}, ${values.join(", ")});`;
    });
    if (blind) added.push(`SELECT ${ADDED}(${root}, -1);`);
    create("AFTER INSERT", wrote("new") + added.join(""));
    create("AFTER UPDATE", wrote("old") + wrote("new") + added.join(""));
    create("AFTER DELETE", wrote("old"));
    for (const columns of indexes) {
      const matches = columns.map(
        (c) => `${quoteName(c.name)} = ${c.added} COLLATE ${quoteName(c.collation)}`,
      );
      const body = `SELECT ${TOUCH}(${root}, 1, ${key.join(", ")}) FROM main.${quoteName(name)} WHERE ${matches.join(" AND ")};`;
      create("BEFORE INSERT", body);
      // SET names no generated columns, which change all the same.
      const of = columns.some((c) => c.generated)
        ? ""
        : ` OF ${columns.map((c) => quoteName(c.name)).join(", ")}`;
      create(`BEFORE UPDATE${of}`, body);
    }
    const collations = indexes.map((columns) => columns.map(({ collation }) => collation));
    return { blind, ignored: this.#mayIgnore(name), collations };
  }

  /** The order in which TEMP triggers run is SQLite's secret; those of the schema come behind them. */
  #mayIgnore(table: string): boolean {
    const triggers = this.#connection.database
      .prepare(
        "SELECT sql FROM temp.sqlite_temp_schema WHERE type = 'trigger' AND lower(tbl_name) = lower(?) AND name NOT GLOB ?",
      )
      .pluck()
      .all(table, `${TRIGGER_PREFIX}*`) as string[];
    return triggers.some((sql) => IGNORES_AFTERWARDS.test(sql));
  }

  /** Drops the triggers: they come again, in the present shape, with the next statement that writes. */
  #unwatch(): void {
    if (this.#watched.size > 0) this.#dropTriggers();
  }

  #dropTriggers(): void {
    this.#schemaCookie = -1;
    this.#watched.clear();
    const { database } = this.#connection;
    const triggers = database
      .prepare(`SELECT name FROM temp.sqlite_temp_schema WHERE type = 'trigger' AND name GLOB ?`)
      .pluck()
      .all(`${TRIGGER_PREFIX}*`) as string[];
    for (const trigger of triggers) database.exec(`DROP TRIGGER temp.${trigger}`);
  }

  #schemaReplaces(): boolean {
    const found = this.#connection.database
      .prepare(
        `SELECT 1 FROM (SELECT sql FROM main.sqlite_schema UNION ALL SELECT sql FROM temp.sqlite_temp_schema)
         WHERE instr(lower(sql), 'replace') > 0`,
      )
      .get();
    return found !== undefined;
  }

  #programOf(sql: string): Program {
    const cookie = this.#connection.schemaCookie();
    if (cookie !== this.#schemaCookie) {
      this.#programs.clear();
      this.#owners.clear();
      this.#schemaCookie = cookie;
    }
    const known = this.#programs.get(sql);
    if (known !== undefined) return known;
    const program = this.#explain(sql);
    this.#programs.set(sql, program);
    return program;
  }

  #explain(sql: string): Program {
    const plan = planParameters(sql);
    const statement = this.#connection.database.prepare(`EXPLAIN ${plan.sql}`).raw().safeIntegers(false);
    const nulls = bindArguments(plan, new Array<null>(plan.count).fill(null));
    const pages = new Set<number>();
    let virtualTables = false;
    // Programs of triggers and of foreign key actions follow the statement's own.
    for (const [, opcode, p1, p2, p3] of statement.all(...nulls) as [
      number,
      string,
      number,
      number,
      number,
    ][]) {
      if (opcode === "OpenWrite" && p3 === 0) pages.add(p2);
      else if (opcode === "Clear" && p2 === 0) pages.add(p1);
      else if (opcode === "VUpdate") virtualTables = true;
    }
    const roots = new Set<number>();
    let sequence = false;
    let statistics = false;
    for (const page of pages) {
      const owner = this.#owner(page);
      const name = (owner && lowerAscii(owner.name)) ?? "sqlite_schema";
      if (name === "sqlite_sequence") sequence = true;
      else if (name.startsWith("sqlite_stat")) statistics = true;
      else if (!name.startsWith("sqlite_") && !name.startsWith(INTERNAL_PREFIX)) roots.add(owner!.root);
    }
    return { roots: [...roots], virtualTables, sequence, statistics };
  }

  /** The table that a page is the root of, or of an index of; undefined for the schema itself. */
  #owner(page: number): { readonly name: string; readonly root: number } | undefined {
    const known = this.#owners.get(page);
    if (known !== undefined) return known;
    const found = this.#connection.database
      .prepare(
        `SELECT t.name, t.rootpage FROM main.sqlite_schema o
         JOIN main.sqlite_schema t ON t.type = 'table' AND t.name = o.tbl_name COLLATE NOCASE
         WHERE o.rootpage = ?`,
      )
      .raw()
      .safeIntegers(false)
      .get(page) as [string, number] | undefined;
    if (found === undefined) return undefined;
    const owner = { name: found[0], root: found[1] };
    this.#owners.set(page, owner);
    return owner;
  }
}

function truncate(keys: Keys, size: number): void {
  let at = 0;
  for (const id of keys.keys()) if (at++ >= size) keys.delete(id);
}

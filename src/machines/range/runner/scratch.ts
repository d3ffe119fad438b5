/**
 * A scratch database: the whole schema, and of the rows those that were brought from ranges' files. Statements then run
 * on it as on a private copy of a database that has all rows in one file.
 *
 * It is a temporary database of SQLite's: in memory as far as its page cache goes, beyond it in a file without a name,
 * rollback journals included; nothing is left behind however the process ends.
 *
 * Invariants:
 * 1. Nothing reacts to rows that are brought: triggers of their table (the user's, the session's TEMP ones, our own) are
 *    away from the first row until the next statement, CHECK constraints and foreign keys are not looked at, and
 *    violations that brought rows seem to be (a parent that was not brought) are not counted for COMMIT.
 * 2. A brought row never overwrites, and never brings back, what the transaction has written.
 * 3. ROLLBACK TO leaves all brought rows where they are, or brings them again.
 *
 * Rows brought before the first statement are committed by themselves, without foreign keys in force; later ones are
 * part of the transaction (see uncounted-keys.ts for what that takes).
 */
import { type OstrakaError, RetryError, UserError } from "../../../base/errors.js";
import { type SqlValue, ValueReader } from "../../../base/values.js";
import { lowerAscii } from "../../../sql/tokenizer.js";
import { HEADER, SessionFlag, type SessionFlags } from "../../../sql/types.js";
import { openConnection, type RangeConnection } from "../connection.js";
import { buildSchema } from "../oracle.js";
import { classifySqliteError } from "../sqlite-errors.js";
import { asTemp, IS_HIDDEN_BEHIND, onShared, quoteName } from "../temp-objects.js";
import type { SchemaSnapshot, ScratchLoad } from "../types.js";
import { FillLog, type FillPiece } from "./fill-log.js";
import { RowSink } from "./row-sink.js";
import { shapeOf, type TableShape } from "./shapes.js";
import { readRows } from "./source-rows.js";
import type { Source } from "./sources.js";
import { type Follower, TransactionWatch } from "./transaction-watch.js";
import { UncountedKeys } from "./uncounted-keys.js";

/** Decoded rows of a fill that are inserted at a time. */
const FILL_ROWS = 256;

/** What was brought while a savepoint was open, to be brought again. */
type Brought =
  | { readonly kind: "load"; readonly source: Source; readonly pin: number; readonly load: ScratchLoad }
  | { readonly kind: "fill"; readonly table: string; readonly piece: FillPiece };

interface ScratchMark {
  readonly keys: number | undefined;
  readonly cleared: ReadonlySet<string>;
  readonly brought: number;
}

export class ScratchDatabase implements Follower {
  readonly connection: RangeConnection;
  readonly version: number;
  readonly #statements: readonly string[];
  readonly watch: TransactionWatch;
  readonly #keys: UncountedKeys;
  /** Rows are being brought: before the transaction, or inside it. */
  #bringing: "no" | "before" | "inside" = "no";
  /** As the session's statements left it. */
  #lastInsertRowid = 0n;
  /** Tables whose triggers are away, and the texts to make them again. */
  readonly #bare = new Set<string>();
  #triggers: string[] = [];
  readonly #shapes = new Map<string, TableShape>();
  readonly #sinks = new Map<string, RowSink>();
  /** Shadow tables whose first rows are gone. */
  #cleared = new Set<string>();
  /** Rows of shadow tables have come that their virtual tables have not heard of. */
  #broughtShadows = false;
  #brought: Brought[] = [];
  #log: FillLog | undefined;
  /** Why not all rows are there that were to be. */
  #broken: OstrakaError | undefined;

  constructor(schema: SchemaSnapshot) {
    this.version = schema.version;
    this.#statements = schema.statements;
    this.connection = openConnection("", { readonly: false, role: "scratch", spill: true });
    const { database } = this.connection;
    try {
      database.exec("BEGIN");
      buildSchema(database, schema.statements);
      database.exec("COMMIT");
      this.connection.schemaChanged();
      this.watch = new TransactionWatch(this.connection, this);
      this.#keys = new UncountedKeys(this.connection);
    } catch (error) {
      this.connection.close();
      throw error;
    }
  }

  isOf({ version, statements }: SchemaSnapshot): boolean {
    return (
      version === this.version &&
      statements.length === this.#statements.length &&
      statements.every((statement, i) => statement === this.#statements[i])
    );
  }

  /** Answers how many rows were new. */
  load(source: Source, load: ScratchLoad, maxBytes: number): number {
    return this.#bring(() => {
      const table = this.#originName(load.table);
      if (table === undefined) return 0;
      const named = { ...load, table };
      const rows = this.#load(source, named, maxBytes);
      if (this.watch.savepointOpen)
        this.#brought.push({ kind: "load", source, pin: source.pins, load: named });
      return rows;
    });
  }

  /** Row vectors as `scan` gives them. */
  fill(name: string, rows: Uint8Array, maxBytes: number): number {
    if (name === HEADER) return this.#fillHeader(rows);
    return this.#bring(() => {
      const table = this.#originName(name);
      if (table === undefined) return 0;
      if (this.watch.savepointOpen) {
        this.#log ??= new FillLog();
        this.#brought.push({ kind: "fill", table, piece: this.#log.append(rows) });
      }
      return this.#fill(table, rows, maxBytes);
    });
  }

  #fillHeader(rows: Uint8Array): number {
    const [version, id] = new ValueReader(rows).vector();
    this.connection.database.pragma(`main.user_version = ${version}`);
    this.connection.database.pragma(`main.application_id = ${id}`);
    return 0;
  }

  observe(flags: SessionFlags, writes: boolean): void {
    this.#keys.observe(flags, writes);
  }

  /** Everything is in place again, and brought rows are there. */
  settle(): void {
    if (this.#broken !== undefined) throw this.#broken;
    if (this.#bringing === "no") return;
    const { database, flags } = this.connection;
    for (const sql of this.#triggers) database.exec(sql);
    this.#triggers = [];
    this.#bare.clear();
    if ((flags & SessionFlag.IgnoreCheckConstraints) === 0) database.pragma("ignore_check_constraints = OFF");
    if (this.#bringing === "before") {
      database.exec("COMMIT");
      if ((flags & SessionFlag.ForeignKeysOff) === 0) database.pragma("foreign_keys = ON");
    } else this.#keys.end();
    database.prepare("INSERT OR REPLACE INTO temp._ostraka_prime(id) VALUES (?)").run(this.#lastInsertRowid);
    if (this.#broughtShadows) this.connection.forgetVirtualTables();
    this.#broughtShadows = false;
    this.connection.disturbed();
    this.#bringing = "no";
  }

  /** After a change of the schema, before anything else is brought. */
  schemaChanged(): void {
    this.#shapes.clear();
    this.#sinks.clear();
  }

  mark(): ScratchMark {
    return { keys: this.#keys.mark(), cleared: new Set(this.#cleared), brought: this.#brought.length };
  }

  /** After ROLLBACK TO a savepoint that was marked. */
  restore(mark: unknown): void {
    const { keys, cleared, brought } = mark as ScratchMark;
    this.#keys.restore(keys);
    this.#cleared = new Set(cleared);
    this.schemaChanged();
    const again = this.#brought.slice(brought);
    if (again.length === 0) return;
    this.#bring(() => {
      for (const entry of again) this.#bringAgain(entry);
      return 0;
    });
    this.settle();
  }

  savepointsGone(): void {
    this.#brought = [];
    this.#log?.clear();
  }

  close(): void {
    this.#log?.close();
    this.connection.close();
  }

  /** Closes all but the connection, which may go on with the session's TEMP objects. */
  leave(): void {
    this.#log?.close();
  }

  #bring(run: () => number): number {
    try {
      this.#begin();
      return run();
    } catch (error) {
      this.#broken = classifySqliteError(error);
      throw this.#broken;
    }
  }

  #begin(): void {
    if (this.#bringing !== "no") return;
    const { database } = this.connection;
    this.#lastInsertRowid = database.prepare("SELECT last_insert_rowid()").pluck().get() as bigint;
    database.pragma("ignore_check_constraints = ON");
    if (database.inTransaction) {
      // Virtual tables may be made anew, and what they have in memory is theirs alone.
      this.connection.writeVirtualTables();
      this.#bringing = "inside";
      this.#keys.begin();
      return;
    }
    database.pragma("foreign_keys = OFF");
    database.exec("BEGIN");
    this.#bringing = "before";
  }

  #bringAgain(entry: Brought): void {
    const anyNumber = Number.POSITIVE_INFINITY;
    if (entry.kind === "fill") this.#fill(entry.table, (this.#log as FillLog).read(entry.piece), anyNumber);
    else if (entry.source.pins === entry.pin) this.#load(entry.source, entry.load, anyNumber);
    else throw new RetryError("OSTRAKA_RETRY", "the ranges that a savepoint's rows came from were let go");
  }

  /** The name that the ranges' files have for what is called so now; undefined when nobody has rows of it. */
  #originName(name: string): string | undefined {
    const origin = this.watch.history.originOf(name);
    if (origin === "unchanged") return name;
    return origin?.name;
  }

  #load(source: Source, load: ScratchLoad, maxBytes: number): number {
    let rows = 0;
    for (const batch of readRows(source, load)) rows += this.#insert(load.table, batch, maxBytes);
    return rows;
  }

  #fill(table: string, bytes: Uint8Array, maxBytes: number): number {
    const reader = new ValueReader(bytes);
    let inserted = 0;
    while (!reader.done) {
      const rows: SqlValue[][] = [];
      while (rows.length < FILL_ROWS && !reader.done) rows.push(reader.vector());
      inserted += this.#insert(table, rows, maxBytes);
    }
    return inserted;
  }

  /** Vectors of a table as the ranges' files have it. */
  #insert(originName: string, rows: readonly SqlValue[][], maxBytes: number): number {
    const name = this.watch.history.currentName(originName);
    if (name === undefined || rows.length === 0) return 0;
    const inserted = this.#insertInto(name, rows);
    this.#checkSize(maxBytes);
    return inserted;
  }

  #insertInto(name: string, rows: readonly SqlValue[][]): number {
    if (lowerAscii(name) === "sqlite_sequence") return this.#mergeSequences(rows);
    const { kind } = this.#shapeOf(name);
    if (kind === "virtual") return this.#insertShadows(rows);
    if (kind === "shadow") return this.#insertShadows(rows.map((row) => [name, ...row]));
    return this.#insertRows(name, rows);
  }

  #insertRows(name: string, rows: readonly SqlValue[][]): number {
    const sink = this.#sink(name);
    this.#takeTriggers(name);
    // A vector that is longer than a row, behind all rows, begins with the table's sequence.
    const last = rows.at(-1);
    const hasSequence = last !== undefined && last.length === sink.vectorLength + 1;
    if (hasSequence) this.watch.capture.sequences.merge(sink.shape.name, last[0]!);
    const ordinary = hasSequence ? rows.slice(0, -1) : rows;
    const skip = this.watch.capture.writtenKeys(sink.shape.name);
    if (this.#bringing === "before") return sink.insert(ordinary, skip);
    return this.#keys.without(() => sink.insert(ordinary, skip));
  }

  /** Vectors of [rowid, name, seq]. */
  #mergeSequences(rows: readonly SqlValue[][]): number {
    for (const row of rows) {
      const [name, value] = row.slice(-2) as [SqlValue, SqlValue];
      if (typeof name === "string") this.watch.capture.sequences.merge(name, value);
    }
    return rows.length;
  }

  /** Vectors preceded by the name of the shadow table. Rows that it came with go. */
  #insertShadows(rows: readonly SqlValue[][]): number {
    const { database } = this.connection;
    // Only an undefended connection may write shadow tables.
    database.unsafeMode(true);
    try {
      let inserted = 0;
      for (let from = 0, to = 0; from < rows.length; from = to) {
        const name = rows[from]![0] as string;
        while (to < rows.length && rows[to]![0] === name) to++;
        inserted += this.#insertShadow(
          name,
          rows.slice(from, to).map((row) => row.slice(1)),
        );
      }
      return inserted;
    } finally {
      database.unsafeMode(false);
    }
  }

  #insertShadow(name: string, rows: readonly SqlValue[][]): number {
    const sink = this.#sink(name);
    if (!this.#cleared.has(name)) {
      this.#cleared.add(name);
      sink.clear();
      this.watch.capture.shadows?.brought(name);
    }
    this.#broughtShadows = true;
    return sink.insert(rows, undefined);
  }

  #sink(name: string): RowSink {
    const key = lowerAscii(name);
    let sink = this.#sinks.get(key);
    if (sink === undefined) {
      sink = new RowSink(
        this.connection.database,
        this.#shapeOf(name),
        this.watch.history.originOf(name) ?? "unchanged",
      );
      this.#sinks.set(key, sink);
    }
    return sink;
  }

  #shapeOf(name: string): TableShape {
    const key = lowerAscii(name);
    let shape = this.#shapes.get(key);
    if (shape === undefined) {
      shape = shapeOf(this.connection.database, name);
      if (shape === undefined)
        throw new RetryError("OSTRAKA_RETRY", `the schema has changed: no table ${name}`);
      this.#shapes.set(key, shape);
    }
    return shape;
  }

  /** Triggers of the table, of whatever schema, are away until `settle`. */
  #takeTriggers(name: string): void {
    const key = lowerAscii(name);
    if (this.#bare.has(key)) return;
    this.#bare.add(key);
    const { database } = this.connection;
    const find = (schema: string, hidden = "0"): [string, string, bigint][] =>
      database
        .prepare(
          `SELECT name, sql, ${hidden} FROM ${schema} o WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE ORDER BY rowid`,
        )
        .raw()
        .all(name) as [string, string, bigint][];
    for (const [trigger, sql] of find("main.sqlite_schema")) {
      database.exec(`DROP TRIGGER main.${quoteName(trigger)}`);
      this.#triggers.push(sql);
    }
    for (const [trigger, sql, hidden] of find("temp.sqlite_temp_schema", IS_HIDDEN_BEHIND)) {
      database.exec(`DROP TRIGGER temp.${quoteName(trigger)}`);
      this.#triggers.push(asTemp(hidden ? onShared(sql) : sql));
    }
  }

  #checkSize(maxBytes: number): void {
    const [pages, pageBytes] = this.connection
      .internal("SELECT page_count, page_size FROM pragma_page_count, pragma_page_size")
      .get() as unknown as [bigint, bigint];
    if (Number(pages * pageBytes) > maxBytes)
      throw new UserError("OSTRAKA_TOO_LARGE", `the statement needs more than ${maxBytes} bytes of rows`);
  }
}

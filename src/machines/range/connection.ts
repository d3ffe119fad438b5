/**
 * A connection to a range's SQLite file (or to a scratch database), the same wherever statements run: apply,
 * speculation, bounded reads, and the runner processes.
 *
 * Invariants:
 * 1. Nothing a statement computes depends on this machine: time and randomness come from the stamp (functions.ts),
 *    last_insert_rowid() is primed from it, pragmas are pinned, flags are set for each statement.
 * 2. INTEGER is a bigint and REAL a number, in and out.
 * 3. `temp._ostraka_schema_view` and its like exist: sqlite_schema (and that of TEMP) without our own tables
 *    (src/sql points user texts at them).
 * 4. Errors leave as OstrakaErrors: UserError is the statement's, FatalError is this node's.
 *
 * Transactions, savepoints and what may be executed where are the callers' business. The statement cache is
 * emptied whenever the schema may have changed; callers say so for changes made by other connections.
 */
import Database from "better-sqlite3";
import { assert } from "../../base/assert.js";
import { FatalError, UserError } from "../../base/errors.js";
import { type SqlValue, ValueWriter } from "../../base/values.js";
import { type OpcodeRow, SessionFlag, type SessionFlags } from "../../sql/types.js";
import { pinPragmas, TEMP_OBJECTS } from "./connection-setup.js";
import { defineFunctions, defineLike, StampClock } from "./functions.js";
import { bindArguments, firstWord, type ParameterPlan, planParameters } from "./parameters.js";
import { mayHoldPureDates, pureDatesOf } from "./pure-dates.js";
import { readSchemaTraits, type SchemaTraits } from "./schema-traits.js";
import { classifySqliteError } from "./sqlite-errors.js";
import { settleStatistics } from "./statistics.js";
import type { Stamp, StampedStatement, StatementOutcome } from "./types.js";

/**
 * apply: the replica's only writer. read: readers of the replica's file, pins included. copy: a private, writable
 * copy that is thrown away. scratch: a private database of a session or a gather, usually ":memory:".
 */
export type ConnectionRole = "apply" | "read" | "copy" | "scratch";

export interface ConnectionOptions {
  readonly readonly: boolean;
  readonly role: ConnectionRole;
  /** Large sorts and TEMP tables go to temporary files instead of memory; for statements of unknown size. */
  readonly spill?: boolean;
  /** How long to wait for a lock; a second unless given, and for the writer not at all. */
  readonly busyMs?: number;
}

export interface ExecuteLimits {
  /** Of encoded rows; beyond it OSTRAKA_TOO_LARGE. */
  readonly maxBytes: number;
  /** There can be only a few: to take them all at once costs less than one by one. */
  readonly fewRows?: boolean;
}

const CACHED_STATEMENTS = 256;
const LONGEST_CACHED_TEXT = 16 * 1024;
const CHUNK_BYTES = 64 * 1024;
/** Of a chunk as it begins: most have few rows. */
const FIRST_BYTES = 4 * 1024;
const PRIMED_ROWS = 4096;
const NO_COLUMNS: readonly string[] = [];
const NO_BYTES = new Uint8Array(0);
const SCHEMA_WORDS = new Set([
  "create",
  "drop",
  "alter",
  "analyze",
  "reindex",
  "pragma",
  "attach",
  "detach",
  "vacuum",
  "rollback",
]);

/** Statements that may compute what an index, a generated column or a CHECK says. */
const MAY_COMPUTE = new Set([
  "select",
  "values",
  "with",
  "insert",
  "replace",
  "update",
  "delete",
  "create",
  "alter",
]);

interface Prepared {
  readonly statement: Database.Statement;
  readonly plan: ParameterPlan;
  readonly readonly: boolean;
  readonly changesSchema: boolean;
  readonly analyses: boolean;
  /** The text itself asks for last_insert_rowid() or changes(). */
  readonly asksSession: boolean;
  /** It may write a virtual table, by itself or by triggers. Undefined until asked. */
  feedsVirtual: boolean | undefined;
  /** Date functions that may not ask for the time in it: see pure-dates.ts. */
  readonly timeless: ReadonlyMap<string, string> | undefined;
  columns: { readonly names: readonly string[]; readonly types: readonly (string | null)[] } | undefined;
}

/** Rows pulled step by step; the connection can do nothing else until it is done or closed. */
export interface RowCursor {
  readonly columns: readonly string[];
  readonly columnTypes: readonly (string | null)[];
  /** About 64 KiB of row vectors; undefined at the end. */
  next(): { readonly rows: Uint8Array; readonly count: number } | undefined;
  /** Valid after the last chunk. */
  summary(): Pick<StatementOutcome, "changes" | "totalChanges" | "lastInsertRowid">;
  close(): void;
}

export function openConnection(path: string, options: ConnectionOptions): RangeConnection {
  try {
    return new RangeConnection(path, options);
  } catch (error) {
    // What better-sqlite3 throws where the directory is gone: a range's is removed with it.
    if (error instanceof TypeError) throw new FatalError("SQLITE_CANTOPEN", error.message, { cause: error });
    throw classifySqliteError(error);
  }
}

export class RangeConnection {
  readonly path: string;
  readonly role: ConnectionRole;
  /** For our own statements; user texts go through `execute` and `iterate`. */
  readonly database: Database.Database;
  readonly #clock = new StampClock();
  readonly #statements = new Map<string, Prepared>();
  readonly #writer = new ValueWriter(4096);
  readonly #prime: Database.Statement;
  readonly #unprime: Database.Statement;
  readonly #session: Database.Statement;
  #primed = 0;
  #flags: SessionFlags = 0;
  /** CHECK constraints are ignored. */
  #ignoringChecks = false;
  #likeDefined = false;
  /** What last_insert_rowid() answers now, when known. */
  #lastInsertRowid: bigint | undefined;
  #schemaTraits: SchemaTraits | undefined;

  constructor(path: string, options: ConnectionOptions) {
    this.path = path;
    this.role = options.role;
    this.database = new Database(path, {
      readonly: options.readonly,
      fileMustExist: options.readonly,
      timeout: options.busyMs ?? (options.role === "apply" ? 0 : 1000),
    });
    this.database.defaultSafeIntegers(true);
    pinPragmas(this.database, options);
    defineFunctions(this.database, this.#clock);
    this.database.exec(TEMP_OBJECTS);
    this.#prime = this.database.prepare("INSERT OR REPLACE INTO temp._ostraka_prime(id) VALUES (?)");
    this.#unprime = this.database.prepare("DELETE FROM temp._ostraka_prime");
    this.#session = this.database
      .prepare("SELECT changes(), total_changes(), last_insert_rowid()")
      .raw(true)
      .safeIntegers(true);
  }

  get inTransaction(): boolean {
    return this.database.inTransaction;
  }

  setStamp(stamp: Stamp): void {
    this.#clock.set(stamp);
  }

  /** Forgets prepared statements and what is known of the schema; to be called when another connection changed it. */
  schemaChanged(): void {
    this.#statements.clear();
    this.#schemaTraits = undefined;
  }

  /** To be called after our own statements have inserted: last_insert_rowid() is not what it was. */
  disturbed(): void {
    this.#lastInsertRowid = undefined;
  }

  /** Of the schema as this connection sees it. */
  get traits(): SchemaTraits {
    this.#schemaTraits ??= readSchemaTraits(this.database);
    return this.#schemaTraits;
  }

  /** A cached statement of our own, integers as bigints; no stamp, no flags, no priming. */
  internal(sql: string): Database.Statement {
    return this.#prepare(sql).statement;
  }

  /** Whether the statement writes nothing; throws its error when it does not compile. */
  isReadonly(sql: string): boolean {
    try {
      return this.#prepare(sql).readonly;
    } catch (error) {
      throw classifySqliteError(error);
    }
  }

  /** Whether the statement may leave changes of virtual tables in memory, that are written with the next savepoint. */
  leavesWrites(sql: string): boolean {
    if (!this.traits.virtualTables) return false;
    try {
      const prepared = this.#prepare(sql);
      prepared.feedsVirtual ??= !prepared.readonly && this.#feedsVirtual(prepared.plan);
      return prepared.feedsVirtual;
    } catch (error) {
      throw classifySqliteError(error);
    }
  }

  #feedsVirtual(plan: ParameterPlan): boolean {
    const nulls = bindArguments(plan, new Array<null>(plan.count).fill(null));
    const program = this.database.prepare(`EXPLAIN ${plan.sql}`).all(...nulls) as OpcodeRow[];
    // Programs of triggers and of foreign key actions follow the statement's own.
    return program.some(({ opcode }) => opcode === "VUpdate");
  }

  /** Has virtual tables write what they keep in memory until the transaction ends. */
  writeVirtualTables(): void {
    if (!this.inTransaction || !this.traits.virtualTables) return;
    this.#prepare("SAVEPOINT _ostraka_flush").statement.run();
    this.#prepare("RELEASE _ostraka_flush").statement.run();
    this.disturbed();
  }

  /**
   * After rows of shadow tables were written as they are: virtual tables keep what they have read of them as long as
   * nobody but themselves writes in this connection. A new schema has new ones.
   */
  forgetVirtualTables(): void {
    this.reloadSchema();
  }

  /** After a change of the schema, which they may have been made by. */
  reopenVirtualTables(): void {
    if (!this.traits.virtualTables) return;
    this.writeVirtualTables();
    this.reloadSchema();
  }

  /** SQLite reads the schema anew from the file, statistics with it. */
  reloadSchema(): void {
    this.database.pragma("writable_schema = RESET");
    this.schemaChanged();
  }

  /** SQLite's own counter of schema changes; readers compare it to know when to call `schemaChanged`. */
  schemaCookie(): number {
    return Number(this.database.pragma("schema_version", { simple: true }));
  }

  /**
   * Puts session settings in force. foreign_keys cannot change inside a SQLite transaction: whoever needs it changed
   * begins the transaction after this call. defer_foreign_keys lasts until the transaction ends. `next`: the text that
   * they are set for.
   */
  setFlags(flags: SessionFlags, next = ""): void {
    const changed = flags ^ this.#flags;
    if (changed & SessionFlag.ForeignKeysOff) {
      assert(!this.inTransaction, "foreign_keys cannot change inside a SQLite transaction");
      this.#set(`foreign_keys = ${flags & SessionFlag.ForeignKeysOff ? "OFF" : "ON"}`);
    }
    if (changed & SessionFlag.DeferForeignKeys || flags & SessionFlag.DeferForeignKeys)
      this.#set(`defer_foreign_keys = ${onOff(flags & SessionFlag.DeferForeignKeys)}`);
    if (changed & SessionFlag.RecursiveTriggers)
      this.#set(`recursive_triggers = ${onOff(flags & SessionFlag.RecursiveTriggers)}`);
    // Where the log is applied LIKE stays SQLite's own: plans must not depend on what ran on the connection before.
    if (changed & SessionFlag.CaseSensitiveLike && !this.#likeDefined && this.role !== "apply") {
      this.#likeDefined = true;
      defineLike(this.database, () => (this.#flags & SessionFlag.CaseSensitiveLike) !== 0);
    }
    const ignore = (flags & SessionFlag.IgnoreCheckConstraints) !== 0 && this.#mayCheck(next);
    if (ignore !== this.#ignoringChecks) {
      this.#set(`ignore_check_constraints = ${onOff(ignore ? 1 : 0)}`);
      this.#ignoringChecks = ignore;
    }
    this.#flags = flags;
  }

  /** Run as it is: to prepare a pragma and read its answer costs ten times as much. */
  #set(pragma: string): void {
    this.database.exec(`PRAGMA ${pragma}`);
  }

  /**
   * Where nothing is checked nothing is ignored: each change of a setting has SQLite prepare all statements anew, and
   * where the log is applied every change of rows comes with this one.
   */
  #mayCheck(next: string): boolean {
    return this.role !== "apply" || SCHEMA_WORDS.has(firstWord(next)) || this.traits.checks;
  }

  get flags(): SessionFlags {
    return this.#flags;
  }

  /** Runs a statement to its end and answers all it returned. Throws UserError, or FatalError for this node's trouble. */
  execute(stamped: StampedStatement, limits: ExecuteLimits): StatementOutcome {
    try {
      const prepared = this.#begin(stamped);
      const args = bindArguments(prepared.plan, stamped.params);
      const before = this.#totalBefore(prepared);
      if (!prepared.statement.reader) return this.#run(prepared, args, before);
      let count = 0;
      const { statement } = prepared;
      for (const row of limits.fewRows === true ? statement.all(...args) : statement.iterate(...args)) {
        this.#writer.vector(row as SqlValue[]);
        count++;
        if (this.#writer.length > limits.maxBytes) throw tooLarge(limits.maxBytes);
      }
      const columns = columnsOf(prepared);
      const rows = count === 0 ? NO_BYTES : this.#writer.take();
      // Written out: to spread an object into a literal costs more than a small read.
      const { changes, totalChanges, lastInsertRowid } = this.#finish(prepared, before);
      const { names, types } = columns;
      return {
        columns: names,
        columnTypes: types,
        rows,
        rowCount: count,
        changes,
        totalChanges,
        lastInsertRowid,
      };
    } catch (error) {
      this.#writer.take();
      this.#lastInsertRowid = undefined;
      throw classifySqliteError(error);
    }
  }

  /** Like `execute`, in chunks at the caller's pace. A statement without rows has run when this returns. */
  iterate(stamped: StampedStatement, limits: ExecuteLimits): RowCursor {
    try {
      const prepared = this.#begin(stamped);
      const args = bindArguments(prepared.plan, stamped.params);
      const before = this.#totalBefore(prepared);
      if (!prepared.statement.reader) return finishedCursor(this.#run(prepared, args, before));
      return this.#cursor(
        prepared,
        prepared.statement.iterate(...args) as IterableIterator<SqlValue[]>,
        before,
        limits,
      );
    } catch (error) {
      this.#lastInsertRowid = undefined;
      throw classifySqliteError(error);
    }
  }

  close(): void {
    this.#statements.clear();
    this.database.close();
  }

  #cursor(
    prepared: Prepared,
    rows: IterableIterator<SqlValue[]>,
    before: bigint,
    limits: ExecuteLimits,
  ): RowCursor {
    const writer = new ValueWriter(FIRST_BYTES);
    const columns = columnsOf(prepared);
    let bytes = 0;
    let summary: ReturnType<RowCursor["summary"]> | undefined;
    const next = (): ReturnType<RowCursor["next"]> => {
      if (summary !== undefined) return undefined;
      let count = 0;
      while (writer.length < CHUNK_BYTES) {
        const step = rows.next();
        if (step.done) {
          summary = this.#finish(prepared, before);
          break;
        }
        writer.vector(step.value);
        count++;
      }
      bytes += writer.length;
      if (bytes > limits.maxBytes) throw tooLarge(limits.maxBytes);
      return count === 0 ? undefined : { rows: writer.take(), count };
    };
    return {
      columns: columns.names,
      columnTypes: columns.types,
      next: () => {
        try {
          return next();
        } catch (error) {
          this.#lastInsertRowid = undefined;
          rows.return?.();
          throw classifySqliteError(error);
        }
      },
      summary: () => {
        assert(summary !== undefined, "a cursor's summary was asked for before its end");
        return summary;
      },
      close: () => {
        if (summary === undefined) this.#lastInsertRowid = undefined;
        rows.return?.();
      },
    };
  }

  #run(prepared: Prepared, args: unknown[], before: bigint): StatementOutcome {
    const { changes, lastInsertRowid } = prepared.statement.run(...args);
    const direct = before < 0n && !prepared.readonly && !prepared.changesSchema;
    let did: ReturnType<RowCursor["summary"]>;
    if (direct) {
      const rowid = BigInt(lastInsertRowid);
      this.#lastInsertRowid = rowid;
      did = { changes: Number(changes), totalChanges: Number(changes), lastInsertRowid: rowid };
    } else did = this.#finish(prepared, before);
    if (prepared.analyses) {
      settleStatistics(this.database);
      this.disturbed();
    }
    return {
      columns: NO_COLUMNS,
      columnTypes: NO_COLUMNS,
      rows: NO_BYTES,
      rowCount: 0,
      changes: did.changes,
      totalChanges: did.totalChanges,
      lastInsertRowid: did.lastInsertRowid,
    };
  }

  /** Everything that must be in place before the statement's first step. */
  #begin(stamped: StampedStatement): Prepared {
    this.#clock.set(stamped.stamp);
    this.setFlags(stamped.flags, stamped.sql);
    const prepared = this.#prepare(stamped.sql);
    this.#clock.timeless = prepared.timeless;
    if (stamped.params.length !== prepared.plan.count)
      throw new UserError(
        "SQLITE_RANGE",
        `the statement has ${prepared.plan.count} parameters but ${stamped.params.length} values were given`,
      );
    // What earlier statements of the batch left to be written to virtual tables is not this one's, whenever it is written.
    if (!prepared.readonly && this.traits.indirectChanges) this.writeVirtualTables();
    const wanted = stamped.stamp.lastInsertRowid;
    const asked = prepared.asksSession || (!prepared.readonly && this.traits.asksSession);
    // A change of the schema that finds nothing to do may count as readonly, and tells the last rowid all the same.
    const tells = !prepared.readonly || prepared.changesSchema;
    if (asked || (tells && this.#lastInsertRowid !== wanted)) this.#primeRowid(wanted);
    return prepared;
  }

  /** Afterwards last_insert_rowid() is `rowid` and changes() is 1, whatever ran before on this connection. */
  #primeRowid(rowid: bigint): void {
    if (++this.#primed % PRIMED_ROWS === 0) this.#unprime.run();
    this.#prime.run(rowid);
    this.#lastInsertRowid = rowid;
  }

  #prepare(sql: string): Prepared {
    const cached = this.#statements.get(sql);
    if (cached !== undefined) {
      // Refreshed only where space is short: a Map that entries leave and come back to is rebuilt all the time.
      if (this.#statements.size * 2 > CACHED_STATEMENTS) {
        this.#statements.delete(sql);
        this.#statements.set(sql, cached);
      }
      return cached;
    }
    const plan = planParameters(sql);
    const statement = this.database.prepare(plan.sql).safeIntegers(true);
    if (statement.reader) statement.raw(true);
    const prepared: Prepared = {
      statement,
      plan,
      readonly: statement.readonly,
      changesSchema: SCHEMA_WORDS.has(firstWord(sql)),
      analyses: firstWord(sql) === "analyze",
      asksSession: /changes|last_insert_rowid/i.test(sql),
      feedsVirtual: undefined,
      timeless: this.#timeless(sql, plan),
      columns: undefined,
    };
    if (sql.length <= LONGEST_CACHED_TEXT && !prepared.changesSchema) {
      this.#statements.set(sql, prepared);
      if (this.#statements.size > CACHED_STATEMENTS)
        this.#statements.delete(this.#statements.keys().next().value as string);
    }
    return prepared;
  }

  #timeless(sql: string, plan: ParameterPlan): Prepared["timeless"] {
    const word = firstWord(sql);
    if (!MAY_COMPUTE.has(word)) return undefined;
    if (!this.traits.pureDates && (word !== "create" || !mayHoldPureDates("index", sql))) return undefined;
    const rows = this.database.prepare(`EXPLAIN ${plan.sql}`).safeIntegers(false);
    return pureDatesOf(
      rows.all(...bindArguments(plan, new Array<null>(plan.count).fill(null))) as OpcodeRow[],
    );
  }

  #totalBefore(prepared: Prepared): bigint {
    if (prepared.readonly || !this.traits.indirectChanges) return -1n;
    return (this.#session.get() as [bigint, bigint, bigint])[1];
  }

  #finish(prepared: Prepared, before: bigint): ReturnType<RowCursor["summary"]> {
    // Reading changes none of the three, and priming them asks for nothing either.
    if (prepared.readonly && !prepared.changesSchema && this.#lastInsertRowid !== undefined)
      return { changes: 0, totalChanges: 0, lastInsertRowid: this.#lastInsertRowid };
    if (prepared.changesSchema) this.schemaChanged();
    const [changes, total, lastInsertRowid] = this.#session.get() as [bigint, bigint, bigint];
    this.#lastInsertRowid = lastInsertRowid;
    if (prepared.readonly || prepared.changesSchema) return { changes: 0, totalChanges: 0, lastInsertRowid };
    const own = Number(changes);
    return { changes: own, totalChanges: before < 0n ? own : Number(total - before), lastInsertRowid };
  }
}

function onOff(set: number): string {
  return set ? "ON" : "OFF";
}

function tooLarge(maxBytes: number): UserError {
  return new UserError("OSTRAKA_TOO_LARGE", `the result has more than ${maxBytes} bytes`);
}

function columnsOf(prepared: Prepared): NonNullable<Prepared["columns"]> {
  if (prepared.columns === undefined) {
    const columns = prepared.statement.columns();
    prepared.columns = { names: columns.map((c) => c.name), types: columns.map((c) => c.type) };
  }
  return prepared.columns;
}

function finishedCursor(outcome: StatementOutcome): RowCursor {
  return {
    columns: outcome.columns,
    columnTypes: outcome.columnTypes,
    next: () => undefined,
    summary: () => outcome,
    close: () => {},
  };
}

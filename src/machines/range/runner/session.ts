/**
 * What a runner runs on: one SQLite connection, holding a pin on a replica's file or a transaction on a private copy or
 * a scratch database, and the session's TEMP objects; and the sources that a scratch database (of this runner or of
 * another node's) has its rows from. Synchronous; the same code in a process of its own and, for simulation, in-process.
 *
 * Invariants:
 * 1. At most one connection is open for statements. It stays open without pin or copy while it holds TEMP objects, or
 *    because the next pin is likely to be on the same file.
 * 2. A pin is a read transaction: everything run on it sees the state at the applied index that `pin` answered.
 * 3. Statements never end the transaction but by OR ROLLBACK and RAISE(ROLLBACK), which `rolledBack` tells.
 * 4. A statement that fails leaves nothing behind but what SQLite leaves (OR FAIL); one whose rows are too many, or that
 *    is stopped, nothing.
 */
import { assert } from "../../../base/assert.js";
import { FatalError, type OstrakaError, RetryError, UserError } from "../../../base/errors.js";
import type { SqlValue } from "../../../base/values.js";
import { classify } from "../../../sql/classify.js";
import { pragmaTreatment } from "../../../sql/pragmas.js";
import { SessionFlag } from "../../../sql/types.js";
import {
  type ConnectionOptions,
  openConnection,
  type RangeConnection,
  type RowCursor,
} from "../connection.js";
import { type Leading, leadingWord } from "../leading-words.js";
import { classifySqliteError } from "../sqlite-errors.js";
import { quoteName } from "../temp-objects.js";
import type { RowChange, SchemaSnapshot, SourceLoad, StampedStatement, SystemTable } from "../types.js";
import { identity, openIdentified } from "./file-identity.js";
import type { Ending } from "./protocol.js";
import { ScratchDatabase } from "./scratch.js";
import { scanStatements } from "./source-rows.js";
import { Sources } from "./sources.js";
import type { TableNames } from "./table-history.js";
import { carryTemp, hasTempObjects } from "./temp-carry.js";
import { TransactionWatch } from "./transaction-watch.js";
import type { UniqueKeysOf } from "./unique-keys.js";

type Mode = "none" | "pin" | "copy" | "scratch";

const REFUSED: ReadonlySet<string> = new Set(["begin", "commit", "end", "attach", "detach", "vacuum"]);
const MAY_CHANGE_TEMP: ReadonlySet<string> = new Set(["create", "drop", "alter", "rollback"]);
const SAVEPOINT = "_ostraka_statement";

export class RunnerSession {
  #connection: RangeConnection | undefined;
  /** Device and inode of the connection's file: the same path may come to name another file. */
  #file = "";
  #schemaCookie = -1;
  #mode: Mode = "none";
  /** A copy's transaction begins with its first statement, when the settings that must precede it are known. */
  #begun = false;
  #rolledBack = false;
  #hasTemp = false;
  #watch: TransactionWatch | undefined;
  #scratch: ScratchDatabase | undefined;
  /** An empty scratch database, ready before anybody asks. */
  #spare: ScratchDatabase | undefined;
  readonly #sources = new Sources();

  get rolledBack(): boolean {
    return this.#rolledBack;
  }

  get hasTemp(): boolean {
    return this.#hasTemp;
  }

  /** Answers the applied index of the state pinned. */
  pin(path: string): number {
    assert(!this.#writable, "a runner with a private copy cannot pin");
    try {
      this.#letGo("commit");
      if (
        this.#connection?.role !== "read" ||
        this.#connection.path !== path ||
        this.#file !== identity(path)
      )
        this.#replaceConnection(path, { readonly: true, role: "read", spill: true });
      const connection = this.#connection as RangeConnection;
      connection.database.exec("BEGIN");
      this.#mode = "pin";
      const appliedIndex = readAppliedIndex(connection);
      this.#noticeSchema(connection);
      return appliedIndex;
    } catch (error) {
      this.#letGo("rollback");
      throw asRunnerError(error);
    }
  }

  unpin(how: Ending): void {
    assert(!this.#writable, "a runner with a private copy has no pin");
    this.#letGo(how);
  }

  openCopy(path: string): void {
    assert(!this.#writable, "a runner holds one private copy at a time");
    try {
      this.#letGo("commit");
      const { database } = this.#replaceConnection(path, { readonly: false, role: "copy", spill: true });
      database.pragma("main.locking_mode = EXCLUSIVE");
      database.pragma("main.journal_mode = MEMORY");
      this.#mode = "copy";
    } catch (error) {
      throw asRunnerError(error);
    }
  }

  openScratch(schema: SchemaSnapshot): void {
    assert(!this.#writable, "a runner holds one private copy at a time");
    try {
      this.#letGo("commit");
      const scratch = this.#takeSpare(schema) ?? new ScratchDatabase(schema);
      try {
        this.#install(scratch.connection, "");
      } catch (error) {
        scratch.close();
        throw error;
      }
      this.#scratch = scratch;
      this.#watch = scratch.watch;
      this.#mode = "scratch";
    } catch (error) {
      throw asRunnerError(error);
    }
  }

  /** Makes a scratch database for the next `openScratch` with the same schema; for when there is nothing else to do. */
  prepareScratch(schema: SchemaSnapshot): void {
    if (this.#spare?.isOf(schema)) return;
    this.#spare?.close();
    this.#spare = undefined;
    this.#spare = new ScratchDatabase(schema);
  }

  addSource(path: string): { readonly source: number; readonly appliedIndex: number } {
    try {
      return this.#sources.add(path);
    } catch (error) {
      throw asRunnerError(error);
    }
  }

  load(loads: readonly SourceLoad[], maxBytes: number): number {
    return this.#onScratch((scratch) =>
      loads.reduce(
        (rows, { source, load }) => rows + scratch.load(this.#sources.get(source), load, maxBytes),
        0,
      ),
    );
  }

  fill(table: string, rows: Uint8Array, maxBytes: number): number {
    return this.#onScratch((scratch) => scratch.fill(table, rows, maxBytes));
  }

  /** Nothing of a scratch database and its sources is open. */
  get idle(): boolean {
    return !this.#writable && this.#sources.count === 0;
  }

  dropSources(): void {
    this.#sources.drop();
  }

  /** Like `start`, of rows of sources. */
  scan(loads: readonly SourceLoad[], maxBytes: number): RowCursor {
    try {
      return guardCursor(
        concatenated(
          loads.map(({ source: number, load }) => () => {
            const source = this.#sources.get(number);
            return concatenated(
              scanStatements(source, load).map(
                (statement) => () => source.connection.iterate(statement, { maxBytes }),
              ),
            );
          }),
        ),
        () => {},
      );
    } catch (error) {
      throw asRunnerError(error);
    }
  }

  closeCopy(how: Ending): void {
    assert(this.#writable, "a runner without a private copy cannot close it");
    const { database } = this.#connection as RangeConnection;
    try {
      if (how === "commit") this.#scratch?.settle();
      if (database.inTransaction) database.exec(how === "commit" ? "COMMIT" : "ROLLBACK");
      this.#scratch?.leave();
      this.#watch?.capture.close();
    } catch (error) {
      throw asRunnerError(error);
    }
    this.#watch = undefined;
    this.#scratch = undefined;
    this.#ended();
    this.#learnTemp();
    // The copy is deleted by whoever made it; only TEMP objects are a reason to keep it open.
    if (!this.#hasTemp) this.#close();
  }

  /** Scratch databases are always watched. */
  capture(): void {
    assert(this.#writable && !this.#begun, "capturing begins on a private copy before its first statement");
    this.#watch ??= new TransactionWatch(this.#connection as RangeConnection);
  }

  captured(): Iterable<RowChange> {
    assert(this.#watch !== undefined, "row changes were asked for that were not captured");
    this.#scratch?.settle();
    return this.#watch.capture.changes();
  }

  /** What rows written since they were last taken have in UNIQUE indexes. */
  takeUniqueKeys(): UniqueKeysOf {
    assert(this.#watch !== undefined, "unique keys were asked for that were not captured");
    return this.#watch.capture.uniqueKeys.take();
  }

  /** Tables that the transaction has made or given another name. */
  tableNames(): TableNames {
    return this.#watch?.history.names() ?? [];
  }

  /** Starts a statement; the caller pulls it to its end or closes it before anything else is asked of the session. */
  start(statement: StampedStatement, maxBytes: number, systemTables: readonly SystemTable[]): RowCursor {
    assert(this.#mode !== "none", "a statement needs a pin or a private copy to run on");
    const connection = this.#connection as RangeConnection;
    const leading = leadingWord(statement.sql);
    refuse(leading, statement.sql);
    if (this.#rolledBack) throw rolledBackEarlier();
    const guarded = /\breturning\b/i.test(statement.sql);
    let savepoint = false;
    const finish = (undo: boolean): void => this.#finish(systemTables, savepoint, undo, leading.word);
    try {
      this.#watch?.settle();
      this.#begin(connection, statement);
      const inForce = { ...statement, flags: this.#flagsInForce(connection, statement.flags) };
      placeSystemTables(connection, systemTables);
      if (this.#watch !== undefined) {
        connection.setFlags(inForce.flags);
        this.#watch.before(inForce, leading);
      }
      if (guarded) connection.database.exec(`SAVEPOINT ${SAVEPOINT}`);
      savepoint = guarded;
      const cursor = connection.iterate(inForce, { maxBytes });
      this.#watch?.ran(statement.sql, leading);
      return guardCursor(cursor, finish);
    } catch (error) {
      const failure = asRunnerError(error);
      finish(!isSqlitesOwn(failure));
      throw failure;
    }
  }

  close(): void {
    this.#scratch?.close();
    this.#close();
    this.#spare?.close();
    this.#sources.close();
    this.#mode = "none";
  }

  get #writable(): boolean {
    return this.#mode === "copy" || this.#mode === "scratch";
  }

  #takeSpare(schema: SchemaSnapshot): ScratchDatabase | undefined {
    const spare = this.#spare;
    if (spare === undefined || !spare.isOf(schema)) return undefined;
    this.#spare = undefined;
    return spare;
  }

  #onScratch(run: (scratch: ScratchDatabase) => number): number {
    try {
      if (this.#scratch === undefined)
        throw new RetryError("OSTRAKA_UNAVAILABLE", "there is no scratch database to load rows into");
      if (this.#rolledBack) throw rolledBackEarlier();
      return run(this.#scratch);
    } catch (error) {
      throw asRunnerError(error);
    }
  }

  #begin(connection: RangeConnection, statement: StampedStatement): void {
    if (!this.#writable || this.#begun) return;
    connection.setFlags(statement.flags);
    connection.database.exec("BEGIN");
    this.#begun = true;
  }

  /** foreign_keys does not change inside a transaction, as in SQLite. */
  #flagsInForce(connection: RangeConnection, flags: number): number {
    const fixed = SessionFlag.ForeignKeysOff;
    return (flags & ~fixed) | (connection.flags & fixed);
  }

  #finish(systemTables: readonly SystemTable[], savepoint: boolean, undo: boolean, word: string): void {
    const { database } = this.#connection as RangeConnection;
    if (!database.inTransaction) this.#rolledBack = true;
    else if (savepoint)
      database.exec(undo ? `ROLLBACK TO ${SAVEPOINT}; RELEASE ${SAVEPOINT}` : `RELEASE ${SAVEPOINT}`);
    for (const { name } of systemTables) database.exec(`DROP TABLE IF EXISTS temp.${quoteName(name)}`);
    if (!this.#rolledBack) this.#watch?.ended();
    if (this.#rolledBack || MAY_CHANGE_TEMP.has(word)) this.#learnTemp();
  }

  #letGo(how: Ending): void {
    const database = this.#connection?.database;
    if (database?.inTransaction) database.exec(how === "commit" ? "COMMIT" : "ROLLBACK");
    this.#ended();
    if (how === "rollback") this.#learnTemp();
  }

  #ended(): void {
    this.#mode = "none";
    this.#begun = false;
    this.#rolledBack = false;
  }

  #learnTemp(): void {
    this.#hasTemp = this.#connection !== undefined && hasTempObjects(this.#connection);
  }

  #replaceConnection(path: string, options: ConnectionOptions): RangeConnection {
    const { next, file } = openIdentified(path, () => openConnection(path, options));
    try {
      this.#install(next, file);
    } catch (error) {
      next.close();
      throw error;
    }
    return next;
  }

  /** Makes it the connection for statements, with the session's TEMP objects. */
  #install(next: RangeConnection, file: string): void {
    const last = this.#connection;
    // TEMP files are nobody's but this connection's: their journal need not outlive it.
    next.database.pragma("temp.journal_mode = MEMORY");
    if (last !== undefined && this.#hasTemp) carryTemp(last, next);
    this.#connection = next;
    this.#file = file;
    this.#schemaCookie = -1;
    last?.close();
  }

  #noticeSchema(connection: RangeConnection): void {
    const cookie = connection.schemaCookie();
    if (cookie === this.#schemaCookie) return;
    this.#schemaCookie = cookie;
    connection.schemaChanged();
  }

  #close(): void {
    this.#watch = undefined;
    this.#scratch = undefined;
    this.#connection?.close();
    this.#connection = undefined;
    this.#file = "";
  }
}

function readAppliedIndex(connection: RangeConnection): number {
  const row = connection.internal("SELECT applied_index FROM main._ostraka_state").get() as [bigint];
  return Number(row[0]);
}

function placeSystemTables(connection: RangeConnection, tables: readonly SystemTable[]): void {
  for (const { name, columns, types, rows } of tables) {
    const target = `temp.${quoteName(name)}`;
    const defined = columns.map((column, i) => `${quoteName(column)} ${types?.[i] ?? ""}`);
    connection.database.exec(`CREATE TABLE ${target}(${defined.join(", ")})`);
    const insert = connection.database.prepare(
      `INSERT INTO ${target} VALUES (${columns.map(() => "?").join(", ")})`,
    );
    for (const row of rows) insert.run(row as SqlValue[]);
  }
  if (tables.length > 0) connection.disturbed();
}

/**
 * Transactions are the caller's business: a smuggled COMMIT would let go of the pin. A pragma acts as soon as it is
 * prepared, so only those that merely look are.
 */
function refuse({ word, explained }: Leading, sql: string): void {
  if (REFUSED.has(word) || (word === "rollback" && classify(sql).kind !== "rollback to"))
    throw new UserError("OSTRAKA_UNSUPPORTED", `${word.toUpperCase()} cannot run in a statement's process`);
  if (word === "pragma" && (explained || !onlyLooks(sql)))
    throw new UserError("OSTRAKA_UNSUPPORTED", "this PRAGMA cannot run in a statement's process");
}

function onlyLooks(sql: string): boolean {
  const kind = classify(sql);
  if (kind.kind !== "pragma") return false;
  const treatment = pragmaTreatment(kind.name.toLowerCase(), kind.argument !== undefined);
  return (
    treatment.kind === "introspection" || (treatment.kind === "replicated" && kind.argument === undefined)
  );
}

function rolledBackEarlier(): UserError {
  return new UserError("SQLITE_ERROR", "the transaction was rolled back by an earlier statement");
}

/** One cursor after the other, each started when the one before has ended. */
function concatenated(starts: readonly (() => RowCursor)[]): RowCursor {
  let at = 0;
  let cursor = starts[0]!();
  return {
    columns: cursor.columns,
    columnTypes: cursor.columnTypes,
    next: () => {
      for (;;) {
        const chunk = cursor.next();
        if (chunk !== undefined || at + 1 === starts.length) return chunk;
        cursor = starts[++at]!();
      }
    },
    summary: () => cursor.summary(),
    close: () => cursor.close(),
  };
}

/** SQLite has undone what the statement did, but for what OR FAIL and RAISE(FAIL) keep. */
function isSqlitesOwn({ family, code }: OstrakaError): boolean {
  return family === "user" && code.startsWith("SQLITE_");
}

/** Calls `finish` once, when the rows have ended, failed or were given up; says whether it is to undo what was done. */
function guardCursor(cursor: RowCursor, finish: (undo: boolean) => void): RowCursor {
  let open = true;
  const end = (undo: boolean): void => {
    if (!open) return;
    open = false;
    finish(undo);
  };
  return {
    columns: cursor.columns,
    columnTypes: cursor.columnTypes,
    next: () => {
      try {
        const chunk = cursor.next();
        if (chunk === undefined) end(false);
        return chunk;
      } catch (error) {
        const failure = asRunnerError(error);
        end(!isSqlitesOwn(failure));
        throw failure;
      }
    },
    summary: () => cursor.summary(),
    close: () => {
      cursor.close();
      end(true);
    },
  };
}

/** A runner's lack of room or memory is no reason for the node to stop. */
export function asRunnerError(error: unknown): OstrakaError {
  const classified = classifySqliteError(error);
  if (!(classified instanceof FatalError)) return classified;
  const { code, message } = classified;
  if (code === "SQLITE_NOMEM")
    return new UserError("OSTRAKA_TOO_LARGE", "the statement needs too much memory");
  if (code.startsWith("SQLITE_READONLY")) return new UserError(code, message);
  // A file that is gone, or temporary ones that there is no room for.
  const cause = (classified.cause as NodeJS.ErrnoException | undefined)?.code ?? "";
  const passing = /^(ENOENT|ENOSPC|EDQUOT|EMFILE|ENFILE)$/.test(cause);
  if (passing || code === "OSTRAKA_DISK_FULL" || /^SQLITE_(BUSY|LOCKED|FULL|CANTOPEN)/.test(code))
    return new RetryError("OSTRAKA_UNAVAILABLE", `the statement's process cannot go on: ${message}`);
  return classified;
}

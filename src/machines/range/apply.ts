/**
 * Applies committed entries to the range's SQLite file.
 *
 * Invariants:
 * 1. The effects of a command, its recorded answer and the applied index are one SQLite transaction (a batch). After
 *    a crash the file is at a command's boundary and says at which.
 * 2. The database after an entry depends on the log alone: not on how entries were batched, nor on restarts.
 * 3. A command that fails, fails alone and with the same error everywhere. What is this node's trouble (a full disk,
 *    I/O, corruption) is thrown: the batch is undone and nothing of it is answered.
 *
 * Most commands share a batch. One that needs another setting of foreign_keys, or whose foreign keys may only be
 * checked at COMMIT, gets a batch of its own. A statement that destroys the batch around it (OR ROLLBACK,
 * RAISE(ROLLBACK)) is noticed by the batch being gone; its commands then run again, one in a batch.
 */
import type Database from "better-sqlite3";
import { assert } from "../../base/assert.js";
import {
  AmbiguousError,
  FatalError,
  isWireError,
  type OstrakaError,
  RetryError,
  RouteError,
  toWireError,
  UserError,
  type WireError,
} from "../../base/errors.js";
import type { LogIndex, TransactionId } from "../../base/ids.js";
import type { Entry } from "../../raft/types.js";
import { SessionFlag } from "../../sql/types.js";
import { Answers, Transactions } from "./answers.js";
import { ANY_GENERATION, decodeCommands, encodeResults } from "./command.js";
import type { RangeConnection } from "./connection.js";
import { refuseAtApply } from "./guard.js";
import { firstWord } from "./parameters.js";
import { applyRowImages } from "./row-images.js";
import { LAST_ROWID, RowidLimit, TableFull } from "./rowid-limit.js";
import { SliceState } from "./slice-state.js";
import { classifySqliteError } from "./sqlite-errors.js";
import { MAX_APPLY_RESULT_BYTES, RangeState } from "./state.js";
import { TableRegistry } from "./table-keys.js";
import { toldDigest } from "./told.js";
import type { Command, CommandResult, StampedStatement, StatementOutcome } from "./types.js";

const FORGOTTEN = new AmbiguousError("the command was applied before and its answer is gone", undefined);
const LIMITS = { maxBytes: MAX_APPLY_RESULT_BYTES };
/** Stands for a statement that failed as the session was told. */
const NOTHING: StatementOutcome = {
  columns: [],
  columnTypes: [],
  rows: new Uint8Array(0),
  rowCount: 0,
  changes: 0,
  totalChanges: 0,
  lastInsertRowid: 0n,
};
const BATCH_FLAGS = SessionFlag.ForeignKeysOff | SessionFlag.DeferForeignKeys;
const SCHEMA_STATEMENTS = new Set(["create", "drop", "alter", "analyze"]);

/** One command of one entry. */
interface Task {
  readonly command: Command;
  readonly index: LogIndex;
  readonly term: number;
  readonly ordinal: number;
  readonly last: boolean;
  /** Of the range, when the leader admitted the command. */
  readonly generation: number;
  result: CommandResult | undefined;
  /** The result was not come by now (it is remembered, or a refusal to execute), and is not to be remembered. */
  passing: boolean;
}

export interface Applied {
  /** One for each entry given. */
  readonly results: Uint8Array[];
  readonly schemaChanged: boolean;
}

export class Applier {
  readonly state: RangeState;
  readonly slice: SliceState;
  readonly transactions: Transactions;
  readonly #tables: TableRegistry;
  readonly #connection: RangeConnection;
  readonly #answers: Answers;
  readonly #begin: Database.Statement;
  readonly #commit: Database.Statement;
  readonly #rollback: Database.Statement;
  readonly #savepoint: Database.Statement;
  readonly #release: Database.Statement;
  readonly #rollbackTo: Database.Statement;
  readonly #rowids: RowidLimit;
  /** Some table has no rowids left to choose: commands run alone, and each statement is looked at. */
  #rowidsRunOut: boolean;
  /** In this batch. */
  #lastRowidUsed = false;
  /** Whether some foreign key of the schema is checked only at COMMIT; undefined until asked after a schema change. */
  #deferredKeys: boolean | undefined;

  constructor(connection: RangeConnection) {
    const { database } = connection;
    this.#connection = connection;
    this.state = new RangeState(database);
    this.slice = new SliceState(database);
    this.#tables = new TableRegistry(database);
    this.#answers = new Answers(database, this.state);
    this.transactions = new Transactions(database, this.state);
    this.#rowids = new RowidLimit(connection);
    this.#rowidsRunOut = this.#rowids.reached();
    this.#begin = database.prepare("BEGIN IMMEDIATE");
    this.#commit = database.prepare("COMMIT");
    this.#rollback = database.prepare("ROLLBACK");
    this.#savepoint = database.prepare("SAVEPOINT _ostraka_command");
    this.#release = database.prepare("RELEASE _ostraka_command");
    this.#rollbackTo = database.prepare("ROLLBACK TO _ostraka_command");
  }

  /** Entries at or below the applied index, when a batch is tried again, are not run: they answer what they did. */
  apply(entries: readonly Entry[], upTo: LogIndex): Applied {
    const schemaBefore = this.state.schemaVersion;
    const tasksOf = entries.map((entry) => this.#tasks(entry));
    try {
      const fresh = tasksOf.flat().filter((task) => task.index > this.state.appliedIndex);
      this.#applyTasks(fresh, upTo);
    } catch (error) {
      this.#undo();
      throw error;
    }
    return {
      results: tasksOf.map((tasks) => encodeResults(tasks.map((task) => task.result!))),
      schemaChanged: this.state.schemaVersion !== schemaBefore,
    };
  }

  /** Takes the file's word for everything, after a batch was undone or destroyed. */
  #undo(): void {
    if (this.#connection.inTransaction) this.#rollback.run();
    this.#schemaUndone();
    this.#lastRowidUsed = false;
    this.state.load();
    this.slice.load();
    this.#answers.load();
  }

  #schemaChanged(): void {
    this.#connection.schemaChanged();
    this.#rowids.schemaChanged();
    this.#deferredKeys = undefined;
  }

  #schemaUndone(): void {
    this.#schemaChanged();
    this.#tables.forget();
  }

  #tasks(entry: Entry): Task[] {
    const { generation, commands } = decodeCommands(entry.data);
    const done = entry.index <= this.state.appliedIndex;
    return commands.map((command, ordinal) => ({
      command,
      index: entry.index,
      term: entry.term,
      ordinal,
      last: ordinal === commands.length - 1,
      generation,
      result: done ? this.#known(command) : undefined,
      passing: false,
    }));
  }

  /** What a command answered that was applied before. */
  #known({ key, wallMs }: Command): CommandResult {
    return this.#answers.admit(key, wallMs) ?? failure(FORGOTTEN, 0);
  }

  #applyTasks(tasks: readonly Task[], upTo: LogIndex): void {
    // What was committed of the first entry before a crash, or before the disk was full.
    let at = 0;
    for (; at < tasks.length && at < this.state.partial; at++) {
      tasks[at]!.result = this.#known(tasks[at]!.command);
    }
    let batchStart = at;
    while (at < tasks.length) {
      const task = tasks[at]!;
      if (this.#needsOwnBatch(task.command)) {
        if (!this.#endBatch()) at = this.#runAgain(tasks, batchStart, at);
        this.#runAlone(tasks[at]!);
        batchStart = ++at;
        continue;
      }
      this.#openBatch();
      task.result = this.#perform(task);
      if (this.#connection.inTransaction) {
        this.#finishTask(task);
        at++;
      } else at = batchStart = this.#runAgain(tasks, batchStart, at + 1);
    }
    if (!this.#endBatch(upTo)) this.#runAgain(tasks, batchStart, tasks.length);
    if (upTo > this.state.appliedIndex) {
      this.#openBatch();
      this.#endBatch(upTo);
    }
  }

  /** After a batch was destroyed, or must not stand as it is: its commands again, each in a batch of its own. */
  #runAgain(tasks: readonly Task[], start: number, end: number): number {
    this.#undo();
    for (let at = start; at < end; at++) this.#runAlone(tasks[at]!);
    return end;
  }

  #flushAnswers(): void {
    this.#answers.flush();
    this.#connection.disturbed();
  }

  #openBatch(): void {
    if (this.#connection.inTransaction) return;
    this.#connection.setFlags(0);
    this.#begin.run();
  }

  /** False when the batch must be run again, because a table ran out of rowids within it. */
  #endBatch(upTo: LogIndex = this.state.appliedIndex): boolean {
    if (!this.#connection.inTransaction) return true;
    if (!this.#rowidsRunOut && (this.#lastRowidUsed || this.#rowids.reached())) {
      this.#rowidsRunOut = true;
      return false;
    }
    if (upTo > this.state.appliedIndex) this.state.appliedIndex = upTo;
    if (this.state.partial > 0) this.#flushAnswers();
    this.state.store();
    this.#commit.run();
    return true;
  }

  /** Accounts for a performed command, inside its batch. */
  #finishTask(task: Task): void {
    const { command, result } = task;
    assert(result !== undefined, "a command is finished without a result");
    this.state.wallMs = Math.max(this.state.wallMs, command.wallMs);
    if (!task.passing) this.#answers.record(task.index, command.key, command.wallMs, result);
    if (!task.last) {
      this.state.partial = task.ordinal + 1;
      return;
    }
    this.#answers.endEntry();
    this.#connection.disturbed();
    this.state.partial = 0;
    this.state.appliedIndex = task.index;
    this.state.term = task.term;
  }

  #needsOwnBatch(command: Command): boolean {
    if (this.#rowidsRunOut) return true;
    switch (command.kind) {
      case "rows":
        return true;
      case "execute":
        return (command.statement.flags & BATCH_FLAGS) !== 0 || this.#hasDeferredKeys();
      case "transaction":
        return command.statements.some(({ flags }) => flags & BATCH_FLAGS) || this.#hasDeferredKeys();
      default:
        return false;
    }
  }

  #hasDeferredKeys(): boolean {
    this.#deferredKeys ??=
      this.#connection.database
        .prepare(
          "SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND instr(lower(sql), 'deferr') > 0 LIMIT 1",
        )
        .get() !== undefined;
    return this.#deferredKeys;
  }

  /** One command in a batch of its own; COMMIT may still refuse it, and it may destroy its batch. */
  #runAlone(task: Task): void {
    this.#connection.setFlags(aloneFlags(task.command));
    this.#begin.run();
    task.result = this.#perform(task);
    let refused: UserError | undefined;
    if (this.#connection.inTransaction) {
      refused = this.#commitAlone(task);
      if (refused === undefined) {
        this.#rowidsRunOut = this.#rowids.reached();
        this.#lastRowidUsed = false;
        return;
      }
      task.result = failure(refused, lastStatement(task.command));
    }
    this.#undo();
    assert(!task.result.ok, "a command destroyed its batch and still succeeded");
    this.#openBatch();
    // Refused by a constraint that only COMMIT checks, the transaction is still open, and may be committed yet.
    if (refused === undefined) this.#recordAborted(task.command);
    this.#finishTask(task);
    this.#endBatch();
  }

  #commitAlone(task: Task): UserError | undefined {
    this.#finishTask(task);
    if (this.state.partial > 0) this.#flushAnswers();
    this.state.store();
    try {
      this.#commit.run();
      return undefined;
    } catch (error) {
      const code = (error as { code?: unknown }).code;
      if (code !== "SQLITE_CONSTRAINT_FOREIGNKEY") throw error;
      return new UserError(code, (error as Error).message);
    }
  }

  /** Executes a command inside the open batch. May return with the batch destroyed. */
  #perform(task: Task): CommandResult {
    const { command } = task;
    if (task.generation !== ANY_GENERATION && task.generation !== this.slice.generation) {
      task.passing = true;
      return failure(new RouteError("the range has changed since the command was admitted", undefined), 0);
    }
    const admitted = this.#answers.admit(command.key, command.wallMs);
    task.passing = admitted !== undefined;
    if (admitted !== undefined) return admitted;
    switch (command.kind) {
      case "execute":
        return this.#execute(command.statement);
      case "transaction":
        return this.#transaction(command, () => this.#statements(command.statements));
      case "rows":
        return this.#transaction(command, () => {
          try {
            applyRowImages(this.#connection, command.changes);
          } catch (error) {
            throw new StatementFailed(userError(classifySqliteError(error)), 0);
          }
          return command.outcomes;
        });
      case "tombstone":
        return this.#tombstone(command);
      case "pragma":
        this.#connection.database.pragma(`main.${command.name} = ${Math.trunc(command.value)}`);
        return { ok: true, outcomes: [], repeated: false };
      default:
        throw new Error("not built yet");
    }
  }

  /**
   * Autocommit. SQLite itself undoes a statement that fails (or, with OR FAIL, keeps what it had done, as it should);
   * only results beyond the limit, found after the changes, need a savepoint.
   */
  #execute(statement: StampedStatement): CommandResult {
    if (statement.told !== undefined || /\breturning\b/i.test(statement.sql)) {
      return this.#guarded(() => this.#statements([statement]));
    }
    if (this.#rowidsRunOut) this.#savepoint.run();
    let result: CommandResult;
    try {
      result = { ok: true, outcomes: [this.#run(statement)], repeated: false };
    } catch (error) {
      result = failure(userError(error), 0);
      if (error instanceof TableFull && this.#rowidsRunOut && this.#connection.inTransaction)
        this.#rollbackTo.run();
    }
    if (this.#rowidsRunOut && this.#connection.inTransaction) this.#release.run();
    return result;
  }

  #transaction(
    command: Extract<Command, { kind: "transaction" | "rows" }>,
    run: () => readonly StatementOutcome[],
  ): CommandResult {
    const { transaction, key, wallMs } = command;
    const known = this.transactions.outcome(transaction);
    if (known === "aborted" || key.issuedMs < this.state.transactionFloorMs)
      return failure(
        new RetryError("OSTRAKA_RETRY", `transaction ${transaction} was given up before it arrived`),
        0,
      );
    if (known === "committed")
      return {
        ok: false,
        error: ["ambiguous", "OSTRAKA_UNKNOWN_OUTCOME", "already committed", transaction],
        statement: 0,
      };
    const result = this.#guarded(run);
    if (this.#connection.inTransaction)
      this.#recordOutcome(transaction, result.ok ? "committed" : "aborted", wallMs);
    return result;
  }

  #recordOutcome(transaction: TransactionId, outcome: "committed" | "aborted", wallMs: number): void {
    this.state.wallMs = Math.max(this.state.wallMs, wallMs);
    this.transactions.record(transaction, outcome, wallMs);
    this.#connection.disturbed();
  }

  /** After the batch of a command is gone, with whatever it had recorded. */
  #recordAborted(command: Command): void {
    if (command.kind !== "transaction" && command.kind !== "rows") return;
    if (this.transactions.outcome(command.transaction) === undefined)
      this.#recordOutcome(command.transaction, "aborted", command.wallMs);
  }

  #tombstone(command: Extract<Command, { kind: "tombstone" }>): CommandResult {
    const { transaction, key, wallMs } = command;
    // An autocommit write is named by its key: what is answered here is what it will be answered, should it arrive.
    if (transaction.startsWith(`${key.client}:${key.sequence}`))
      return failure(
        new RetryError("OSTRAKA_RETRY", `write ${transaction} was given up before it arrived`),
        0,
      );
    const known = this.transactions.outcome(transaction);
    if (known !== undefined) return { ok: true, outcomes: [], repeated: false, decision: known };
    if (key.issuedMs < this.state.transactionFloorMs)
      return { ok: true, outcomes: [], repeated: false, decision: "unknown" };
    this.#recordOutcome(transaction, "aborted", wallMs);
    return { ok: true, outcomes: [], repeated: false, decision: "aborted" };
  }

  /** All or nothing, in a savepoint. */
  #guarded(run: () => readonly StatementOutcome[]): CommandResult {
    const { schemaVersion } = this.state;
    this.#savepoint.run();
    try {
      const outcomes = run();
      this.#release.run();
      return { ok: true, outcomes, repeated: false };
    } catch (error) {
      if (!(error instanceof StatementFailed)) throw error;
      if (this.#connection.inTransaction) {
        this.#rollbackTo.run();
        this.#release.run();
        this.#schemaUndone();
        this.state.schemaVersion = schemaVersion;
      }
      return failure(error.cause, error.statement);
    }
  }

  /** Runs statements in order and compares each with what was told. Throws StatementFailed. */
  #statements(statements: readonly StampedStatement[]): StatementOutcome[] {
    const foreignKeys = this.#connection.flags & SessionFlag.ForeignKeysOff;
    return statements.map((statement, i) => {
      // As in SQLite, foreign_keys does not change inside a transaction.
      const flags = (statement.flags & ~SessionFlag.ForeignKeysOff) | foreignKeys;
      let told: StatementOutcome | WireError;
      try {
        told = this.#run({ ...statement, flags });
      } catch (error) {
        const failed = userError(error);
        if (statement.told === undefined || !this.#connection.inTransaction)
          throw new StatementFailed(failed, i);
        told = toWireError(failed);
      }
      if (statement.told !== undefined && toldDigest(told) !== statement.told)
        throw new StatementFailed(
          new RetryError("OSTRAKA_RETRY", "a statement no longer does what the session was told"),
          i,
        );
      return isWireError(told) ? NOTHING : told;
    });
  }

  #run(statement: StampedStatement): StatementOutcome {
    refuseAtApply(statement.sql);
    const changesSchema = SCHEMA_STATEMENTS.has(firstWord(statement.sql));
    if (changesSchema) this.#tables.before();
    let outcome: StatementOutcome;
    try {
      outcome = this.#connection.execute(statement, LIMITS);
    } catch (error) {
      const full = error instanceof FatalError && error.code === "OSTRAKA_DISK_FULL";
      throw full && this.#rowids.explainsFull() ? new TableFull() : error;
    }
    if (outcome.lastInsertRowid === LAST_ROWID) this.#lastRowidUsed = true;
    if (changesSchema) {
      this.state.schemaVersion++;
      this.#tables.after(() => this.slice.nextTableId());
      this.#connection.disturbed();
      this.#schemaChanged();
    } else if (this.#rowidsRunOut) this.#rowids.check(statement, outcome);
    return outcome;
  }
}

/** Which statement of a command failed, on its way out of the savepoint. */
class StatementFailed extends Error {
  override readonly cause: OstrakaError;
  constructor(
    cause: OstrakaError,
    readonly statement: number,
  ) {
    super(cause.message);
    this.cause = cause;
  }
}

/** Passes on the statement's own error; rethrows what is this node's trouble. */
function userError(error: unknown): OstrakaError {
  if (error instanceof UserError || error instanceof RetryError) return error;
  if (error instanceof FatalError) throw error;
  throw new FatalError("OSTRAKA_INTERNAL", error instanceof Error ? error.message : String(error), {
    cause: error,
  });
}

function failure(error: OstrakaError, statement: number): CommandResult {
  return { ok: false, error: toWireError(error), statement };
}

function lastStatement(command: Command): number {
  return command.kind === "transaction" ? Math.max(0, command.statements.length - 1) : 0;
}

function aloneFlags(command: Command): number {
  switch (command.kind) {
    case "rows":
      return SessionFlag.ForeignKeysOff | SessionFlag.IgnoreCheckConstraints;
    case "execute":
      return command.statement.flags & SessionFlag.ForeignKeysOff;
    case "transaction":
      return (command.statements[0]?.flags ?? 0) & SessionFlag.ForeignKeysOff;
    default:
      return 0;
  }
}

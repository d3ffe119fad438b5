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
 * Most commands share a batch. Those that put final rows in place share batches with foreign keys off. One that needs
 * another setting of foreign_keys, or whose foreign keys may only be checked at COMMIT, gets a batch of its own. A
 * statement that destroys the batch around it (OR ROLLBACK, RAISE(ROLLBACK)) is noticed by the batch being gone; its
 * commands then run again, one in a batch.
 */
import type Database from "better-sqlite3";
import { assert } from "../../base/assert.js";
import { AmbiguousError, RouteError, UserError } from "../../base/errors.js";
import type { LogIndex, Term, TransactionId } from "../../base/ids.js";
import type { Entry } from "../../raft/types.js";
import { lowerAscii } from "../../sql/tokenizer.js";
import { Answers, Transactions } from "./answers.js";
import {
  failure,
  givenUp,
  inDoubt,
  isDuplicate,
  isPassing,
  StatementFailed,
  userError,
} from "./apply-errors.js";
import { aloneFlags, BATCH_FLAGS, preparedFlags } from "./batch-flags.js";
import { ANY_GENERATION, decodeCommands, encodeResults } from "./command.js";
import type { RangeConnection } from "./connection.js";
import { Executor } from "./executor.js";
import { isNamedByKey } from "./naming.js";
import { IMAGE_FLAGS, Participant } from "./participant.js";
import { PreparedTransactions } from "./prepared.js";
import { Reshaper } from "./reshape.js";
import { listed } from "./row-changes.js";
import { applyRowImages } from "./row-images.js";
import { TableFull } from "./rowid-limit.js";
import { SliceState } from "./slice-state.js";
import { RangeState } from "./state.js";
import { MAX_TOLD_OUTCOMES } from "./told.js";
import type {
  Command,
  CommandResult,
  NewChild,
  RowChange,
  StampedStatement,
  StatementOutcome,
} from "./types.js";

const FORGOTTEN = new AmbiguousError("the command was applied before and its answer is gone", undefined);

/** One command of one entry. */
interface Task {
  readonly command: Command;
  readonly index: LogIndex;
  readonly term: Term;
  readonly ordinal: number;
  readonly last: boolean;
  /** Of the range, when the leader admitted the command. */
  readonly generation: number;
  result: CommandResult | undefined;
  /** The result was not come by now (it is remembered, or a refusal to execute), and is not to be remembered. */
  passing: boolean;
}

/** Whoever makes the file of a range that a split makes. */
export interface SplitWatcher {
  /** Before the batch of a split is committed: what is to be made must not be lost from then on. */
  splitting(child: NewChild): void;
  /** The file is as of the split's entry, and goes on after this. */
  split(child: NewChild): void;
}

export interface Applied {
  /** One for each entry given. */
  readonly results: Uint8Array[];
}

export class Applier {
  readonly state: RangeState;
  readonly slice: SliceState;
  readonly transactions: Transactions;
  readonly prepared: PreparedTransactions;
  readonly #executor: Executor;
  readonly participant: Participant;
  readonly #reshaper: Reshaper;
  readonly #watcher: SplitWatcher;
  readonly #connection: RangeConnection;
  readonly #answers: Answers;
  readonly #begin: Database.Statement;
  readonly #commit: Database.Statement;
  readonly #rollback: Database.Statement;
  readonly #savepoint: Database.Statement;
  readonly #release: Database.Statement;
  readonly #rollbackTo: Database.Statement;
  /** Settings that the open batch was begun with, and that its commands share. */
  #batchFlags = 0;

  constructor(connection: RangeConnection, watcher: SplitWatcher) {
    const { database } = connection;
    this.#connection = connection;
    this.#watcher = watcher;
    this.state = new RangeState(database);
    this.slice = new SliceState(database);
    this.#answers = new Answers(database, this.state);
    this.transactions = new Transactions(database, this.state);
    this.prepared = new PreparedTransactions(database);
    this.#executor = new Executor({
      connection,
      state: this.state,
      slice: this.slice,
      prepared: this.prepared,
    });
    this.participant = new Participant({
      connection,
      state: this.state,
      slice: this.slice,
      answers: this.#answers,
      transactions: this.transactions,
      prepared: this.prepared,
      tried: (run) => this.#tried(run),
      trimAll: () => this.#executor.trimmer.trimAll(),
      runSchema: (statements) => this.#executor.schemaStatements(statements),
      runStatements: (statements) => void this.#executor.statements(statements),
      deferring: (statements) => this.#deferring(statements),
      putRows: (changes) => this.#putRows(changes),
    });
    const { tables, trimmer } = this.#executor;
    this.#reshaper = new Reshaper({
      connection,
      state: this.state,
      slice: this.slice,
      tables,
      answers: this.#answers,
      transactions: this.transactions,
      prepared: this.prepared,
      trimmer,
    });
    this.#begin = database.prepare("BEGIN IMMEDIATE");
    this.#commit = database.prepare("COMMIT");
    this.#rollback = database.prepare("ROLLBACK");
    this.#savepoint = database.prepare("SAVEPOINT _ostraka_command");
    this.#release = database.prepare("RELEASE _ostraka_command");
    this.#rollbackTo = database.prepare("ROLLBACK TO _ostraka_command");
  }

  /** Entries at or below the applied index, when a batch is tried again, are not run: they answer what they did. */
  apply(entries: readonly Entry[], upTo: LogIndex): Applied {
    const tasksOf = entries.map((entry) => this.#tasks(entry));
    try {
      const fresh = tasksOf.flat().filter((task) => task.index > this.state.appliedIndex);
      this.#applyTasks(fresh, upTo);
    } catch (error) {
      this.#undo();
      throw error;
    }
    return { results: tasksOf.map((tasks) => encodeResults(tasks.map((task) => task.result!))) };
  }

  /** Takes the file's word for everything, after a batch was undone or destroyed. */
  #undo(): void {
    if (this.#connection.inTransaction) this.#rollback.run();
    this.#executor.undone();
    this.#reshaper.takeChild();
    this.state.load();
    this.slice.load();
    this.prepared.load();
    this.#answers.load();
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
  #known(command: Command): CommandResult {
    if (command.kind === "prepare") return this.participant.knownVote(command) ?? failure(FORGOTTEN);
    if (command.kind === "resolve")
      return { ok: true, outcomes: [], repeated: true, decision: command.decision };
    if (command.kind === "trim") return { ok: true, outcomes: [], repeated: true };
    if (command.kind === "tombstone" && !isNamedByKey(command)) {
      const decision = this.transactions.outcome(command.transaction);
      return decision ? { ok: true, outcomes: [], repeated: true, decision } : failure(FORGOTTEN);
    }
    const answered = this.#answers.admit(command.key, command.wallMs);
    if (answered !== undefined) return answered;
    const lost =
      (command.kind === "transaction" || command.kind === "rows") &&
      this.transactions.outcome(command.transaction) === "aborted";
    return lost ? givenUp(`transaction ${command.transaction}`) : failure(FORGOTTEN);
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
      const flags = this.#sharedFlags(task.command);
      if (flags !== this.#batchFlags || flags === undefined) {
        if (!this.#endBatch()) this.#runAgain(tasks, batchStart, at);
        batchStart = at;
      }
      if (flags === undefined) {
        this.#runAlone(task);
        batchStart = ++at;
        continue;
      }
      this.#openBatch(flags);
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

  #openBatch(flags = 0): void {
    if (this.#connection.inTransaction) return;
    this.#connection.setFlags(flags);
    this.#batchFlags = flags;
    this.#begin.run();
  }

  /** False when the batch must be run again, because a table ran out of rowids within it. */
  #endBatch(upTo: LogIndex = this.state.appliedIndex): boolean {
    if (!this.#connection.inTransaction) return true;
    if (this.#executor.mustWatchRowids()) return false;
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
    // What is refused because the range is frozen leaves it as it is, to the age of its answers.
    if (!task.passing || this.slice.state.frozenInto === undefined)
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

  /** The settings of a batch that the command can share; undefined when it needs one of its own. */
  #sharedFlags(command: Command): number | undefined {
    if (this.#executor.rowidsRunOut) return undefined;
    switch (command.kind) {
      case "execute":
        return this.#deferring([command.statement]) ? undefined : 0;
      case "transaction":
        return this.#deferring(command.statements) ? undefined : 0;
      case "rows":
      case "trim":
        return IMAGE_FLAGS;
      case "split":
      case "freeze":
      case "absorb":
        return undefined;
      case "prepare":
        return preparedFlags(command.prepared.body.kind);
      case "resolve":
        return preparedFlags(this.prepared.bodyKind(command.transaction));
      default:
        return 0;
    }
  }

  #deferring(statements: readonly StampedStatement[]): boolean {
    return statements.some(({ flags }) => flags & BATCH_FLAGS) || this.#connection.traits.waitsForCommit;
  }

  #aloneFlags(command: Command): number {
    if (command.kind === "prepare") return preparedFlags(command.prepared.body.kind) ?? IMAGE_FLAGS;
    if (command.kind === "resolve")
      return preparedFlags(this.prepared.bodyKind(command.transaction)) ?? IMAGE_FLAGS;
    return aloneFlags(command);
  }

  /** One command in a batch of its own; COMMIT may still refuse it, and it may destroy its batch. */
  #runAlone(task: Task): void {
    this.#openBatch(this.#aloneFlags(task.command));
    task.result = this.#perform(task);
    if (this.#connection.inTransaction && this.#executor.mustWatchRowids()) {
      // It has taken the last rowid itself, and may have had another one chosen since.
      this.#undo();
      this.#openBatch(this.#aloneFlags(task.command));
      task.result = this.#perform(task);
    }
    let refused: UserError | undefined;
    if (this.#connection.inTransaction) {
      refused = this.#commitAlone(task);
      if (refused === undefined) {
        this.#executor.committedAlone();
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
    const child = this.#reshaper.takeChild();
    if (child !== undefined) this.#watcher.splitting(child);
    try {
      this.#commit.run();
      if (child !== undefined) this.#watcher.split(child);
      return undefined;
    } catch (error) {
      const code = (error as { code?: unknown }).code;
      if (code !== "SQLITE_CONSTRAINT_FOREIGNKEY") throw error;
      return new UserError(code, (error as Error).message);
    }
  }

  /** Executes a command inside the open batch. May return with the batch destroyed. */
  #perform(task: Task): CommandResult {
    const known = this.#admit(task);
    task.passing = known !== undefined;
    if (known !== undefined) return known;
    const result = this.#dispatch(task);
    if (isPassing(task.command, result)) task.passing = true;
    return result;
  }

  /** What is answered without executing the command; undefined to execute it. */
  #admit({ command, generation }: Task): CommandResult | undefined {
    if (generation !== ANY_GENERATION && generation !== this.slice.generation)
      return failure(new RouteError("the range has changed since the command was admitted", undefined));
    const frozen = this.#frozen(command);
    if (frozen !== undefined) return frozen;
    if (command.kind === "prepare" || command.kind === "resolve" || command.kind === "trim") return undefined;
    if (command.kind === "tombstone")
      return isNamedByKey(command)
        ? this.#answers.outcome(command.key, command.wallMs)
        : this.#answers.ahead(command.key, command.wallMs);
    const answered = this.#answers.admit(command.key, command.wallMs);
    if (answered !== undefined) return answered;
    const transaction = this.prepared.withKey(command.key);
    return transaction === undefined ? undefined : inDoubt(transaction);
  }

  #frozen(command: Command): CommandResult | undefined {
    const { frozenInto } = this.slice.state;
    if (frozenInto === undefined) return undefined;
    if (command.kind === "resolve" && this.transactions.outcome(command.transaction) === command.decision)
      return undefined;
    return failure(new RouteError(`the range is being taken in by range ${frozenInto}`, undefined));
  }

  #dispatch(task: Task): CommandResult {
    const { command } = task;
    switch (command.kind) {
      case "execute":
        return this.#execute(command.statement);
      case "transaction":
        return this.#transaction(command, () => this.#runAll(command.statements));
      case "rows":
        return this.#transaction(command, () => {
          try {
            this.#putRows(listed(command.changes));
          } catch (error) {
            throw new StatementFailed(userError(error), 0);
          }
          return command.outcomes;
        });
      case "tombstone":
        return this.#tombstone(task, command);
      case "pragma":
        this.#connection.database.pragma(`main.${command.name} = ${Math.trunc(command.value)}`);
        return { ok: true, outcomes: [], repeated: false };
      case "prepare":
        task.passing = true;
        return this.participant.prepare(command);
      case "resolve":
        task.passing = true;
        return this.participant.resolve(command, task.index);
      case "trim":
        task.passing = true;
        return this.#reshaper.trim(command);
      case "split":
        return this.#reshaper.split(command, task);
      case "freeze":
        return this.#reshaper.freeze(command, task);
      case "absorb":
        return this.#absorb(() => this.#reshaper.absorb(command, task));
    }
  }

  /** All or nothing, alone in its batch. */
  #absorb(run: () => CommandResult): CommandResult {
    this.#savepoint.run();
    let result: CommandResult;
    try {
      result = run();
    } catch (error) {
      result = failure(userError(error));
    }
    if (!result.ok) {
      this.#rollbackTo.run();
      this.#executor.schemaUndone();
      this.state.load();
      this.slice.load();
      this.#answers.load();
    }
    this.#release.run();
    return result;
  }

  /**
   * Autocommit. SQLite itself undoes a statement that fails (or, with OR FAIL, keeps what it had done, as it should);
   * only results beyond the limit, found after the changes, need a savepoint.
   */
  #execute(statement: StampedStatement): CommandResult {
    if (statement.told !== undefined) return this.#guarded(() => this.#executor.statements([statement]));
    const guarded = this.#executor.rowidsRunOut || /\breturning\b/i.test(statement.sql);
    if (guarded) this.#savepoint.run();
    let result: CommandResult;
    try {
      result = { ok: true, outcomes: [this.#executor.run(statement)], repeated: false };
    } catch (error) {
      const failed = userError(error);
      result = failure(failed, 0);
      const ours = error instanceof TableFull || !failed.code.startsWith("SQLITE_");
      if (guarded && ours && this.#connection.inTransaction) {
        this.#rollbackTo.run();
        this.#executor.schemaUndone();
      }
    }
    if (guarded && this.#connection.inTransaction) this.#release.run();
    return result;
  }

  #transaction(
    command: Extract<Command, { kind: "transaction" | "rows" }>,
    run: () => readonly StatementOutcome[],
  ): CommandResult {
    const { transaction, key, wallMs } = command;
    const known = this.transactions.outcome(transaction);
    if (known === "aborted" || key.issuedMs < this.state.transactionFloorMs)
      return givenUp(`transaction ${transaction}`);
    if (known === "committed")
      return {
        ok: false,
        error: ["ambiguous", "OSTRAKA_UNKNOWN_OUTCOME", "already committed", transaction],
        statement: 0,
      };
    if (this.prepared.has(transaction)) return inDoubt(transaction);
    const result = this.#guarded(run);
    const moved = !result.ok && result.error[0] === "route";
    if (this.#connection.inTransaction && !moved)
      this.#recordOutcome(transaction, result.ok ? "committed" : "aborted", wallMs);
    return result;
  }

  #runAll(statements: readonly StampedStatement[]): readonly StatementOutcome[] {
    const outcomes = this.#executor.statements(statements);
    return outcomes.length > MAX_TOLD_OUTCOMES && statements.every(({ told }) => told !== undefined)
      ? []
      : outcomes;
  }

  #recordOutcome(transaction: TransactionId, outcome: "committed" | "aborted", wallMs: number): void {
    this.state.wallMs = Math.max(this.state.wallMs, wallMs);
    this.transactions.record(transaction, outcome, wallMs);
    this.#connection.disturbed();
  }

  /** After the batch of a command is gone, with whatever it had recorded. */
  #recordAborted(command: Command): void {
    if (command.kind !== "transaction" && command.kind !== "rows" && command.kind !== "prepare") return;
    const { transaction } = command.kind === "prepare" ? command.prepared : command;
    if (this.transactions.outcome(transaction) === undefined)
      this.#recordOutcome(transaction, "aborted", command.wallMs);
  }

  #tombstone(task: Task, command: Extract<Command, { kind: "tombstone" }>): CommandResult {
    const { transaction, key, wallMs } = command;
    const written = this.prepared.withKey(key);
    if (written !== undefined || this.prepared.has(transaction)) {
      task.passing = true;
      return written === undefined
        ? { ok: true, outcomes: [], repeated: false, decision: "unknown" }
        : inDoubt(written);
    }
    // An autocommit write is named by its key: what is answered here is what it will be answered, should it arrive.
    if (isNamedByKey(command)) return givenUp(`write ${transaction}`, transaction);
    // Remembered longer than answers are.
    task.passing = true;
    const known = this.transactions.outcome(transaction);
    if (known !== undefined) return { ok: true, outcomes: [], repeated: false, decision: known };
    if (key.issuedMs < this.state.transactionFloorMs)
      return { ok: true, outcomes: [], repeated: false, decision: "unknown" };
    this.#recordOutcome(transaction, "aborted", wallMs);
    return { ok: true, outcomes: [], repeated: false, decision: "aborted" };
  }

  /** Runs something in a savepoint that is always undone. It answers whether it changed the schema. */
  #tried(run: () => boolean): void {
    const { schemaVersion } = this.state;
    let schemaTouched = true;
    this.#savepoint.run();
    try {
      schemaTouched = run();
    } finally {
      if (this.#connection.inTransaction) {
        this.#rollbackTo.run();
        this.#release.run();
        if (schemaTouched) {
          this.#executor.schemaUndone();
          this.slice.load();
        }
        this.state.schemaVersion = schemaVersion;
      }
    }
  }

  /** Answers whether triggers had to be made again. Rows that are not the range's any more are in nobody's way. */
  #putRows(changes: readonly RowChange[]): boolean {
    if (!this.slice.state.untrimmed) return applyRowImages(this.#connection, changes);
    const { tables, trimmer } = this.#executor;
    this.#connection.internal("SAVEPOINT _ostraka_rows").run();
    try {
      const made = applyRowImages(this.#connection, changes);
      this.#connection.internal("RELEASE _ostraka_rows").run();
      return made;
    } catch (error) {
      if (!isDuplicate(error)) throw error;
      this.#connection.internal("ROLLBACK TO _ostraka_rows").run();
      this.#connection.internal("RELEASE _ostraka_rows").run();
      this.#connection.schemaChanged();
    }
    for (const name of new Set(changes.map(({ table }) => lowerAscii(table)))) {
      const table = tables.table(name);
      if (table !== undefined) trimmer.trimTable(table);
    }
    applyRowImages(this.#connection, changes);
    return true;
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
        this.#executor.schemaUndone();
        this.state.schemaVersion = schemaVersion;
      }
      return failure(error.cause, error.statement);
    }
  }
}

function lastStatement(command: Command): number {
  return command.kind === "transaction" ? Math.max(0, command.statements.length - 1) : 0;
}

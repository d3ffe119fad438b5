/**
 * Runs the statements of commands on the replica's writer, inside a batch that somebody else keeps.
 *
 * Invariants:
 * 1. A statement that changes the schema is counted, and the tables it makes get their ids, in the same batch.
 * 2. The schema of one of several ranges changes by transactions over all of them only, and never between the vote and
 *    the decision of another transaction.
 * 3. No rowid is chosen at random: see rowid-limit.ts.
 * 4. What SQLite plans with is what the file says, not what this connection has seen: whatever may have changed
 *    statistics, or undone such a change, has them read anew.
 */
import {
  FatalError,
  isWireError,
  RetryError,
  toWireError,
  UserError,
  type WireError,
} from "../../base/errors.js";
import { callsOtherLike } from "../../sql/like.js";
import { SessionFlag } from "../../sql/types.js";
import { checkAppend } from "./append-guard.js";
import { MoveError, StatementFailed, userError } from "./apply-errors.js";
import type { RangeConnection } from "./connection.js";
import { refuseAtApply } from "./guard.js";
import { NO_OUTCOME } from "./no-outcome.js";
import { firstWord } from "./parameters.js";
import type { PreparedTransactions } from "./prepared.js";
import { RowidLimit, TableFull } from "./rowid-limit.js";
import type { SliceState } from "./slice-state.js";
import { MAX_APPLY_RESULT_BYTES, type RangeState } from "./state.js";
import { TableRegistry } from "./table-keys.js";
import { toldDigest } from "./told.js";
import { rowOutside, Trimmer } from "./trim.js";
import type { StampedStatement, StatementOutcome } from "./types.js";

const LIMITS = { maxBytes: MAX_APPLY_RESULT_BYTES };
const SCHEMA_STATEMENTS = new Set(["create", "drop", "alter", "analyze"]);
/** Statements that may write statistics. */
const STATISTICS = /\banalyze\b|sqlite_stat\d/i;

/** Whether it may change the schema, or statistics. */
export function isSchemaStatement(sql: string): boolean {
  return SCHEMA_STATEMENTS.has(firstWord(sql));
}

/** Rows come from where LIKE can be what the session wants (src/gateway/statements.ts); here it is what it always is. */
function refuseOtherLike({ sql, flags }: StampedStatement): void {
  if (!callsOtherLike(sql, flags)) return;
  throw new UserError("OSTRAKA_UNSUPPORTED", "a text with LIKE cannot be applied under case_sensitive_like");
}

export interface ExecutorParts {
  readonly connection: RangeConnection;
  readonly state: RangeState;
  readonly slice: SliceState;
  readonly prepared: PreparedTransactions;
}

export class Executor {
  readonly tables: TableRegistry;
  readonly trimmer: Trimmer;
  readonly #connection: RangeConnection;
  readonly #parts: ExecutorParts;
  readonly #rowids: RowidLimit;
  /** Some table has no rowids left to choose: commands run alone, and each statement is looked at. */
  rowidsRunOut: boolean;
  /** In this batch. */
  #lastRowidUsed = false;
  /** In this batch, or before. */
  #autoincrementMade = false;
  /** The statements that run are a part of a schema change of all ranges. */
  #changingSchema = false;
  /** Of tables by id, before the statement that changes the schema; where the range is one of several. */
  #shardsBefore: ReadonlyMap<number, string> = new Map();
  /** Statistics may have changed in what is not committed yet. */
  #statisticsTouched = false;

  constructor(parts: ExecutorParts) {
    const { connection } = parts;
    this.#connection = connection;
    this.#parts = parts;
    this.tables = new TableRegistry(connection.database);
    this.trimmer = new Trimmer(connection, parts.slice, this.tables);
    this.#rowids = new RowidLimit(connection, () => this.tables.tables);
    this.rowidsRunOut = this.#rowids.reached();
  }

  /** After a batch was undone. */
  undone(): void {
    this.schemaUndone();
    this.#statisticsTouched = false;
    // One of our own statements may have inserted before what followed it failed.
    this.#connection.disturbed();
    this.#lastRowidUsed = false;
  }

  /** After changes of the schema were undone, or may have been. */
  schemaUndone(): void {
    this.#schemaChanged();
    this.tables.forget();
    if (this.#statisticsTouched) this.readStatistics();
  }

  /**
   * SQLite keeps statistics in memory as they were when it read them: they survive a rollback and even DROP TABLE, and
   * what is written to their tables counts after a restart only. By them it chooses the order in which rows are met.
   */
  readStatistics(): void {
    this.#statisticsTouched = true;
    this.#connection.reloadSchema();
    this.#connection.disturbed();
  }

  /** Whether a batch that is about to be committed must be run again, now that rowids are watched. */
  mustWatchRowids(): boolean {
    if (this.rowidsRunOut || !(this.#lastRowidUsed || this.#rowids.reached())) return false;
    this.rowidsRunOut = true;
    return true;
  }

  /** After a command that ran in a batch of its own. */
  committedAlone(): void {
    this.rowidsRunOut = this.#rowids.reached();
    this.#lastRowidUsed = false;
    this.#statisticsTouched = false;
  }

  /** Runs statements in order and compares each with what was told. Throws StatementFailed. */
  statements(statements: readonly StampedStatement[]): StatementOutcome[] {
    const foreignKeys = this.#connection.flags & SessionFlag.ForeignKeysOff;
    return statements.map((statement, i) => {
      // As in SQLite, foreign_keys does not change inside a transaction.
      const flags = (statement.flags & ~SessionFlag.ForeignKeysOff) | foreignKeys;
      let told: StatementOutcome | WireError;
      try {
        told = this.run({ ...statement, flags });
      } catch (error) {
        const failed = userError(error);
        if (statement.told === undefined || failed.family === "route" || !this.#connection.inTransaction)
          throw new StatementFailed(failed, i);
        told = toWireError(failed);
      }
      if (statement.told !== undefined && toldDigest(told) !== statement.told)
        throw new StatementFailed(
          new RetryError("OSTRAKA_RETRY", "a statement no longer does what the session was told"),
          i,
        );
      // One that failed as the session was told has done nothing.
      return isWireError(told) ? NO_OUTCOME : told;
    });
  }

  /** The texts of a change of the schema that all ranges make. */
  schemaStatements(statements: readonly StampedStatement[]): void {
    this.#changingSchema = true;
    try {
      this.statements(statements);
    } finally {
      this.#changingSchema = false;
    }
  }

  run(statement: StampedStatement): StatementOutcome {
    refuseAtApply(statement.sql);
    refuseOtherLike(statement);
    if (statement.appendsTo !== undefined && !this.#parts.slice.whole)
      this.#checkAppends(statement.appendsTo);
    const changesSchema = isSchemaStatement(statement.sql);
    const statistics = this.#mayChangeStatistics(statement.sql, changesSchema);
    if (changesSchema) this.#beforeSchemaChange();
    try {
      return this.#run(statement, changesSchema);
    } finally {
      // Also where it failed: to prepare a CREATE INDEX is enough to change an estimate.
      if (statistics) this.readStatistics();
    }
  }

  #run(statement: StampedStatement, changesSchema: boolean): StatementOutcome {
    const full = this.rowidsRunOut && !changesSchema ? this.#rowids.fullPages() : [];
    let outcome: StatementOutcome;
    try {
      outcome = this.#connection.leavesWrites(statement.sql)
        ? this.#executeToFile(statement)
        : this.#connection.execute(statement, LIMITS);
    } catch (error) {
      const diskFull = error instanceof FatalError && error.code === "OSTRAKA_DISK_FULL";
      throw diskFull && this.#rowids.explainsFull(this.#autoincrementMade) ? new TableFull() : error;
    }
    if (this.#rowids.takesLast(statement, outcome) || this.#rowids.mayBeRandom(statement, outcome))
      this.#lastRowidUsed = true;
    if (changesSchema) {
      this.#autoincrementMade ||= /autoincrement/i.test(statement.sql);
      this.#afterSchemaChange();
    } else if (this.rowidsRunOut) this.#rowids.check(statement, outcome, full);
    return outcome;
  }

  #mayChangeStatistics(sql: string, changesSchema: boolean): boolean {
    if (STATISTICS.test(sql)) return true;
    const { statistics, statisticsTriggers } = this.#connection.traits;
    return statisticsTriggers || (changesSchema && statistics);
  }

  /**
   * Virtual tables write at once what they would keep until the batch ends: what their shadow tables have in them must
   * not depend on batches (rows of theirs may come from another replica, see runner/shadows.ts). What cannot be written
   * is the statement's error.
   */
  #executeToFile(statement: StampedStatement): StatementOutcome {
    const connection = this.#connection;
    connection.internal("SAVEPOINT _ostraka_virtual").run();
    let failed: unknown;
    let outcome: StatementOutcome | undefined;
    try {
      outcome = connection.execute(statement, LIMITS);
    } catch (error) {
      // Of OR FAIL something stays.
      failed = error;
    }
    if (!connection.inTransaction) throw failed;
    try {
      connection.writeVirtualTables();
    } catch (error) {
      connection.internal("ROLLBACK TO _ostraka_virtual").run();
      this.schemaUndone();
      failed ??= error;
    }
    connection.internal("RELEASE _ostraka_virtual").run();
    connection.disturbed();
    if (outcome === undefined || failed !== undefined) throw failed;
    return outcome;
  }

  #checkAppends(names: readonly string[]): void {
    const { descriptor } = this.#parts.slice.state;
    for (const name of names) {
      const table = this.tables.table(name);
      if (table !== undefined) checkAppend(this.#connection, table, descriptor);
    }
  }

  #beforeSchemaChange(): void {
    const { slice, prepared } = this.#parts;
    if (!this.#changingSchema) {
      if (!slice.whole)
        throw new MoveError("the schema is changed in all ranges at once, and this is one of several");
      if (prepared.size > 0)
        throw new RetryError(
          "OSTRAKA_RETRY",
          "the schema cannot change while a transaction is being decided",
        );
    }
    this.tables.before();
    if (!slice.whole)
      this.#shardsBefore = new Map(
        this.tables.tables.map(({ registeredId, shard }) => [registeredId, shard]),
      );
  }

  #afterSchemaChange(): void {
    const { state, slice } = this.#parts;
    state.schemaVersion++;
    this.#schemaChanged();
    // Virtual tables go on as they were made here, though elsewhere they could not be opened any more, or otherwise.
    this.#connection.reopenVirtualTables();
    this.tables.after(() => slice.nextTableId());
    this.#connection.disturbed();
    if (!slice.whole) this.#checkPlaces();
  }

  /**
   * A table that is new, or sharded otherwise from now on (a trigger feeds a virtual table), must have its rows where they
   * belong.
   */
  #checkPlaces(): void {
    const { descriptor } = this.#parts.slice.state;
    const lost = this.tables.tables.find(
      (table) =>
        this.#shardsBefore.get(table.registeredId) !== table.shard &&
        rowOutside(this.#connection, table, descriptor),
    );
    if (lost !== undefined)
      throw new UserError(
        "OSTRAKA_UNSUPPORTED",
        `rows of ${lost.actualName} would have to move to another range: virtual tables, and the tables whose triggers feed them, stay whole in the first one`,
      );
  }

  #schemaChanged(): void {
    this.#connection.schemaChanged();
    this.#rowids.schemaChanged();
  }
}

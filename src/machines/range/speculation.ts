/**
 * The statements of an open transaction, run on the replica's writer and rolled back: the transaction sees its own
 * writes, nobody else does, and nothing of it is kept here that cannot be replayed.
 *
 * The latest transaction's SQLite transaction stays open until an apply or another transaction needs the writer
 * (`close`); a transaction that comes back is told that it is lost, brings its earlier writes, and learns whether they
 * still do what it was told.
 */
import { assert } from "../../base/assert.js";
import { OstrakaError, toWireError, type WireError } from "../../base/errors.js";
import type { LogIndex, TransactionId } from "../../base/ids.js";
import { SessionFlag } from "../../sql/types.js";
import type { RangeConnection } from "./connection.js";
import { isSchemaStatement } from "./executor.js";
import { refuseAtApply, refuseAtRead } from "./guard.js";
import { toldDigest } from "./told.js";
import type { Speculation, SpeculationAnswer, StampedStatement, StatementOutcome } from "./types.js";

interface Open {
  readonly transaction: TransactionId;
  /** Writes executed so far, those that failed among them. */
  position: number;
  changedSchema: boolean;
}

export class Speculator {
  readonly #connection: RangeConnection;
  readonly #monotonicMs: () => number;
  #open: Open | undefined;

  constructor(connection: RangeConnection, monotonicMs: () => number) {
    this.#connection = connection;
    this.#monotonicMs = monotonicMs;
  }

  get open(): boolean {
    return this.#open !== undefined;
  }

  speculate(speculation: Speculation, appliedIndex: LogIndex): SpeculationAnswer {
    const limits = { maxBytes: speculation.maxBytes };
    const startedMs = this.#monotonicMs();
    try {
      const { transaction, position, earlier } = speculation;
      if (this.#open?.transaction !== transaction || this.#open.position !== position) {
        if (earlier === undefined) return { kind: "lost" };
        this.close();
        if (!this.#replay(transaction, earlier, speculation.statement, limits)) {
          this.close();
          return { kind: "changed", appliedIndex };
        }
      }
      const replayMs = this.#monotonicMs() - startedMs;
      const outcome = this.#run(speculation.statement, limits);
      const rolledBack = !this.#connection.inTransaction;
      if (rolledBack) this.close();
      return { kind: "ran", appliedIndex, outcome, rolledBack, replayMs };
    } catch (error) {
      this.close();
      throw error;
    }
  }

  forget(transaction: TransactionId): void {
    if (this.#open?.transaction === transaction) this.close();
  }

  /** Gives the writer back as it was. */
  close(): void {
    if (this.#connection.inTransaction) this.#connection.internal("ROLLBACK").run();
    if (this.#open?.changedSchema) this.#connection.schemaChanged();
    this.#open = undefined;
  }

  #replay(
    transaction: TransactionId,
    earlier: readonly StampedStatement[],
    statement: StampedStatement,
    limits: { maxBytes: number },
  ): boolean {
    assert(!this.#connection.inTransaction, "a speculation starts inside a SQLite transaction");
    this.#connection.setFlags((earlier[0] ?? statement).flags & SessionFlag.ForeignKeysOff);
    this.#connection.internal("BEGIN IMMEDIATE").run();
    this.#open = { transaction, position: 0, changedSchema: false };
    for (const again of earlier) {
      const outcome = this.#run(again, limits);
      if (!this.#connection.inTransaction) return false;
      if (again.told !== undefined && toldDigest(outcome) !== again.told) return false;
    }
    return true;
  }

  #run(statement: StampedStatement, limits: { maxBytes: number }): StatementOutcome | WireError {
    // As in SQLite, foreign_keys does not change inside a transaction.
    const foreignKeys = this.#connection.flags & SessionFlag.ForeignKeysOff;
    const flags = (statement.flags & ~SessionFlag.ForeignKeysOff) | foreignKeys;
    let writes = false;
    let guarded = false;
    try {
      refuseAtRead(statement.sql);
      writes = !this.#connection.isReadonly(statement.sql);
      if (writes) {
        refuseAtApply(statement.sql);
        this.#connection.internal("SAVEPOINT _ostraka_statement").run();
        guarded = true;
      }
      const outcome = this.#connection.execute({ ...statement, flags }, limits);
      if (writes) {
        this.#connection.internal("RELEASE _ostraka_statement").run();
        this.#executed(statement);
      }
      return outcome;
    } catch (error) {
      if (!(error instanceof OstrakaError) || error.family === "fatal") throw error;
      if (guarded && this.#connection.inTransaction) this.#afterFailure(error, statement);
      return toWireError(error);
    }
  }

  #executed(statement: StampedStatement): void {
    const open = this.#open!;
    open.position++;
    if (isSchemaStatement(statement.sql)) open.changedSchema = true;
  }

  /** SQLite has undone what the statement was to undo; a result beyond the limit is undone here. */
  #afterFailure(error: OstrakaError, statement: StampedStatement): void {
    if (error.code === "OSTRAKA_TOO_LARGE") {
      this.#connection.internal("ROLLBACK TO _ostraka_statement").run();
      this.#connection.internal("RELEASE _ostraka_statement").run();
      return;
    }
    this.#connection.internal("RELEASE _ostraka_statement").run();
    this.#executed(statement);
  }
}

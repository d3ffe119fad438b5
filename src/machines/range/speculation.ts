/**
 * The statements of an open transaction, run on the replica's writer and rolled back: the transaction sees its own
 * writes, nobody else does, and nothing of it is kept here that cannot be replayed.
 *
 * The latest transaction's SQLite transaction stays open until an apply or another transaction needs the writer
 * (`close`); a transaction that comes back then replays its earlier writes first, and learns whether they still do
 * what it was told.
 */
import { assert } from "../../base/assert.js";
import { OstrakaError, toWireError, type WireError } from "../../base/errors.js";
import type { LogIndex, TransactionId } from "../../base/ids.js";
import { SessionFlag } from "../../sql/types.js";
import type { RangeConnection } from "./connection.js";
import { refuseAtApply, refuseAtRead } from "./guard.js";
import { toldDigest } from "./told.js";
import type { Speculation, SpeculationAnswer, StampedStatement, StatementOutcome } from "./types.js";

interface Open {
  readonly transaction: TransactionId;
  /** The writes executed so far. One that failed without a trace may be missing among those given next time. */
  readonly executed: { readonly statement: StampedStatement; readonly traceless: boolean }[];
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
      if (!this.#continues(speculation)) {
        this.close();
        if (!this.#replay(speculation, limits)) {
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
    if (
      this.#open?.executed.some(({ statement }) => /^\s*(create|drop|alter|analyze)\b/i.test(statement.sql))
    )
      this.#connection.schemaChanged();
    this.#open = undefined;
  }

  #continues({ transaction, earlier }: Speculation): boolean {
    if (this.#open === undefined || this.#open.transaction !== transaction) return false;
    let at = 0;
    for (const { statement, traceless } of this.#open.executed) {
      const next = earlier[at];
      if (next !== undefined && same(statement, next)) at++;
      else if (!traceless) return false;
    }
    return at === earlier.length;
  }

  #replay({ transaction, earlier, statement }: Speculation, limits: { maxBytes: number }): boolean {
    assert(!this.#connection.inTransaction, "a speculation starts inside a SQLite transaction");
    this.#connection.setFlags((earlier[0] ?? statement).flags & SessionFlag.ForeignKeysOff);
    this.#connection.internal("BEGIN IMMEDIATE").run();
    this.#open = { transaction, executed: [] };
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
        this.#open!.executed.push({ statement, traceless: false });
      }
      return outcome;
    } catch (error) {
      if (!(error instanceof OstrakaError) || error.family === "fatal") throw error;
      if (guarded && this.#connection.inTransaction) this.#afterFailure(error, statement);
      return toWireError(error);
    }
  }

  /** SQLite has undone what the statement was to undo; a result beyond the limit is undone here. */
  #afterFailure(error: OstrakaError, statement: StampedStatement): void {
    if (error.code === "OSTRAKA_TOO_LARGE") {
      this.#connection.internal("ROLLBACK TO _ostraka_statement").run();
      this.#connection.internal("RELEASE _ostraka_statement").run();
      return;
    }
    this.#connection.internal("RELEASE _ostraka_statement").run();
    this.#open!.executed.push({ statement, traceless: !/\bor\s+fail\b|\bfail\s*\(/i.test(statement.sql) });
  }
}

function same(a: StampedStatement, b: StampedStatement): boolean {
  return (
    a.sql === b.sql &&
    a.stamp.seed === b.stamp.seed &&
    a.stamp.wallMs === b.stamp.wallMs &&
    a.flags === b.flags &&
    a.params.length === b.params.length
  );
}

/**
 * What a session remembers between statements: settings that pragmas change, and what changes(), total_changes() and
 * last_insert_rowid() answer.
 */
import { UserError } from "../base/errors.js";
import type { StatementOutcome } from "../machines/range/types.js";
import type { SessionCounts } from "../rpc/gateway.js";
import { type Analysis, SessionFlag, type SessionFlags } from "../sql/types.js";

export class SessionSettings {
  flags: SessionFlags = 0;
  changes = 0;
  totalChanges = 0;
  lastInsertRowid = 0n;
  /** `PRAGMA query_only`: what would write is refused before it goes anywhere, so nobody else has to know. */
  queryOnly = false;

  /** After a data-changing statement has succeeded. */
  wrote(outcome: Pick<StatementOutcome, "changes" | "totalChanges" | "lastInsertRowid">): void {
    this.changes = outcome.changes;
    this.totalChanges += outcome.totalChanges;
    this.lastInsertRowid = outcome.lastInsertRowid;
  }

  /** After one that has run and failed. What OR FAIL has kept of it is not told. */
  failed(): void {
    this.changes = 0;
  }

  /** What is counted so far, for `recount`: a statement that is done again counts once. */
  counted(): SessionCounts {
    const { changes, totalChanges, lastInsertRowid } = this;
    return { changes, totalChanges, lastInsertRowid };
  }

  recount(counts: SessionCounts): void {
    Object.assign(this, counts);
  }

  /** Throws where a statement compiles only while foreign keys are off, and they are on. */
  compiled(analysis: Analysis): Analysis {
    const { withoutForeignKeys: failure } = analysis;
    if (failure !== undefined && !this.has(SessionFlag.ForeignKeysOff)) throw failure;
    return analysis;
  }

  /** Throws where nothing may be written, to TEMP objects neither. */
  admitWrite(): void {
    if (this.queryOnly) throw new UserError("SQLITE_READONLY", "attempt to write a readonly database");
  }

  has(flag: number): boolean {
    return (this.flags & flag) !== 0;
  }

  set(flag: number, on: boolean): void {
    this.flags = on ? this.flags | flag : this.flags & ~flag;
  }

  /** `PRAGMA defer_foreign_keys` lasts until the transaction ends. */
  transactionEnded(): void {
    this.set(SessionFlag.DeferForeignKeys, false);
  }
}

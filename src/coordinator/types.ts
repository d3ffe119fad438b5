/**
 * The coordinator of transactions across ranges, as gateways and participants call it. It is a Raft group of its own:
 * what it answers is in its log. The protocol, from a gateway's side:
 *
 *   register(transaction, participants)  in parallel with  prepare at every participant's leader
 *   all yes and registered  →  decide(committed), answered once it is logged: the commit is final
 *   any no, or no answer    →  decide(aborted)
 *
 * The decision's entry writes an outbox row for every participant; the coordinator's leader delivers them (`resolve` at
 * each range) at least once, and forgets a transaction only when all have acknowledged. A participant in doubt asks
 * `inquire`: what is not decided by then is decided as aborted, first in the log and then told.
 */
import type { GroupId, TransactionId } from "../base/ids.js";

export type Decision = "committed" | "aborted";

export interface CoordinatorService {
  /**
   * Records who takes part. "registered" (also when it already was), or the decision where there is one: a tombstone
   * defeats a later registration.
   */
  register(
    transaction: TransactionId,
    participants: readonly GroupId[],
  ): Promise<
    { readonly state: "registered" } | { readonly state: Decision; readonly answer: Uint8Array | undefined }
  >;
  /**
   * Decides, unless it is decided; answers what is. A commit takes effect only on what is registered. `answer` is kept
   * with a commit (up to 16 KiB) for whoever asks again under the same id. AmbiguousError when the answer was lost.
   */
  decide(
    transaction: TransactionId,
    decision: Decision,
    answer?: Uint8Array,
  ): Promise<{ readonly decision: Decision; readonly answer: Uint8Array | undefined }>;
  /** What became of it; what is undecided or unknown is decided as aborted. "unknown" if it may have been forgotten. */
  inquire(
    transaction: TransactionId,
  ): Promise<{ readonly decision: Decision | "unknown"; readonly answer: Uint8Array | undefined }>;
}

/** A transaction as ostraka_transactions shows it. */
export interface CoordinatedTransaction {
  readonly transaction: TransactionId;
  readonly state: "registered" | Decision;
  readonly participants: readonly GroupId[];
  /** Those that have not acknowledged the decision. */
  readonly pending: readonly GroupId[];
  readonly registeredMs: number;
}

/** An undelivered message, as ostraka_outbox shows it. */
export interface OutboxRow {
  readonly id: number;
  readonly transaction: TransactionId;
  readonly destination: GroupId;
  readonly decision: Decision;
  readonly createdMs: number;
}

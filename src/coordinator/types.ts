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
 *
 * Ids end in `@` and the wall time, in base 36, at which the transaction began: what began before that which may have
 * been forgotten is "unknown" here and will never be committed or aborted anew. A long transaction does better with an id
 * made at its COMMIT. An id from more than a minute in the future is refused (RetryError OSTRAKA_UNAVAILABLE).
 *
 * All calls may be repeated. They reject with RouteError when another node leads, RetryError OSTRAKA_UNAVAILABLE when
 * nothing was done, AmbiguousError when it may have been.
 */
import type { GroupId, TransactionId } from "../base/ids.js";
import type { CoordinatedTransaction, Decision, OutboxRow } from "../txn/coordinator.js";

export type { CoordinatedTransaction, Decision, OutboxRow } from "../txn/coordinator.js";

export interface CoordinatorService {
  /**
   * Records who takes part; said again with more participants, it adds them. "registered" (also when it already was), or
   * the decision where there is one: a tombstone defeats a later registration, and those named by it are told the abort.
   * "unknown" if it may have been decided and forgotten: it cannot be registered. Where this was the only attempt to
   * register it, nothing was committed.
   */
  register(
    transaction: TransactionId,
    participants: readonly GroupId[],
  ): Promise<
    | { readonly state: "registered" }
    | { readonly state: Decision | "unknown"; readonly answer: Uint8Array | undefined }
  >;
  /**
   * Decides, unless it is decided; answers what is. A commit takes effect only on what is registered. `answer` is kept
   * with a commit (up to 16 KiB) for whoever asks again under the same id; undefined for a commit whose answer is not
   * kept (any more). AmbiguousError when the outcome cannot be told: the answer was lost, or it may have been forgotten.
   */
  decide(
    transaction: TransactionId,
    decision: Decision,
    answer?: Uint8Array,
  ): Promise<{ readonly decision: Decision; readonly answer: Uint8Array | undefined }>;
  /**
   * What became of it; what is undecided or not known is decided as aborted. "unknown" if it may have been forgotten: a
   * participant that has it prepared may abort, since a commit is not forgotten before all have acknowledged it.
   */
  inquire(
    transaction: TransactionId,
  ): Promise<{ readonly decision: Decision | "unknown"; readonly answer: Uint8Array | undefined }>;
}

/** What the coordinator's leader offers to other nodes: the service, and what system tables show of it. */
export interface CoordinatorEndpoint extends CoordinatorService {
  /** What is not over. */
  list(): Promise<CoordinatedTransaction[]>;
  /** Undelivered rows. */
  outbox(): Promise<OutboxRow[]>;
}

/**
 * What ranges on this node have been told of transactions across ranges. After a recovery from the loss of a quorum the
 * coordinator's replica may be behind them: a decision that it lacks is no less final for it, and whoever takes part is to
 * hear the same.
 */
import type { TransactionId } from "../../base/ids.js";
import { AUTOCOMMIT } from "../../machines/range/naming.js";
import type { IdempotencyKey, RangeStore } from "../../machines/range/types.js";
import type { HostedRange } from "./hosted-range.js";

/** Whether a range here has committed it because it was decided so, in all of the log that it had when it was opened. */
export async function isDelivered(
  ranges: Iterable<HostedRange>,
  transaction: TransactionId,
): Promise<boolean> {
  for (const { filled, handle, store } of [...ranges]) {
    if (!filled) continue;
    // A recovery has committed the whole of the log.
    await handle.waitApplied(handle.status().commit);
    if ((await store.outcome(transaction)) === "committed" && (await wasDecided(store, transaction)))
      return true;
  }
  return false;
}

/** An autocommit write, which is named by its key, may have been committed in that range alone. */
async function wasDecided(store: RangeStore, transaction: TransactionId): Promise<boolean> {
  const named = AUTOCOMMIT.exec(transaction);
  if (named === null) return true;
  const key: IdempotencyKey = {
    client: transaction.slice(0, named.index),
    sequence: Number(named[1]),
    lowestUnanswered: 0,
    issuedMs: Number.parseInt(named[2] as string, 36),
  };
  const answered = await store.answered(key);
  return answered?.ok === true && answered.decision === "committed";
}

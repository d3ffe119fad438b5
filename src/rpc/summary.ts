/** What a client is told of its session with every answer. */
import type { StatementOutcome } from "../machines/range/types.js";
import type { Session } from "./gateway.js";
import type { SessionState, Summary } from "./protocol.js";

export const STATES: Readonly<Record<ReturnType<Session["state"]>, SessionState>> = {
  idle: 0,
  open: 1,
  failed: 2,
};

export function summarize(
  session: Session,
  outcome: Pick<StatementOutcome, "changes" | "totalChanges" | "lastInsertRowid">,
): Summary {
  const state = STATES[session.state()];
  const told = [outcome.changes, outcome.totalChanges, outcome.lastInsertRowid, state] as const;
  const transaction = state === 1 ? session.transactionId?.() : undefined;
  const counts = session.counts?.();
  // Of a session that has changed nothing there is nothing to carry on.
  if (counts !== undefined && counts.totalChanges > 0)
    return [...told, transaction ?? null, [counts.changes, counts.totalChanges, counts.lastInsertRowid]];
  return transaction === undefined ? [...told] : [...told, transaction];
}

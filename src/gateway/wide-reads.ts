/**
 * Autocommit reads over several ranges, or over a range that this node has no replica of: on a snapshot of just the ranges
 * that the statement touches, in a scratch database of its own.
 */
import type { ExecuteResult } from "../rpc/gateway.js";
import type { Span } from "../sql/types.js";
import type { GatewayDatabase } from "./database.js";
import type { Deadline } from "./deadline.js";
import type { ReadRequest } from "./reads.js";
import { stampAt } from "./replica.js";
import { SpooledRows } from "./spool.js";

/** The scratch is free again once the rows are spooled here. */
export async function wideRead(
  db: GatewayDatabase,
  { statement, settings, systemTables }: ReadRequest,
  spans: readonly Span[],
  deadline: Deadline,
): Promise<ExecuteResult> {
  const touched = db.rangesOf(spans);
  const loan = await db.scratches.borrow(touched.length === 0 ? [db.first] : touched, spans, deadline);
  try {
    await loan.scratch.ensure({ reads: spans, writes: [], checks: [] }, deadline);
    const stamped = {
      ...statement,
      flags: settings.flags,
      stamp: stampAt(db, loan.scratch.snapshot, settings.lastInsertRowid),
      told: undefined,
    };
    const source = await loan.scratch.run(stamped, deadline, systemTables);
    return { kind: "stream", stream: new SpooledRows(source, db.space, () => loan.giveBack()) };
  } catch (error) {
    loan.giveBack();
    throw error;
  }
}

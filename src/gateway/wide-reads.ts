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
import { Scratch } from "./scratch.js";
import { takeSnapshot } from "./snapshot.js";
import { SpooledRows } from "./spool.js";

/** The process is free again once the rows are spooled here. */
export async function wideRead(
  db: GatewayDatabase,
  { statement, settings, systemTables }: ReadRequest,
  spans: readonly Span[],
  deadline: Deadline,
): Promise<ExecuteResult> {
  const runner = await db.runners.acquire(deadline.signal);
  let scratch: Scratch | undefined;
  const finish = async (): Promise<void> => {
    await scratch?.close("rollback").catch(() => runner.kill());
    db.runners.release(runner);
  };
  try {
    const everywhere = spans.some((span) => span.table === "*");
    const snapshot = await takeSnapshot(db, runner, { spans, everywhere }, deadline);
    scratch = await Scratch.open(db, runner, snapshot);
    await scratch.ensure({ reads: spans, writes: [], checks: [] }, deadline);
    const stamped = {
      ...statement,
      flags: settings.flags,
      stamp: stampAt(db, snapshot, settings.lastInsertRowid),
      told: undefined,
    };
    const source = await scratch.run(stamped, deadline, systemTables);
    return { kind: "stream", stream: new SpooledRows(source, db.space, () => void finish()) };
  } catch (error) {
    await finish();
    throw error;
  }
}

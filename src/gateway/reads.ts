/**
 * Statements that run on this node's replica: linearizable autocommit reads, at a point that the leader confirmed and
 * the replica has reached. What is bounded runs in the storage worker; all else on a pin in a killable process.
 */

import { UserError } from "../base/errors.js";
import type { LogIndex } from "../base/ids.js";
import type { RowStream, StampedStatement, SystemTable } from "../machines/range/types.js";
import type { ExecuteResult } from "../rpc/gateway.js";
import type { Analysis, Statement } from "../sql/types.js";
import type { Deadline } from "./deadline.js";
import { type Replica, reachReadPoint, stampAt } from "./replica.js";
import { runOptions } from "./run-options.js";
import type { SessionSettings } from "./settings.js";
import { SpooledRows, type SpoolSpace } from "./spool.js";

/** Results of bounded reads beyond this are produced by a process instead. */
export const BOUNDED_RESULT_BYTES = 1024 * 1024;

export async function autocommitRead(
  replica: Replica,
  space: SpoolSpace,
  statement: Statement,
  analysis: Analysis,
  settings: SessionSettings,
  deadline: Deadline,
  systemTables: readonly SystemTable[],
): Promise<ExecuteResult> {
  const point = await reachReadPoint(replica, deadline);
  const stamped: StampedStatement = {
    sql: statement.sql,
    params: statement.params,
    flags: settings.flags,
    stamp: stampAt(replica, point, settings.lastInsertRowid),
    told: undefined,
  };
  if (runsInWorker(replica, analysis) && systemTables.length === 0) {
    try {
      const { outcome } = await deadline.race(
        replica.store.read({ statement: stamped, maxBytes: BOUNDED_RESULT_BYTES }),
      );
      return { kind: "outcome", outcome };
    } catch (error) {
      if (!(error instanceof UserError && error.code === "OSTRAKA_TOO_LARGE")) throw error;
    }
  }
  const { stream } = await runOnPin(replica, space, stamped, deadline, systemTables);
  return { kind: "stream", stream };
}

export function runsInWorker(replica: Replica, analysis: Analysis): boolean {
  if (analysis.cost === "bounded") return true;
  return analysis.cost === "scan" && replica.store.size().databaseBytes <= replica.limits.scanBytes;
}

/** Runs a read on a fresh pin of the local replica; the process is free again once the rows are spooled here. */
export async function runOnPin(
  replica: Replica,
  space: SpoolSpace,
  statement: StampedStatement,
  deadline: Deadline,
  systemTables: readonly SystemTable[],
): Promise<{ readonly stream: RowStream; readonly index: LogIndex }> {
  const { runners, store } = replica;
  const runner = await runners.acquire(deadline.signal);
  try {
    const index = await runner.pin(store.path);
    const source = await runner.run(statement, runOptions(replica, deadline, systemTables));
    const stream = new SpooledRows(source, space, () => {
      if (runner.dead) runners.release(runner);
      else runner.unpin().finally(() => runners.release(runner));
    });
    return { stream, index };
  } catch (error) {
    if (!runner.dead) await runner.unpin().catch(() => runner.kill());
    runners.release(runner);
    throw error;
  }
}

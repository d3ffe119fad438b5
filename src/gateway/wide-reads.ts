/**
 * Autocommit reads over several ranges, or over a range that this node has no replica of: on a snapshot of just the ranges
 * that the statement touches, in a scratch database of its own. What the ranges can do for themselves they do
 * (pushdown.ts, pushed-reads.ts); if that fails, or turns out not to be exact, the statement runs on all rows.
 */
import { RetryError } from "../base/errors.js";
import type { RowStream } from "../machines/range/types.js";
import type { ExecuteResult } from "../rpc/gateway.js";
import type { Pushdown } from "../sql/pushdown-types.js";
import type { Span } from "../sql/types.js";
import { type GatewayDatabase, outdated } from "./database.js";
import type { Deadline } from "./deadline.js";
import { conditionsOf, pushdownOf } from "./pushdown.js";
import { isOwnError, runForm } from "./pushed-reads.js";
import type { ReadRequest } from "./reads.js";
import { stampAt } from "./replica.js";
import type { Scratch } from "./scratch.js";
import { SpooledRows } from "./spool.js";

/** The scratch is free again once the rows are spooled here. */
export async function wideRead(
  db: GatewayDatabase,
  request: ReadRequest,
  spans: readonly Span[],
  deadline: Deadline,
): Promise<ExecuteResult> {
  const touched = db.rangesOf(spans);
  const plan = touched.length > 1 ? planOf(db, request) : undefined;
  const kind = touched.length <= 1 ? "single" : plan === undefined ? "gather" : "pushdown";
  if (kind !== "pushdown") {
    const stream = await run(db, request, spans, undefined, deadline);
    db.counts[kind]++;
    return { kind: "stream", stream };
  }
  try {
    const stream = await run(db, request, spans, plan, deadline);
    db.counts.pushdown++;
    return { kind: "stream", stream };
  } catch (error) {
    if (!isOwnError(error)) throw error;
  }
  const stream = await run(db, request, spans, undefined, deadline);
  db.counts.gather++;
  return { kind: "stream", stream };
}

function planOf(
  db: GatewayDatabase,
  { analysis, statement, systemTables }: ReadRequest,
): Pushdown | undefined {
  if (systemTables.length > 0 || statement.sql !== analysis.sql) return undefined;
  return pushdownOf(analysis, db.ranges.schema().oracle(), db.tables);
}

async function run(
  db: GatewayDatabase,
  request: ReadRequest,
  spans: readonly Span[],
  plan: Pushdown | undefined,
  deadline: Deadline,
): Promise<RowStream> {
  const touched = db.rangesOf(spans);
  const loan = await db.scratches.borrow(touched.length === 0 ? [db.first] : touched, spans, deadline);
  try {
    const source = await start(db, loan.scratch, request, spans, plan, deadline);
    return new SpooledRows(source, db.space, () => loan.giveBack());
  } catch (error) {
    await loan.discard();
    // What was lost is this snapshot, and nobody was told anything of it: another one is taken.
    if (error instanceof RetryError && error.code === "OSTRAKA_RETRY")
      throw new RetryError("OSTRAKA_UNAVAILABLE", error.message, { cause: error });
    throw error;
  }
}

async function start(
  db: GatewayDatabase,
  scratch: Scratch,
  { statement, analysis, settings, systemTables }: ReadRequest,
  spans: readonly Span[],
  planned: Pushdown | undefined,
  deadline: Deadline,
): Promise<RowStream> {
  const { schema } = scratch.snapshot;
  if (outdated(analysis, schema.version))
    throw new RetryError("OSTRAKA_UNAVAILABLE", "the schema has changed meanwhile");
  const plan = planned?.version === schema.version ? planned : undefined;
  const stamped = {
    ...statement,
    flags: settings.flags,
    stamp: stampAt(db, scratch.snapshot, settings.lastInsertRowid),
    told: undefined,
  };
  const form = plan && (await runForm(scratch, { plan, statement: stamped, spans }, deadline));
  if (form !== undefined) return form;
  const conditions = plan && conditionsOf(plan, stamped, analysis);
  await scratch.ensure({ reads: spans, writes: [], checks: [] }, deadline, conditions);
  return scratch.run(stamped, deadline, systemTables);
}

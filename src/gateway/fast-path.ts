/**
 * Autocommit statements of bounded cost, which are most of all traffic: straight to the leader and the storage worker,
 * without a deadline of their own. What does not go through at once (no leader, leadership lost, too large a result)
 * starts again on the general path, writes under the same idempotency key.
 */
import {
  AmbiguousError,
  fromWireError,
  isGivenUp,
  RetryError,
  RouteError,
  UserError,
} from "../base/errors.js";
import type { IdempotencyKey } from "../machines/range/types.js";
import type { RangeService } from "../range/types.js";
import type { ExecuteRequest, ExecuteResult } from "../rpc/gateway.js";
import { bindParameters } from "../sql/parameters.js";
import type { Analysis, Span, Statement } from "../sql/types.js";
import { anyIntersect } from "../txn/spans.js";
import { autocommitId } from "./attempts.js";
import { type GatewayDatabase, moved, outdated } from "./database.js";
import { BOUNDED_RESULT_BYTES, runsInWorker } from "./reads.js";
import { type Replica, stampAt } from "./replica.js";
import type { GatewaySession, SessionContext } from "./session.js";

/** Shorter deadlines are kept exactly, on the general path; bounded statements take milliseconds. */
const LEAST_TIMEOUT_MS = 5_000;

/** Undefined when the statement is not one of these. Errors of the statement reject. */
export function executeFast(
  session: GatewaySession,
  context: SessionContext,
  request: ExecuteRequest,
): Promise<ExecuteResult> | undefined {
  if (request.timeoutMs !== undefined && request.timeoutMs < LEAST_TIMEOUT_MS) return undefined;
  if (request.sentUnder !== undefined) return undefined;
  const { db, statements } = context;
  const { whole } = db;
  let analysis: Analysis;
  let statement: Statement;
  let range = whole?.range;
  try {
    const known = statements.get(request.sql);
    if (known.class.kind !== "select" && known.class.kind !== "write") return undefined;
    analysis = (whole?.schema ?? db.ranges.schema()).analyse(known.sql);
    if (analysis.touchesTemp || analysis.rowChangesOnly || analysis.systemTables.length > 0) return undefined;
    if (whole === undefined ? analysis.cost !== "bounded" : !runsInWorker(whole, analysis)) return undefined;
    const params = bindParameters(analysis.parameters, request.params);
    statement = { sql: known.sql, params, vector: params === request.params ? request.vector : undefined };
    if (whole === undefined) {
      const touched = db.touched(analysis.footprint(params));
      if (touched.length > 1 || !db.ranges.directory().complete) return undefined;
      range = (touched[0] ?? db.first).range;
    }
  } catch {
    // Perhaps this replica's schema is behind; the general path finds out.
    return undefined;
  }
  if (!analysis.readonly) {
    const leader = whole?.leader ?? db.client(range!);
    return request.key && write(db, leader, session, statement, request, request.key);
  }
  const replica = whole ?? db.replica(range!);
  return (
    replica && read(db, replica, session, { sql: analysis.sql, params: statement.params }, analysis, request)
  );
}

function slowly(session: GatewaySession, request: ExecuteRequest, error: unknown): Promise<ExecuteResult> {
  return isPassing(error) ? session.executeSlowly(request) : Promise.reject(error);
}

async function read(
  db: GatewayDatabase,
  replica: Replica,
  session: GatewaySession,
  statement: Statement,
  analysis: Analysis,
  request: ExecuteRequest,
): Promise<ExecuteResult> {
  try {
    const { generation } = replica.store.state().descriptor;
    const point = await replica.leader.readPoint();
    if (replica.store.appliedIndex() < point.index)
      throw new RetryError("OSTRAKA_UNAVAILABLE", "the replica is behind");
    const mayChange = (held: readonly Span[] | undefined): boolean =>
      held !== undefined && anyIntersect(held, analysis.footprint(statement.params).reads);
    if (mayChange(point.held)) throw isHeld();
    const { sql, params } = statement;
    const stamped = { sql, params, flags: 0, stamp: stampAt(replica, point, 0n), told: undefined };
    const { outcome, held } = await replica.store.read({
      statement: stamped,
      maxBytes: BOUNDED_RESULT_BYTES,
      mayBeAhead: true,
    });
    // Of the state that was read, which may be later than that of the point.
    if (mayChange(held)) throw isHeld();
    // The keys were routed here by what was known before: they have to be here still.
    const after = replica.store.state().descriptor;
    if (
      after.generation !== generation ||
      outdated(analysis, replica.schema.version) ||
      db.ranges.directory().get(replica.range)?.generation !== generation
    )
      throw moved();
    db.counts.single++;
    return { kind: "outcome", outcome };
  } catch (error) {
    return slowly(session, request, error);
  }
}

function isHeld(): RetryError {
  return new RetryError("OSTRAKA_UNAVAILABLE", "a transaction is about to change what is read");
}

/** Most of all traffic: as few promises as there are waits. */
function write(
  db: GatewayDatabase,
  leader: RangeService,
  session: GatewaySession,
  statement: Statement,
  request: ExecuteRequest,
  key: IdempotencyKey,
): Promise<ExecuteResult> {
  const version = db.whole === undefined ? db.ranges.schema().version : undefined;
  let written: ReturnType<RangeService["write"]>;
  try {
    written = leader.write({ key, statement, flags: 0, lastInsertRowid: 0n });
  } catch (error) {
    return slowly(session, request, error);
  }
  return written.then(
    (result): ExecuteResult | Promise<ExecuteResult> => {
      if (result.ok === true && result.outcomes.length > 0) {
        db.counts.single++;
        return { kind: "outcome", outcome: result.outcomes[0]! };
      }
      // Or it was committed across ranges before: what it did is the coordinator's to tell.
      if (result.ok === "move" || result.ok === true) return session.executeSlowly(request);
      return slowly(session, request, fromWireError(result.error));
    },
    (error: unknown) => {
      if (error instanceof RouteError && error.moved !== undefined) db.ranges.learn(error.moved);
      if (error instanceof AmbiguousError) return inDoubt(session, request, key, version, error);
      // It did not come to the log, but may have when it was sent before.
      return error instanceof UserError ? session.executeSlowly(request) : slowly(session, request, error);
    },
  );
}

/** The first attempt may yet be applied: that others were not says nothing of it. */
async function inDoubt(
  session: GatewaySession,
  request: ExecuteRequest,
  key: IdempotencyKey,
  sentUnder: number | undefined,
  first: AmbiguousError,
): Promise<ExecuteResult> {
  const { sql, params, timeoutMs, retry } = request;
  try {
    return await session.executeSlowly({
      sql,
      params,
      key,
      sentUnder,
      timeoutMs,
      retry,
      get signal() {
        return request.signal;
      },
    });
  } catch (error) {
    const stopped = error instanceof UserError && error.code === "SQLITE_INTERRUPT";
    throw (error instanceof RetryError && !isGivenUp(error)) || stopped
      ? new AmbiguousError(first.message, autocommitId(key))
      : error;
  }
}

function isPassing(error: unknown): boolean {
  if (error instanceof UserError) return error.code === "OSTRAKA_TOO_LARGE";
  return (
    error instanceof RouteError ||
    error instanceof AmbiguousError ||
    (error instanceof RetryError && error.code === "OSTRAKA_UNAVAILABLE")
  );
}

/**
 * Autocommit statements of bounded cost, which are most of all traffic: straight to the leader and the storage worker,
 * without a deadline of their own. What does not go through at once (no leader, leadership lost, too large a result)
 * starts again on the general path, writes under the same idempotency key.
 */
import { AmbiguousError, fromWireError, RetryError, RouteError, UserError } from "../base/errors.js";
import type { IdempotencyKey } from "../machines/range/types.js";
import type { ExecuteRequest, ExecuteResult } from "../rpc/gateway.js";
import { bindParameters } from "../sql/parameters.js";
import type { Analysis, Statement } from "../sql/types.js";
import { autocommitId } from "./autocommit.js";
import { BOUNDED_RESULT_BYTES, runsInWorker } from "./reads.js";
import { stampAt } from "./replica.js";
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
  const { replica, statements } = context;
  let analysis: Analysis;
  let statement: Statement;
  try {
    const known = statements.get(request.sql);
    if (known.class.kind !== "select" && known.class.kind !== "write") return undefined;
    analysis = replica.schema.analyse(known.sql);
    if (
      analysis.touchesTemp ||
      analysis.rowChangesOnly ||
      analysis.systemTables.length > 0 ||
      !runsInWorker(replica, analysis)
    )
      return undefined;
    const params = bindParameters(analysis.parameters, request.params);
    statement = { sql: known.sql, params, vector: params === request.params ? request.vector : undefined };
  } catch {
    // Perhaps this replica's schema is behind; the general path finds out.
    return undefined;
  }
  if (!analysis.readonly) return request.key && write(context, session, statement, request, request.key);
  return read(context, session, { sql: analysis.sql, params: statement.params }, request);
}

function slowly(session: GatewaySession, request: ExecuteRequest, error: unknown): Promise<ExecuteResult> {
  return isPassing(error) ? session.executeSlowly(request) : Promise.reject(error);
}

async function read(
  { replica }: SessionContext,
  session: GatewaySession,
  statement: Statement,
  request: ExecuteRequest,
): Promise<ExecuteResult> {
  try {
    const point = await replica.leader.readPoint();
    if (replica.store.appliedIndex() < point.index)
      throw new RetryError("OSTRAKA_UNAVAILABLE", "the replica is behind");
    const { sql, params } = statement;
    const stamped = { sql, params, flags: 0, stamp: stampAt(replica, point, 0n), told: undefined };
    const { outcome } = await replica.store.read({
      statement: stamped,
      maxBytes: BOUNDED_RESULT_BYTES,
      mayBeAhead: true,
    });
    return { kind: "outcome", outcome };
  } catch (error) {
    return slowly(session, request, error);
  }
}

/** Most of all traffic: as few promises as there are waits. */
function write(
  { replica }: SessionContext,
  session: GatewaySession,
  statement: Statement,
  request: ExecuteRequest,
  key: IdempotencyKey,
): Promise<ExecuteResult> {
  let written: ReturnType<typeof replica.leader.write>;
  try {
    written = replica.leader.write({ key, statement, flags: 0, lastInsertRowid: 0n });
  } catch (error) {
    return slowly(session, request, error);
  }
  return written.then(
    (result): ExecuteResult | Promise<ExecuteResult> => {
      if (result.ok === true) return { kind: "outcome", outcome: result.outcomes[0]! };
      if (result.ok === "move") return session.executeSlowly(request);
      return slowly(session, request, fromWireError(result.error));
    },
    (error: unknown) =>
      error instanceof AmbiguousError
        ? inDoubt(session, request, key, error)
        : slowly(session, request, error),
  );
}

/** The first attempt may yet be applied: that others were not says nothing of it. */
async function inDoubt(
  session: GatewaySession,
  request: ExecuteRequest,
  key: IdempotencyKey,
  first: AmbiguousError,
): Promise<ExecuteResult> {
  try {
    return await session.executeSlowly(request);
  } catch (error) {
    throw error instanceof RetryError ? new AmbiguousError(first.message, autocommitId(key)) : error;
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

/**
 * Linearizable autocommit reads. Those that touch one range run on this node's replica, at a point that the leader
 * confirmed and the replica has reached: what is bounded in the storage worker, all else on a pin in a killable
 * process. Those that touch several, or one that this node has no replica of, run on a snapshot (wide-reads.ts).
 */

import { UserError } from "../base/errors.js";
import type { LogIndex } from "../base/ids.js";
import { decodeRows } from "../base/values.js";
import { decodeCommands } from "../machines/range/command.js";
import type { RowStream, Runner, StampedStatement, SystemTable } from "../machines/range/types.js";
import { rowsOf } from "../placement/route.js";
import type { ExecuteResult } from "../rpc/gateway.js";
import type { Analysis, Span, Statement } from "../sql/types.js";
import { anyIntersect, SCHEMA } from "../txn/spans.js";
import { type GatewayDatabase, moved, outdated } from "./database.js";
import type { Deadline } from "./deadline.js";
import { collect } from "./outcomes.js";
import { plainStatement } from "./plain-statement.js";
import { type Replica, reach, reachReadPoint, stampAt } from "./replica.js";
import { runOptions } from "./run-options.js";
import type { SessionSettings } from "./settings.js";
import { SpooledRows, type SpoolSpace } from "./spool.js";
import { tablesNamed } from "./tables-named.js";
import { wideRead } from "./wide-reads.js";

/** Results of bounded reads beyond this are produced by a process instead. */
export const BOUNDED_RESULT_BYTES = 1024 * 1024;

export interface ReadRequest {
  readonly statement: Statement;
  readonly analysis: Analysis;
  readonly settings: SessionSettings;
  readonly systemTables: readonly SystemTable[];
  /** Analyses the statement by the schema of now. */
  readonly again?: (() => Analysis) | undefined;
}

/** Runs a read wherever its rows are. */
export function autocommitRead(
  db: GatewayDatabase,
  request: ReadRequest,
  deadline: Deadline,
): Promise<ExecuteResult> {
  const read = (tries: number): Promise<ExecuteResult> => {
    const analysis = tries === 0 ? undefined : request.again?.();
    return attempt(db, analysis === undefined ? request : { ...request, analysis }, deadline);
  };
  return db.persist(deadline, read, undefined, (result) => {
    if (result.kind === "stream") result.stream.close().catch(() => {});
  });
}

async function attempt(
  db: GatewayDatabase,
  request: ReadRequest,
  deadline: Deadline,
): Promise<ExecuteResult> {
  const { analysis, statement } = request;
  const { whole } = db;
  let spans: readonly Span[] | undefined;
  let descriptor = db.first;
  if (whole === undefined) {
    const footprint = analysis.footprint(statement.params);
    spans =
      analysis.systemTables.length > 0
        ? // Which tables these are is the schema's to say, and it may be about to change.
          [SCHEMA, ...tablesNamed(statement.sql, db.ranges.schema().snapshot)]
        : rowsOf(footprint);
    const touched = db.rangesOf(spans);
    if (touched.length > 1) return wideRead(db, request, spans, deadline);
    descriptor = touched[0] ?? db.first;
  }
  const replica = whole ?? db.replica(descriptor.range);
  if (replica === undefined) return wideRead(db, request, spans ?? [], deadline);
  const result = await readReplica(db, replica, request, deadline, spans);
  db.counts.single++;
  // What the replica answered is told only if it still had all of these keys when it did.
  const { generation } = replica.store.state().descriptor;
  const current = whole !== undefined || !outdated(analysis, replica.schema.version);
  if (current && generation === descriptor.generation) return result;
  if (result.kind === "stream") await result.stream.close();
  throw moved();
}

async function readReplica(
  db: GatewayDatabase,
  replica: Replica,
  { statement, analysis, settings, systemTables }: ReadRequest,
  deadline: Deadline,
  spans?: readonly Span[],
): Promise<ExecuteResult> {
  const looked = spans ?? analysis.footprint(statement.params).reads;
  const point = await reachReadPoint(replica, deadline, looked);
  const stamped: StampedStatement = {
    sql: statement.sql,
    params: statement.params,
    flags: settings.flags,
    stamp: stampAt(replica, point, settings.lastInsertRowid),
    told: undefined,
  };
  if (runsInWorker(replica, analysis) && systemTables.length === 0) {
    try {
      for (;;) {
        const { outcome, held } = await deadline.race(
          replica.store.read({ statement: stamped, maxBytes: BOUNDED_RESULT_BYTES }),
        );
        if (held === undefined || !anyIntersect(held, looked)) return { kind: "outcome", outcome };
        await decided(replica, deadline, looked);
      }
    } catch (error) {
      if (!(error instanceof UserError && error.code === "OSTRAKA_TOO_LARGE")) throw error;
    }
  }
  const mustRest = db.whole === undefined ? looked : undefined;
  const { stream, index } = await runOnPin(replica, db.space, stamped, deadline, systemTables, mustRest);
  await reachOrClose(replica, index, stream, deadline);
  return { kind: "stream", stream };
}

/** Before rows of a pinned state are told. Where it takes too long, nobody will come for them. */
export async function reachOrClose(
  replica: Replica,
  index: LogIndex,
  stream: RowStream,
  deadline: Deadline,
): Promise<void> {
  try {
    await reach(replica, index, deadline);
  } catch (error) {
    stream.close().catch(() => {});
    throw error;
  }
}

/**
 * The state that was read has transactions between vote and decision that may change what was read; the decision may
 * have been told by now. Waits until this replica has it.
 */
async function decided(replica: Replica, deadline: Deadline, spans: readonly Span[]): Promise<void> {
  await deadline.persist(() => replica.leader.awaitHolds(spans));
  await reachReadPoint(replica, deadline, spans);
}

export function runsInWorker(replica: Replica, analysis: Analysis): boolean {
  if (analysis.cost === "bounded") return true;
  return analysis.cost === "scan" && replica.store.size().databaseBytes <= replica.limits.scanBytes;
}

/**
 * Runs a read on a fresh pin of the local replica; the process is free again once the rows are spooled here. With
 * `mustRest` the pin has nothing prepared that may change these spans.
 */
export async function runOnPin(
  replica: Replica,
  space: SpoolSpace,
  statement: StampedStatement,
  deadline: Deadline,
  systemTables: readonly SystemTable[],
  mustRest?: readonly Span[],
): Promise<{ readonly stream: RowStream; readonly index: LogIndex }> {
  const { runners, store } = replica;
  const runner = await runners.acquire(deadline.signal);
  try {
    let index = await runner.pin(store.path);
    while (mustRest !== undefined && anyIntersect(await heldOn(replica, runner, deadline), mustRest)) {
      await runner.unpin();
      await decided(replica, deadline, mustRest);
      index = await runner.pin(store.path);
    }
    const source = await runner.run(statement, runOptions(replica, deadline, systemTables));
    const stream = new SpooledRows(source, space, () => {
      if (runner.dead) runners.release(runner);
      else
        runner
          .unpin()
          .catch(() => runner.kill())
          .finally(() => runners.release(runner));
    });
    return { stream, index };
  } catch (error) {
    if (!runner.dead) await runner.unpin().catch(() => runner.kill());
    runners.release(runner);
    throw error;
  }
}

/** What transactions that are prepared in the pinned state may yet change. */
async function heldOn(replica: Replica, runner: Runner, deadline: Deadline): Promise<readonly Span[]> {
  const statement = plainStatement("SELECT command FROM main._ostraka_prepared");
  const stream = await runner.run(statement, runOptions(replica, deadline, []));
  const { rows } = await collect(stream, replica.limits.maxResultBytes);
  return decodeRows(rows).flatMap(([bytes]) =>
    decodeCommands(bytes as Uint8Array).commands.flatMap((command) =>
      command.kind === "prepare" ? command.prepared.writes : [],
    ),
  );
}

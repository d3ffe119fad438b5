/** Reads on a replica that is behind: never before it has applied what the leader said had been committed. */
import { beforeEach, describe, expect, it } from "vitest";
import { FIRST_RANGE_GROUP, logIndex, term } from "../../../src/base/ids.js";
import { Deadline } from "../../../src/gateway/deadline.js";
import { executeFast } from "../../../src/gateway/fast-path.js";
import { DEFAULT_LIMITS, type Replica, reachReadPoint } from "../../../src/gateway/replica.js";
import type { GatewaySession, SessionContext } from "../../../src/gateway/session.js";
import { StatementCache } from "../../../src/gateway/statements.js";
import type { StatementOutcome } from "../../../src/machines/range/types.js";
import { RangeDirectory } from "../../../src/placement/directory.js";
import type { ExecuteRequest, ExecuteResult } from "../../../src/rpc/gateway.js";
import { ManualClock, settle } from "../../sim/manual-clock.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const COMMITTED = 9;
const ONLY = { range: FIRST_RANGE_GROUP, start: "", end: "", generation: 1, replicas: [] };
const OUTCOME = { rowCount: 1 } as unknown as StatementOutcome;

let clock: ManualClock;
let applied: number;
let reads: number[];
let reached: (() => void)[];
let replica: Replica;

beforeEach(() => {
  clock = new ManualClock();
  applied = COMMITTED - 1;
  reads = [];
  reached = [];
  replica = {
    range: FIRST_RANGE_GROUP,
    clock,
    random: new SeededRandom(1),
    limits: DEFAULT_LIMITS,
    handle: { waitApplied: () => new Promise<void>((resolve) => reached.push(resolve)) },
    store: {
      appliedIndex: () => logIndex(applied),
      size: () => ({ databaseBytes: 4096, walBytes: 0 }),
      state: () => ({ descriptor: ONLY }),
      read: async () => {
        reads.push(applied);
        return { appliedIndex: logIndex(applied), outcome: OUTCOME };
      },
    },
    leader: { readPoint: async () => ({ index: logIndex(COMMITTED), term: term(2), wallMs: 1 }) },
    schema: {
      analyse: (sql: string) => ({ sql, readonly: true, cost: "bounded", systemTables: [], parameters: [] }),
    },
  } as unknown as Replica;
});

function catchUp(): void {
  applied = COMMITTED;
  for (const resolve of reached) resolve();
}

describe("a read point", () => {
  it("is answered once the replica has reached it", async () => {
    let answered = false;
    const deadline = new Deadline(clock, undefined, 1_000, { signal: undefined });
    const point = reachReadPoint(replica, deadline).then((reachedPoint) => {
      answered = true;
      return reachedPoint;
    });
    await settle();
    expect(answered).toBe(false);
    catchUp();
    expect((await point).index).toBe(COMMITTED);
  });

  it("is OSTRAKA_UNAVAILABLE where the replica does not reach it in time", async () => {
    const deadline = new Deadline(clock, undefined, 1_000, { signal: undefined });
    const point = reachReadPoint(replica, deadline).catch((error: unknown) => error);
    await clock.advance(1_000);
    expect(await point).toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
  });
});

describe("the fast path", () => {
  const request: ExecuteRequest = {
    sql: "SELECT v FROM t WHERE id = 1",
    params: [],
    key: undefined,
    timeoutMs: undefined,
    signal: undefined,
  };
  let slow: ExecuteRequest[];

  function execute(): Promise<ExecuteResult> {
    slow = [];
    const session = {
      executeSlowly: async (again: ExecuteRequest): Promise<ExecuteResult> => {
        slow.push(again);
        return { kind: "outcome", outcome: OUTCOME };
      },
    } as unknown as GatewaySession;
    const directory = new RangeDirectory([ONLY]);
    const db = { whole: replica, ranges: { directory: () => directory } };
    const context = { db, statements: new StatementCache() } as unknown as SessionContext;
    return executeFast(session, context, request)!;
  }

  it("reads at once where the replica has reached the point", async () => {
    catchUp();
    await execute();
    expect(reads).toEqual([COMMITTED]);
    expect(slow).toEqual([]);
  });

  it("leaves a read to the general path where the replica is behind", async () => {
    await execute();
    expect(reads).toEqual([]);
    expect(slow).toEqual([request]);
  });
});

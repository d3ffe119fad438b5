/** Reads on a replica that is behind: never before it has applied what the leader said had been committed. */
import { beforeEach, describe, expect, it } from "vitest";
import { AmbiguousError, RetryError, UserError } from "../../../src/base/errors.js";
import { FIRST_RANGE_GROUP, groupId, logIndex, term, transactionId } from "../../../src/base/ids.js";
import { encodeVector } from "../../../src/base/values.js";
import type { GatewayDatabase } from "../../../src/gateway/database.js";
import { Deadline } from "../../../src/gateway/deadline.js";
import { executeFast } from "../../../src/gateway/fast-path.js";
import { autocommitRead, runOnPin } from "../../../src/gateway/reads.js";
import { DEFAULT_LIMITS, type Replica, reachReadPoint } from "../../../src/gateway/replica.js";
import type { GatewaySession, SessionContext } from "../../../src/gateway/session.js";
import type { SessionSettings } from "../../../src/gateway/settings.js";
import type { SpoolSpace } from "../../../src/gateway/spool.js";
import { StatementCache } from "../../../src/gateway/statements.js";
import { wideRead } from "../../../src/gateway/wide-reads.js";
import { encodeCommands } from "../../../src/machines/range/command.js";
import type { Command, RowStream, StatementOutcome } from "../../../src/machines/range/types.js";
import { RangeDirectory } from "../../../src/placement/directory.js";
import type { ExecuteRequest, ExecuteResult } from "../../../src/rpc/gateway.js";
import type { Span } from "../../../src/sql/types.js";
import { ManualClock, settle } from "../../sim/manual-clock.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const COMMITTED = 9;
const ONLY = { range: FIRST_RANGE_GROUP, start: "", end: "", generation: 1, replicas: [] };
const ROW_1: Span = { table: "t", low: 1n, high: 1n };
const STAMP = { wallMs: 0, seed: 0, lastInsertRowid: 0n };
const OUTCOME = { rowCount: 1 } as unknown as StatementOutcome;

let clock: ManualClock;
let applied: number;
let reads: number[];
let reached: (() => void)[];
let replica: Replica;
/** Of the state that is read next. */
let held: readonly Span[] | undefined;

beforeEach(() => {
  clock = new ManualClock();
  applied = COMMITTED - 1;
  reads = [];
  reached = [];
  held = undefined;
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
        return { appliedIndex: logIndex(applied), held, outcome: OUTCOME };
      },
    },
    leader: { readPoint: async () => ({ index: logIndex(COMMITTED), term: term(2), wallMs: 1 }) },
    schema: {
      analyse: (sql: string) => ({
        sql,
        readonly: true,
        cost: "bounded",
        systemTables: [],
        parameters: [],
        footprint: () => ({ reads: [ROW_1], writes: [], checks: [] }),
      }),
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
    const counts = { single: 0, pushdown: 0, gather: 0 };
    const db = { whole: replica, ranges: { directory: () => directory }, counts };
    const context = { db, statements: new StatementCache() } as unknown as SessionContext;
    return executeFast(session, context, request)!;
  }

  it("does not tell of a write that may have been applied that it was interrupted", async () => {
    const lost = new AmbiguousError("the leader was lost", undefined);
    const analyse = () => ({ ...replica.schema.analyse(""), readonly: false });
    const leading = {
      ...replica,
      leader: { write: () => Promise.reject(lost) },
      schema: { analyse },
    } as unknown as Replica;
    const session = {
      executeSlowly: () => Promise.reject(new UserError("SQLITE_INTERRUPT", "interrupted")),
    } as unknown as GatewaySession;
    const db = { whole: leading, ranges: {}, counts: { single: 0 } } as unknown as GatewayDatabase;
    const context = { db, statements: new StatementCache() } as unknown as SessionContext;
    const key = { client: "c", sequence: 1, lowestUnanswered: 1, issuedMs: 1 };
    const written = executeFast(session, context, {
      ...request,
      sql: "UPDATE t SET v = 1 WHERE id = 1",
      key,
    });
    await expect(written).rejects.toThrow(AmbiguousError);
  });

  it("reads at once where the replica has reached the point", async () => {
    catchUp();
    await execute();
    expect(reads).toEqual([COMMITTED]);
    expect(slow).toEqual([]);
  });

  it("leaves a read to the general path where what it read may be decided already", async () => {
    catchUp();
    held = [{ ...ROW_1, low: 2n, high: 2n }];
    await execute();
    expect(slow).toEqual([]);
    held = [ROW_1];
    await execute();
    expect(slow).toEqual([request]);
  });

  it("leaves a read to the general path where the replica is behind", async () => {
    await execute();
    expect(reads).toEqual([]);
    expect(slow).toEqual([request]);
  });
});

describe("a read of one range of several", () => {
  const HALF = { ...ONLY, end: "m" };

  /** `learned`: what the directory says from the second attempt on. */
  function read(learned = HALF): Promise<ExecuteResult> {
    const deadline = new Deadline(clock, undefined, 1_000, { signal: undefined });
    let known = HALF;
    const db = {
      whole: undefined,
      counts: { single: 0, pushdown: 0, gather: 0 },
      rangesOf: () => [known],
      replica: () => replica,
      persist: <T>(_: unknown, attempt: (tries: number) => Promise<T>) =>
        deadline.persist((tries) => {
          if (tries > 0) known = learned;
          return attempt(tries);
        }),
    } as unknown as GatewayDatabase;
    const sql = "SELECT v FROM t WHERE id = 1";
    const settings = { flags: 0, lastInsertRowid: 0n } as unknown as SessionSettings;
    const analysis = replica.schema.analyse(sql);
    return autocommitRead(
      db,
      { statement: { sql, params: [] }, analysis, settings, systemTables: [] },
      deadline,
    );
  }

  function becomes(generation: number): void {
    Object.assign(replica.store, { state: () => ({ descriptor: { ...HALF, generation } }) });
  }

  it("is not told when the range was another one by then", async () => {
    catchUp();
    const answer = replica.store.read.bind(replica.store);
    Object.assign(replica.store, {
      read: async (request: Parameters<typeof answer>[0]) => {
        becomes(HALF.generation + 1);
        return answer(request);
      },
    });
    const told = read({ ...HALF, generation: HALF.generation + 1 });
    await settle();
    expect(reads).toHaveLength(1);
    await clock.advance(10);
    expect(await told).toEqual({ kind: "outcome", outcome: OUTCOME });
    expect(reads).toHaveLength(2);
  });

  it("is done again once what was held of it is decided", async () => {
    catchUp();
    held = [ROW_1];
    const did: string[] = [];
    Object.assign(replica.leader, {
      awaitHolds: async () => {
        did.push(`after ${reads.length}`);
        held = undefined;
      },
    });
    expect(await read()).toEqual({ kind: "outcome", outcome: OUTCOME });
    expect(did).toEqual(["after 1"]);
    expect(reads).toHaveLength(2);
  });

  it("begins when nothing is held of it at the leader", async () => {
    catchUp();
    const point = { index: logIndex(COMMITTED), term: term(2), wallMs: 1 };
    let undecided: readonly Span[] | undefined = [ROW_1];
    const did: string[] = [];
    Object.assign(replica.leader, {
      readPoint: async () => ({ ...point, held: undecided }),
      awaitHolds: async () => {
        did.push(`after ${reads.length}`);
        undecided = undefined;
      },
    });
    expect(await read()).toEqual({ kind: "outcome", outcome: OUTCOME });
    expect(did).toEqual(["after 0"]);
    expect(reads).toHaveLength(1);
  });
});

describe("a read on a pin", () => {
  /** Rows of one chunk, as a runner streams them. */
  const stream = (rows: Uint8Array, count: number): RowStream => {
    let chunk: { readonly rows: Uint8Array; readonly count: number } | undefined = { rows, count };
    return {
      columns: ["x"],
      columnTypes: [null],
      next: async () => {
        const next = chunk;
        chunk = undefined;
        return next;
      },
      summary: () => ({ changes: 0, totalChanges: 0, lastInsertRowid: 0n }),
      close: async () => undefined,
    };
  };
  const prepared = (writes: readonly Span[]): Uint8Array => {
    const key = { client: "c", sequence: 1, lowestUnanswered: 1, issuedMs: 1 };
    const command: Command = {
      kind: "prepare",
      key,
      wallMs: 1,
      prepared: {
        transaction: transactionId("a"),
        coordinator: groupId(2),
        preparedMs: 1,
        reads: [],
        writes,
        schemaVersion: 1,
        body: { kind: "nothing" },
      },
    };
    return encodeVector([encodeCommands([command], 1)]);
  };

  it("is made where nothing that is prepared may change what is read", async () => {
    catchUp();
    const did: string[] = [];
    const held = [[ROW_1], [{ ...ROW_1, low: 2n, high: 2n }]];
    let pins = 0;
    const runner = {
      dead: false,
      pin: async () => {
        did.push("pin");
        return logIndex(COMMITTED + ++pins);
      },
      unpin: async () => void did.push("unpin"),
      run: async ({ sql }: { readonly sql: string }) =>
        sql.includes("_ostraka_prepared")
          ? stream(prepared(held[pins - 1]!), 1)
          : stream(encodeVector([1n]), 1),
    };
    const pool = { acquire: async () => runner, release: () => undefined };
    const leader = { ...replica.leader, awaitHolds: async () => void did.push("wait") };
    const made = {
      ...replica,
      runners: pool,
      leader,
      store: { ...replica.store, path: "x" },
    } as unknown as Replica;
    const deadline = new Deadline(clock, undefined, 1_000, { signal: undefined });
    const space = { maxResultBytes: 1 << 20 } as unknown as SpoolSpace;
    const statement = { sql: "SELECT 1", params: [], flags: 0, stamp: STAMP, told: undefined };
    const { index } = await runOnPin(made, space, statement, deadline, [], [ROW_1]);
    expect(did).toEqual(["pin", "unpin", "wait", "pin"]);
    expect(index).toBe(COMMITTED + 2);
  });

  it("lets its rows and its process go where what it was made of is not applied in time", async () => {
    catchUp();
    const did: string[] = [];
    let end: (() => void) | undefined;
    const endless = {
      ...stream(encodeVector([1n]), 1),
      next: () => new Promise<undefined>((resolve) => (end = () => resolve(undefined))),
      close: async () => {
        did.push("close");
        end?.();
      },
    };
    const runner = {
      dead: false,
      pin: async () => logIndex(COMMITTED + 1),
      unpin: async () => void did.push("unpin"),
      run: async () => endless,
    };
    const analysis = { ...replica.schema.analyse(""), cost: "unknown" as const };
    const made = {
      ...replica,
      runners: { acquire: async () => runner, release: () => did.push("release") },
      store: { ...replica.store, path: "x" },
      schema: { version: 1 },
    } as unknown as Replica;
    const deadline = new Deadline(clock, undefined, 1_000, { signal: undefined });
    const db = {
      whole: made,
      counts: { single: 0 },
      rangesOf: () => [ONLY],
      persist: (of: Deadline, attempt: (tries: number) => Promise<unknown>) => of.race(attempt(0)),
    } as unknown as GatewayDatabase;
    const settings = { flags: 0, lastInsertRowid: 0n } as SessionSettings;
    const statement = { sql: "SELECT 1", params: [] };
    const read = autocommitRead(db, { statement, analysis, settings, systemTables: [] }, deadline);
    const failed = read.catch((error: unknown) => error);
    await settle();
    expect(did).toEqual([]);
    await clock.advance(1_000);
    expect(await failed).toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
    await settle();
    expect(did[0]).toBe("close");
    expect(did.slice(-2)).toEqual(["unpin", "release"]);
  });
});

describe("a read over several ranges", () => {
  it("takes another snapshot where another node has given this one up", async () => {
    let discarded = 0;
    const scratch = {
      snapshot: { schema: { version: 1 }, wallMs: 1 },
      ensure: () => Promise.reject(new RetryError("OSTRAKA_RETRY", "the snapshot was given up")),
    };
    const db = {
      random: new SeededRandom(1),
      counts: { single: 0, pushdown: 0, gather: 0 },
      rangesOf: () => [ONLY],
      scratches: { borrow: async () => ({ scratch, discard: async () => void discarded++ }) },
    } as unknown as GatewayDatabase;
    const sql = "SELECT v FROM t WHERE id = 1";
    const read = wideRead(
      db,
      {
        statement: { sql, params: [] },
        analysis: replica.schema.analyse(sql),
        settings: { flags: 0, lastInsertRowid: 0n } as SessionSettings,
        systemTables: [],
      },
      [ROW_1],
      new Deadline(clock, undefined, 1_000, { signal: undefined }),
    );
    await expect(read).rejects.toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
    expect(discarded).toBe(1);
  });
});

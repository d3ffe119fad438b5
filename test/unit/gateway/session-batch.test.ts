/** A session's transaction, and a batch inside it, whose leader does as the test says. */
import { beforeEach, describe, expect, it } from "vitest";
import { RetryError } from "../../../src/base/errors.js";
import { FIRST_RANGE_GROUP, logIndex, transactionId } from "../../../src/base/ids.js";
import type { GatewayDatabase } from "../../../src/gateway/database.js";
import type { Deadline } from "../../../src/gateway/deadline.js";
import { DEFAULT_LIMITS, type Replica } from "../../../src/gateway/replica.js";
import { RunningStatements } from "../../../src/gateway/running.js";
import { GatewaySession, type SessionContext } from "../../../src/gateway/session.js";
import { StatementCache } from "../../../src/gateway/statements.js";
import { NO_OUTCOME } from "../../../src/machines/range/no-outcome.js";
import type { TransactionStatement } from "../../../src/range/types.js";
import { ManualClock } from "../../sim/manual-clock.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const LOST = "INSERT INTO t VALUES (3)";
const REST = { key: undefined, timeoutMs: undefined, signal: undefined };

/** What the leader has run for the transaction, and will commit. */
let run: string[];
let committed: readonly string[] | undefined;
let truncates: boolean;
let session: GatewaySession;

beforeEach(() => {
  run = [];
  committed = undefined;
  truncates = true;
  const clock = new ManualClock();
  const parts = { clock, random: new SeededRandom(1), limits: DEFAULT_LIMITS };
  const leader = {
    run: async ({ statement, ordinal }: TransactionStatement) => {
      // It is lost on the way.
      if (statement.sql === LOST) return new Promise(() => undefined);
      expect(ordinal).toBe(run.length);
      run.push(statement.sql);
      const stamp = { wallMs: 1, seed: 1, lastInsertRowid: 0n };
      const stamped = { ...statement, flags: 0, stamp, told: "" };
      return { kind: "ran", outcome: NO_OUTCOME, stamped, rolledBack: false };
    },
    truncate: async (_: unknown, ordinal: number) => {
      if (!truncates) throw new RetryError("OSTRAKA_RETRY", "the leader has forgotten it");
      run.length = ordinal;
    },
    rollback: async () => undefined,
    commit: async (_: unknown, __: unknown, ___: unknown, ran: number) => {
      expect(ran).toBe(run.length);
      committed = run;
      return { ok: true, outcomes: [], repeated: false };
    },
  };
  const schema = {
    version: 1,
    snapshot: { statements: [], tables: [] },
    analyse: (sql: string) => ({
      sql,
      class: { kind: "write" },
      parameters: [],
      cost: "bounded",
      systemTables: [],
      footprint: () => ({ reads: [], writes: [{ table: "t", low: 1n, high: 1n }], checks: [] }),
    }),
  };
  const store = { appliedIndex: () => logIndex(9), size: () => ({ databaseBytes: 1 << 30, walBytes: 0 }) };
  const db = {
    ...parts,
    whole: { ...parts, range: FIRST_RANGE_GROUP, store, leader, schema } as unknown as Replica,
    first: { range: FIRST_RANGE_GROUP },
    counts: { single: 0, pushdown: 0, gather: 0 },
    ranges: { schema: () => schema },
    client: () => leader,
    persist: (of: Deadline, attempt: (tries: number) => Promise<unknown>) => of.race(attempt(0)),
  } as unknown as GatewayDatabase;
  let sequence = 0;
  const context = {
    db,
    statements: new StatementCache(),
    running: new RunningStatements(clock),
    nextKey: () => ({ client: "c", sequence: ++sequence, lowestUnanswered: sequence, issuedMs: 1 }),
    nextTransactionId: () => transactionId(`c-${++sequence}@1`),
    closed: () => undefined,
  } as unknown as SessionContext;
  session = new GatewaySession(context, "session");
});

const execute = (sql: string) => session.execute({ ...REST, sql, params: [] });

/** Cancelled when it comes to its last statement. */
function cancelledBatch(...texts: string[]) {
  const cancel = new AbortController();
  let asked = 0;
  const last = {
    params: [],
    get sql() {
      // The first time it is looked at before anything is run.
      if (asked++ > 0) cancel.abort();
      return texts.at(-1)!;
    },
  };
  const before = texts.slice(0, -1).map((sql) => ({ sql, params: [] }));
  return session.batch([...before, last], { ...REST, signal: cancel.signal });
}

describe("a batch in a transaction that is cancelled half done", () => {
  beforeEach(async () => {
    await execute("BEGIN");
    await execute("INSERT INTO t VALUES (1)");
  });

  it("leaves nothing of itself to be committed", async () => {
    const batch = cancelledBatch("INSERT INTO t VALUES (2)", LOST);
    await expect(batch).rejects.toMatchObject({ code: "SQLITE_INTERRUPT" });
    await execute("COMMIT");
    expect(committed).toEqual(["INSERT INTO t VALUES (1)"]);
  });

  it("ends the transaction where it cannot be undone", async () => {
    truncates = false;
    const batch = cancelledBatch("INSERT INTO t VALUES (2)", LOST);
    await expect(batch).rejects.toMatchObject({ code: "SQLITE_INTERRUPT" });
    expect(session.state()).toBe("failed");
    await expect(execute("COMMIT")).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
    expect(committed).toBeUndefined();
  });
});

it("has no transaction open after a SAVEPOINT that was cancelled before it began one", async () => {
  const cancelled = session.execute({ ...REST, sql: "SAVEPOINT s", params: [], signal: AbortSignal.abort() });
  await expect(cancelled).rejects.toMatchObject({ code: "SQLITE_INTERRUPT" });
  expect(session.state()).toBe("idle");
  await execute("SAVEPOINT s");
  expect(session.state()).toBe("open");
});

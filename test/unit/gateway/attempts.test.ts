/** Attempts of a write in a process, whose leader and outcomes are as the test says. */
import { beforeEach, describe, expect, it } from "vitest";
import { AmbiguousError } from "../../../src/base/errors.js";
import { FIRST_RANGE_GROUP, logIndex, type TransactionId, term } from "../../../src/base/ids.js";
import { autocommitId } from "../../../src/gateway/attempts.js";
import { AutocommitStatements } from "../../../src/gateway/autocommit.js";
import type { GatewayDatabase } from "../../../src/gateway/database.js";
import { Deadline } from "../../../src/gateway/deadline.js";
import { DEFAULT_LIMITS, type Replica } from "../../../src/gateway/replica.js";
import type { SessionContext } from "../../../src/gateway/session.js";
import { SessionSettings } from "../../../src/gateway/settings.js";
import { NO_OUTCOME } from "../../../src/machines/range/no-outcome.js";
import type { CommandResult } from "../../../src/machines/range/types.js";
import type { CopyCommit } from "../../../src/range/types.js";
import type { Analysis } from "../../../src/sql/types.js";
import { ManualClock } from "../../sim/manual-clock.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const KEY = { client: "c", sequence: 1, lowestUnanswered: 1, issuedMs: 1 };
const STATEMENT = { sql: "UPDATE t SET v = 1", params: [] };
const LOST: CommandResult = { ok: false, error: ["retry", "OSTRAKA_RETRY", "it lost", null], statement: 0 };
const DONE: CommandResult = { ok: true, outcomes: [], repeated: false };

let clock: ManualClock;
/** Attempts that came to the log, and what becomes of them. */
let logged: TransactionId[];
let commit: (attempt: number) => Promise<CommandResult>;
/** What was asked for by name, and the answer. */
let asked: TransactionId[];
let outcome: "committed" | "aborted" | "unknown";
let statements: AutocommitStatements;

const analysis = {
  ...STATEMENT,
  class: { kind: "write" },
  readonly: false,
  cost: "unknown",
  schemaVersion: 1,
  systemTables: [],
  footprint: () => ({ reads: [], writes: [{ table: "t", low: 1n, high: 1n }], checks: [] }),
} as unknown as Analysis;

beforeEach(() => {
  clock = new ManualClock();
  logged = [];
  asked = [];
  outcome = "aborted";
  const { columns, columnTypes, ...summary } = NO_OUTCOME;
  const stream = {
    columns,
    columnTypes,
    next: async () => undefined,
    summary: () => summary,
    close: async () => undefined,
  };
  const runner = {
    dead: false,
    openCopy: async () => undefined,
    capture: async () => undefined,
    closeCopy: async () => undefined,
    run: async () => stream,
  };
  const point = { index: logIndex(5), term: term(2), wallMs: 1 };
  const leader = {
    begin: async () => point,
    readPoint: async () => point,
    rollback: async () => undefined,
    commitCopy: ({ transaction }: CopyCommit) => commit(logged.push(transaction)),
  };
  const schema = { version: 1, snapshot: { statements: [], tables: [] }, analyse: () => analysis };
  const parts = { clock, random: new SeededRandom(1), limits: DEFAULT_LIMITS };
  const whole = {
    ...parts,
    range: FIRST_RANGE_GROUP,
    handle: { waitApplied: async () => undefined },
    store: {
      appliedIndex: () => logIndex(9),
      state: () => ({ descriptor: { start: "", end: "" } }),
      size: () => ({ databaseBytes: 1 << 30, walBytes: 0 }),
      copy: async () => ({ path: "copy.db", appliedIndex: logIndex(9), release: async () => undefined }),
    },
    leader,
    schema,
  } as unknown as Replica;
  const db = {
    ...parts,
    whole,
    first: { range: FIRST_RANGE_GROUP },
    counts: { single: 0, pushdown: 0, gather: 0 },
    gatherRunners: { acquire: async () => runner, release: () => undefined },
    ranges: { schema: () => schema },
    client: () => leader,
    rangesOf: () => [],
    outcome: async (id: TransactionId) => {
      asked.push(id);
      return outcome;
    },
    persist: (...[of, attempt, inDoubt]: Parameters<GatewayDatabase["persist"]>) =>
      of.persist(attempt, inDoubt),
  } as unknown as GatewayDatabase;
  statements = new AutocommitStatements({ db } as SessionContext, new SessionSettings(), undefined);
});

function write() {
  const deadline = new Deadline(clock, undefined, 1_000, { signal: undefined });
  return statements.write(
    STATEMENT,
    analysis,
    { key: KEY, timeoutMs: undefined, signal: undefined },
    deadline,
  );
}

describe("a write whose answer was lost on its way from the leader", () => {
  it("is given up under that attempt's name alone, and can be done by the next one", async () => {
    commit = async (attempt) => {
      if (attempt === 1) throw new AmbiguousError("the leader was lost", undefined);
      return DONE;
    };
    expect(await write()).toMatchObject({ kind: "outcome" });
    expect(asked).toEqual(logged.slice(0, 1));
    // What is given up under the key's own name no attempt can commit.
    expect(asked).not.toContain(autocommitId(KEY));
    expect(new Set(logged).size).toBe(2);
  });

  it("is in doubt under its key's name, whichever attempt was", async () => {
    outcome = "unknown";
    commit = async (attempt) => {
      if (attempt === 1) return LOST;
      throw new AmbiguousError("the leader was lost", undefined);
    };
    await expect(write()).rejects.toMatchObject({
      code: "OSTRAKA_UNKNOWN_OUTCOME",
      transactionId: autocommitId(KEY),
    });
  });
});

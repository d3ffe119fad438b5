/** A commit across ranges as its gateway sees it: what the coordinator has is what is told. */
import { beforeEach, describe, expect, it } from "vitest";
import { AmbiguousError, RetryError, RouteError, toWireError, UserError } from "../../../src/base/errors.js";
import { type GroupId, groupId, logIndex, term, transactionId } from "../../../src/base/ids.js";
import type { GatewayDatabase } from "../../../src/gateway/database.js";
import { Deadline } from "../../../src/gateway/deadline.js";
import { commitWide, type WideCommit } from "../../../src/gateway/wide-commit.js";
import type { StatementOutcome } from "../../../src/machines/range/types.js";
import type { CopyCommit, Vote } from "../../../src/range/types.js";
import { ManualClock } from "../../sim/manual-clock.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const ID = transactionId("c:t1@1");
/** Made of a client's key. */
const RESENT = transactionId("c:1@1");
const RANGES = [groupId(3), groupId(4)];
const YES: Vote = { vote: "yes" };
const OUTCOME = {
  changes: 2,
  totalChanges: 2,
  lastInsertRowid: 0n,
  rowCount: 0,
} as unknown as StatementOutcome;

type Decision = "committed" | "aborted";

let votes: Map<GroupId, () => Promise<Vote>>;
let registered: () => Promise<{ readonly state: string }>;
/** What the coordinator's log makes of what is wanted. */
let decide: (wanted: Decision) => Promise<Decision>;
let wanted: Decision[];
/** How often the coordinator was asked what became of it. */
let inquired: number;
/** What ranges were told by the gateway itself. */
let resolved: [GroupId, Decision][];
/** What came to the log of the one range. */
let logged: CopyCommit[];
let clock: ManualClock;

beforeEach(() => {
  clock = new ManualClock();
  votes = new Map(RANGES.map((range) => [range, async () => YES]));
  registered = async () => ({ state: "registered" });
  decide = async (decision) => decision;
  wanted = [];
  inquired = 0;
  resolved = [];
  logged = [];
});

function commit(transaction = ID, timeoutMs?: number, ranges = RANGES) {
  const deadline = new Deadline(clock, timeoutMs, 1_000, { signal: undefined });
  const db = {
    clock,
    random: new SeededRandom(1),
    trace: { note: () => undefined, phase: () => () => undefined },
    ranges: {
      coordinator: {
        register: () => registered(),
        inquire: async () => {
          inquired++;
          return { decision: "aborted" };
        },
        decide: async (_: unknown, decision: Decision) => {
          wanted.push(decision);
          return { decision: await decide(decision), answer: undefined };
        },
      },
    },
    client: (range: GroupId) => ({
      prepare: () => votes.get(range)!(),
      resolve: async (_: unknown, decision: Decision) => void resolved.push([range, decision]),
      commitCopy: async (copy: CopyCommit) => {
        logged.push(copy);
        return { ok: true, outcomes: [OUTCOME], repeated: true };
      },
    }),
    learnFrom: async () => undefined,
    persist: (...[of, attempt, inDoubt]: Parameters<GatewayDatabase["persist"]>) =>
      of.persist(attempt, inDoubt),
  } as unknown as GatewayDatabase;
  const wide: WideCommit = {
    transaction,
    key: { client: "c", sequence: 1, lowestUnanswered: 1, issuedMs: 1 },
    participants: ranges.map((range) => ({
      descriptor: { range, start: "", end: "", generation: 1, replicas: [] },
      reads: [{ index: logIndex(1), term: term(1), spans: [] }],
      writes: [],
      changes: [],
    })),
    schemaTexts: [],
    schemaVersion: 1,
    outcomes: [OUTCOME],
    deadline,
  };
  return commitWide(db, wide);
}

/** How it stands, while nobody answers any more. */
async function soFar(committed: Promise<unknown>): Promise<unknown> {
  let told: unknown = "nothing yet";
  committed.then(
    (result) => (told = result),
    (error) => (told = error),
  );
  await clock.advance(100);
  return told;
}

describe("a commit of what changes nothing in one range", () => {
  it("comes to the log under its key, if the write may have been sent before", async () => {
    expect(await commit(RESENT, undefined, RANGES.slice(0, 1))).toMatchObject({ repeated: true });
    expect(logged.map(({ body }) => body)).toEqual([{ kind: "rows", changes: [], outcomes: [OUTCOME] }]);
  });

  it("has nothing to log, if it is an interactive transaction's", async () => {
    await commit(ID, undefined, RANGES.slice(0, 1));
    expect(logged.map(({ body }) => body)).toEqual([{ kind: "statements", statements: [] }]);
  });
});

describe("a commit across ranges", () => {
  it("is told once the coordinator has it, and not before", async () => {
    let logged: (decision: Decision) => void = () => undefined;
    decide = () => new Promise((resolve) => (logged = resolve));
    const committed = commit();
    expect(await soFar(committed)).toBe("nothing yet");
    logged("committed");
    expect(await committed).toEqual({ ok: true, outcomes: [OUTCOME], repeated: false });
    expect(wanted).toEqual(["committed"]);
  });

  it("waits for a coordinator that has no leader yet", async () => {
    const first = registered;
    registered = async () => {
      registered = first;
      throw new RouteError("no leader is known", undefined);
    };
    const committed = commit();
    await clock.advance(100);
    expect(await committed).toEqual({ ok: true, outcomes: [OUTCOME], repeated: false });
  });

  it("is told as the coordinator has decided it, whatever was wanted", async () => {
    decide = async () => "aborted";
    expect(await commit()).toMatchObject({
      ok: false,
      error: ["retry", "OSTRAKA_RETRY", expect.any(String), null],
    });
  });

  it("is wanted only if all ranges say yes", async () => {
    const error = toWireError(new UserError("SQLITE_CONSTRAINT_UNIQUE", "UNIQUE constraint failed: t.v"));
    for (const range of RANGES) {
      wanted = [];
      votes = new Map(
        RANGES.map((other) => [other, async () => (other === range ? { vote: "no", error } : YES)]),
      );
      expect(await commit()).toMatchObject({ ok: false, error });
      expect(wanted).toEqual(["aborted"]);
    }
  });

  it("is not wanted if a range cannot be asked, which may have voted yes", async () => {
    votes.set(RANGES[1]!, () => Promise.reject(new RouteError("nobody leads it", undefined)));
    expect(await commit()).toMatchObject({
      ok: false,
      error: ["retry", "OSTRAKA_RETRY", expect.any(String), null],
    });
    expect(wanted).toEqual(["aborted"]);
  });

  it("is not wanted before it is registered", async () => {
    registered = async () => ({ state: "aborted" });
    expect(await commit()).toMatchObject({ ok: false });
    expect(wanted).toEqual(["aborted"]);
    wanted = [];
    registered = () => Promise.reject(new RetryError("OSTRAKA_UNAVAILABLE", "it has no leader"));
    const unregistered = commit();
    await clock.advance(2_000);
    expect(await unregistered).toMatchObject({ ok: false });
    expect(wanted).toEqual(["aborted"]);
  });

  describe("that began before what the coordinator remembers", () => {
    const OLD = new AmbiguousError("the transaction is older than what is remembered", ID);

    beforeEach(() => {
      registered = async () => ({ state: "unknown" });
      decide = () => Promise.reject(OLD);
    });

    it("was not committed, and holds nothing any longer", async () => {
      votes.set(RANGES[1]!, () => Promise.reject(new RouteError("nobody leads it", undefined)));
      const told = await soFar(commit());
      expect(told).toMatchObject({ ok: false, error: ["retry", "OSTRAKA_RETRY", expect.any(String), null] });
      expect(resolved).toEqual([[RANGES[0], "aborted"]]);
    });

    it("is in doubt where the same write may have been sent before", async () => {
      const told = await soFar(commit(RESENT));
      expect(told).toMatchObject({ code: "OSTRAKA_UNKNOWN_OUTCOME", transactionId: RESENT });
      expect(resolved).toEqual(RANGES.map((range) => [range, "aborted"]));
    });

    it("is told as a range knows it that has committed the same write before", async () => {
      const result = { ok: true as const, outcomes: [OUTCOME], repeated: true };
      votes.set(RANGES[1]!, async () => ({ vote: "known", result }));
      expect(await soFar(commit(RESENT))).toEqual(result);
      expect(resolved).toEqual([[RANGES[0], "aborted"]]);
    });
  });

  it("is given up when its client has stopped waiting for it, so that its ranges need not ask", async () => {
    votes.set(RANGES[1]!, async () => {
      await new Promise<void>((resolve) => clock.setTimer(50, () => resolve()));
      return YES;
    });
    const told = await soFar(commit(ID, 20));
    expect(told).toMatchObject({ code: "OSTRAKA_UNKNOWN_OUTCOME", transactionId: ID });
    expect([wanted, inquired]).toEqual([[], 1]);
  });

  it("is in doubt where the decision was asked for and nobody answers", async () => {
    decide = () => Promise.reject(new AmbiguousError("leadership was lost", undefined));
    const committed = commit().catch((error: unknown) => error);
    await clock.advance(2_000);
    expect(await committed).toMatchObject({ code: "OSTRAKA_UNKNOWN_OUTCOME", transactionId: ID });
  });
});

/** The coordinator's leader on a group without Raft: what it answers, what it does by itself, and how its leadership ends. */
import { beforeEach, describe, expect, it } from "vitest";
import { AmbiguousError, RetryError, RouteError } from "../../../src/base/errors.js";
import { type GroupId, groupId, type TransactionId, transactionId } from "../../../src/base/ids.js";
import { CoordinatorLeader, DEFAULT_COORDINATOR_LIMITS } from "../../../src/coordinator/leader.js";
import { decodeEntry } from "../../../src/machines/coordinator/codec.js";
import { COORDINATOR_BOUNDS, type Decision } from "../../../src/txn/coordinator.js";
import { ManualClock } from "../../sim/manual-clock.js";
import { GroupDouble } from "./group-double.js";

const A = groupId(3);
const B = groupId(4);
const UNDECIDED_MS = 1_000;

let clock: ManualClock;
let group: GroupDouble;
let leaders: CoordinatorLeader[];
/** Deliveries as they came; while `deaf`, they fail. */
let delivered: { readonly node: number; readonly range: GroupId; readonly what: string }[];
let deaf: boolean;
/** Transactions whose commit some range was told of, whatever the log says. */
let told: Set<TransactionId>;

function make(bounds = COORDINATOR_BOUNDS): void {
  clock = new ManualClock();
  delivered = [];
  deaf = false;
  told = new Set();
  group = new GroupDouble({ clock, nodes: 3, bounds });
  leaders = group.nodes.map(
    (node) =>
      new CoordinatorLeader({
        handle: node.handle,
        machine: node.machine,
        clock,
        resolve: async (range: GroupId, transaction: TransactionId, decision: Decision) => {
          if (deaf) throw new RouteError("no leader", undefined);
          delivered.push({ node: node.id, range, what: `${transaction.split("@")[0]} ${decision}` });
        },
        delivered: async (transaction) => told.has(transaction),
        limits: { ...DEFAULT_COORDINATOR_LIMITS, undecidedMs: UNDECIDED_MS },
      }),
  );
  lead(0);
}

beforeEach(() => make());

const id = (name: string): TransactionId => transactionId(`${name}@${(clock.wallMs() - 5).toString(36)}`);

function lead(node: number | undefined, survive = 0, inDoubt = true): void {
  group.elect(node === undefined ? undefined : group.nodes[node], survive, () => inDoubt);
}

/** Lets what was asked enter the log and be answered. */
async function committed<T>(asked: Promise<T>): Promise<T> {
  asked.catch(() => undefined);
  await clock.advance(0);
  group.commit();
  await clock.advance(0);
  return asked;
}

async function pass(ms: number): Promise<void> {
  for (let spent = 0; spent < ms; spent += 10) {
    await clock.advance(10);
    group.commit();
  }
  await clock.advance(0);
}

describe("answers", () => {
  it("come from the log: many transactions of a turn in one entry, with one stamp", async () => {
    const names = ["a", "b", "c"].map(id);
    const registered = Promise.all(names.map((name) => leaders[0]!.register(name, [A, B])));
    await clock.advance(0);
    expect(group.inFlight).toBe(1);
    let answered = false;
    void registered.then(() => {
      answered = true;
    });
    await clock.advance(50);
    expect(answered).toBe(false);
    group.commit();
    expect(await registered).toEqual(names.map(() => ({ state: "registered" })));
    const { wallMs, commands } = decodeEntry(group.log[0]!);
    expect([wallMs, commands.length]).toEqual([clock.wallMs() - 50, 3]);
  });

  it("tell a commit's answer to whoever asks, here or at the next leader", async () => {
    const t = id("t");
    const answer = new Uint8Array(20_000).fill(1);
    await committed(leaders[0]!.register(t, [A]));
    expect(await committed(leaders[0]!.decide(t, "committed", answer))).toEqual({
      decision: "committed",
      answer,
    });
    const short = id("short");
    await committed(leaders[0]!.register(short, [A]));
    await committed(leaders[0]!.decide(short, "committed", Uint8Array.of(5)));
    lead(1);
    const kept = { decision: "committed", answer: Uint8Array.of(5) };
    expect(await leaders[1]!.decide(short, "aborted")).toEqual(kept);
    expect(await leaders[1]!.inquire(short)).toEqual(kept);
    expect(await committed(leaders[1]!.register(short, [A]))).toEqual({
      state: "committed",
      answer: Uint8Array.of(5),
    });
    expect(await leaders[1]!.inquire(t)).toEqual({ decision: "committed", answer: undefined });
  });

  it("say aborted only once that is in the log", async () => {
    const t = id("t");
    const asked = leaders[0]!.inquire(t);
    await clock.advance(0);
    lead(1, 0, true);
    await expect(asked).rejects.toThrow(AmbiguousError);
    expect(await committed(leaders[1]!.register(t, [A]))).toEqual({ state: "registered" });
    expect(await committed(leaders[1]!.inquire(t))).toEqual({ decision: "aborted", answer: undefined });
    expect(await committed(leaders[1]!.decide(t, "committed"))).toMatchObject({ decision: "aborted" });
    expect(leaders[1]!.counts()).toMatchObject({ registered: 1, aborted: 1, byRecovery: 1, committed: 0 });
  });

  it("go by what a range was told where the log has lost it", async () => {
    const [inquired, waiting, unknown] = ["inquired", "waiting", "unknown"].map(id) as TransactionId[];
    told = new Set([inquired!, waiting!, unknown!]);
    await committed(leaders[0]!.register(inquired!, [A, B]));
    await committed(leaders[0]!.register(waiting!, [A]));
    expect(await committed(leaders[0]!.inquire(inquired!))).toMatchObject({ decision: "committed" });
    expect(await committed(leaders[0]!.inquire(unknown!))).toMatchObject({ decision: "committed" });
    await pass(2 * UNDECIDED_MS);
    expect(delivered.map(({ range, what }) => `${range} ${what}`).sort()).toEqual([
      `${A} inquired committed`,
      `${A} waiting committed`,
      `${B} inquired committed`,
    ]);
    expect(leaders[0]!.counts()).toMatchObject({ committed: 2, aborted: 0, byRecovery: 0 });
  });

  it("are refusals where another node leads, naming it", async () => {
    const t = id("t");
    for (const call of [
      leaders[2]!.register(t, [A]),
      leaders[2]!.decide(t, "committed"),
      leaders[2]!.inquire(t),
      leaders[2]!.list(),
      leaders[2]!.outbox(),
    ]) {
      const error = await call.catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(RouteError);
      expect((error as RouteError).leader).toBe(1);
    }
    lead(undefined);
    const error = await leaders[0]!.register(t, [A]).catch((reason: unknown) => reason);
    expect((error as RouteError).leader).toBeUndefined();
    expect(group.proposed).toBe(0);
  });

  for (const survives of [true, false])
    it(`name the transaction when they are lost (the decision was ${survives ? "" : "not "}written)`, async () => {
      // A leader whose disk fails while it writes the decision stops leading, and cannot know whether it was written.
      const t = id("t");
      await committed(leaders[0]!.register(t, [A]));
      const asked = leaders[0]!.decide(t, "committed", Uint8Array.of(1));
      await clock.advance(0);
      lead(1, survives ? 1 : 0, true);
      const error = await asked.catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(AmbiguousError);
      expect((error as AmbiguousError).transactionId).toBe(t);
      const answer = survives ? Uint8Array.of(1) : undefined;
      const decision = survives ? "committed" : "aborted";
      expect(await committed(leaders[1]!.inquire(t))).toEqual({ decision, answer });
      expect(await committed(leaders[1]!.decide(t, "committed", Uint8Array.of(2)))).toEqual({
        decision,
        answer,
      });
      await pass(50);
      expect(delivered.at(-1)).toEqual({ node: 2, range: A, what: `t ${decision}` });
      expect(new Set(delivered.map(({ what }) => what)).size).toBe(1);
    });

  it("refuse what may have been forgotten, and ids from the future", async () => {
    make({ ...COORDINATOR_BOUNDS, maxOutcomes: 1 });
    const old = transactionId(`old@${(clock.wallMs() - 100).toString(36)}`);
    for (const name of ["a", "b"].map(id)) await committed(leaders[0]!.inquire(name));
    expect(await committed(leaders[0]!.register(old, [A]))).toEqual({ state: "unknown", answer: undefined });
    expect(await committed(leaders[0]!.inquire(old))).toEqual({ decision: "unknown", answer: undefined });
    const error = await committed(leaders[0]!.decide(old, "committed")).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(AmbiguousError);
    const future = transactionId(`future@${(clock.wallMs() + 100_000).toString(36)}`);
    await expect(committed(leaders[0]!.register(future, [A]))).rejects.toThrow(RetryError);
  });

  it("refuse registrations while too many transactions are open", async () => {
    make({ ...COORDINATOR_BOUNDS, maxOpen: 1 });
    await committed(leaders[0]!.register(id("a"), [A]));
    const error = await committed(leaders[0]!.register(id("b"), [A])).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
  });
});

describe("by itself the leader", () => {
  it("delivers decisions, has them acknowledged, and then nothing is left", async () => {
    const t = id("t");
    await committed(leaders[0]!.register(t, [A, B]));
    await committed(leaders[0]!.decide(t, "committed"));
    expect(delivered.map(({ range, what }) => [range, what])).toEqual([
      [A, "t committed"],
      [B, "t committed"],
    ]);
    expect(await leaders[0]!.list()).toMatchObject([{ transaction: t, state: "committed", pending: [A, B] }]);
    expect(await leaders[0]!.outbox()).toHaveLength(2);
    await pass(50);
    expect(await leaders[0]!.list()).toEqual([]);
    expect(await leaders[0]!.outbox()).toEqual([]);
    expect(leaders[0]!.counts()).toMatchObject({ registered: 1, committed: 1, delivered: 2 });
    expect(leaders[0]!.gauges()).toEqual({ inDoubt: 0, undelivered: 0, outcomes: 1 });
    const entries = group.log.length;
    await pass(5_000);
    expect(group.log).toHaveLength(entries);
  });

  it("delivers again what its predecessor may have delivered, and stops when it does not lead", async () => {
    deaf = true;
    const t = id("t");
    await committed(leaders[0]!.register(t, [A]));
    await committed(leaders[0]!.decide(t, "aborted"));
    lead(undefined);
    deaf = false;
    await clock.advance(10_000);
    expect(delivered).toEqual([]);
    lead(2);
    await pass(50);
    expect(delivered).toEqual([{ node: 3, range: A, what: "t aborted" }]);
    lead(0);
    await pass(5_000);
    expect(delivered).toHaveLength(1);
    expect(group.nodes[0]!.machine.state.open).toBe(0);
  });

  it("goes on as it was when it is told again that it leads", async () => {
    deaf = true;
    await committed(leaders[0]!.register(id("t"), [A]));
    await pass(UNDECIDED_MS * 0.9);
    group.nodes[0]!.tell();
    await pass(UNDECIDED_MS * 0.4);
    expect(await leaders[0]!.outbox()).toHaveLength(1);
    deaf = false;
    group.nodes[0]!.tell();
    group.nodes[0]!.tell();
    await pass(2_500);
    expect(delivered).toHaveLength(1);
  });

  it("aborts what nobody decides, and tells all who were named", async () => {
    await committed(leaders[0]!.register(id("dead"), [A, B]));
    await pass(UNDECIDED_MS / 2);
    const late = id("late");
    await committed(leaders[0]!.register(late, [A]));
    await pass(UNDECIDED_MS * 0.7);
    expect(delivered.map(({ range, what }) => [range, what])).toEqual([
      [A, "dead aborted"],
      [B, "dead aborted"],
    ]);
    expect(await committed(leaders[0]!.decide(late, "committed"))).toMatchObject({ decision: "committed" });
    await pass(3 * UNDECIDED_MS);
    expect(leaders[0]!.counts()).toEqual({
      registered: 2,
      committed: 1,
      aborted: 1,
      byRecovery: 1,
      delivered: 3,
    });
  });

  it("gives everybody the whole time again under a new leadership", async () => {
    const t = id("t");
    await committed(leaders[0]!.register(t, [A]));
    await pass(UNDECIDED_MS * 0.9);
    lead(1);
    await pass(UNDECIDED_MS * 0.9);
    expect(delivered).toEqual([]);
    await pass(UNDECIDED_MS * 0.4);
    expect(delivered).toEqual([{ node: 2, range: A, what: "t aborted" }]);
  });

  it("ends all of that when it is closed", async () => {
    await committed(leaders[0]!.register(id("t"), [A]));
    leaders[0]!.close();
    await pass(5 * UNDECIDED_MS);
    expect(delivered).toEqual([]);
    await expect(leaders[0]!.register(id("u"), [A])).rejects.toThrow(RouteError);
    lead(1);
    lead(0);
    await expect(leaders[0]!.register(id("u"), [A])).rejects.toThrow(RouteError);
  });
});

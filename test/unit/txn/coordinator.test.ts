/** What becomes of transactions across ranges: every rule alone, then random commands against a model of the rules. */
import { describe, expect, it } from "vitest";
import { groupId, type TransactionId, transactionId } from "../../../src/base/ids.js";
import {
  beganMs,
  COORDINATOR_BOUNDS,
  type CoordinatorBounds,
  type CoordinatorCommand,
  type CoordinatorResult,
  CoordinatorState,
  type Decision,
} from "../../../src/txn/coordinator.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const NOW = 1_700_000_000_000;
const A = groupId(3);
const B = groupId(7);
const C = groupId(9);

const id = (name: string, began = NOW): TransactionId => transactionId(`${name}@${began.toString(36)}`);
const register = (transaction: TransactionId, ...participants: readonly number[]): CoordinatorCommand => ({
  kind: "register",
  transaction,
  participants: participants.map(groupId),
});
const decide = (transaction: TransactionId, decision: Decision, answer?: Uint8Array): CoordinatorCommand => ({
  kind: "decide",
  transaction,
  decision,
  answer,
});
const acknowledge = (...rows: readonly number[]): CoordinatorCommand => ({ kind: "acknowledge", rows });

function one(state: CoordinatorState, command: CoordinatorCommand, wallMs = NOW): CoordinatorResult {
  return state.apply(wallMs, [command])[0]!;
}

function acknowledgeAll(state: CoordinatorState, wallMs = NOW): void {
  one(state, acknowledge(...state.rows().map((row) => row.id)), wallMs);
}

/** Registered, committed, acknowledged. */
function over(state: CoordinatorState, transaction: TransactionId, wallMs = NOW): void {
  state.apply(wallMs, [register(transaction, A), decide(transaction, "committed")]);
  acknowledgeAll(state, wallMs);
}

const bounded = (bounds: Partial<CoordinatorBounds>) =>
  new CoordinatorState({ ...COORDINATOR_BOUNDS, ...bounds });

describe("ids", () => {
  it("tell when their transaction began", () => {
    expect(beganMs(id("client:7"))).toBe(NOW);
    expect(beganMs(transactionId("a@b@10"))).toBe(36);
    for (const odd of ["none", "x@", "x@-5", "x@ _"]) expect(beganMs(transactionId(odd))).toBe(0);
    expect(beganMs(transactionId(`x@${"z".repeat(500)}`))).toBe(Number.MAX_SAFE_INTEGER - 1);
  });
});

describe("registering and deciding", () => {
  it("commits what is registered, once, and keeps the answer for whoever asks again", () => {
    const state = new CoordinatorState();
    const t = id("t");
    const answer = Uint8Array.of(1, 2, 3);
    expect(one(state, register(t, A, B))).toEqual({ state: "registered", changed: true });
    expect(one(state, register(t, A, B))).toEqual({ state: "registered", changed: false });
    expect(state.registered).toBe(1);
    expect(one(state, decide(t, "committed", answer))).toMatchObject({ state: "committed", changed: true });
    expect(state.registered).toBe(0);
    const again = { state: "committed", changed: false, answer };
    expect(one(state, decide(t, "committed", Uint8Array.of(9)))).toEqual(again);
    expect(one(state, decide(t, "aborted"))).toEqual(again);
    expect(one(state, register(t, A, B, C))).toEqual(again);
    expect(state.rows().map(({ destination, decision }) => [destination, decision])).toEqual([
      [A, "committed"],
      [B, "committed"],
    ]);
    acknowledgeAll(state);
    expect(one(state, decide(t, "aborted"))).toEqual(again);
    expect(state.decided(t)).toEqual({ decision: "committed", answer });
  });

  it("never commits what is aborted", () => {
    const state = new CoordinatorState();
    const t = id("t");
    one(state, register(t, A));
    expect(one(state, decide(t, "aborted"))).toMatchObject({ state: "aborted", changed: true });
    expect(one(state, decide(t, "committed"))).toMatchObject({ state: "aborted", changed: false });
    acknowledgeAll(state);
    expect(one(state, decide(t, "committed"))).toMatchObject({ state: "aborted", changed: false });
  });

  it("commits only what is registered: a decision about anything else is a tombstone", () => {
    const state = new CoordinatorState();
    for (const decision of ["committed", "aborted"] as const) {
      const t = id(decision);
      expect(one(state, decide(t, decision))).toMatchObject({ state: "aborted", changed: true });
      expect(one(state, register(t, A))).toMatchObject({ state: "aborted", changed: false });
      expect(one(state, decide(t, "committed"))).toMatchObject({ state: "aborted", changed: false });
    }
  });

  it("tells the abort to those that a late registration names", () => {
    const state = new CoordinatorState();
    const t = id("t");
    one(state, decide(t, "aborted"));
    expect(state.undelivered).toBe(0);
    one(state, register(t, A, B));
    one(state, register(t, B, C));
    expect(state.rows().map(({ destination, decision }) => [destination, decision])).toEqual([
      [A, "aborted"],
      [B, "aborted"],
      [C, "aborted"],
    ]);
    expect(state.open).toBe(1);
    acknowledgeAll(state);
    expect([state.open, state.outcomes]).toEqual([0, 1]);
  });

  it("adds participants that are named later, until the decision", () => {
    const state = new CoordinatorState();
    const t = id("t");
    one(state, register(t, A));
    one(state, register(t, B, A));
    expect(state.transactions()).toEqual([
      { transaction: t, state: "registered", participants: [A, B], pending: [], registeredMs: NOW },
    ]);
    one(state, decide(t, "aborted"), NOW + 5);
    one(state, register(t, C));
    expect(state.transactions()[0]).toMatchObject({ state: "aborted", pending: [A, B, C] });
  });

  it("is over at once where nobody takes part", () => {
    const state = new CoordinatorState();
    state.apply(NOW, [register(id("t")), decide(id("t"), "committed")]);
    expect([state.open, state.outcomes, state.undelivered]).toEqual([0, 1, 0]);
  });
});

describe("the outbox", () => {
  it("has a row for each participant from the decision until the acknowledgement", () => {
    const state = new CoordinatorState();
    const t = id("t");
    one(state, register(t, A, B));
    expect(state.takeFreshRows()).toEqual([]);
    one(state, decide(t, "committed"), NOW + 3);
    const fresh = state.takeFreshRows();
    expect(fresh).toEqual([
      { id: 1, transaction: t, destination: A, decision: "committed", createdMs: NOW + 3 },
      { id: 2, transaction: t, destination: B, decision: "committed", createdMs: NOW + 3 },
    ]);
    expect(state.takeFreshRows()).toEqual([]);
    expect(one(state, acknowledge(1, 77))).toEqual({ state: "acknowledged", delivered: 1 });
    expect(state.transactions()[0]).toMatchObject({ participants: [A, B], pending: [B] });
    expect(one(state, acknowledge(1))).toEqual({ state: "acknowledged", delivered: 0 });
    expect(one(state, acknowledge(2, 1))).toEqual({ state: "acknowledged", delivered: 1 });
    expect([state.open, state.undelivered]).toEqual([0, 0]);
  });
});

describe("forgetting", () => {
  it("takes the oldest beyond the number, and accepts nothing from before that", () => {
    const state = bounded({ maxOutcomes: 2 });
    const ids = [0, 1, 2, 3].map((n) => id(`t${n}`, NOW + n));
    for (const t of ids) over(state, t, NOW + 100);
    expect(state.outcomes).toBe(2);
    expect(state.floorMs).toBe(NOW + 2);
    for (const forgotten of ids.slice(0, 2)) {
      expect(state.decided(forgotten)).toBeUndefined();
      expect(one(state, register(forgotten, A))).toEqual({ state: "unknown" });
      expect(one(state, decide(forgotten, "aborted"))).toEqual({ state: "unknown" });
      expect(one(state, decide(forgotten, "committed"))).toEqual({ state: "unknown" });
    }
    expect(one(state, register(id("never seen", NOW + 1), A))).toEqual({ state: "unknown" });
    expect(one(state, register(transactionId("no time in it"), A))).toEqual({ state: "unknown" });
    expect(one(state, decide(ids[2]!, "aborted"))).toMatchObject({ state: "committed" });
    expect(one(state, register(id("later", NOW + 2), A))).toMatchObject({ state: "registered" });
  });

  it("takes what is older than the age by the stamp", () => {
    const state = bounded({ outcomeAgeMs: 1_000 });
    over(state, id("t"), NOW);
    one(state, acknowledge(), NOW + 1_000);
    expect(state.outcomes).toBe(1);
    one(state, acknowledge(), NOW + 1_001);
    expect([state.outcomes, state.floorMs]).toEqual([0, NOW + 1]);
  });

  it("keeps what is not acknowledged by all, however old and however many", () => {
    const state = bounded({ maxOutcomes: 1, outcomeAgeMs: 10 });
    const t = id("t", NOW - 5);
    state.apply(NOW, [register(t, A, B), decide(t, "committed", Uint8Array.of(1))]);
    one(state, acknowledge(1));
    for (let n = 0; n < 5; n++) {
      const other = id(`o${n}`, NOW + n);
      state.apply(NOW + 1_000, [register(other, C), decide(other, "committed")]);
      one(
        state,
        acknowledge(...state.rows().flatMap((row) => (row.destination === C ? [row.id] : []))),
        NOW + 1_000 * n,
      );
    }
    expect(state.floorMs).toBeGreaterThan(NOW);
    expect(one(state, decide(t, "aborted"), NOW + 9_000)).toMatchObject({
      state: "committed",
      answer: Uint8Array.of(1),
    });
    acknowledgeAll(state, NOW + 9_000);
    one(state, acknowledge(), NOW + 20_000);
    expect(one(state, decide(t, "aborted"), NOW + 20_000)).toEqual({ state: "unknown" });
  });

  it("lets a registered transaction go on though the mark has passed its begin", () => {
    const state = bounded({ maxOutcomes: 1 });
    const t = id("slow", NOW - 500);
    one(state, register(t, A));
    for (let n = 0; n < 3; n++) over(state, id(`t${n}`, NOW + n));
    expect(state.floorMs).toBeGreaterThan(NOW);
    expect(one(state, register(t, B))).toEqual({ state: "registered", changed: false });
    expect(one(state, decide(t, "committed"))).toMatchObject({ state: "committed", changed: true });
  });

  it("forgets answers with their transactions, and counts anew what is left when it is restored", () => {
    const bounds = { ...COORDINATOR_BOUNDS, maxOutcomes: 2 };
    let state = new CoordinatorState(bounds);
    const commit = (n: number): void => {
      const t = id(`t${n}`, NOW + n);
      state.apply(NOW, [register(t, A), decide(t, "committed", new Uint8Array(10))]);
      acknowledgeAll(state);
    };
    const answers = () => state.image().answers.map(([t]) => t.slice(0, 2));
    for (let n = 0; n < 4; n++) commit(n);
    expect(answers()).toEqual(["t2", "t3"]);
    one(state, register(id("open", NOW + 9), A));
    state = CoordinatorState.fromImage(state.image(), { ...bounds, maxOutcomes: 9, maxTotalAnswerBytes: 25 });
    expect(state.registered).toBe(1);
    commit(4);
    expect(answers()).toEqual(["t3", "t4"]);
  });

  it("survives a stamp from the far future", () => {
    const state = new CoordinatorState();
    over(state, id("before"));
    over(state, id("wrong", NOW + 1), NOW * 2);
    expect(state.floorMs).toBe(NOW + 1);
    for (let n = 0; n < 50; n++) over(state, id(`t${n}`, NOW + 10 + n), NOW + 10 + n);
    expect(one(state, register(id("t", NOW + 10), A), NOW + 100)).toMatchObject({ state: "registered" });
    expect(state.outcomes).toBe(51);
  });
});

describe("bounds", () => {
  it("refuses registrations while too many transactions are open, and nothing else", () => {
    const state = bounded({ maxOpen: 2 });
    one(state, register(id("a"), A));
    state.apply(NOW, [register(id("b"), A), decide(id("b"), "aborted")]);
    expect(one(state, register(id("c"), A))).toEqual({ state: "full" });
    expect(one(state, register(id("a"), B))).toMatchObject({ state: "registered" });
    expect(one(state, decide(id("d"), "aborted"))).toMatchObject({ state: "aborted", changed: true });
    expect(one(state, register(id("d"), A))).toMatchObject({ state: "aborted" });
    expect([state.open, state.undelivered]).toEqual([2, 1]);
    acknowledgeAll(state);
    expect(one(state, register(id("d"), A))).toMatchObject({ state: "aborted" });
    expect(state.undelivered).toBe(1);
    acknowledgeAll(state);
    expect(one(state, register(id("c"), A))).toMatchObject({ state: "registered", changed: true });
  });

  it("keeps no long answers, and of the others the newest", () => {
    const state = bounded({ maxAnswerBytes: 10, maxTotalAnswerBytes: 20 });
    const commit = (name: string, bytes: number): void => {
      state.apply(NOW, [register(id(name), A), decide(id(name), "committed", new Uint8Array(bytes).fill(7))]);
    };
    commit("long", 11);
    expect(state.decided(id("long"))).toEqual({ decision: "committed", answer: undefined });
    for (const name of ["a", "b", "c"]) commit(name, 8);
    expect(state.decided(id("a"))).toEqual({ decision: "committed", answer: undefined });
    expect(state.decided(id("b"))?.answer).toHaveLength(8);
    commit("empty", 0);
    expect(state.decided(id("empty"))?.answer).toHaveLength(0);
  });

  it("does not let ids from the future lift the mark", () => {
    const state = bounded({ maxOutcomes: 3, maxAheadMs: 1_000, maxAheadTombstones: 2, outcomeAgeMs: 5_000 });
    const future = (n: number) => id(`f${n}`, NOW + 100_000 + n);
    expect(one(state, register(future(0), A))).toEqual({ state: "ahead" });
    expect(one(state, decide(future(0), "aborted"))).toMatchObject({ state: "aborted" });
    expect(one(state, decide(future(1), "committed"))).toMatchObject({ state: "aborted" });
    expect(one(state, decide(future(2), "aborted"))).toEqual({ state: "ahead" });
    for (let n = 0; n < 10; n++) over(state, id(`t${n}`, NOW + n), NOW + n);
    expect(state.floorMs).toBeLessThan(NOW + 20);
    expect(one(state, register(future(0), A))).toMatchObject({ state: "aborted" });
    expect(state.outcomes).toBe(3);
    // When the time has come they are like others: remembered, then forgotten.
    const later = NOW + 99_500;
    expect(one(state, register(future(0), A), later)).toMatchObject({ state: "aborted" });
    expect(one(state, decide(future(2), "aborted"), later)).toMatchObject({ state: "aborted" });
    acknowledgeAll(state, later + 10_000);
    one(state, acknowledge(), later + 20_000);
    expect(state.outcomes).toBe(0);
    expect(one(state, register(future(1), A), later + 20_000)).toEqual({ state: "unknown" });
  });
});

// --- random commands --------------------------------------------------------------------------------------------------

const SMALL: CoordinatorBounds = {
  outcomeAgeMs: 400,
  maxOutcomes: 6,
  maxAnswerBytes: 8,
  maxTotalAnswerBytes: 30,
  maxOpen: 5,
  maxAheadMs: 50,
  maxAheadTombstones: 2,
};

function check(condition: boolean, what: string): void {
  if (!condition) throw new Error(what);
}

/** What may never happen, whatever the commands are. */
class Watch {
  readonly decisions = new Map<TransactionId, Decision>();
  readonly registered = new Set<TransactionId>();
  readonly named = new Map<TransactionId, Set<number>>();
  readonly told = new Map<TransactionId, Map<number, Decision>>();
  readonly undelivered = new Map<number, TransactionId>();
  floorMs = 0;

  saw(command: CoordinatorCommand, result: CoordinatorResult, floorMs: number): void {
    if (command.kind === "acknowledge") {
      for (const row of command.rows) this.undelivered.delete(row);
      return;
    }
    const { transaction } = command;
    if (result.state === "registered") {
      check(!this.decisions.has(transaction), "registered after a decision");
      if (result.changed) check(beganMs(transaction) >= floorMs, "registered below the mark");
      this.registered.add(transaction);
      const named = this.named.get(transaction) ?? new Set();
      this.named.set(transaction, named);
      if (command.kind === "register") for (const range of command.participants) named.add(range);
    }
    if (result.state === "committed" || result.state === "aborted") {
      if (result.state === "committed")
        check(this.registered.has(transaction), "committed and not registered");
      check((this.decisions.get(transaction) ?? result.state) === result.state, "two decisions");
      if (result.changed) check(!this.decisions.has(transaction), "decided twice");
      this.decisions.set(transaction, result.state);
    }
    if (result.state === "unknown") check(beganMs(transaction) < floorMs, "unknown above the mark");
  }

  after(state: CoordinatorState): void {
    for (const row of state.takeFreshRows()) {
      this.undelivered.set(row.id, row.transaction);
      const told = this.told.get(row.transaction) ?? new Map<number, Decision>();
      this.told.set(row.transaction, told);
      check((told.get(row.destination) ?? row.decision) === row.decision, "a range is told two decisions");
      told.set(row.destination, row.decision);
    }
    for (const [transaction, decision] of this.decisions) {
      const told = this.told.get(transaction);
      for (const range of this.named.get(transaction) ?? [])
        check(told?.get(range) === decision, "a participant has no row");
    }
    for (const transaction of this.undelivered.values())
      check(
        state.decided(transaction)?.decision === this.decisions.get(transaction),
        "forgotten before all acknowledged",
      );
    const rows = state.rows().map((row) => row.id);
    check(String([...this.undelivered.keys()]) === String(rows), "a row is lost");
    check(state.floorMs >= this.floorMs, "the mark sinks");
    this.floorMs = state.floorMs;
    check(state.open <= SMALL.maxOpen, "too much is open");
    check(state.outcomes <= SMALL.maxOutcomes + SMALL.maxAheadTombstones, "too much is remembered");
  }
}

function randomCommand(random: SeededRandom, nowMs: number, state: CoordinatorState): CoordinatorCommand {
  const below = (n: number): number => Math.floor(random.float() * n);
  const began = nowMs - below(600) + (below(20) === 0 ? 500 : 0);
  const transaction = id(`t${below(3)}`, began - (began % 40));
  switch (below(5)) {
    case 0:
    case 1:
      return register(transaction, ...[3, 7, 9].slice(below(3)));
    case 2:
      return decide(transaction, "committed", new Uint8Array(below(10)));
    case 3:
      return decide(transaction, "aborted");
    default:
      return acknowledge(...state.rows().flatMap((row) => (below(3) === 0 ? [row.id] : [])), below(1_000));
  }
}

function plain(value: unknown): string {
  return JSON.stringify(value);
}

it("keeps its promises whatever it is told, and restores to an equal state", () => {
  const only = process.env.SEED;
  const seeds = only === undefined ? Array.from({ length: 60 }, (_, n) => n + 1) : [Number(only)];
  const seen = new Set<string>();
  for (const seed of seeds) {
    const random = new SeededRandom(seed);
    let state = new CoordinatorState(SMALL);
    const watch = new Watch();
    let nowMs = NOW;
    try {
      for (let step = 0; step < 300; step++) {
        nowMs += Math.floor(random.float() * 15);
        const skewed = random.float() < 0.05 ? nowMs - 300 : nowMs;
        const command = randomCommand(random, nowMs, state);
        const before = state.floorMs;
        const copy = CoordinatorState.fromImage(state.image(), SMALL);
        const result = one(state, command, skewed);
        check(plain(one(copy, command, skewed)) === plain(result), "a restored state answers otherwise");
        check(plain(copy.image()) === plain(state.image()), "a restored state goes on otherwise");
        seen.add(`${command.kind} ${result.state}`);
        watch.saw(command, result, before);
        watch.after(state);
        if (random.float() < 0.1) state = CoordinatorState.fromImage(state.image(), SMALL);
      }
    } catch (error) {
      throw new Error(`SEED=${seed}: ${String(error)}`, { cause: error });
    }
  }
  if (only === undefined)
    expect([...seen].sort()).toEqual([
      "acknowledge acknowledged",
      "decide aborted",
      "decide ahead",
      "decide committed",
      "decide unknown",
      "register aborted",
      "register ahead",
      "register committed",
      "register full",
      "register registered",
      "register unknown",
    ]);
});

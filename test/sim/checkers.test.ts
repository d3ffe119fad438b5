/** The checkers of histories, each tried on hand-made histories: one per anomaly, and one that is fine. */
import { describe, expect, it } from "vitest";
import { checkBank } from "./checkers/bank.js";
import { checkMonotonic, type MonotonicEvent } from "./checkers/monotonic.js";
import { checkRegisters, type RegisterAction, type RegisterOperation } from "./checkers/register.js";
import { type AddOutcome, checkCounter, checkSet } from "./checkers/set.js";
import { SeededRandom } from "./seeded-random.js";

const NEVER = Number.POSITIVE_INFINITY;

describe("set", () => {
  const added = new Map<string, AddOutcome>([
    ["a", "acknowledged"],
    ["b", "unknown"],
    ["c", "failed"],
  ]);
  it.each([
    [["a"], "valid"],
    [["a", "b"], "valid"],
    [["b"], "invalid"],
    [["a", "a"], "invalid"],
    [["a", "b", "b"], "invalid"],
    [["a", "c"], "invalid"],
    [["a", "z"], "invalid"],
  ])("found %j: %s", (found, verdict) => {
    expect(checkSet({ added, found }).verdict).toBe(verdict);
  });
  it("does not pass when nothing was acknowledged", () => {
    expect(checkSet({ added: new Map([["a", "unknown" as const]]), found: [] }).verdict).toBe("unknown");
  });
  it("keeps the list of problems short", () => {
    const many = new Map(Array.from({ length: 100 }, (_, i) => [i, "acknowledged" as const]));
    const { problems } = checkSet({ added: many, found: [] });
    expect(problems.length).toBe(21);
    expect(problems.at(-1)).toContain("80 more");
  });
});

describe("counter", () => {
  it.each([
    [5, 2, 5, "valid"],
    [5, 2, 7, "valid"],
    [5, 2, 4, "invalid"],
    [5, 2, 8, "invalid"],
    [0, 0, 0, "unknown"],
  ])("%i acknowledged, %i unknown, value %i: %s", (acknowledged, unknown, value, verdict) => {
    expect(checkCounter({ acknowledged, unknown, value }).verdict).toBe(verdict);
  });
});

describe("bank", () => {
  const bank = (...reads: number[][]) => checkBank({ total: 30, accounts: 3, reads }).verdict;
  it("accepts every spread of the total", () => expect(bank([10, 10, 10], [0, 30, 0])).toBe("valid"));
  it("sees a torn read", () => expect(bank([10, 10, 10], [5, 10, 10])).toBe("invalid"));
  it("sees a lost account", () => expect(bank([10, 20])).toBe("invalid"));
  it("sees an overdraft", () => expect(bank([-5, 25, 10])).toBe("invalid"));
  it("does not pass without reads", () => expect(bank()).toBe("unknown"));
});

const event = (
  client: string,
  kind: "write" | "read",
  value: number,
  startMs: number,
  endMs: number,
): MonotonicEvent => ({ client, kind, value, startMs, endMs });

describe("monotonic", () => {
  const check = (...history: MonotonicEvent[]) => checkMonotonic(history).verdict;
  it("accepts old and new while a write is under way", () =>
    expect(
      check(
        event("w", "write", 0, 0, 1),
        event("w", "write", 1, 10, 20),
        event("a", "read", 0, 12, 14),
        event("b", "read", 1, 13, 15),
      ),
    ).toBe("valid"));
  it("sees a read that is older than an acknowledged write", () =>
    expect(
      check(event("w", "write", 0, 0, 1), event("w", "write", 1, 10, 20), event("a", "read", 0, 21, 22)),
    ).toBe("invalid"));
  it("sees a read that is older than another one's", () =>
    expect(
      check(
        event("w", "write", 0, 0, 1),
        event("w", "write", 1, 10, NEVER),
        event("a", "read", 1, 12, 14),
        event("b", "read", 0, 15, 16),
      ),
    ).toBe("invalid"));
  it("sees a value from the future", () =>
    expect(check(event("a", "read", 1, 1, 2), event("w", "write", 1, 3, 4))).toBe("invalid"));
  it("does not pass without reads", () => expect(check(event("w", "write", 1, 1, 2))).toBe("unknown"));
});

const op = (
  client: string,
  action: RegisterAction,
  startMs: number,
  endMs: number,
  key = "x",
): RegisterOperation => ({
  key,
  client,
  action,
  startMs,
  endMs,
});
const w = (value: number): RegisterAction => ({ kind: "write", value });
const r = (value: number | null): RegisterAction => ({ kind: "read", value });

describe("register", () => {
  const check = (...history: RegisterOperation[]) => checkRegisters(history).verdict;
  it("accepts a sequential history", () =>
    expect(check(op("a", r(null), 0, 1), op("a", w(1), 2, 3), op("b", r(1), 4, 5))).toBe("valid"));
  it("sees a stale read", () =>
    expect(check(op("a", w(1), 0, 1), op("a", w(2), 2, 3), op("b", r(1), 4, 5))).toBe("invalid"));
  it("accepts either value while a write is under way, in either order of overlapping reads", () =>
    expect(check(op("a", w(1), 0, 10), op("b", r(1), 2, 6), op("c", r(null), 3, 5))).toBe("valid"));
  it("sees new, then old, one after the other", () =>
    expect(check(op("a", w(1), 0, 10), op("b", r(1), 2, 3), op("c", r(null), 4, 5))).toBe("invalid"));
  it("sees a value nobody wrote", () =>
    expect(check(op("a", w(1), 0, 1), op("b", r(7), 2, 3))).toBe("invalid"));
  it("lets an unknown write happen late, or never", () => {
    expect(check(op("a", w(1), 0, NEVER), op("b", r(null), 5, 6), op("b", r(1), 7, 8))).toBe("valid");
    expect(check(op("a", w(1), 0, NEVER), op("b", r(null), 5, 6))).toBe("valid");
    expect(check(op("a", w(1), 9, NEVER), op("b", r(1), 5, 6))).toBe("invalid");
  });
  it("does not let an unknown write happen twice", () =>
    expect(
      check(op("a", w(1), 0, NEVER), op("b", r(1), 1, 2), op("b", w(2), 3, 4), op("b", r(1), 5, 6)),
    ).toBe("invalid"));
  it("sees a lost update between two swaps", () => {
    const swap = (expected: number | null, value: number): RegisterAction => ({
      kind: "swap",
      expected,
      value,
    });
    expect(check(op("a", w(0), 0, 1), op("b", swap(0, 1), 2, 9), op("c", swap(0, 2), 3, 8))).toBe("invalid");
    expect(check(op("a", w(0), 0, 1), op("b", swap(0, 1), 2, 9), op("c", swap(1, 2), 3, 8))).toBe("valid");
  });
  it("takes a swap that failed for a look at the register", () => {
    const differs: RegisterAction = { kind: "differs", value: 1 };
    expect(check(op("a", w(1), 0, 1), op("b", differs, 2, 3))).toBe("invalid");
    expect(check(op("a", w(1), 0, 1), op("a", w(2), 2, 3), op("b", differs, 4, 5))).toBe("valid");
    expect(check(op("a", w(1), 0, 9), op("b", differs, 2, 3), op("b", differs, 4, 5))).toBe("valid");
  });
  it("judges each key alone", () => {
    const fine = [op("a", w(1), 0, 1, "y"), op("b", r(1), 2, 3, "y")];
    expect(check(...fine, op("a", w(1), 0, 1), op("b", r(1), 2, 3))).toBe("valid");
    expect(checkRegisters([...fine, op("a", w(1), 0, 1), op("b", r(null), 2, 3)]).problems[0]).toContain(
      "key x",
    );
  });
  it("says that it gave up, and does not pass an empty history", () => {
    expect(checkRegisters([op("a", w(1), 0, 1), op("b", w(2), 0, 1)], { maxSteps: 1 }).verdict).toBe(
      "unknown",
    );
    expect(check()).toBe("unknown");
  });

  /** Histories of a real register, with the moments of effect at random, and the same with one read made stale. */
  it("agrees with a register that was really used", () => {
    const seed = Number(process.env.SEED ?? 20_261_123);
    const random = new SeededRandom(seed);
    for (let round = 0; round < 200; round++) {
      const { history, effects } = realHistory(random, 30);
      expect(checkRegisters(history).verdict, `seed ${seed} round ${round}`).toBe("valid");
      const reads = effects.filter(({ action, startMs }) => action.kind === "read" && startMs > 0);
      const victim = reads[random.uint32() % Math.max(1, reads.length)];
      if (victim === undefined) continue;
      const invented = history.map((o) => (o === victim ? { ...o, action: r(-1) } : o));
      expect(checkRegisters(invented).verdict, `seed ${seed} round ${round}`).toBe("invalid");
    }
  });
});

function realHistory(random: SeededRandom, operations: number) {
  const planned = Array.from({ length: operations }, (_, i) => {
    const startMs = random.float() * 100;
    const effectMs = startMs + random.float() * 10;
    return { i, startMs, effectMs, endMs: effectMs + random.float() * 10, write: random.float() < 0.5 };
  });
  let value: number | null = null;
  const effects = planned
    .sort((a, b) => a.effectMs - b.effectMs)
    .map(({ i, startMs, endMs, write }) => {
      if (write) value = i;
      const unknown = write && random.float() < 0.2;
      return op(`c${i}`, write ? w(i) : r(value), startMs, unknown ? NEVER : endMs);
    });
  return { history: [...effects].sort((a, b) => a.startMs - b.startMs), effects };
}

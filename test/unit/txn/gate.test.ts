/** Who may go on, who waits for held transactions and fences, and in which order. */
import { describe, expect, it } from "vitest";
import { transactionId } from "../../../src/base/ids.js";
import type { Span } from "../../../src/sql/types.js";
import { type Entrant, Gate, MAX_OVERTAKEN, type Passage } from "../../../src/txn/gate.js";
import { Holds } from "../../../src/txn/holds.js";
import { EVERYTHING, intersects, SCHEMA, SpanSet } from "../../../src/txn/spans.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const at = (low: number, high = low, table = "t"): Span[] => [
  { table, low: BigInt(low), high: BigInt(high) },
];
const id = transactionId;
const write = (writes: Span[], reads: Span[] = []): Entrant => ({ kind: "write", reads, writes });
const read = (reads: Span[], untilMs?: number): Entrant => ({ kind: "read", reads, untilMs });
const prepare = (name: string, writes: Span[], reads: Span[] = [], untilMs = 100): Entrant => ({
  kind: "prepare",
  id: id(name),
  reads,
  writes,
  untilMs,
  brieflyUntilMs: Math.min(20, untilMs),
});
const fence = (name: string, spans: Span[], untilMs = 100, expiresMs = 1000): Entrant => ({
  kind: "fence",
  id: name,
  spans,
  untilMs,
  expiresMs,
});

function settled(gate: Gate, nowMs = 0): [number, Passage][] {
  return [...gate.settle(nowMs)].map(({ ticket, passage }) => [ticket, passage]);
}

describe("span sets", () => {
  it("meet what any of their spans intersects (random)", () => {
    const seed = 20_260_101;
    const random = new SeededRandom(seed);
    const below = (n: number): number => random.uint32() % n;
    const bound = (): bigint | undefined => (below(4) === 0 ? undefined : BigInt(below(6)));
    const span = (): Span => {
      const table = ["t", "u", "", "*"][below(40) === 0 ? 3 : below(3)]!;
      const low = bound();
      return below(2) === 0 ? { table, low, high: low } : { table, low, high: bound() };
    };
    for (let i = 0; i < 20_000; i++) {
      const mine = Array.from({ length: below(4) }, span);
      const theirs = Array.from({ length: below(3) }, span);
      const expected = mine.some((a) => theirs.some((b) => intersects(a, b)));
      expect(new SpanSet(mine).meets(theirs), `seed ${seed}, round ${i}`).toBe(expected);
    }
  });
});

describe("holds", () => {
  it("are met by readers of what is written, and by writers of what is read or written", () => {
    const holds = new Holds();
    holds.hold(id("a"), [SCHEMA, ...at(1)], at(2));
    expect(holds.meets(at(1), [])).toBe(false);
    expect(holds.meets(at(2), [])).toBe(true);
    expect(holds.meets([], at(1))).toBe(true);
    expect(holds.meets([], at(2))).toBe(true);
    expect(holds.meets([], [SCHEMA])).toBe(true);
    expect(holds.meets([EVERYTHING], [])).toBe(true);
    expect(holds.meets(at(3), at(3))).toBe(false);
    expect(holds.meets(at(2), at(2), id("a"))).toBe(false);
    expect(holds.writes()).toEqual(at(2));
    holds.release(id("a"));
    expect(holds.writes()).toBeUndefined();
    expect(holds.meets([EVERYTHING], [EVERYTHING])).toBe(false);
  });

  it("tell a watch of what is held anew", () => {
    const holds = new Holds();
    const watch = holds.watch(at(1, 3));
    holds.hold(id("a"), at(2), at(4));
    expect(watch.met).toBe(false);
    holds.hold(id("b"), [], at(3));
    expect(watch.met).toBe(true);
  });
});

describe("the gate", () => {
  it("is clear until something is held, and lets everybody pass", () => {
    const gate = new Gate({ claimMs: 50 });
    expect(gate.clear).toBe(true);
    expect(gate.enter(write(at(1), at(2)), 0)).toBe("go");
    expect(gate.enter(read([EVERYTHING]), 0)).toBe("go");
    expect(gate.enter({ kind: "drain", untilMs: 0 }, 0)).toBe("go");
    expect(gate.clear).toBe(true);
    expect(gate.enter(prepare("a", at(1)), 0)).toBe("go");
    expect(gate.clear).toBe(false);
  });

  it("keeps readers and writers waiting for what is held, in the order of their arrival", () => {
    const gate = new Gate({ claimMs: 50 });
    gate.enter(prepare("a", at(1), at(2)), 0);
    expect(gate.enter(read(at(2)), 0)).toBe("go");
    const reader = gate.enter(read(at(1)), 0);
    const writer = gate.enter(write(at(2)), 0);
    const drain = gate.enter({ kind: "drain", untilMs: 1000 }, 0);
    expect(settled(gate)).toEqual([]);
    gate.holds.release(id("a"));
    expect(settled(gate)).toEqual([
      [reader, "go"],
      [writer, "go"],
      [drain, "go"],
    ]);
    expect(gate.clear).toBe(true);
  });

  it("keeps a PREPARE waiting for an earlier one that it meets, a bounded time", () => {
    const gate = new Gate({ claimMs: 50 });
    gate.enter(prepare("a", at(1), at(5)), 0);
    const tickets = [
      gate.enter(prepare("b", at(1)), 0),
      gate.enter(prepare("c", at(9), at(1)), 0),
      gate.enter(prepare("d", at(5), [], 70), 0),
    ];
    expect(gate.enter(prepare("e", at(6), at(3)), 0)).toBe("go");
    expect(settled(gate, 50)).toEqual([]);
    expect(gate.nextMs()).toBe(70);
    expect(settled(gate, 70)).toEqual([[tickets[2], "held"]]);
    gate.holds.release(id("a"));
    // The next in line is now waited for.
    expect(settled(gate, 71)).toEqual([[tickets[0], "go"]]);
    expect(settled(gate, 100)).toEqual([[tickets[1], "held"]]);
    expect(gate.enter(prepare("f", at(1)), 71)).toEqual(expect.any(Number));
  });

  it("keeps it waiting only briefly for a later one", () => {
    const gate = new Gate({ claimMs: 50 });
    gate.enter(prepare("x@2", at(1)), 0);
    gate.enter(prepare("y@a", at(2)), 0);
    const between = gate.enter(prepare("b@9", at(1, 2)), 0);
    expect(gate.nextMs()).toBe(20);
    gate.holds.release(id("y@a"));
    expect(settled(gate, 19)).toEqual([]);
    // What is left in its way is earlier.
    expect(gate.nextMs()).toBe(100);
    expect(settled(gate, 20)).toEqual([]);
    gate.enter(prepare("z@b", at(2)), 30);
    expect(settled(gate, 30)).toEqual([[between, "held"]]);
  });

  it("breaks a circle of transactions that wait for one another at different ranges early", () => {
    const [left, right] = [new Gate({ claimMs: 50 }), new Gate({ claimMs: 50 })];
    expect(left.enter(prepare("a@1", at(1)), 0)).toBe("go");
    expect(right.enter(prepare("b@2", at(1)), 0)).toBe("go");
    const earlier = right.enter(prepare("a@1", at(1)), 0);
    const later = left.enter(prepare("b@2", at(1)), 0);
    expect(settled(left, 20)).toEqual([]);
    expect(settled(right, 20)).toEqual([[earlier, "held"]]);
    left.holds.release(id("a@1"));
    expect(settled(left, 21)).toEqual([[later, "go"]]);
  });

  it("lets fences stand together and keeps writers out until they end", () => {
    const gate = new Gate({ claimMs: 50 });
    expect(gate.enter(fence("f", at(1, 5)), 0)).toBe("go");
    expect(gate.enter(fence("g", at(5)), 0)).toBe("go");
    expect(gate.enter(write(at(6), at(1)), 0)).toBe("go");
    const writer = gate.enter(write(at(5)), 0);
    expect(gate.fences.end("f")).toBe(true);
    expect(settled(gate)).toEqual([]);
    expect(gate.fences.end("g")).toBe(true);
    expect(settled(gate)).toEqual([[writer, "go"]]);
    expect(gate.fences.end("g")).toBe(false);
  });

  it("lets a fence expire, and never stand again under its id", () => {
    const gate = new Gate({ claimMs: 50 });
    gate.enter(fence("f", at(1), 100, 200), 0);
    const writer = gate.enter(write(at(1)), 0);
    expect(gate.nextMs()).toBe(200);
    expect(settled(gate, 199)).toEqual([]);
    expect(settled(gate, 200)).toEqual([[writer, "go"]]);
    expect(gate.fences.ended("f")).toBe(true);
    expect(gate.fences.end("f")).toBe(false);
    expect(gate.enter(fence("f", at(1)), 201)).toBe("late");
    gate.fences.end("never came");
    expect(gate.enter(fence("never came", at(1)), 201)).toBe("late");
  });

  it("gives up a PREPARE that fences keep out for too long, and keeps a place for its next try", () => {
    const gate = new Gate({ claimMs: 50 });
    gate.enter(fence("f", at(1), 100, 10_000), 0);
    const waiting = gate.enter(prepare("a", at(1), [], 150), 0);
    expect(gate.nextMs()).toBe(150);
    expect(settled(gate, 149)).toEqual([]);
    expect(settled(gate, 150)).toEqual([[waiting, "late"]]);
    const blocked = gate.enter(fence("g", at(1), 500), 151);
    expect(typeof blocked).toBe("number");
    expect(gate.enter(fence("h", at(2), 500), 151)).toBe("go");
    gate.fences.end("f");
    expect(gate.enter(prepare("again", at(1), [], 300), 152)).toBe("go");
    expect(settled(gate, 152)).toEqual([[blocked, "go"]]);
  });

  it("forgets a place that nobody comes for", () => {
    const gate = new Gate({ claimMs: 50 });
    gate.enter(fence("f", at(1), 100, 10_000), 0);
    gate.enter(prepare("a", at(1), [], 10), 0);
    settled(gate, 10);
    const blocked = gate.enter(fence("g", at(1), 500), 11);
    expect(settled(gate, 59)).toEqual([]);
    expect(settled(gate, 60)).toEqual([[blocked, "go"]]);
  });

  it("lets fresh PREPAREs overtake a waiting statement only so often", () => {
    const gate = new Gate({ claimMs: 50 });
    gate.enter(prepare("x0", at(0)), 0);
    const writer = gate.enter(write(at(0, 9)), 0);
    for (let i = 1; i <= MAX_OVERTAKEN; i++) expect(gate.enter(prepare(`x${i}`, at(i)), 0)).toBe("go");
    const queued = gate.enter(prepare("queued", at(9)), 0);
    expect(typeof queued).toBe("number");
    expect(gate.enter(prepare("elsewhere", at(20)), 0)).toBe("go");
    for (let i = 0; i <= MAX_OVERTAKEN; i++) gate.holds.release(id(`x${i}`));
    expect(settled(gate)).toEqual([
      [writer, "go"],
      [queued, "go"],
    ]);
  });

  it("lets fresh fences overtake a waiting writer only so often", () => {
    const gate = new Gate({ claimMs: 50 });
    gate.enter(fence("f0", at(1)), 0);
    const writer = gate.enter(write(at(1)), 0);
    for (let i = 1; i <= MAX_OVERTAKEN; i++) expect(gate.enter(fence(`f${i}`, at(1)), 0)).toBe("go");
    const queued = gate.enter(fence("queued", at(1)), 0);
    expect(typeof queued).toBe("number");
    for (let i = 0; i <= MAX_OVERTAKEN; i++) gate.fences.end(`f${i}`);
    expect(settled(gate)).toEqual([
      [writer, "go"],
      [queued, "go"],
    ]);
  });

  it("closes to PREPAREs, then to writers and fences, and opens again", () => {
    const gate = new Gate({ claimMs: 50 });
    gate.enter(prepare("a", at(1)), 0);
    gate.close("to prepares");
    expect(gate.clear).toBe(false);
    expect(gate.enter(write(at(2)), 0)).toBe("go");
    const prepared = gate.enter(prepare("b", at(2)), 0);
    const drain = gate.enter({ kind: "drain", untilMs: 100 }, 0);
    gate.holds.release(id("a"));
    expect(settled(gate)).toEqual([[drain, "go"]]);
    gate.close("to writers");
    const writer = gate.enter(write(at(3)), 0);
    const fenced = gate.enter(fence("f", at(4)), 0);
    expect(gate.enter(read(at(3)), 0)).toBe("go");
    expect(settled(gate)).toEqual([]);
    gate.open();
    expect(settled(gate)).toEqual([
      [prepared, "go"],
      [writer, "go"],
      [fenced, "go"],
    ]);
  });

  it("lets whoever passes act before it judges the next", () => {
    const gate = new Gate({ claimMs: 50 });
    gate.enter(fence("f", at(1)), 0);
    const first = gate.enter(prepare("a", at(1)), 0);
    const second = gate.enter(write(at(1)), 0);
    gate.fences.end("f");
    const told: [number, Passage][] = [];
    for (const { ticket, passage } of gate.settle(0)) told.push([ticket, passage]);
    expect(told).toEqual([[first, "go"]]);
    // Its validation failed: it lets go in its own step.
    gate.holds.release(id("a"));
    expect(settled(gate)).toEqual([[second, "go"]]);
  });
});

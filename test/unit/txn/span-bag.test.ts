/** Spans gathered: as few as may be, and no key more or less. */
import { describe, expect, it } from "vitest";
import { logIndex, term, transactionId } from "../../../src/base/ids.js";
import { END_OF_TABLE, type Span } from "../../../src/sql/types.js";
import { SpanBag } from "../../../src/txn/span-bag.js";
import { intersects, isPoint } from "../../../src/txn/spans.js";
import { spansLookedAt, spansWritten, TransactionTable } from "../../../src/txn/transactions.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const key = (at: number | bigint, table = "t"): Span => ({ table, low: BigInt(at), high: BigInt(at) });
const between = (low: number, high: number): Span => ({ table: "t", low: BigInt(low), high: BigInt(high) });
const end = key(END_OF_TABLE);

const below = (random: SeededRandom, limit: number): number => Math.floor(random.float() * limit);

describe("a bag of spans", () => {
  it("keeps a load of consecutive rows as one span, whatever comes in between", () => {
    const bag = new SpanBag();
    for (let i = 1; i <= 10_000; i++) bag.addAll([key(i), end, key(7, "other")]);
    expect(bag.spans()).toEqual([end, between(1, 10_000), key(7, "other")]);
    expect(bag.add(key(5_000))).toBe(false);
    expect(bag.add(key(10_001))).toBe(true);
  });

  it("keeps short runs as keys, and the last rowid apart from the end of the table", () => {
    const last = END_OF_TABLE - 1n;
    const bag = new SpanBag([key(1), key(2), key(3), key(last), end]);
    expect(bag.spans().every(isPoint)).toBe(true);
    expect(bag.spans()).toHaveLength(5);
  });

  it("has the keys that were added and no others", () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = new SeededRandom(seed);
      const bag = new SpanBag();
      const added: Span[] = [];
      let next = 0;
      for (let i = 0; i < 300; i++) {
        const kind = below(random, 20);
        const start = below(random, 400);
        if (kind === 0) next = start;
        const span =
          kind === 1
            ? between(start, start + below(random, 100))
            : kind === 2
              ? end
              : kind === 3
                ? { table: "t", low: undefined, high: BigInt(below(random, 20)) }
                : key(next++);
        if (!bag.add(span)) expect(bag.spans().some((has) => intersects(has, span))).toBe(true);
        added.push(span);
      }
      const spans = bag.spans();
      const has = (of: readonly Span[], at: bigint): boolean => of.some((span) => intersects(span, key(at)));
      for (let at = -2n; at < 720n; at++)
        expect(has(spans, at), `seed ${seed}, key ${at}`).toBe(has(added, at));
      expect(has(spans, END_OF_TABLE)).toBe(has(added, END_OF_TABLE));
    }
  });
});

describe("what an open transaction has touched", () => {
  const nothing = { reads: [], writes: [], checks: [] };

  it("is validated as of the earliest time it was read at", () => {
    const table = new TransactionTable<string>(term(1), 1_000);
    const open = table.open(transactionId("a"), logIndex(10), 0);
    table.ran(open, { ...nothing, reads: [key(1)] }, logIndex(10), undefined);
    const token = table.admit([key(1)])!;
    table.settle(token, logIndex(12));
    table.ran(open, { ...nothing, reads: [key(1)] }, logIndex(13), undefined);
    expect(table.conflict(open)).toContain("changed by another one");
  });

  it("counts as read early also where it was read later before", () => {
    const table = new TransactionTable<string>(term(1), 1_000);
    const open = table.open(transactionId("a"), logIndex(10), 0);
    table.settle(table.admit([key(1)])!, logIndex(12));
    table.ran(open, { ...nothing, reads: [key(1)] }, logIndex(13), undefined);
    expect(table.conflict(open)).toBeUndefined();
    table.ran(open, { ...nothing, reads: [key(1)] }, logIndex(11), undefined);
    expect(table.conflict(open)).toContain("changed by another one");
  });

  it("forgets with ROLLBACK TO what was written, and keeps what was looked at", () => {
    const table = new TransactionTable<string>(term(1), 1_000);
    const open = table.open(transactionId("a"), logIndex(10), 0);
    for (let i = 0; i < 200; i++)
      table.ran(open, { reads: [], writes: [key(i)], checks: [key(i, "p")] }, logIndex(10), "insert");
    expect(spansWritten(open)).toEqual([between(0, 199)]);
    table.truncate(open, 100);
    expect(spansWritten(open)).toEqual([between(0, 99)]);
    const looked = spansLookedAt(open);
    for (const at of [0, 99, 100, 199])
      expect(looked.some((span) => intersects(span, key(at, "p")))).toBe(true);
    table.ran(open, { ...nothing, writes: [key(100)] }, logIndex(10), "insert");
    expect(spansWritten(open)).toEqual([between(0, 100)]);
  });
});

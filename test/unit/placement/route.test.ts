/** From spans of tables to keys and ranges. */
import { describe, expect, it } from "vitest";
import { groupId } from "../../../src/base/ids.js";
import { encodeKey, encodeKeyAfter, tableEnd, tableStart } from "../../../src/base/keys.js";
import { covers, overlaps, type RangeDescriptor, type TableKey } from "../../../src/placement/descriptor.js";
import { RangeDirectory } from "../../../src/placement/directory.js";
import { FIRST_SPLIT_KEY, rangesOf, rowsOf, SliceCheck, spanToKeys } from "../../../src/placement/route.js";
import { END_OF_TABLE, type Footprint, type Span, UNIQUE_KEYS } from "../../../src/sql/types.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const table = (name: string, id: number, shard: TableKey["shard"]): TableKey => ({
  name,
  id,
  shard,
  keyColumns: [],
  autoincrement: false,
});
const TABLES = [
  table("a", 1, "rowid"),
  table("b", 2, "rowid"),
  table("k", 3, "key"),
  table("fts", 0, "home"),
];
const LAST = (1n << 63n) - 1n;

const whole = (name: string): Span => ({ table: name, low: undefined, high: undefined });
const span = (name: string, low: bigint | undefined, high: bigint | undefined): Span => ({
  table: name,
  low,
  high,
});
const range = (n: number, start: string, end: string): RangeDescriptor => ({
  range: groupId(n),
  start,
  end,
  generation: 1,
  replicas: [],
});

const reads = (spans: Span[]): Footprint => ({ reads: spans, writes: [], checks: [] });

/** [home, a up to 100), [a from 100, b up to 0), [b from 0, k), [k ...). */
const DIRECTORY = new RangeDirectory([
  range(3, "", encodeKey(1, [100n])),
  range(4, encodeKey(1, [100n]), encodeKey(2, [0n])),
  range(5, encodeKey(2, [0n]), tableStart(3)),
  range(6, tableStart(3), ""),
]);
const ids = (spans: Span[]): number[] => rangesOf(spans, TABLES, DIRECTORY).map((found) => found.range);

describe("spans of keys", () => {
  it("are intervals of a table's rows", () => {
    expect(spanToKeys(span("a", 5n, 7n), TABLES)).toEqual([
      { start: encodeKey(1, [5n]), end: encodeKeyAfter(1, [7n]) },
    ]);
    expect(spanToKeys(whole("a"), TABLES)).toEqual([{ start: tableStart(1), end: tableEnd(1) }]);
    expect(spanToKeys(span("a", undefined, -1n), TABLES)).toEqual([
      { start: tableStart(1), end: encodeKeyAfter(1, [-1n]) },
    ]);
  });

  it("put the end of a table behind all of its rows", () => {
    const [end] = spanToKeys(span("a", END_OF_TABLE, END_OF_TABLE), TABLES);
    expect(end!.end).toBe(tableEnd(1));
    expect(end!.start > encodeKey(1, [LAST])).toBe(true);
    expect(end!.start < end!.end).toBe(true);
    expect(spanToKeys(span("a", 3n, END_OF_TABLE), TABLES)).toEqual([
      { start: encodeKey(1, [3n]), end: tableEnd(1) },
    ]);
  });

  it("are whole tables where rows are not spread by rowid, everything where nothing is known", () => {
    expect(spanToKeys(span("k", 1n, 2n), TABLES)).toEqual([{ start: tableStart(3), end: tableEnd(3) }]);
    expect(spanToKeys(whole("fts"), TABLES)).toEqual([{ start: tableStart(0), end: tableEnd(0) }]);
    expect(spanToKeys(whole("new"), TABLES)).toEqual([{ start: "", end: "" }]);
    expect(spanToKeys(whole("*"), TABLES)).toEqual([{ start: "", end: "" }]);
    expect(spanToKeys(whole(""), TABLES)).toEqual([]);
  });
});

describe("ranges of spans", () => {
  it("are those that have keys of them, in key order", () => {
    expect(ids([span("a", 99n, 99n)])).toEqual([3]);
    expect(ids([span("a", 100n, 100n)])).toEqual([4]);
    expect(ids([span("a", 99n, 100n)])).toEqual([3, 4]);
    expect(ids([whole("b"), span("a", 1n, 1n)])).toEqual([3, 4, 5]);
    expect(ids([span("a", END_OF_TABLE, END_OF_TABLE)])).toEqual([4]);
    expect(ids([span("b", END_OF_TABLE, END_OF_TABLE)])).toEqual([5]);
    expect(ids([whole("fts")])).toEqual([3]);
    expect(ids([whole("k"), whole("")])).toEqual([6]);
    expect(ids([whole("")])).toEqual([]);
    expect(ids([whole("new")])).toEqual([3, 4, 5, 6]);
  });

  it("are the only one there is, whatever the spans", () => {
    const one = new RangeDirectory([range(3, "", "")]);
    expect(rangesOf([whole("")], TABLES, one)).toEqual(one.ranges);
  });
});

describe("a slice", () => {
  it("contains what all of the span's keys are in", () => {
    const second = new SliceCheck(DIRECTORY.ranges[1]!, TABLES);
    expect(second.contains(reads([span("a", 100n, undefined), span("b", undefined, -1n)]))).toBe(true);
    expect(second.contains(reads([span("a", 99n, 100n)]))).toBe(false);
    expect(second.contains(reads([span("b", -5n, 0n)]))).toBe(false);
    expect(second.contains(reads([whole("")]))).toBe(true);
    expect(second.contains(reads([whole("*")]))).toBe(false);
    const last = new SliceCheck(DIRECTORY.ranges[3]!, TABLES);
    expect(last.contains(reads([whole("k")]))).toBe(true);
    // Once it is known to be inside, and once it is not.
    expect(last.contains(reads([whole("k"), whole("b")]))).toBe(false);
    expect(new SliceCheck(range(3, "", ""), TABLES).contains(reads([whole("*"), whole("new")]))).toBe(true);
  });

  it("names the tables that SQLite would choose a key for without seeing the first rows", () => {
    const second = new SliceCheck(DIRECTORY.ranges[1]!, TABLES);
    const end = span("a", END_OF_TABLE, END_OF_TABLE);
    expect(second.appendsTo([end]).map(({ name }) => name)).toEqual(["a"]);
    expect(second.appendsTo([span("a", 200n, undefined)])).toEqual([]);
    const third = new SliceCheck(range(5, tableStart(2), ""), TABLES);
    expect(third.appendsTo([span("b", END_OF_TABLE, END_OF_TABLE)])).toEqual([]);
    expect(new SliceCheck(range(3, "", ""), TABLES).appendsTo([end])).toEqual([]);
  });

  it("agrees with the keys one by one (random)", () => {
    const seed = 41;
    const random = new SeededRandom(seed);
    const below = (n: number): number => random.uint32() % n;
    const bound = (): bigint | undefined => (below(3) === 0 ? undefined : BigInt(below(8)));
    for (let i = 0; i < 5_000; i++) {
      const cuts = [encodeKey(1, [BigInt(below(8))]), encodeKey(2, [BigInt(below(8))])] as const;
      const slice = [
        { start: "", end: cuts[0] },
        { start: cuts[0], end: cuts[1] },
        { start: cuts[1], end: "" },
      ][below(3)]!;
      const asked = span(["a", "b"][below(2)]!, bound(), bound());
      const [keys] = spanToKeys(asked, TABLES);
      const check = new SliceCheck(slice, TABLES);
      expect(check.contains(reads([asked])), `seed ${seed}, round ${i}`).toBe(covers(slice, keys!));
      const rows = Array.from({ length: 8 }, (_, n) => BigInt(n)).filter(
        (n) => (asked.low === undefined || n >= asked.low) && (asked.high === undefined || n <= asked.high),
      );
      const id = asked.table === "a" ? 1 : 2;
      for (const row of rows) {
        const key = { start: encodeKey(id, [row]), end: encodeKeyAfter(id, [row]) };
        expect(overlaps(keys!, key), `seed ${seed}, round ${i}`).toBe(true);
        if (check.contains(reads([asked]))) expect(covers(slice, key), `seed ${seed}, round ${i}`).toBe(true);
      }
    }
  });

  it("need not have the rows that come under chosen keys, unless it is to have them", () => {
    const end = span("a", END_OF_TABLE, END_OF_TABLE);
    const upToEnd = span("a", undefined, END_OF_TABLE);
    const first = new SliceCheck(DIRECTORY.ranges[0]!, TABLES);
    const second = new SliceCheck(DIRECTORY.ranges[1]!, TABLES);
    const found = { reads: [span("a", 5n, 5n), end], writes: [span("a", 5n, 5n)], checks: [] };
    expect(first.contains(found)).toBe(true);
    expect(second.contains(found)).toBe(false);
    const append = { reads: [end], writes: [end], checks: [upToEnd] };
    expect(first.contains(append)).toBe(false);
    expect(second.contains(append)).toBe(true);
    expect(second.contains({ ...append, checks: [whole("a")] })).toBe(false);
    expect(ids([...rowsOf(append)])).toEqual([4]);
    expect(first.containsReads([upToEnd, span("a", 1n, 3n)])).toBe(true);
    expect(first.containsReads([whole("a")])).toBe(false);
  });

  it("takes what is added to unique indexes with the rows, and has to see all of the table to check it", () => {
    const first = new SliceCheck(DIRECTORY.ranges[0]!, TABLES);
    const row = span("a", 5n, 5n);
    const added = span("a", UNIQUE_KEYS.low, UNIQUE_KEYS.high);
    const value = span("a", UNIQUE_KEYS.low + 7n, UNIQUE_KEYS.low + 7n);
    expect(first.contains({ reads: [], writes: [row, added], checks: [] })).toBe(true);
    expect(ids([...rowsOf({ reads: [], writes: [row, added], checks: [] })])).toEqual(ids([row]));
    expect(first.containsReads([value])).toBe(false);
    expect(ids([value])).toEqual(ids([whole("a")]));
  });

  it("has its own sequences, unless they are what a statement is about", () => {
    const second = new SliceCheck(DIRECTORY.ranges[1]!, TABLES);
    const end = span("a", END_OF_TABLE, END_OF_TABLE);
    const sequences = whole("sqlite_sequence");
    expect(second.contains({ reads: [end], writes: [end, sequences], checks: [] })).toBe(true);
    expect(second.contains({ reads: [sequences], writes: [sequences], checks: [] })).toBe(false);
    expect(second.contains({ reads: [], writes: [sequences], checks: [] })).toBe(false);
  });

  it("can begin behind the tables that stay whole, no earlier", () => {
    expect(covers({ start: "", end: FIRST_SPLIT_KEY }, spanToKeys(whole("fts"), TABLES)[0]!)).toBe(true);
  });
});

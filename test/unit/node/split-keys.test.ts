import { describe, expect, it } from "vitest";
import { logIndex } from "../../../src/base/ids.js";
import { decodeKey, encodeKey, encodeKeyAfter } from "../../../src/base/keys.js";
import { createOracle, type SessionOracle } from "../../../src/machines/range/oracle.js";
import { describeKey, splitKeys } from "../../../src/node/operations/split-keys.js";
import type { TableKey } from "../../../src/placement/descriptor.js";

const table = (name: string, id: number, shard: TableKey["shard"], keyColumns: string[] = []): TableKey => ({
  name,
  id,
  shard,
  keyColumns,
  autoincrement: false,
});
const T = table("t", 1, "rowid");
const NAMES = table("names", 2, "key", ["name"]);
const PAIRS = table("pairs", 3, "key", ["a", "B c"]);
const HOME = table("fts", 4, "home");
const TABLES = [T, NAMES, PAIRS, HOME];

const oracle: SessionOracle = createOracle({
  version: 1,
  statements: [
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
    "CREATE TABLE names(name VARCHAR(20) NOT NULL PRIMARY KEY, v) WITHOUT ROWID",
    'CREATE TABLE pairs(a TEXT NOT NULL, "B c" INT NOT NULL, PRIMARY KEY(a, "B c")) WITHOUT ROWID',
  ],
  appliedIndex: logIndex(1),
  tables: TABLES,
});

const values = (of: TableKey, text: string) =>
  splitKeys(of, text, oracle).map((key) => {
    expect(decodeKey(key).tableId).toBe(of.id);
    return decodeKey(key).values;
  });

describe("places to split at", () => {
  it("are rowids, one or several", () => {
    expect(values(T, "100")).toEqual([[100n]]);
    expect(values(T, " -5, 7 ,9223372036854775807")).toEqual([[-5n], [7n], [9223372036854775807n]]);
    expect(() => values(T, "x")).toThrow(/not a whole number/);
    expect(() => values(T, "9223372036854775808")).toThrow(/beyond/);
    expect(() => values(T, "1.5")).toThrow(/not a whole number/);
  });

  it("are values as the columns of the key would store them", () => {
    expect(values(NAMES, "m")).toEqual([["m"]]);
    expect(values(NAMES, "7,'it''s, so',X'00ff'")).toEqual([["7"], ["it's, so"], [Uint8Array.of(0, 255)]]);
    expect(values(PAIRS, "x,12")).toEqual([["x", 12n]]);
    expect(values(PAIRS, "x")).toEqual([["x"]]);
    expect(values(PAIRS, "5,abc")).toEqual([["5", "abc"]]);
    expect(values(PAIRS, "x,'12'")).toEqual([["x", 12n]]);
    expect(values(PAIRS, "x,' 1e2 '")).toEqual([["x", 100n]]);
    expect(values(PAIRS, "x,' 1x '")).toEqual([["x", " 1x "]]);
    expect(values(PAIRS, "x,'1.5'")).toEqual([["x", 1.5]]);
    expect(values(NAMES, "' 7 '")).toEqual([[" 7 "]]);
    expect(() => values(PAIRS, "a,1,2")).toThrow(/2 columns, and 3 values/);
  });

  it("are not to be had in a table that stays whole", () => {
    expect(() => values(HOME, "1")).toThrow(/stays whole/);
  });
});

describe("keys as people read them", () => {
  it("name the table and the values", () => {
    expect(describeKey("", TABLES)).toBeUndefined();
    expect(describeKey(encodeKey(1, [100n]), TABLES)).toEqual({ table: "t", values: "100" });
    expect(describeKey(encodeKey(3, ["x", 1n]), TABLES)).toEqual({ table: "pairs", values: "x,1" });
    expect(describeKey(encodeKeyAfter(2, [Uint8Array.of(171)]), TABLES)).toEqual({
      table: "names",
      values: "X'AB'+",
    });
    expect(describeKey(encodeKey(77, [1n]), TABLES)?.table).toBe("(table 77)");
  });
});

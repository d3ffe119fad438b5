import Database from "better-sqlite3";
import { describe, expect, it } from "vitest";
import { encodeKey, encodeKeyAfter, type Key, tableEnd, tableStart } from "../../../src/base/keys.js";
import type { SqlValue } from "../../../src/base/values.js";
import type { KeySpan, TableKey } from "../../../src/placement/descriptor.js";
import { outsideConditions, sliceCondition, sliceOf } from "../../../src/placement/slice.js";
import { SimRandom } from "../../sim/sim-random.js";

const SEED = Number(process.env.SEED ?? 77);
const ROWS: TableKey = { name: "r", id: 5, shard: "rowid", keyColumns: ["rowid"], autoincrement: false };
const PAIRS: TableKey = { name: "k", id: 6, shard: "key", keyColumns: ["a", 'b"'], autoincrement: false };
const HOME: TableKey = { name: "h", id: 0, shard: "home", keyColumns: [], autoincrement: false };

function inSpan(key: Key, { start, end }: KeySpan): boolean {
  return key >= start && (end === "" || key < end);
}

function someKey(random: SimRandom, table: TableKey): Key {
  const number = (): SqlValue => (random.below(3) === 0 ? random.below(12) / 2 : BigInt(random.below(6)));
  const second = (): SqlValue => ["", "a", "a\0", "b", "é"][random.below(5)]!;
  switch (random.below(8)) {
    case 0:
      return "";
    case 1:
      return tableStart(table.id);
    case 2:
      return tableEnd(table.id);
    case 3:
      return encodeKeyAfter(table.id, [number()]);
    case 4:
      return encodeKeyAfter(table.id, [number(), second()]);
    case 5:
      return encodeKey(table.id + random.below(3) - 1, [number()]);
    case 6:
      return encodeKeyAfter(table.id, []);
    default:
      return random.below(2) === 0
        ? encodeKey(table.id, [number()])
        : encodeKey(table.id, [number(), second()]);
  }
}

describe("slices of tables", () => {
  it("have exactly the rows whose keys lie in the span", () => {
    const random = new SimRandom(SEED);
    const database = new Database(":memory:").defaultSafeIntegers(true);
    database.exec(
      'create table r(x); create table k(a integer, "b""" text, primary key(a, "b""")) without rowid',
    );
    for (let i = 0; i < 6; i++) {
      database.prepare("insert into r(rowid) values (?)").run(i);
      for (const b of ["", "a", "a\0", "b", "é"]) database.prepare("insert into k values (?, ?)").run(i, b);
      database.prepare("insert into k values (?, ?)").run(i + 0.5, "a");
    }
    let partial = 0;
    for (let i = 0; i < 6000; i++) {
      const table = i % 2 === 0 ? ROWS : PAIRS;
      const columns = table === ROWS ? "rowid" : 'a, "b"""';
      const rows = database.prepare(`select ${columns} from ${table.name}`).raw().all() as SqlValue[][];
      const span = { start: someKey(random, table), end: someKey(random, table) };
      if (span.end !== "" && span.end <= span.start) continue;
      const expected = rows.filter((row) => inSpan(encodeKey(table.id, row), span));
      const slice = sliceOf(table, span);
      const where = slice === undefined ? { sql: "0", params: [] } : sliceCondition(table, slice);
      const found = database.prepare(`select ${columns} from ${table.name} where ${where.sql}`).raw();
      const context = `seed ${SEED}: ${JSON.stringify([table.name, span.start, span.end])}`;
      expect(found.all(...where.params), context).toEqual(expected);
      const outside = outsideConditions(table, slice).flatMap(({ sql, params }) =>
        database
          .prepare(`select ${columns} from ${table.name} where ${sql}`)
          .raw()
          .all(...params),
      );
      expect(outside.length, context).toBe(rows.length - expected.length);
      if (expected.length > 0 && expected.length < rows.length) partial++;
    }
    expect(partial).toBeGreaterThan(500);
  });

  it("go by rowids to the very ends", () => {
    const max = 2n ** 63n - 1n;
    expect(sliceOf(ROWS, { start: encodeKey(5, [max]), end: "" })).toEqual({ low: [max], high: undefined });
    expect(sliceOf(ROWS, { start: encodeKeyAfter(5, [max]), end: "" })).toBeUndefined();
    expect(sliceOf(ROWS, { start: encodeKey(5, [-(2n ** 63n)]), end: "" })).toEqual({
      low: undefined,
      high: undefined,
    });
    expect(sliceOf(ROWS, { start: encodeKey(4, [1n]), end: encodeKeyAfter(5, [max]) })).toEqual({
      low: undefined,
      high: undefined,
    });
  });

  it("have a home table whole or not at all", () => {
    expect(sliceOf(HOME, { start: "", end: "" })).toEqual({ low: undefined, high: undefined });
    expect(sliceOf(HOME, { start: "", end: encodeKey(1, [5n]) })).toEqual({
      low: undefined,
      high: undefined,
    });
    expect(sliceOf(HOME, { start: tableStart(1), end: "" })).toBeUndefined();
  });

  it("are found by seeking", () => {
    const database = new Database(":memory:");
    database.exec(
      'create table r(x); create table k(a integer, "b""" text, primary key(a, "b""")) without rowid',
    );
    const slice = { low: [1n, "a"], high: [3n, "b"] };
    const plans = [
      sliceCondition(PAIRS, slice),
      ...outsideConditions(PAIRS, slice),
      sliceCondition(PAIRS, { low: [1n], high: [2n], lowAfter: true, highAfter: true }),
    ].map(({ sql, params }) =>
      database.prepare(`explain query plan select * from k where ${sql}`).all(...params),
    );
    plans.push(
      ...outsideConditions(ROWS, { low: [1n], high: [2n] }).map(({ sql, params }) =>
        database.prepare(`explain query plan select * from r where ${sql}`).all(...params),
      ),
    );
    for (const plan of plans) expect((plan[0] as { detail: string }).detail).toMatch(/^SEARCH/);
  });
});

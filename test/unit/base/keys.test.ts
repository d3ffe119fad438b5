import Database from "better-sqlite3";
import { describe, expect, it } from "vitest";
import {
  decodeKey,
  encodeKey,
  encodeKeyAfter,
  isRowKey,
  keyBytes,
  keyOf,
  tableEnd,
  tableIdOf,
  tableStart,
} from "../../../src/base/keys.js";
import type { SqlValue } from "../../../src/base/values.js";
import { SimRandom } from "../../sim/sim-random.js";

const SEED = Number(process.env.SEED ?? 20240229);
const INTEGERS = [
  0n,
  1n,
  -1n,
  255n,
  256n,
  -256n,
  -257n,
  2n ** 31n,
  -(2n ** 31n),
  2n ** 32n - 1n,
  2n ** 32n,
  -(2n ** 32n),
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 53n + 1n,
  -(2n ** 53n) - 1n,
  2n ** 63n - 1n,
  -(2n ** 63n),
];
const REALS = [
  0.5,
  -0.5,
  1.5,
  -1.5,
  1e300,
  -1e300,
  5e-324,
  -5e-324,
  2 ** 52 + 0.5,
  Infinity,
  -Infinity,
  2 ** 63,
];
const TEXTS = [
  "",
  "\0",
  "\0\0",
  "a",
  "a\0",
  "a\0b",
  "ab",
  "\x7f",
  "é",
  "\u{ffff}",
  "\u{10000}",
  "😀",
  "\0\xff",
  "\xff",
];

function integer(random: SimRandom): bigint {
  const bits = 1 + random.below(64);
  let value = 0n;
  for (const byte of random.bytes(8)) value = (value << 8n) | BigInt(byte);
  return BigInt.asIntN(64, BigInt.asIntN(bits, value));
}

function text(random: SimRandom): string {
  const alphabet = ["\0", "\x01", "a", "b", "\x7f", "\x80", "ÿ", "€", "\u{ffff}", "😀", "\u{10000}"];
  return Array.from({ length: random.below(5) }, () => alphabet[random.below(alphabet.length)]!).join("");
}

function value(random: SimRandom, kinds: readonly string[]): SqlValue {
  switch (kinds[random.below(kinds.length)]) {
    case "integer":
      return random.below(3) === 0 ? INTEGERS[random.below(INTEGERS.length)]! : integer(random);
    case "real": {
      const kind = random.below(4);
      if (kind === 0) return REALS[random.below(REALS.length)]!;
      if (kind === 1) return random.below(20) / 4 - 2;
      return (random.float() - 0.5) * 2 ** random.below(70);
    }
    case "text":
      return random.below(3) === 0 ? TEXTS[random.below(TEXTS.length)]! : text(random);
    default:
      return random.below(2) === 0
        ? new Uint8Array(random.bytes(random.below(4)))
        : Uint8Array.from({ length: random.below(5) }, () => random.below(2) * 255);
  }
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

describe("keys", () => {
  it.each([
    ["integers", ["integer"], 1],
    ["texts", ["text"], 1],
    ["blobs", ["blob"], 1],
    ["anything", ["integer", "real", "text", "blob"], 1],
    ["pairs", ["integer", "text", "blob"], 2],
    ["pairs of numbers", ["integer", "real"], 2],
    ["triples of anything", ["integer", "real", "text", "blob"], 3],
  ])("of %s are ordered as SQLite orders them", (name, kinds, width) => {
    const random = new SimRandom(SEED, name);
    const database = new Database(":memory:").defaultSafeIntegers(true);
    const columns = Array.from({ length: width }, (_, i) => `c${i}`);
    // A column without a type keeps what it is given.
    database.exec(`create table t(${columns.join(", ")}, primary key(${columns.join(", ")})) without rowid`);
    const insert = database.prepare(`insert or ignore into t values (${columns.map(() => "?").join(", ")})`);
    for (let i = 0; i < 3000; i++) {
      // Few distinct first columns, so that the later ones decide.
      const row = columns.map((_, column) =>
        column < width - 1 && random.below(4) > 0 ? BigInt(random.below(3)) : value(random, kinds),
      );
      insert.run(row);
    }
    const rows = database
      .prepare(`select * from t order by ${columns.join(", ")}`)
      .raw()
      .all() as SqlValue[][];
    expect(rows.length).toBeGreaterThan(500);
    for (const row of rows)
      for (const [i, one] of row.entries()) if (one instanceof Uint8Array) row[i] = new Uint8Array(one);
    const keys = rows.map((row) => encodeKey(7, row));
    for (let i = 1; i < keys.length; i++) {
      if (!(keys[i - 1]! < keys[i]!))
        throw new Error(`seed ${SEED}: ${String(rows[i - 1])} must be before ${String(rows[i])}`);
    }
    for (const [i, row] of rows.entries()) {
      const decoded = decodeKey(keys[i]!);
      expect(decoded.tableId).toBe(7);
      expect(decoded.after).toBe(false);
      expect(decoded.values).toEqual(
        row.map((one) =>
          typeof one === "number" && Number.isInteger(one) && Math.abs(one) < 2 ** 63 ? BigInt(one) : one,
        ),
      );
      expect(encodeKey(7, decoded.values)).toBe(keys[i]);
      expect(isRowKey(keys[i]!)).toBe(true);
      expect(keyOf(keyBytes(keys[i]!))).toBe(keys[i]);
    }
  });

  it("that are prefixes come before what they begin, and their ends after it and before all else", () => {
    const random = new SimRandom(SEED, "prefixes");
    const kinds = ["integer", "real", "text", "blob"];
    for (let i = 0; i < 3000; i++) {
      const a = [value(random, kinds)];
      const b = [random.below(2) === 0 ? a[0]! : value(random, kinds)];
      const more = [...a, value(random, kinds)];
      expect(encodeKey(3, a) < encodeKey(3, more)).toBe(true);
      expect(encodeKey(3, more) < encodeKeyAfter(3, a)).toBe(true);
      expect(encodeKey(3, a) < encodeKeyAfter(3, a)).toBe(true);
      const [keyA, keyB] = [encodeKey(3, a), encodeKey(3, b)];
      if (keyA !== keyB) expect(compare(encodeKeyAfter(3, a), keyB)).toBe(compare(keyA, keyB));
      expect(decodeKey(encodeKeyAfter(3, a))).toMatchObject({ tableId: 3, after: true });
    }
    expect(encodeKey(3, [1n]) < encodeKeyAfter(3, [1n])).toBe(true);
    expect(encodeKeyAfter(3, [1n]) < encodeKey(3, [1.5])).toBe(true);
  });

  it("of numbers that are equal are equal", () => {
    for (const n of [0, -0, 1, -1, 2 ** 40, -(2 ** 63), 2 ** 62])
      expect(encodeKey(1, [n])).toBe(encodeKey(1, [BigInt(n)]));
  });

  it("of different tables do not mix", () => {
    for (const id of [0, 1, 255, 256, 0x7fffffff, 0x80000000, 0xfffffffe]) {
      expect(tableIdOf(tableStart(id))).toBe(id);
      for (const values of [
        [],
        [null],
        [-(2n ** 63n)],
        [2n ** 63n - 1n],
        ["\u{10ffff}"],
        [Uint8Array.of(255)],
      ]) {
        const key = encodeKey(id, values);
        expect(key >= tableStart(id)).toBe(true);
        expect(key < tableEnd(id)).toBe(true);
        expect(encodeKeyAfter(id, values) < tableEnd(id)).toBe(true);
        expect(tableIdOf(key)).toBe(id);
      }
    }
    expect(tableEnd(0xffffffff)).toBe("");
  });

  it("are told from what only looks like one", () => {
    const good = encodeKey(1, [5n, "a"]);
    expect(isRowKey(good)).toBe(true);
    for (const bad of [
      "",
      "\0\0",
      `${good}\x7f`,
      `${good}x`,
      good.slice(0, -1),
      good.slice(0, 9),
      `${good}\xff`,
    ])
      expect(isRowKey(bad), JSON.stringify(bad)).toBe(false);
  });
});

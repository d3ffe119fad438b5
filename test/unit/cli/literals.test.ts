import Sqlite from "better-sqlite3";
import { describe, expect, test } from "vitest";
import { realText, sqlLiteral } from "../../../src/cli/format/literals.js";
import type { Value } from "../../../src/driver/types.js";

const sqlite = new Sqlite(":memory:");
sqlite.defaultSafeIntegers(true);

function seeds(): number {
  return Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
}

/** A small generator of our own, so that a failure can be run again. */
function generator(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

describe("literals", () => {
  const view = new DataView(new ArrayBuffer(8));
  const seed = seeds();
  const random = generator(seed);
  const reals = [
    0,
    -0,
    1,
    5,
    0.1,
    0.30000000000000004,
    999999999999999,
    1e15,
    1e16,
    1e17,
    2 ** 57 + 16,
    1e-4,
    1e-5,
    1e100,
    5e-324,
    1.7976931348623157e308,
  ];
  for (let i = 0; i < 3000; i++) {
    view.setUint32(0, Math.floor(random() * 2 ** 32));
    view.setUint32(4, Math.floor(random() * 2 ** 32));
    const value = view.getFloat64(0);
    if (Number.isFinite(value)) reals.push(value, (random() - 0.5) * 10 ** Math.floor(random() * 20));
  }

  test(`a REAL's text reads back the same, in as few digits as that takes (seed ${seed})`, () => {
    for (const value of reals) expect(Number(realText(value))).toBe(value);
    for (const value of reals) expect(realText(value).length).toBeLessThanOrEqual(26);
  });

  test("a REAL is laid out as SQLite lays it out", () => {
    const asText = sqlite.prepare("select cast(? as text)").pluck();
    const plain = [
      0, 1, -1, 0.5, 0.1, 100, 1e14, 999999999999999, 1e15, 1e16, 1e17, 1.5e17, 1e-4, 1.5e-4, 1e-5, 2.5e-7,
      1e100, -1.25e300, 123456.75,
    ];
    for (const value of plain) expect(realText(value)).toBe(asText.get(value));
    expect(realText(Number.POSITIVE_INFINITY)).toBe(asText.get(Number.POSITIVE_INFINITY));
  });

  test(`a REAL's literal evaluates to it (seed ${seed})`, () => {
    for (const value of [...reals, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const [type, back] = sqlite
        .prepare(`select typeof(x), x from (select ${sqlLiteral(value)} as x)`)
        .raw()
        .get() as [string, number];
      expect(type).toBe("real");
      expect(back).toBe(value === 0 ? back : value);
    }
  });

  test("every text's literal evaluates to it, through a shell that reads lines", () => {
    const texts = [
      "",
      "plain",
      "it's",
      "two\nlines",
      "tab\t",
      "dos\r\nlines\r",
      "\\r and \r",
      "esc\u001b[2J",
      "nul\u0000nul",
      "\u0085c1",
      "日本 👩‍👩‍👧",
      "\u007f",
      "'\r'",
    ];
    for (const text of texts) {
      const literal = sqlLiteral(text);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what must not be there
      expect(literal).not.toMatch(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/);
      const [type, back] = sqlite
        .prepare(`select typeof(x), x from (select ${literal} as x)`)
        .raw()
        .get() as [string, string];
      expect([type, back]).toEqual(["text", text]);
    }
  });

  test("integers and blobs", () => {
    const values: Value[] = [
      0n,
      -1n,
      2n ** 63n - 1n,
      -(2n ** 63n),
      new Uint8Array(),
      new Uint8Array([0, 39, 255]),
    ];
    for (const value of values) {
      const back = sqlite
        .prepare(`select ${sqlLiteral(value)}`)
        .pluck()
        .get() as Value;
      expect(value instanceof Uint8Array ? new Uint8Array(back as Uint8Array) : back).toEqual(value);
    }
  });
});

import { describe, expect, it } from "vitest";
import type { SqlValue } from "../../../src/base/values.js";
import { UniqueKeys } from "../../../src/machines/range/runner/unique-keys.js";
import { UNIQUE_KEYS } from "../../../src/sql/types.js";

function keyOf(values: readonly SqlValue[], collations = values.map(() => "BINARY"), index = 0): bigint {
  const keys = new UniqueKeys();
  keys.note("t", index, values, collations);
  return keys.take()[0]![1]![0]!;
}

describe("the keys of what unique indexes hold", () => {
  it.each<[string, SqlValue, SqlValue, string]>([
    ["letters without case", "aBc", "AbC", "NOCASE"],
    ["what NOCASE does not look at", "A\0bc", "a\0é", "NOCASE"],
    ["spaces at the end", "a", "a  ", "rtrim"],
    ["numbers of either kind", 5n, 5, "BINARY"],
    ["zeros", 0n, -0, "BINARY"],
    ["large numbers", 1n << 60n, 2 ** 60, "BINARY"],
  ])("are equal for %s", (_, one, other, collation) => {
    expect(keyOf([one], [collation])).toBe(keyOf([other], [collation]));
  });

  it.each<[string, SqlValue, SqlValue, string]>([
    ["letters in bytes", "a", "A", "BINARY"],
    ["lengths behind NUL", "a\0b", "a\0bc", "NOCASE"],
    ["letters beyond ASCII", "ä", "Ä", "NOCASE"],
    ["text and number", "5", 5n, "BINARY"],
    ["text and bytes", "a", new Uint8Array([97]), "BINARY"],
    ["numbers that are near", 1, 1.5, "BINARY"],
  ])("differ for %s", (_, one, other, collation) => {
    expect(keyOf([one], [collation])).not.toBe(keyOf([other], [collation]));
  });

  it("lie beyond all rows, and differ by index and by place", () => {
    const keys = [keyOf([1n, 2n]), keyOf([2n, 1n]), keyOf([1n, 2n], ["BINARY", "BINARY"], 1)];
    expect(new Set(keys).size).toBe(3);
    for (const key of keys) expect(key >= UNIQUE_KEYS.low && key <= UNIQUE_KEYS.high).toBe(true);
  });

  it("leave NULL out, and are not told where they are many or unknown", () => {
    const keys = new UniqueKeys();
    keys.note("nulls", 0, [null, 1n], ["BINARY", "BINARY"]);
    for (let i = 0; i < 300; i++) keys.note("many", 0, [BigInt(i)], ["BINARY"]);
    keys.noteUnknown("unknown");
    keys.note("unknown", 0, [1n], ["BINARY"]);
    expect(keys.take()).toEqual([
      ["many", null],
      ["unknown", null],
    ]);
    expect(keys.take()).toEqual([]);
  });
});

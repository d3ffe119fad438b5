/**
 * What rows that a transaction wrote have in their tables' UNIQUE indexes, as keys (UNIQUE_KEYS): equal values have equal
 * keys, by the index's collation. Told are all values that rows had for a while, those of statements that were rolled
 * back too: each was found to be free, and whoever ran the statement was told so.
 *
 * Two values with one key are a conflict that is none, and no harm.
 */
import { encodeVector, type SqlValue } from "../../../base/values.js";
import { UNIQUE_KEYS } from "../../../sql/types.js";

/** By table, lower-case; null where they cannot be told. */
export type UniqueKeysOf = readonly (readonly [table: string, keys: readonly bigint[] | null])[];

/** So many of one table are as good as all. */
const MAX_KEYS = 256;
const FNV_PRIME = 0x01000193;
const LIMIT_OF_INTEGERS = 2 ** 63;

export class UniqueKeys {
  /** By table, lower-case, since they were last taken. */
  #keys = new Map<string, Set<bigint> | null>();

  /** A row of the table has this in its index so many; `collations` are those of its columns. */
  note(table: string, index: number, values: readonly SqlValue[], collations: readonly string[]): void {
    // NULL is nobody's equal.
    if (values.includes(null)) return;
    const keys = this.#of(table);
    if (keys === null) return;
    keys.add(uniqueKey(index, values, collations));
    if (keys.size > MAX_KEYS) this.#keys.set(table, null);
  }

  /** A row of the table has something in an index that cannot be looked into. */
  noteUnknown(table: string): void {
    this.#keys.set(table, null);
  }

  take(): UniqueKeysOf {
    const taken = [...this.#keys].map(([table, keys]) => [table, keys && [...keys]] as const);
    this.#keys = new Map();
    return taken;
  }

  #of(table: string): Set<bigint> | null {
    let keys = this.#keys.get(table);
    if (keys === undefined) {
      keys = new Set();
      this.#keys.set(table, keys);
    }
    return keys;
  }
}

/** The same for values that an index with these collations takes for equal. */
function uniqueKey(index: number, values: readonly SqlValue[], collations: readonly string[]): bigint {
  const bytes = encodeVector(values.map((value, i) => comparable(value, collations[i]!)));
  let high = 0x811c9dc5 ^ index;
  let low = 0x01234567 ^ index;
  for (const byte of bytes) {
    high = Math.imul(high ^ byte, FNV_PRIME);
    low = Math.imul(low ^ byte ^ (high >>> 24), FNV_PRIME);
  }
  const hash = (BigInt(high >>> 1) << 32n) | BigInt(low >>> 0);
  const key = UNIQUE_KEYS.low + hash;
  return key > UNIQUE_KEYS.high ? UNIQUE_KEYS.high : key;
}

function comparable(value: SqlValue, collation: string): SqlValue {
  if (typeof value === "number")
    return Number.isInteger(value) && Math.abs(value) < LIMIT_OF_INTEGERS ? BigInt(value) : value;
  if (typeof value !== "string") return value;
  switch (collation.toUpperCase()) {
    case "NOCASE":
      return comparableLetters(value);
    case "RTRIM":
      return value.replace(/ +$/, "");
    default:
      return value;
  }
}

/** NOCASE looks at letters up to the first NUL, and behind that at the length alone. */
function comparableLetters(value: string): string {
  const folded = value.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
  const end = folded.indexOf("\0");
  return end < 0 ? folded : `${folded.slice(0, end + 1)}${Buffer.byteLength(folded)}`;
}

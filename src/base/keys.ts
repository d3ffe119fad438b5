/**
 * The ordered keyspace that ranges are slices of. A key is a table's id (four bytes) and then the row's shard key,
 * encoded so that comparing bytes is comparing rows in SQLite's own order.
 *
 * A key is a JavaScript string with one byte a code unit, because `<` then compares bytewise and keys can be map
 * entries; `keyBytes` and `keyOf` convert. The empty key is before all others as a start, and after all others as an
 * end.
 *
 * Invariants:
 * 1. Keys of one table are ordered as SQLite orders its rows: by rowid, or by the primary key's columns (BINARY,
 *    ascending). Numbers that SQLite holds to be equal have one key, whatever their storage class.
 * 2. A key of fewer columns is before all keys that begin with those columns; `encodeKeyAfter` is behind all of them
 *    and before everything else that follows.
 * 3. What is encoded can be decoded: `decodeKey(encodeKey(id, values))` are the values, but for a REAL that is a whole
 *    number, which comes back as the INTEGER equal to it.
 *
 * Encoding of a value: a tag that orders storage classes as SQLite does (NULL, numbers, TEXT, BLOB), then
 * - a number: eight bytes of the largest integer not above it, big-endian, sign flipped; if it is not that integer
 *   itself, 80 and the eight bytes of the double, made comparable. Doubles beyond 64-bit integers have tags of their own;
 * - TEXT as UTF-8 and BLOB as it is, with 00 written as 00 FF, ended by 00 00.
 */
import type { SqlValue } from "./values.js";

export type Key = string;

const TAG = { null: 0x05, belowIntegers: 0x0f, integer: 0x10, aboveIntegers: 0x11, text: 0x20, blob: 0x30 };
/** Behind every tag, and so behind whatever continues a key. */
const AFTER = 0x7f;
/** Behind an integer, and behind whatever continues a key that ends with it: the number is greater than the integer. */
const FRACTION = 0x80;
const MAX_TABLE_ID = 0xffff_ffff;
const TWO_32 = 2 ** 32;
const TWO_63 = 2 ** 63;
/** More arguments than this are not passed to one call. */
const CHUNK = 4096;
/** What a text has that is not simply its own encoding. */
const NOT_PLAIN = /[^ -~]/;
const NOT_ASCII = /[\x80-\xff]/;
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: false, ignoreBOM: true });
const double = new DataView(new ArrayBuffer(8));

/** Tables that stay whole live in front of all others, in the first range. */
export const HOME_TABLE_ID = 0;

/** The least key of a table, and the end of the one before. */
export function tableStart(tableId: number): Key {
  return String.fromCharCode(
    (tableId >>> 24) & 0xff,
    (tableId >>> 16) & 0xff,
    (tableId >>> 8) & 0xff,
    tableId & 0xff,
  );
}

/** Beyond every key of the table. */
export function tableEnd(tableId: number): Key {
  return tableId >= MAX_TABLE_ID ? "" : tableStart(tableId + 1);
}

/** The key of a row by its shard key's values; fewer values than it has give the start of all that begin so. */
export function encodeKey(tableId: number, values: readonly SqlValue[]): Key {
  let key = tableStart(tableId);
  for (let i = 0; i < values.length; i++) key += encodeValue(values[i]!);
  return key;
}

/** The least key after all that begin with these values. */
export function encodeKeyAfter(tableId: number, values: readonly SqlValue[]): Key {
  return encodeKey(tableId, values) + String.fromCharCode(AFTER);
}

export function tableIdOf(key: Key): number {
  return (
    ((key.charCodeAt(0) << 24) | (key.charCodeAt(1) << 16) | (key.charCodeAt(2) << 8) | key.charCodeAt(3)) >>>
    0
  );
}

export interface DecodedKey {
  readonly tableId: number;
  readonly values: readonly SqlValue[];
  /** It is the key behind all that begin with the values (`encodeKeyAfter`). */
  readonly after: boolean;
}

/** The table and the shard key's values (perhaps not all of them) that a key stands for. */
export function decodeKey(key: Key): DecodedKey {
  const values: SqlValue[] = [];
  let at = 4;
  while (at < key.length) {
    const next = decodeValue(key, at, values);
    if (next === undefined) return { tableId: tableIdOf(key), values, after: true };
    at = next;
  }
  return { tableId: tableIdOf(key), values, after: false };
}

/** Whether it is the key of a row, or of all rows that begin with some values, and not something else of its shape. */
export function isRowKey(key: Key): boolean {
  const { tableId, values, after } = decodeKey(key);
  return !after && encodeKey(tableId, values) === key;
}

export function keyBytes(key: Key): Uint8Array {
  const bytes = new Uint8Array(key.length);
  for (let i = 0; i < key.length; i++) bytes[i] = key.charCodeAt(i);
  return bytes;
}

export function keyOf(bytes: Uint8Array): Key {
  if (bytes.length <= CHUNK) return String.fromCharCode(...bytes);
  let key = "";
  for (let at = 0; at < bytes.length; at += CHUNK)
    key += String.fromCharCode(...bytes.subarray(at, at + CHUNK));
  return key;
}

function encodeValue(value: SqlValue): string {
  if (typeof value === "bigint") return encodeInteger(value);
  if (typeof value === "string")
    return NOT_PLAIN.test(value) ? `\x20${escaped(encoder.encode(value))}` : `\x20${value}\0\0`;
  if (value === null) return String.fromCharCode(TAG.null);
  return typeof value === "number" ? encodeReal(value) : `\x30${escaped(value)}`;
}

function encodeInteger(value: bigint): string {
  const n = Number(value);
  if (Number.isSafeInteger(n)) return encodeWhole(n);
  const low = Number(BigInt.asUintN(32, value));
  return eightBytes(TAG.integer, Number(BigInt.asIntN(32, value >> 32n)) ^ 0x8000_0000, low);
}

function encodeWhole(n: number): string {
  const high = Math.floor(n / TWO_32);
  return eightBytes(TAG.integer, high ^ 0x8000_0000, n - high * TWO_32);
}

function encodeReal(value: number): string {
  if (value >= TWO_63) return encodeDouble(TAG.aboveIntegers, value);
  if (value < -TWO_63) return encodeDouble(TAG.belowIntegers, value);
  const whole = Math.floor(value);
  if (whole === value) return encodeInteger(BigInt(whole));
  return encodeWhole(whole) + encodeDouble(FRACTION, value);
}

/** As bits, with all of them flipped if it is negative and the sign alone if not, doubles are in order. */
function encodeDouble(tag: number, value: number): string {
  double.setFloat64(0, value);
  const high = double.getInt32(0);
  const low = double.getInt32(4);
  return high < 0 ? eightBytes(tag, ~high, ~low) : eightBytes(tag, high ^ 0x8000_0000, low);
}

function eightBytes(tag: number, high: number, low: number): string {
  return String.fromCharCode(
    tag,
    (high >>> 24) & 0xff,
    (high >>> 16) & 0xff,
    (high >>> 8) & 0xff,
    high & 0xff,
    (low >>> 24) & 0xff,
    (low >>> 16) & 0xff,
    (low >>> 8) & 0xff,
    low & 0xff,
  );
}

function escaped(bytes: Uint8Array): string {
  const key = keyOf(bytes);
  return `${key.includes("\0") ? key.replaceAll("\0", "\0\xff") : key}\0\0`;
}

/** Adds the value that begins at `at` and answers where it ends; undefined when none does. */
function decodeValue(key: Key, at: number, values: SqlValue[]): number | undefined {
  const tag = key.charCodeAt(at);
  switch (tag) {
    case TAG.null:
      values.push(null);
      return at + 1;
    case TAG.integer:
      if (key.charCodeAt(at + 9) === FRACTION) {
        values.push(decodeDouble(key, at + 10));
        return at + 18;
      }
      values.push(decodeInteger(key, at + 1));
      return at + 9;
    case TAG.belowIntegers:
    case TAG.aboveIntegers:
      values.push(decodeDouble(key, at + 1));
      return at + 9;
    case TAG.text:
    case TAG.blob: {
      let end = key.indexOf("\0", at + 1);
      while (end >= 0 && key.charCodeAt(end + 1) === 0xff) end = key.indexOf("\0", end + 2);
      if (end < 0) return undefined;
      const raw = key.slice(at + 1, end).replaceAll("\0\xff", "\0");
      if (tag === TAG.blob) values.push(keyBytes(raw));
      else values.push(NOT_ASCII.test(raw) ? decoder.decode(keyBytes(raw)) : raw);
      return end + 2;
    }
    default:
      return undefined;
  }
}

function word(key: Key, at: number): number {
  return (
    (key.charCodeAt(at) << 24) |
    (key.charCodeAt(at + 1) << 16) |
    (key.charCodeAt(at + 2) << 8) |
    key.charCodeAt(at + 3)
  );
}

function decodeInteger(key: Key, at: number): bigint {
  const high = word(key, at) ^ 0x8000_0000;
  const low = word(key, at + 4) >>> 0;
  const n = high * TWO_32 + low;
  return Number.isSafeInteger(n) ? BigInt(n) : (BigInt(high) << 32n) | BigInt(low);
}

function decodeDouble(key: Key, at: number): number {
  const high = word(key, at);
  const low = word(key, at + 4);
  const negative = high >= 0;
  double.setInt32(0, negative ? ~high : high ^ 0x8000_0000);
  double.setInt32(4, negative ? ~low : low);
  return double.getFloat64(0);
}

/**
 * The ordered keyspace that ranges are slices of. A key is a table's id (four bytes) and then the row's shard key,
 * encoded so that comparing bytes is comparing rows in SQLite's own order.
 *
 * A key is a JavaScript string with one byte a code unit, because `<` then compares bytewise and keys can be map
 * entries; `keyBytes` and `keyOf` convert. The empty key is before all others as a start, and after all others as an
 * end.
 *
 * Invariants:
 * 1. Keys of one table are ordered as SQLite orders its rows: by rowid, or by a primary key of INTEGER, TEXT (BINARY)
 *    and BLOB columns, ascending.
 * 2. A key of fewer columns is before all keys that begin with those columns.
 * 3. What is encoded can be decoded: `decodeKey(encodeKey(id, values))` are the values.
 *
 * Encoding of a value: a tag that orders storage classes as SQLite does (NULL, numbers, TEXT, BLOB); integers as eight
 * bytes, big-endian, sign flipped; TEXT as UTF-8 and BLOB as it is, with 00 written as 00 FF and ended by 00 00.
 */
import type { SqlValue } from "./values.js";

export type Key = string;

const TAG = { null: 0x05, integer: 0x10, text: 0x20, blob: 0x30 } as const;
const MAX_TABLE_ID = 0xffff_ffff;
const SIGN = 1n << 63n;
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: false, ignoreBOM: true });

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
  for (const value of values) key += encodeValue(value);
  return key;
}

/** The least key after all that begin with these values. */
export function encodeKeyAfter(tableId: number, values: readonly SqlValue[]): Key {
  // No value's encoding begins with FF, so this is behind every continuation.
  return `${encodeKey(tableId, values)}\xff`;
}

export function tableIdOf(key: Key): number {
  return (
    ((key.charCodeAt(0) << 24) | (key.charCodeAt(1) << 16) | (key.charCodeAt(2) << 8) | key.charCodeAt(3)) >>>
    0
  );
}

/** The table and the shard key's values (perhaps not all of them) that a key stands for. */
export function decodeKey(key: Key): { readonly tableId: number; readonly values: readonly SqlValue[] } {
  const values: SqlValue[] = [];
  let at = 4;
  while (at < key.length) {
    const tag = key.charCodeAt(at++);
    if (tag === TAG.null) values.push(null);
    else if (tag === TAG.integer) {
      let bits = 0n;
      for (let i = 0; i < 8; i++) bits = (bits << 8n) | BigInt(key.charCodeAt(at + i));
      values.push(BigInt.asIntN(64, bits ^ SIGN));
      at += 8;
    } else if (tag === TAG.text || tag === TAG.blob) {
      const bytes: number[] = [];
      for (; !(key.charCodeAt(at) === 0 && key.charCodeAt(at + 1) === 0); at++) {
        bytes.push(key.charCodeAt(at));
        if (key.charCodeAt(at) === 0) at++;
      }
      at += 2;
      values.push(tag === TAG.text ? decoder.decode(Uint8Array.from(bytes)) : Uint8Array.from(bytes));
    } else break; // The end of a prefix (encodeKeyAfter).
  }
  return { tableId: tableIdOf(key), values };
}

export function keyBytes(key: Key): Uint8Array {
  const bytes = new Uint8Array(key.length);
  for (let i = 0; i < key.length; i++) bytes[i] = key.charCodeAt(i);
  return bytes;
}

export function keyOf(bytes: Uint8Array): Key {
  let key = "";
  for (let i = 0; i < bytes.length; i++) key += String.fromCharCode(bytes[i]!);
  return key;
}

function encodeValue(value: SqlValue): string {
  if (value === null) return String.fromCharCode(TAG.null);
  if (typeof value === "bigint") return encodeInteger(value);
  if (typeof value === "number") throw new TypeError("a REAL is no part of a shard key");
  const text = typeof value === "string";
  return `${String.fromCharCode(text ? TAG.text : TAG.blob)}${escaped(text ? encoder.encode(value) : value)}`;
}

function encodeInteger(value: bigint): string {
  let bits = BigInt.asUintN(64, value) ^ SIGN;
  const codes = new Array<number>(9);
  for (let i = 8; i > 0; i--) {
    codes[i] = Number(bits & 0xffn);
    bits >>= 8n;
  }
  codes[0] = TAG.integer;
  return String.fromCharCode(...codes);
}

function escaped(bytes: Uint8Array): string {
  let out = "";
  for (let i = 0; i < bytes.length; i++) {
    out += String.fromCharCode(bytes[i]!);
    if (bytes[i] === 0) out += "\xff";
  }
  return `${out}\0\0`;
}

/**
 * From what users bind to what SQLite stores. A whole number is an INTEGER, as users mean it; to store one as REAL in
 * an untyped column, write `cast(? as real)`.
 */
import { type SqlValue, ValueWriter } from "../base/values.js";
import { MAX_FRAME_BYTES } from "../rpc/protocol.js";
import { OstrakaError } from "./errors.js";
import type { Args } from "./types.js";

/** Null for no arguments, a vector, or names beside a vector. */
export type WireParams = null | Uint8Array | [names: string[], vector: Uint8Array];

const TWO_63 = 2 ** 63;
const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;

const writer = new ValueWriter(4096);

/** Throws a TypeError naming the parameter that cannot be bound. */
export function bindArgs(args: Args | undefined): WireParams {
  if (args === undefined) return null;
  if (typeof args !== "object" || args === null) throw new TypeError("args must be an array or an object");
  if (Array.isArray(args)) {
    const list = args as readonly unknown[];
    if (list.length === 0) return null;
    const values: SqlValue[] = new Array(list.length);
    for (let i = 0; i < list.length; i++) values[i] = toSqlValue(list[i], i + 1);
    writer.vector(values);
    return writer.take();
  }
  if (!isPlainObject(args)) throw new TypeError("args must be an array or a plain object");
  const names = Object.keys(args);
  if (names.length === 0) return null;
  const values = names.map((name) => toSqlValue((args as Record<string, unknown>)[name], name));
  writer.vector(values);
  return [names, writer.take()];
}

export function isPlainObject(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype;
}

function toSqlValue(value: unknown, parameter: number | string): SqlValue {
  switch (typeof value) {
    case "string":
      return value;
    case "number":
      if (Number.isInteger(value)) return wholeNumber(value);
      // SQLite stores NaN as NULL.
      return Number.isNaN(value) ? null : value;
    case "bigint":
      if (value < INT64_MIN || value > INT64_MAX)
        throw new RangeError(`parameter ${parameter}: ${value} does not fit a 64-bit integer`);
      return value;
    case "boolean":
      return value ? 1n : 0n;
    case "object":
      return fromObject(value, parameter);
    default:
      throw new TypeError(`parameter ${parameter}: ${describe(value)} cannot be bound`);
  }
}

/** Beyond 2^63 a whole number can only be REAL; -0 is REAL too. */
function wholeNumber(value: number): SqlValue {
  if (value >= TWO_63 || value < -TWO_63 || Object.is(value, -0)) return value;
  return BigInt(value);
}

function fromObject(value: object | null, parameter: number | string): SqlValue {
  if (value === null) return null;
  if (value instanceof Uint8Array) return value;
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (value instanceof Date) {
    if (Number.isNaN(value.getTime())) throw new TypeError(`parameter ${parameter}: an invalid Date`);
    return value.toISOString();
  }
  throw new TypeError(`parameter ${parameter}: ${describe(value)} cannot be bound`);
}

function describe(value: unknown): string {
  if (value === undefined) return "undefined";
  if (typeof value === "object" && value !== null)
    return `a value of class ${value.constructor?.name ?? "?"}`;
  return `a ${typeof value}`;
}

/** A statement with its parameters. */
export const MAX_STATEMENT_BYTES = 16 * 1024 * 1024;
/** Those of a batch, which is one message. */
const MAX_BATCH_BYTES = MAX_FRAME_BYTES - 1024 * 1024;

/** At least, without counting every character: text takes one to three bytes each. */
function textBytes(text: string): number {
  return text.length <= MAX_STATEMENT_BYTES / 3 ? text.length : Buffer.byteLength(text);
}

/** Of the text and the parameters. */
export function statementSize(sql: string, params: WireParams): number {
  if (params === null) return textBytes(sql);
  if (params instanceof Uint8Array) return textBytes(sql) + params.length;
  return params[0].reduce((sum, name) => sum + textBytes(name), textBytes(sql) + params[1].length + 64);
}

export function checkSize(sql: string, params: WireParams): void {
  const bytes = statementSize(sql, params);
  if (bytes > MAX_STATEMENT_BYTES)
    throw new OstrakaError(
      "OSTRAKA_TOO_LARGE",
      `a statement with its parameters may have ${MAX_STATEMENT_BYTES} bytes, this one has ${bytes}`,
    );
}

export function checkBatchSize(
  statements: readonly { readonly sql: string; readonly params: WireParams }[],
): void {
  const bytes = statements.reduce(
    (sum, { sql, params }) => sum + Buffer.byteLength(sql) + statementSize("", params),
    0,
  );
  if (bytes > MAX_BATCH_BYTES)
    throw new OstrakaError(
      "OSTRAKA_TOO_LARGE",
      `the statements of a batch may have ${MAX_BATCH_BYTES} bytes with their parameters, these have ${bytes}; a transaction takes more`,
    );
}

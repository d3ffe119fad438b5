/**
 * Results as sqllogictest compares them: every value as SQLite's C interface gives it in the type that the record asks
 * for, sorted as strings, and hashed when there are many.
 */
import { createHash } from "node:crypto";
import type { Value } from "../../driver/types.js";
import { realText } from "../format/literals.js";
import type { SortMode } from "./parser.js";

/** The values of a result in the order in which they are compared. `types` has a letter per column. */
export function renderResult(rows: readonly (readonly Value[])[], types: string, sort: SortMode): string[] {
  const rendered = rows.map((row) => row.map((value, i) => renderValue(value, types[i]!)));
  if (sort === "rowsort") rendered.sort(compareRows);
  const values = rendered.flat();
  if (sort === "valuesort") values.sort(compareText);
  return values;
}

/** Rendered values are ASCII, so order by code unit is order by byte. */
function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function compareRows(a: readonly string[], b: readonly string[]): number {
  for (let i = 0; i < a.length; i++) {
    const order = compareText(a[i]!, b[i]!);
    if (order !== 0) return order;
  }
  return 0;
}

/** MD5 over every value followed by a line feed. */
export function hashValues(values: readonly string[]): string {
  const hash = createHash("md5");
  for (const value of values) hash.update(`${value}\n`, "latin1");
  return hash.digest("hex");
}

export function renderValue(value: Value, type: string): string {
  if (value === null) return "NULL";
  if (type === "I") return columnInt(value).toString();
  if (type === "R") return fixed3(columnDouble(value));
  const bytes = columnText(value);
  if (bytes.length === 0) return "(empty)";
  return Array.from(bytes, (byte) => (byte < 32 || byte > 126 ? "@" : String.fromCharCode(byte))).join("");
}

const INT64_MAX = 2n ** 63n - 1n;
const INT64_MIN = -(2n ** 63n);

/** sqlite3_column_int: the 64-bit value, and of that the lower 32 bits. */
function columnInt(value: Exclude<Value, null>): bigint {
  return BigInt.asIntN(32, toInt64(value));
}

function toInt64(value: Exclude<Value, null>): bigint {
  if (typeof value === "bigint") return value;
  if (typeof value === "number") {
    if (Number.isNaN(value)) return 0n;
    if (value <= Number(INT64_MIN)) return INT64_MIN;
    return value >= Number(INT64_MAX) ? INT64_MAX : BigInt(Math.trunc(value));
  }
  const digits = /^[ \t\n\v\f\r]*([+-]?\d+)/.exec(textOf(value))?.[1];
  if (digits === undefined) return 0n;
  const integer = BigInt(digits.replace("+", ""));
  if (integer > INT64_MAX) return INT64_MAX;
  return integer < INT64_MIN ? INT64_MIN : integer;
}

/** sqlite3_column_double: the longest numeric prefix of a text. */
function columnDouble(value: Exclude<Value, null>): number {
  if (typeof value === "bigint" || typeof value === "number") return Number(value);
  const prefix = /^[ \t\n\v\f\r]*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)/.exec(textOf(value))?.[1];
  return prefix === undefined ? 0 : Number(prefix);
}

/** SQLite's own printf('%.3f'): sixteen significant digits, zeros after them. */
function fixed3(value: number): string {
  if (!Number.isFinite(value)) return realText(value);
  if (Math.abs(value) < 1e12) return value.toFixed(3);
  const [mantissa = "", exponent = "0"] = Math.abs(value).toExponential(15).split("e");
  const whole = Number(exponent) + 1;
  const digits = mantissa.replace(".", "").padEnd(whole + 3, "0");
  return `${value < 0 ? "-" : ""}${digits.slice(0, whole)}.${digits.slice(whole, whole + 3)}`;
}

function textOf(value: string | Uint8Array): string {
  return typeof value === "string" ? value : Buffer.from(value).toString("latin1");
}

function columnText(value: Exclude<Value, null>): Uint8Array {
  const bytes =
    typeof value === "string"
      ? Buffer.from(value, "utf8")
      : typeof value === "bigint"
        ? Buffer.from(value.toString())
        : typeof value === "number"
          ? Buffer.from(realText(value))
          : value;
  // A C string ends at its first NUL.
  const end = bytes.indexOf(0);
  return end < 0 ? bytes : bytes.subarray(0, end);
}

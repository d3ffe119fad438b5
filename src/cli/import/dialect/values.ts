/**
 * Values of a dump as what is bound for them: exact wherever SQLite can hold them exactly. What it cannot, and what has
 * no place in a column of its type, is carried over as near as there is and counted (`loss`); bytes that are no text
 * are an error.
 */
import type { InputValue } from "../../../driver/types.js";
import type { Decode } from "./charset.js";
import type { Family } from "./lexer.js";
import type { Literal } from "./literal.js";
import { utcTimestamp } from "./utc.js";
import type { ValueKind } from "./value-kind.js";

export interface ValueColumn {
  readonly name: string;
  readonly kind: ValueKind;
}

export interface ValueContext {
  readonly family: Family;
  readonly decode: Decode;
  /** Told of each value that is not what it was. */
  loss(kind: string, column: string): void;
}

const ROUNDED = "number rounded to what SQLite can hold";
const NOT_A_NUMBER = "NaN, kept as text";
const TIMESTAMP_AS_IS = "timestamp beyond years 1 to 9999, kept as text";
const INTEGER = /^[-+]?\d+$/;
const DECIMAL = /^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$/;
const MIN = -(2n ** 63n);
const MAX = 2n ** 63n - 1n;

/** Throws TypeError on a value that cannot be one of this column. */
export function inputValue(literal: Literal, column: ValueColumn, context: ValueContext): InputValue {
  if (literal === null) return null;
  switch (literal.kind) {
    case "number":
      return ofNumber(literal.text, column, context);
    case "string":
      return ofString(literal.bytes, column, context);
    case "boolean":
      return column.kind === "text" ? String(literal.value) : literal.value ? 1 : 0;
    case "hex":
      return ofBytes(Buffer.from(literal.digits, "hex"), column, context);
    case "bits":
      return ofBits(literal.digits, column);
    case "default":
    case "expression":
      throw new TypeError("not a literal");
  }
}

function ofNumber(text: string, column: ValueColumn, context: ValueContext): InputValue {
  switch (column.kind) {
    case "integer":
    case "numeric":
    case "bit":
    case "boolean":
      return exactNumber(text, column, context);
    case "real":
      return Number(text);
    default:
      // As it was written: 1.50 is no text of its value.
      return text;
  }
}

function exactNumber(text: string, column: ValueColumn, context: ValueContext): InputValue {
  if (INTEGER.test(text)) {
    if (text.length < 16) return Number(text) + 0;
    const value = BigInt(text);
    if (value >= MIN && value <= MAX) return value;
  } else if (!DECIMAL.test(text)) {
    return text;
  }
  const number = Number(text);
  if (!sameDigits(text, number)) context.loss(ROUNDED, column.name);
  return number;
}

/** Whether a number's shortest decimal form says what the text says: then nothing was lost. */
function sameDigits(text: string, number: number): boolean {
  if (text.length < 16) return true;
  return significant(text) === significant(String(number));
}

/** Digits and the place of the point, without what makes no difference. */
function significant(text: string): string {
  const match = /^[-+]?(\d*)\.?(\d*)(?:[eE]([-+]?\d+))?$/.exec(text);
  if (match === null) return text;
  const [, whole = "", fraction = "", exponent = "0"] = match;
  const digits = (whole + fraction).replace(/^0+/, "");
  const leading = whole.length + fraction.length - digits.length;
  const trimmed = digits.replace(/0+$/, "");
  return trimmed === "" ? "0" : `${trimmed}e${whole.length - leading + Number(exponent)}`;
}

function ofString(bytes: string, column: ValueColumn, context: ValueContext): InputValue {
  switch (column.kind) {
    case "text":
    case "time":
      return context.decode(bytes);
    case "padded":
      return context.decode(bytes).replace(/ +$/, "");
    case "blob":
      return context.family === "mysql" ? Buffer.from(bytes, "latin1") : byteaOf(bytes);
    case "boolean":
      return booleanOf(bytes) ?? context.decode(bytes);
    case "bit":
      return ofBits(bitsOf(bytes), column);
    case "timestamptz":
      return timestampOf(context.decode(bytes), column, context);
    case "real":
      return realOf(bytes, column, context);
    case "integer":
    case "numeric":
      if (/^(?:nan|[-+]?inf(?:inity)?)$/i.test(bytes)) return realOf(bytes, column, context);
      return exactNumber(context.decode(bytes), column, context);
  }
}

/** \x and hexadecimal digits or, as of old, the bytes themselves, with those that are not printable in octal. */
function byteaOf(bytes: string): Uint8Array {
  if (/^\\x(?:[0-9a-fA-F]{2})*$/.test(bytes)) return Buffer.from(bytes.slice(2), "hex");
  const plain = bytes.replace(/\\(?:([0-3][0-7]{2})|\\)/g, (_, octal?: string) =>
    octal === undefined ? "\\" : String.fromCharCode(Number.parseInt(octal, 8)),
  );
  return Buffer.from(plain, "latin1");
}

function booleanOf(bytes: string): number | undefined {
  if (/^(?:t|true|y|yes|on|1)$/i.test(bytes)) return 1;
  return /^(?:f|false|n|no|off|0)$/i.test(bytes) ? 0 : undefined;
}

function timestampOf(text: string, column: ValueColumn, context: ValueContext): string {
  const utc = utcTimestamp(text);
  if (utc === undefined) context.loss(TIMESTAMP_AS_IS, column.name);
  return utc ?? text;
}

function realOf(bytes: string, column: ValueColumn, context: ValueContext): InputValue {
  if (DECIMAL.test(bytes)) return Number(bytes);
  if (/^\+?inf(?:inity)?$/i.test(bytes)) return Number.POSITIVE_INFINITY;
  if (/^-inf(?:inity)?$/i.test(bytes)) return Number.NEGATIVE_INFINITY;
  if (/^nan$/i.test(bytes)) context.loss(NOT_A_NUMBER, column.name);
  return bytes;
}

function ofBytes(bytes: Buffer, column: ValueColumn, context: ValueContext): InputValue {
  switch (column.kind) {
    case "blob":
      return bytes;
    case "text":
    case "padded":
    case "time":
    case "timestamptz":
      return context.decode(bytes.toString("latin1"));
    default:
      return ofBits(bitsOf(bytes.toString("latin1")), column);
  }
}

function bitsOf(bytes: string): string {
  return [...bytes].map((byte) => byte.charCodeAt(0).toString(2).padStart(8, "0")).join("");
}

function ofBits(digits: string, column: ValueColumn): InputValue {
  if (column.kind === "text" || column.kind === "padded") return digits;
  if (column.kind === "blob") {
    const padded = digits.padStart(Math.ceil(digits.length / 8) * 8, "0");
    return Buffer.from((padded.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
  }
  const value = BigInt(`0b${digits === "" ? "0" : digits}`);
  if (value > MAX) throw new TypeError("a number that SQLite cannot hold");
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
}

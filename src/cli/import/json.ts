/**
 * One line of JSON into SQL values, exactly: integers beyond 2^53 stay whole, which JSON.parse would round. Objects
 * and arrays within become their JSON text, booleans 1 and 0. Text stays text whatever it looks like.
 */
import type { InputValue } from "../../driver/types.js";

/** A run of digits that a number might not hold; then numbers are marked before parsing. */
const LONG_INTEGER = /\d{16}/;
const STRING_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
/** Begins the string that stands for a long integer while JSON.parse runs; no text of a file begins so. */
const MARK = "\u0000ostraka long integer ";
const ESCAPED_MARK = JSON.stringify(MARK).slice(0, -1);

/** The members of the object on this line, in order. Throws SyntaxError, or TypeError when it is not an object. */
export function parseJsonObject(line: string): Map<string, InputValue> {
  const parsed: unknown = JSON.parse(LONG_INTEGER.test(line) ? markLongIntegers(line) : line);
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw new TypeError("not a JSON object");
  }
  return new Map(Object.entries(parsed).map(([name, value]) => [name, toSql(value)]));
}

function markLongIntegers(line: string): string {
  return line.replace(STRING_OR_NUMBER, (token) =>
    /^-?\d{16,19}$/.test(token) && !Number.isSafeInteger(Number(token)) ? `${ESCAPED_MARK}${token}"` : token,
  );
}

function toSql(value: unknown): InputValue {
  if (value === null || value === undefined) return null;
  if (typeof value === "number") return value;
  if (typeof value === "boolean") return value ? 1 : 0;
  if (typeof value === "string") return stringToSql(value);
  return unmark(JSON.stringify(value));
}

function unmark(json: string): string {
  if (!json.includes(ESCAPED_MARK)) return json;
  return json
    .split(ESCAPED_MARK)
    .map((part, i) => (i === 0 ? part : part.replace('"', "")))
    .join("");
}

function stringToSql(text: string): InputValue {
  if (!text.startsWith(MARK)) return text;
  const integer = BigInt(text.slice(MARK.length));
  return BigInt.asIntN(64, integer) === integer ? integer : Number(integer);
}

/**
 * One line of JSON into SQL values, exactly: integers beyond 2^53 stay whole, which JSON.parse would round, and 1.0 and
 * 1e3 stay REAL, as in SQLite's own JSON. Objects and arrays within become their JSON text, with the numbers as they
 * were written, booleans 1 and 0. Text stays text whatever it looks like.
 */
import type { InputValue } from "../../driver/types.js";

/** A run of digits that a number might not hold, or a number that is written as a REAL; then some are marked before parsing. */
const TO_BE_MARKED = /\d{16}|\d\.\d|\d[eE]/;
const STRING_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
/** Begins the string that stands for a number while JSON.parse runs; no text of a file begins so. */
const MARK = "\u0000ostraka number ";
const ESCAPED_MARK = JSON.stringify(MARK).slice(0, -1);

/** A REAL without a fraction, which a number could not be told from an INTEGER. */
export class WholeReal {
  constructor(readonly value: number) {}
}

export type JsonMember = InputValue | WholeReal;

/** The members of the object on this line, in order. Throws SyntaxError, or TypeError when it is not an object. */
export function parseJsonObject(line: string): Map<string, JsonMember> {
  const parsed: unknown = JSON.parse(TO_BE_MARKED.test(line) ? markNumbers(line) : line);
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw new TypeError("not a JSON object");
  }
  return new Map(Object.entries(parsed).map(([name, value]) => [name, toSql(value)]));
}

function markNumbers(line: string): string {
  return line.replace(STRING_OR_NUMBER, (token) => {
    if (token.startsWith('"')) return token;
    const number = Number(token);
    const kept = /^-?\d+$/.test(token) ? Number.isSafeInteger(number) : !Number.isInteger(number);
    return kept ? token : `${ESCAPED_MARK}${token}"`;
  });
}

function toSql(value: unknown): JsonMember {
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

function stringToSql(text: string): JsonMember {
  if (!text.startsWith(MARK)) return text;
  const number = text.slice(MARK.length);
  if (/[.eE]/.test(number)) return new WholeReal(Number(number));
  const integer = BigInt(number);
  return BigInt.asIntN(64, integer) === integer ? integer : Number(integer);
}

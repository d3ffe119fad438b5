/**
 * Values and names as text: as SQLite shows them, and as SQL that reads back to exactly the same value in every
 * version of SQLite that people have, also when a shell reads it line by line.
 */
import type { Value } from "../../driver/types.js";
import { StatementSplitter } from "../../sql/splitter.js";

/**
 * A REAL in the fewest digits that read back the same, laid out as SQLite does ("%!.17g"). SQLite itself sometimes
 * prints a digit more than it takes; never a different number.
 */
export function realText(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "Inf" : "-Inf";
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return Object.is(value, -0) ? "-0.0" : `${value}.0`;
  const [mantissa = "", exponentText = "0"] = Math.abs(value).toExponential().split("e");
  const digits = mantissa.replace(".", "");
  const exponent = Number(exponentText);
  const sign = value < 0 ? "-" : "";
  if (exponent < -4 || exponent >= 17) {
    const size = String(Math.abs(exponent)).padStart(2, "0");
    return `${sign}${digits[0]}.${digits.slice(1) || "0"}e${exponent < 0 ? "-" : "+"}${size}`;
  }
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return `${sign}${whole}.${digits.slice(exponent + 1) || "0"}`;
}

export function blobLiteral(bytes: Uint8Array): string {
  return `X'${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex")}'`;
}

/** What a value looks like to a reader; `nullText` for NULL. */
export function valueText(value: Value, nullText: string): string {
  if (value === null) return nullText;
  if (typeof value === "string") return value;
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "number") return realText(value);
  return blobLiteral(value);
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: finding them is the purpose
const NOT_IN_A_LITERAL = /[\x00-\x08\x0b-\x1f\x7f-\x9f]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: finding them is the purpose
const NOT_BUT_CARRIAGE_RETURN = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/;

/**
 * A text as an SQL expression. Line feeds and tabs stand as they are. Other control characters would drive a terminal,
 * and shells that read lines drop a carriage return before a line feed, so those texts are spelled otherwise: carriage
 * returns by replace(), anything else as bytes (a literal cannot hold a NUL).
 */
export function textLiteral(text: string): string {
  if (!NOT_IN_A_LITERAL.test(text)) return quoteText(text);
  if (NOT_BUT_CARRIAGE_RETURN.test(text)) return `CAST(${blobLiteral(Buffer.from(text, "utf8"))} AS TEXT)`;
  let mark = "\\r";
  for (let i = 1; text.includes(mark); i++) mark = `\\r${i}`;
  return `replace(${quoteText(text.replaceAll("\r", mark))},'${mark}',char(13))`;
}

function quoteText(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** A value as an SQL expression that evaluates to the same value and storage class. */
export function sqlLiteral(value: Value): string {
  if (value === null) return "NULL";
  if (typeof value === "string") return textLiteral(value);
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "number") {
    if (value === Number.POSITIVE_INFINITY) return "1e999";
    if (value === Number.NEGATIVE_INFINITY) return "-1e999";
    return realText(value);
  }
  return blobLiteral(value);
}

/** A statement with its semicolon, which a comment at its end must not swallow. */
export function terminated(sql: string): string {
  const splitter = new StatementSplitter();
  if (splitter.push(`${sql};`).length > 0) return `${sql};`;
  return splitter.inside === "*/" ? `${sql}*/;` : `${sql}\n;`;
}

/** A name in double quotes, always. */
export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

const PLAIN_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** A name as one would write it: quoted only where it has to be. */
export function nameLiteral(name: string, isKeyword: (word: string) => boolean): string {
  return PLAIN_NAME.test(name) && !isKeyword(name) ? name : quoteName(name);
}

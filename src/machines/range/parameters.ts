/**
 * The parameters of a statement's text by SQLite's own numbering, and how better-sqlite3 wants them bound.
 *
 * SQLite numbers parameters in text order: `?` takes the next number, `?N` is N, a name keeps the number it got
 * first. better-sqlite3 binds unnamed numbers (gaps left by ?N included) positionally and named ones from one object
 * keyed by the name without its first character, so `:a` and `@a` cannot be told apart: such texts are rewritten.
 *
 * The scanner knows only what can hide a parameter: comments, quoted text, identifiers and numbers.
 */
import type { SqlValue } from "../../base/values.js";

interface Occurrence {
  readonly start: number;
  readonly end: number;
  readonly index: number;
}

export interface ParameterPlan {
  /** The text to prepare: the given one unless two names differ only in their first character. */
  readonly sql: string;
  /** Highest parameter number; a vector of values has this length. */
  readonly count: number;
  /** By number - 1: the name with its prefix; undefined for plain `?` and for gaps. */
  readonly names: readonly (string | undefined)[];
}

const NO_PARAMETERS: readonly (string | undefined)[] = [];

export function planParameters(sql: string): ParameterPlan {
  if (!/[?:@$#]/.test(sql)) return { sql, count: 0, names: NO_PARAMETERS };
  const names: (string | undefined)[] = [];
  const numbers = new Map<string, number>();
  const occurrences: Occurrence[] = [];
  let count = 0;
  for (const [start, end] of parameterTokens(sql)) {
    const text = sql.slice(start, end);
    let index: number;
    if (text === "?") index = ++count;
    else if (text.startsWith("?")) index = Number(text.slice(1));
    else index = numbers.get(text) ?? ++count;
    if (index < 1 || index > 32766) return { sql, count: 0, names: NO_PARAMETERS }; // SQLite refuses it at prepare
    count = Math.max(count, index);
    if (text !== "?") {
      numbers.set(text, index);
      names[index - 1] ??= text;
    }
    occurrences.push({ start, end, index });
  }
  for (let i = 0; i < count; i++) names[i] ??= undefined;
  if (!ambiguous(names)) return { sql, count, names };
  return { sql: renumber(sql, occurrences), count, names: names.map((_, i) => `?${i + 1}`) };
}

/** Values as arguments for better-sqlite3's bind, run, all, iterate. */
export function bindArguments(plan: ParameterPlan, params: readonly SqlValue[]): unknown[] {
  const positional: SqlValue[] = [];
  let named: Record<string, SqlValue> | undefined;
  for (let i = 0; i < plan.count; i++) {
    const name = plan.names[i];
    const value = params[i] as SqlValue;
    if (name === undefined) positional.push(value);
    else {
      named ??= Object.create(null) as Record<string, SqlValue>;
      named[name.slice(1)] = value;
    }
  }
  if (named === undefined) return [positional];
  return positional.length === 0 ? [named] : [positional, { ...named }];
}

function ambiguous(names: readonly (string | undefined)[]): boolean {
  const keys = new Set<string>();
  for (const name of names) {
    if (name === undefined) continue;
    const key = name.slice(1);
    if (keys.has(key)) return true;
    keys.add(key);
  }
  return false;
}

function renumber(sql: string, occurrences: readonly Occurrence[]): string {
  let out = "";
  let at = 0;
  for (const { start, end, index } of occurrences) {
    out += `${sql.slice(at, start)}?${index}`;
    at = end;
  }
  return out + sql.slice(at);
}

const isDigit = (c: number): boolean => c >= 48 && c <= 57;
const isIdentifier = (c: number): boolean =>
  (c >= 97 && c <= 122) || (c >= 65 && c <= 90) || isDigit(c) || c === 95 || c === 36 || c >= 128;

function* parameterTokens(sql: string): Generator<readonly [start: number, end: number]> {
  let at = 0;
  while (at < sql.length) {
    const c = sql.charCodeAt(at);
    const skipped = skipOpaque(sql, at, c);
    if (skipped > at) at = skipped;
    else if (c === 63 /* ? */) {
      let end = at + 1;
      while (end < sql.length && isDigit(sql.charCodeAt(end))) end++;
      yield [at, end];
      at = end;
    } else if (c === 36 /* $ */ || c === 58 /* : */ || c === 64 /* @ */ || c === 35 /* # */) {
      let end = at + 1;
      while (end < sql.length && isIdentifier(sql.charCodeAt(end))) end++;
      if (end > at + 1) yield [at, end];
      at = end;
    } else if (isIdentifier(c)) {
      at++;
      while (at < sql.length && isIdentifier(sql.charCodeAt(at))) at++;
    } else at++;
  }
}

/** The end of a comment or quoted token that starts at `at`, or `at`. An unfinished one runs to the end. */
function skipOpaque(sql: string, at: number, c: number): number {
  const next = sql.charCodeAt(at + 1);
  if (c === 45 && next === 45 /* -- */) return endOf(sql, sql.indexOf("\n", at + 2), 1);
  if (c === 47 && next === 42 /* slash star */) return endOf(sql, sql.indexOf("*/", at + 2), 2);
  if (c === 91 /* [ */) return endOf(sql, sql.indexOf("]", at + 1), 1);
  if (c !== 39 && c !== 34 && c !== 96) return at;
  let end = at + 1;
  for (;;) {
    end = sql.indexOf(sql[at] as string, end);
    if (end < 0) return sql.length;
    if (sql.charCodeAt(end + 1) !== c) return end + 1;
    end += 2;
  }
}

function endOf(sql: string, found: number, length: number): number {
  return found < 0 ? sql.length : found + length;
}

/** The first word of a statement, lower-case, comments skipped; "" when there is none. */
export function firstWord(sql: string): string {
  let at = 0;
  while (at < sql.length) {
    const c = sql.charCodeAt(at);
    if (c === 45 || c === 47) {
      const end = skipOpaque(sql, at, c);
      if (end === at) return "";
      at = end;
    } else if (c === 32 || (c >= 9 && c <= 13) || c === 59 || c === 0xfeff) at++;
    else break;
  }
  let end = at;
  while (end < sql.length && isIdentifier(sql.charCodeAt(end))) end++;
  return sql.slice(at, end).toLowerCase();
}

/**
 * SQL functions whose answers must come from the stamp, and not from this machine: random, randomblob, everything
 * that knows what time it is, and those that could ask for a gigabyte in one call.
 *
 * 1. Given the same stamp and arguments every replica answers the same, in the same order of calls.
 * 2. The time zone of every replica is UTC: the modifiers 'localtime' and 'utc' change nothing.
 * 3. Date functions are declared deterministic (the stamp is constant while a statement runs), random ones are not.
 *
 * 4. As in SQLite, what is stored in an index, a generated column or judged by a CHECK may not ask for the time:
 *    declared deterministic, these functions could be used there, so they refuse (see pure-dates.ts).
 *
 * The arithmetic of dates and formats is SQLite's own: calls are passed to a helper connection in memory after 'now'
 * has been replaced. changes() and last_insert_rowid() stay SQLite's, because triggers read their inner value.
 */
import Database from "better-sqlite3";
import { UserError } from "../../base/errors.js";
import type { SqlValue } from "../../base/values.js";
import type { Stamp } from "./types.js";

/** Part of the apply version: a result that one replica refuses, all must refuse. */
export const MAX_VALUE_BYTES = 256 * 1024 * 1024;

const MAX_MEMO = 64;

/** Calls of SQLite's built-in functions on a connection of their own; one a thread. */
class Builtins {
  readonly #database = new Database(":memory:");
  readonly #statements = new Map<string, Database.Statement>();

  constructor(caseSensitiveLike: boolean) {
    if (caseSensitiveLike) this.#database.pragma("case_sensitive_like = ON");
  }

  call(name: string, args: readonly SqlValue[]): SqlValue {
    const key = `${name}/${args.length}`;
    let statement = this.#statements.get(key);
    if (statement === undefined) {
      const marks = new Array<string>(args.length).fill("?").join(",");
      statement = this.#database.prepare(`SELECT ${name}(${marks})`).pluck(true).safeIntegers(true);
      this.#statements.set(key, statement);
    }
    return statement.get(args) as SqlValue;
  }

  integer(value: SqlValue): bigint {
    if (typeof value === "bigint") return value;
    let statement = this.#statements.get("cast");
    if (statement === undefined) {
      statement = this.#database.prepare("SELECT cast(? AS INTEGER)").pluck(true).safeIntegers(true);
      this.#statements.set("cast", statement);
    }
    return (statement.get([value]) as bigint | null) ?? 0n;
  }
}

let shared: Builtins | undefined;
function builtins(): Builtins {
  shared ??= new Builtins(false);
  return shared;
}

let caseSensitive: Builtins | undefined;
function caseSensitiveBuiltins(): Builtins {
  caseSensitive ??= new Builtins(true);
  return caseSensitive;
}

/** sfc32: small, fast, and the same everywhere. */
class Generator32 {
  #a = 0;
  #b = 0;
  #c = 0;
  #counter = 1;

  seed(seed: number): void {
    this.#a = Math.floor(seed / 0x100000000) | 0;
    this.#b = seed | 0;
    this.#c = 0x6f737472;
    this.#counter = 1;
    for (let i = 0; i < 12; i++) this.next();
  }

  next(): number {
    const t = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (this.#c << 21) | (this.#c >>> 11);
    this.#c = (this.#c + t) | 0;
    return t >>> 0;
  }
}

/** The stamp in force on one connection. */
export class StampClock {
  readonly #random = new Generator32();
  #seed = 0;
  #seeded = false;
  #wallMs = 0;
  #iso: string | undefined;
  readonly #memo = new Map<string, SqlValue>();
  /** Functions that may not ask for the time in the statement that runs, and where they stand. */
  timeless: ReadonlyMap<string, string> | undefined;

  set(stamp: Stamp): void {
    this.#seed = stamp.seed;
    this.#seeded = false;
    if (stamp.wallMs === this.#wallMs) return;
    this.#wallMs = stamp.wallMs;
    this.#iso = undefined;
    this.#memo.clear();
  }

  uint32(): number {
    if (!this.#seeded) {
      this.#random.seed(this.#seed);
      this.#seeded = true;
    }
    return this.#random.next();
  }

  /** Throws as SQLite does when `name` stands where its answer must never change. */
  admit(name: string): void {
    const where = this.timeless?.get(name);
    if (where !== undefined)
      throw new UserError("SQLITE_ERROR", `non-deterministic use of ${name}() in ${where}`);
  }

  /** "YYYY-MM-DD HH:MM:SS.SSS", in UTC. */
  now(): string {
    this.#iso ??= new Date(this.#wallMs).toISOString().replace("T", " ").replace("Z", "");
    return this.#iso;
  }

  /** A date function's answer where all arguments are short texts, remembered for this moment. */
  memo(name: string, args: readonly SqlValue[], compute: () => SqlValue): SqlValue {
    let key = name;
    for (const arg of args) {
      if (typeof arg !== "string" || arg.length > 64) return compute();
      key += `\u0000${arg.length}:${arg}`;
    }
    let value = this.#memo.get(key);
    if (value === undefined) {
      value = compute();
      if (this.#memo.size < MAX_MEMO) this.#memo.set(key, value);
    }
    return value;
  }
}

export function defineFunctions(database: Database.Database, clock: StampClock): void {
  const random = { safeIntegers: true, deterministic: false };
  database.function("random", random, () => {
    const high = BigInt(clock.uint32());
    return BigInt.asIntN(64, (high << 32n) | BigInt(clock.uint32()));
  });
  database.function("randomblob", random, (length: unknown) => randomBytes(clock, length as SqlValue));
  const fixed = { safeIntegers: true, deterministic: true };
  database.function("zeroblob", fixed, (length: unknown) => {
    const n = builtins().integer(length as SqlValue);
    return Buffer.alloc(n < 0n ? 0 : bounded(n));
  });
  const current = (name: string, from: number, until: number): void => {
    database.function(name, fixed, () => {
      clock.admit(name);
      return clock.now().slice(from, until);
    });
  };
  current("current_timestamp", 0, 19);
  current("current_date", 0, 10);
  current("current_time", 11, 19);
  const variable = { ...fixed, varargs: true };
  for (const name of ["date", "time", "datetime", "julianday", "unixepoch"])
    database.function(name, variable, (...args: unknown[]) =>
      dateFunction(clock, name, args as SqlValue[], 0),
    );
  database.function("strftime", variable, (...args: unknown[]) =>
    args.length === 0
      ? builtins().call("strftime", [])
      : dateFunction(clock, "strftime", args as SqlValue[], 1),
  );
  database.function("timediff", fixed, (a: unknown, b: unknown) => {
    const values = [asText(a as SqlValue), asText(b as SqlValue)];
    if (values.some(isNow)) clock.admit("timediff");
    return builtins().call(
      "timediff",
      values.map((value) => (isNow(value) ? clock.now() : value)),
    );
  });
  for (const name of ["printf", "format"])
    database.function(name, variable, (...args: unknown[]) => formatFunction(name, args as SqlValue[]));
}

function bounded(length: bigint): number {
  if (length > BigInt(MAX_VALUE_BYTES)) throw tooBig();
  return Number(length);
}

function tooBig(): UserError {
  return new UserError("SQLITE_TOOBIG", "string or blob too big");
}

function randomBytes(clock: StampClock, length: SqlValue): Buffer {
  const asked = builtins().integer(length);
  const bytes = Buffer.alloc(asked < 1n ? 1 : bounded(asked));
  let at = 0;
  for (; at + 4 <= bytes.length; at += 4) bytes.writeUInt32LE(clock.uint32(), at);
  for (let rest = at < bytes.length ? clock.uint32() : 0; at < bytes.length; at++, rest >>>= 8)
    bytes[at] = rest & 255;
  return bytes;
}

const NOW = /^(now|subsec(ond)?)$/i;
const TIME_ZONE = /^(localtime|utc)$/i;

/** As the date functions read what is no number: up to the first NUL, and a blob's bytes as text. */
function asText(value: SqlValue): SqlValue {
  if (value === null || typeof value === "bigint" || typeof value === "number") return value;
  const text = typeof value === "string" ? value : Buffer.from(value).toString();
  const nul = text.indexOf("\0");
  return nul < 0 ? text : text.slice(0, nul);
}

function isNow(value: SqlValue | undefined): boolean {
  return typeof value === "string" && NOW.test(value);
}

function isTimeZone(modifier: SqlValue): boolean {
  return typeof modifier === "string" && TIME_ZONE.test(modifier);
}

/** `first`: position of the time value; the modifiers follow it. */
function dateFunction(clock: StampClock, name: string, given: SqlValue[], first: number): SqlValue {
  const args = given.map((arg, i) => (i < first ? arg : asText(arg)));
  const value = args[first];
  const modifiers = args.slice(first + 1);
  const asks = value === undefined || isNow(value);
  if (asks || modifiers.some(isTimeZone)) clock.admit(name);
  return clock.memo(name, args, () => {
    const passed = args.slice(0, first);
    passed.push(asks ? clock.now() : value);
    // As a time value it says how the time is to be shown, too.
    if (asks && value !== undefined && !/^now$/i.test(value as string)) passed.push(value);
    for (const modifier of modifiers) if (!isTimeZone(modifier)) passed.push(modifier);
    return builtins().call(name, passed);
  });
}

/**
 * LIKE as PRAGMA case_sensitive_like wants it. The pragma itself leaves LIKE marked as not deterministic for the rest of
 * the connection's life, so that partial indexes with LIKE could not even be loaded; the answer is SQLite's own.
 */
export function defineLike(database: Database.Database, isCaseSensitive: () => boolean): void {
  const like = (...args: unknown[]): SqlValue =>
    (isCaseSensitive() ? caseSensitiveBuiltins() : builtins()).call("like", args as SqlValue[]);
  const options = { safeIntegers: true, deterministic: true };
  database.function("like", options, (pattern: unknown, text: unknown) => like(pattern, text));
  database.function("like", options, (pattern: unknown, text: unknown, sign: unknown) =>
    like(pattern, text, sign),
  );
}

function formatFunction(name: string, args: SqlValue[]): SqlValue {
  const format = args[0];
  if (
    typeof format === "string" &&
    /[\d*]/.test(format) &&
    formatWidths(format, args) > BigInt(MAX_VALUE_BYTES)
  )
    throw tooBig();
  return builtins().call(name, args);
}

/** Widths and precisions are what can make a short call big: adds them up, `*` taking its argument. */
function formatWidths(format: string, args: readonly SqlValue[]): bigint {
  let next = 1;
  let total = 0n;
  for (const [, width, precision, type] of format.matchAll(
    /%[-+ 0#!,]*(\*|\d+)?(?:\.(\*|\d+)?)?(?:l{0,2})([a-zA-Z%])/g,
  )) {
    for (const part of [width, precision]) {
      if (part === undefined) continue;
      const value = part === "*" ? builtins().integer(args[next++] ?? null) : BigInt(part.slice(0, 18));
      total += value < 0n ? -value : value;
    }
    if (type !== "%") next++;
  }
  return total;
}

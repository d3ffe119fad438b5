/**
 * Stamped statements as bytes, in the encoding of src/base/values.ts, many in one buffer; in log entries and in the
 * messages between threads. Programs send the same few texts again and again: in one buffer each stands once.
 */
import type { ValueReader, ValueWriter } from "../../base/values.js";
import type { StampedStatement } from "./types.js";

/** Texts that occur again and again, each written where it first occurs. */
export class TextWriter {
  readonly #writer: ValueWriter;
  readonly #numbers = new Map<string, number>();

  constructor(writer: ValueWriter) {
    this.#writer = writer;
  }

  write(text: string): void {
    const known = this.#numbers.get(text);
    if (known !== undefined) {
      this.#writer.uint(known);
      return;
    }
    const number = this.#numbers.size;
    this.#numbers.set(text, number);
    this.#writer.uint(number);
    this.#writer.string(text);
  }
}

export class TextReader {
  readonly #reader: ValueReader;
  readonly #texts: string[] = [];

  constructor(reader: ValueReader) {
    this.#reader = reader;
  }

  read(): string {
    const number = this.#reader.uint();
    if (number < this.#texts.length) return this.#texts[number]!;
    const text = this.#reader.string();
    this.#texts.push(text);
    return text;
  }
}

/** Beside the session's flags: tables follow whose rowids the statement lets SQLite choose. */
const APPENDS = 64;

/** text | parameters | flags | wall time after `baseMs` | seed | last_insert_rowid() | told digest or "" | tables */
export function writeStatement(
  writer: ValueWriter,
  statement: StampedStatement,
  baseMs: number,
  texts: TextWriter,
): void {
  const { stamp, vector, appendsTo } = statement;
  texts.write(statement.sql);
  if (vector !== undefined) writer.raw(vector);
  else writer.vector(statement.params);
  writer.uint(appendsTo === undefined ? statement.flags : statement.flags | APPENDS);
  writer.int(stamp.wallMs - baseMs);
  writer.uint(stamp.seed);
  writer.value(stamp.lastInsertRowid);
  writer.string(statement.told ?? "");
  if (appendsTo === undefined) return;
  writer.uint(appendsTo.length);
  for (const table of appendsTo) texts.write(table);
}

export function readStatement(reader: ValueReader, baseMs: number, texts: TextReader): StampedStatement {
  const sql = texts.read();
  const params = reader.vector();
  const marked = reader.uint();
  const flags = marked & ~APPENDS;
  const wallMs = baseMs + reader.int();
  const seed = reader.uint();
  const lastInsertRowid = reader.value() as bigint;
  const told = reader.string();
  const statement = {
    sql,
    params,
    flags,
    stamp: { wallMs, seed, lastInsertRowid },
    told: told === "" ? undefined : told,
  };
  if (marked === flags) return statement;
  const appendsTo: string[] = [];
  for (let left = reader.uint(); left > 0; left--) appendsTo.push(texts.read());
  return { ...statement, appendsTo };
}

/**
 * The bounded reads that one turn of the event loop gathered, and their answers, each as one buffer between threads:
 * cloning an object a read costs more than most reads do.
 */
import type { WireError } from "../../base/errors.js";
import { ValueReader, ValueWriter } from "../../base/values.js";
import { readStatement, TextReader, TextWriter, writeStatement } from "./statement-codec.js";
import type { BoundedRead, StatementOutcome } from "./types.js";

export type ReadAnswer =
  | { readonly ok: true; readonly outcome: StatementOutcome }
  | { readonly ok: false; readonly error: WireError };

interface Columns {
  readonly names: readonly string[];
  readonly types: readonly (string | null)[];
}

const NO_COLUMNS: readonly string[] = [];
/** Distinct sets of columns remembered, so that equal ones are the same object, whose receivers may compare. */
const REMEMBERED_COLUMNS = 1024;
const writer = new ValueWriter(16 * 1024);

export function encodeReads(reads: readonly BoundedRead[]): Uint8Array {
  const texts = new TextWriter(writer);
  const baseMs = reads[0]?.statement.stamp.wallMs ?? 0;
  writer.reset();
  writer.uint(reads.length);
  writer.uint(baseMs);
  for (const { statement, maxBytes } of reads) {
    writer.uint(maxBytes);
    writeStatement(writer, statement, baseMs, texts);
  }
  return writer.take();
}

export function decodeReads(bytes: Uint8Array): BoundedRead[] {
  const reader = new ValueReader(bytes);
  const texts = new TextReader(reader);
  const reads: BoundedRead[] = [];
  const count = reader.uint();
  const baseMs = reader.uint();
  for (let i = 0; i < count; i++) {
    const maxBytes = reader.uint();
    reads.push({ maxBytes, statement: readStatement(reader, baseMs, texts) });
  }
  return reads;
}

/** Writes answers as they come. */
export class ReadAnswerWriter {
  readonly #writer = new ValueWriter(16 * 1024);
  /** By the array of names, which a prepared statement answers again each time. */
  readonly #columns = new Map<readonly string[], number>();

  ran({
    columns,
    columnTypes,
    rows,
    rowCount,
    changes,
    totalChanges,
    lastInsertRowid,
  }: StatementOutcome): void {
    const to = this.#writer;
    to.byte(1);
    const known = this.#columns.get(columns);
    to.uint(known ?? this.#columns.size);
    if (known === undefined) {
      this.#columns.set(columns, this.#columns.size);
      to.string(JSON.stringify([columns, columnTypes]));
    }
    to.uint(rowCount);
    to.uint(changes);
    to.uint(totalChanges);
    to.value(lastInsertRowid);
    to.bytes(rows);
  }

  failed(error: WireError): void {
    this.#writer.byte(0);
    this.#writer.string(JSON.stringify(error));
  }

  take(): Uint8Array {
    this.#columns.clear();
    return this.#writer.take();
  }
}

/** Reads answers one by one. */
export class ReadAnswerReader {
  readonly #reader: ValueReader;
  readonly #columns: Columns[] = [];

  constructor(bytes: Uint8Array) {
    this.#reader = new ValueReader(bytes);
  }

  next(): ReadAnswer {
    const from = this.#reader;
    if (from.byte() === 0) return { ok: false, error: JSON.parse(from.string()) as WireError };
    const number = from.uint();
    if (number === this.#columns.length) this.#columns.push(interned(from.string()));
    const { names, types } = this.#columns[number]!;
    const rowCount = from.uint();
    const changes = from.uint();
    const totalChanges = from.uint();
    const lastInsertRowid = from.value() as bigint;
    const rows = from.bytes();
    return {
      ok: true,
      outcome: {
        columns: names,
        columnTypes: types,
        rows,
        rowCount,
        changes,
        totalChanges,
        lastInsertRowid,
      },
    };
  }
}

const remembered = new Map<string, Columns>();

function interned(json: string): Columns {
  let columns = remembered.get(json);
  if (columns === undefined) {
    const [names, types] = JSON.parse(json) as [string[], (string | null)[]];
    columns = names.length === 0 ? { names: NO_COLUMNS, types: NO_COLUMNS } : { names, types };
    if (remembered.size >= REMEMBERED_COLUMNS) remembered.clear();
    remembered.set(json, columns);
  }
  return columns;
}

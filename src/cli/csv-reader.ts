/**
 * Reads separated values (RFC 4180) piece by piece: fields may be quoted, a quote within is doubled, a quoted field
 * may span lines. Lines end with LF, CRLF or CR LF at the end of the file or none. A byte order mark is skipped.
 *
 * Invariants
 * 1. Pieces may be cut anywhere; the records are those of the whole text, in time linear in it.
 * 2. `line` of a record is the line on which it begins, from 1.
 * 3. An unclosed quote is an error that names the line where it opened, never a guess. Text after a closing quote
 *    is taken literally, as sqlite3 does, so that a file it can read is read here too.
 */
import { assert } from "../base/assert.js";
import { UserError } from "../base/errors.js";

export interface CsvRecord {
  readonly fields: readonly string[];
  /** Whether each field was quoted: an empty field that was not may stand for NULL. */
  readonly quoted: readonly boolean[];
  readonly line: number;
}

const State = { FieldStart: 0, Bare: 1, Quoted: 2, QuoteSeen: 3 } as const;
type State = (typeof State)[keyof typeof State];

export class CsvReader {
  /** One character. */
  readonly #separator: string;
  #state: State = State.FieldStart;
  #field = "";
  #fieldQuoted = false;
  #fields: string[] = [];
  #quoted: boolean[] = [];
  #line = 1;
  #recordLine = 1;
  #quoteLine = 1;
  #atFileStart = true;
  #anything = false;

  constructor(separator = ",") {
    assert(separator.length === 1, "a separator is one character");
    this.#separator = separator;
  }

  push(chunk: string): CsvRecord[] {
    const records: CsvRecord[] = [];
    let i = 0;
    if (this.#atFileStart && chunk.length > 0) {
      this.#atFileStart = false;
      if (chunk.charCodeAt(0) === 0xfeff) i = 1;
    }
    while (i < chunk.length) {
      if (this.#state === State.Quoted) i = this.#readQuoted(chunk, i);
      else i = this.#readPlain(chunk, i, records);
    }
    return records;
  }

  /** The end of the file: the last record, when its line has no end. */
  finish(): CsvRecord | undefined {
    if (this.#state === State.Quoted) {
      throw new UserError("OSTRAKA_IMPORT", `line ${this.#quoteLine}: a quoted field is not closed`);
    }
    if (!this.#anything) return undefined;
    return this.#endRecord();
  }

  #readQuoted(chunk: string, from: number): number {
    const close = chunk.indexOf('"', from);
    const end = close < 0 ? chunk.length : close;
    const text = chunk.slice(from, end);
    this.#field += text;
    for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) this.#line++;
    if (close < 0) return end;
    this.#state = State.QuoteSeen;
    return close + 1;
  }

  #readPlain(chunk: string, from: number, records: CsvRecord[]): number {
    const c = chunk[from]!;
    if (c === '"' && this.#state === State.QuoteSeen) {
      this.#field += '"';
      this.#state = State.Quoted;
      return from + 1;
    }
    if (c === '"' && this.#state === State.FieldStart) {
      this.#state = State.Quoted;
      this.#fieldQuoted = true;
      this.#anything = true;
      this.#quoteLine = this.#line;
      return from + 1;
    }
    if (c === "\n") {
      this.#line++;
      records.push(this.#endRecord());
      return from + 1;
    }
    this.#anything = true;
    if (c === this.#separator) {
      this.#endField();
      return from + 1;
    }
    this.#state = State.Bare;
    const end = this.#endOfPlainRun(chunk, from);
    this.#field += chunk.slice(from, end);
    return end;
  }

  /** Where the characters that mean nothing special end; at least one is taken. */
  #endOfPlainRun(chunk: string, from: number): number {
    const separator = this.#separator.charCodeAt(0);
    let i = from + 1;
    for (; i < chunk.length; i++) {
      const c = chunk.charCodeAt(i);
      if (c === 10 || c === separator) break;
    }
    return i;
  }

  #endField(): void {
    this.#fields.push(this.#field);
    this.#quoted.push(this.#fieldQuoted);
    this.#field = "";
    this.#fieldQuoted = false;
    this.#state = State.FieldStart;
  }

  #endRecord(): CsvRecord {
    // Only a carriage return outside quotes belongs to the line's end.
    if (this.#state === State.Bare && this.#field.endsWith("\r")) this.#field = this.#field.slice(0, -1);
    this.#endField();
    const record = { fields: this.#fields, quoted: this.#quoted, line: this.#recordLine };
    this.#fields = [];
    this.#quoted = [];
    this.#recordLine = this.#line;
    this.#anything = false;
    return record;
  }
}

/**
 * Cuts a dump into its statements, without holding more of it than one statement or one row: of an INSERT … VALUES and
 * of a COPY … FROM stdin it gives what comes before the rows, and the rows are read one by one or passed over.
 *
 * Understood are MySQL's DELIMITER, PostgreSQL's dollar quotes, rules and functions with statements within
 * (BEGIN ATOMIC … END), and psql's commands, a line each.
 *
 * Invariant: what `next` answers begins on the line it names; an error names the line of what was being read.
 */
import { CopyRows } from "./copy-rows.js";
import { InsertRows } from "./insert-rows.js";
import { Kind, Lexer } from "./lexer.js";
import type { Literal } from "./literal.js";
import type { DumpSession } from "./session.js";
import type { SourceText } from "./source-text.js";

export interface RawRow {
  readonly values: readonly Literal[];
  readonly line: number;
}

/** Rows of a statement, read without waiting while the text at hand suffices. */
export interface RowReader {
  /** "more": there must be more text first; undefined: there are no more rows. */
  next(): RawRow | "more" | undefined;
  /** Goes to the end of the rows, without looking at them. */
  skip(): "more" | undefined;
}

export type DumpItem =
  | { readonly kind: "statement"; readonly bytes: string; readonly line: number }
  | { readonly kind: "rows"; readonly head: string; readonly line: number; readonly rows: RowReader }
  /** A command of psql, without its backslash. */
  | { readonly kind: "command"; readonly bytes: string; readonly line: number };

/** The file, not the database, is what is wrong. */
export class DumpError extends Error {
  constructor(
    readonly line: number,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

const DELIMITER_LINE = /delimiter[ \t]+(\S+)[^\n]*(?:\n|$)/iy;
const COPY_FROM_STDIN = /^copy\b[\s\S]*\bfrom\s+stdin\b/i;
/** The start of a statement is decided on so much text, if there is as much. */
const LOOK_AHEAD = 256;

export class DumpScanner {
  readonly #lexer: Lexer;
  #delimiter = ";";
  #rows: RowReader | undefined;

  constructor(
    readonly source: SourceText,
    readonly session: DumpSession,
  ) {
    this.#lexer = new Lexer(session.mode);
  }

  /** The next statement; rows of the one before that have not been read are passed over. */
  async next(): Promise<DumpItem | undefined> {
    if (this.#rows !== undefined) {
      while (this.#rows.skip() === "more") await this.more();
      this.#rows = undefined;
    }
    for (;;) {
      if (!(await this.#toStatement())) return undefined;
      const { source } = this;
      if (source.text.startsWith(this.#delimiter, source.at)) {
        source.advance(source.at + this.#delimiter.length);
        continue;
      }
      if (this.session.mode.family === "postgresql" && source.text[source.at] === "\\")
        return await this.#command();
      if (this.session.mode.family === "mysql" && this.#takeDelimiter()) continue;
      return await this.#statement();
    }
  }

  /** Brings more text, while rows or a statement wait for it. */
  async more(): Promise<void> {
    try {
      await this.source.more();
    } catch (error) {
      if (error instanceof RangeError) throw new DumpError(this.source.line, error.message);
      throw error;
    }
  }

  /** Passes white space and comments. False at the end of the file. */
  async #toStatement(): Promise<boolean> {
    const { source } = this;
    for (;;) {
      if (source.at < source.text.length && this.#lexer.scan(source.text, source.at, source.ended)) {
        if (this.#lexer.kind === Kind.Unclosed) throw new DumpError(source.line, "this is not closed");
        if (this.#lexer.kind !== Kind.Space) {
          if (source.ended || source.text.length - source.at >= LOOK_AHEAD) return true;
        } else {
          source.advance(this.#lexer.end);
          continue;
        }
      }
      if (source.ended) return source.at < source.text.length;
      await this.more();
    }
  }

  #takeDelimiter(): boolean {
    DELIMITER_LINE.lastIndex = this.source.at;
    const match = DELIMITER_LINE.exec(this.source.text);
    if (match === null) return false;
    this.#delimiter = match[1]!;
    this.source.advance(DELIMITER_LINE.lastIndex);
    return true;
  }

  async #command(): Promise<DumpItem> {
    const { source } = this;
    const { line } = source;
    while (source.text.indexOf("\n", source.at) < 0 && !source.ended) await this.more();
    const end = source.text.indexOf("\n", source.at);
    const bytes = source.text.slice(source.at + 1, end < 0 ? undefined : end).trim();
    source.advance(end < 0 ? source.text.length : end + 1);
    return { kind: "command", bytes, line };
  }

  async #statement(): Promise<DumpItem> {
    const { source } = this;
    const { line } = source;
    const parts = new StatementParts(this.session.mode.family);
    for (let offset = 0; ; ) {
      const at = source.at + offset;
      if (at >= source.text.length || !this.#lexer.scan(source.text, at, source.ended)) {
        if (at >= source.text.length && source.ended) return this.#ended(at, at, line);
        await this.more();
        continue;
      }
      if (this.#lexer.kind === Kind.Unclosed) {
        const opened = line + countLines(source.text.slice(source.at, at));
        throw new DumpError(opened, "a quote or comment that opens here is not closed");
      }
      const delimiter = parts.depth <= 0 ? this.#delimiterIn(at) : -1;
      if (delimiter >= 0) return this.#ended(delimiter, delimiter + this.#delimiter.length, line);
      const end = this.#lexer.end;
      if (parts.push(this.#lexer.kind, source.text, at, end)) {
        const head = source.text.slice(source.at, end);
        source.advance(end);
        this.#rows = new InsertRows(source, this.#lexer, this.#delimiter);
        return { kind: "rows", head, line, rows: this.#rows };
      }
      offset = end - source.at;
    }
  }

  /** Where the delimiter is in the lexeme at `at`, -1 if it is not. It may be stuck to a word, as in END$$. */
  #delimiterIn(at: number): number {
    const { kind, end } = this.#lexer;
    if (kind === Kind.Symbol) return this.source.text.startsWith(this.#delimiter, at) ? at : -1;
    if (kind !== Kind.Word || this.#delimiter === ";") return -1;
    const found = this.source.text.slice(at, end + this.#delimiter.length - 1).indexOf(this.#delimiter);
    return found < 0 ? -1 : at + found;
  }

  #ended(end: number, after: number, line: number): DumpItem {
    const { source } = this;
    const bytes = source.text.slice(source.at, end).trimEnd();
    source.advance(after);
    if (this.session.mode.family === "postgresql" && COPY_FROM_STDIN.test(bytes)) {
      this.#rows = new CopyRows(source);
      return { kind: "rows", head: bytes, line, rows: this.#rows };
    }
    return { kind: "statement", bytes, line };
  }
}

function countLines(text: string): number {
  return text.split("\n").length - 1;
}

/** Follows a statement's words: where it may end, and where the rows of an INSERT begin. */
class StatementParts {
  /** Parentheses and BEGIN ATOMIC … END that are open: no semicolon ends the statement there. */
  depth = 0;
  readonly #postgres: boolean;
  #words: string[] = [];
  #parentheses = 0;
  #blocks = 0;

  constructor(family: "mysql" | "postgresql") {
    this.#postgres = family === "postgresql";
  }

  /** Takes a lexeme; true when it was the VALUES after which rows follow. */
  push(kind: Kind, text: string, at: number, end: number): boolean {
    if (kind === Kind.Symbol) {
      if (text[at] === "(") this.#parentheses++;
      else if (text[at] === ")") this.#parentheses--;
    } else if (kind === Kind.Word) {
      if (this.#word(text.slice(at, end).toLowerCase())) return true;
    }
    // Only psql counts parentheses.
    this.depth = this.#postgres ? this.#parentheses + this.#blocks : 0;
    return false;
  }

  #word(word: string): boolean {
    const first = this.#words[0];
    if (first === "insert" || first === "replace") {
      if (this.#parentheses > 0) return false;
      if (word === "values" || (!this.#postgres && word === "value")) return true;
      if (/^(?:select|set|with|table|default)$/.test(word)) this.#words = ["other"];
    }
    if (this.#words.length < 4) this.#words.push(word);
    if (first === "create" && this.#postgres) {
      const routine = this.#words[1] === "or" ? this.#words[3] : this.#words[1];
      if (routine === "function" || routine === "procedure") this.#block(word);
    }
    return false;
  }

  #block(word: string): void {
    if (word === "begin" || (word === "case" && this.#blocks > 0)) this.#blocks++;
    else if (word === "end" && this.#blocks > 0) this.#blocks--;
  }
}

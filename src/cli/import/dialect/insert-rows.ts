/**
 * The rows after VALUES, one at a time. What follows them (ON CONFLICT, ON DUPLICATE KEY, RETURNING) is passed over:
 * the tables are new, so there is nothing to conflict with, and if there is, the load fails.
 */

import { Kind, type Lexer } from "./lexer.js";
import { type Literal, literalOf } from "./literal.js";
import { DumpError, type RawRow, type RowReader } from "./scanner.js";
import type { SourceText } from "./source-text.js";

const INTRODUCER = /^_[a-z]\w*$/i;

export class InsertRows implements RowReader {
  #done = false;
  #at = 0;

  constructor(
    readonly source: SourceText,
    readonly lexer: Lexer,
    readonly delimiter: string,
  ) {}

  next(): RawRow | "more" | undefined {
    if (this.#done) return undefined;
    this.#at = this.source.at;
    if (!this.#toNext()) return this.#more();
    const { text } = this.source;
    if (text[this.#at] === ",") {
      this.#at++;
      if (!this.#toNext()) return this.#more();
    }
    if (text[this.#at] !== "(") return this.#end();
    this.source.advance(this.#at);
    const { line } = this.source;
    const values = this.#row();
    if (values === undefined) return this.#more();
    this.source.advance(this.#at);
    return { values, line };
  }

  skip(): "more" | undefined {
    return this.#done ? undefined : this.#end();
  }

  /** To the end of the statement. */
  #end(): "more" | undefined {
    for (;;) {
      this.#at = this.source.at;
      if (!this.#toNext()) return this.#more();
      if (this.source.text.startsWith(this.delimiter, this.#at)) {
        this.source.advance(this.#at + this.delimiter.length);
        this.#done = true;
        return undefined;
      }
      this.source.advance(this.lexer.end);
    }
  }

  #more(): "more" {
    if (this.source.ended) throw new DumpError(this.source.line, "the file ends within this statement");
    return "more";
  }

  /** Passes white space; the lexer then has what comes next. */
  #toNext(): boolean {
    const { text, ended } = this.source;
    for (;;) {
      if (this.#at >= text.length || !this.lexer.scan(text, this.#at, ended)) return false;
      if (this.lexer.kind === Kind.Unclosed) {
        throw new DumpError(this.source.line, "a quote or comment that opens in this row is not closed");
      }
      if (this.lexer.kind !== Kind.Space) return true;
      this.#at = this.lexer.end;
    }
  }

  #row(): Literal[] | undefined {
    const { text } = this.source;
    const values: Literal[] = [];
    this.#at++;
    for (;;) {
      if (!this.#toNext()) return undefined;
      if (text[this.#at] === ")" && values.length === 0) {
        this.#at++;
        return values;
      }
      const value = this.#value();
      if (value === undefined) return undefined;
      values.push(value);
      if (!this.#toNext()) return undefined;
      const c = text[this.#at++];
      if (c === ")") return values;
    }
  }

  /** A value, after which a comma or the closing parenthesis comes. Undefined when there must be more text. */
  #value(): Literal | undefined {
    const start = this.#at;
    const literal = this.#literal();
    if (literal === undefined) {
      // Not understood, or not all at hand: both begin again, from the value's first lexeme.
      this.#at = start;
      return this.#expression();
    }
    if (!this.#toNext()) return undefined;
    const c = this.source.text[this.#at];
    if (c === "," || c === ")") return literal;
    this.#at = start;
    return this.#expression();
  }

  #literal(): Literal | undefined {
    const { text } = this.source;
    const start = this.#at;
    const { kind, end } = this.lexer;
    this.#at = end;
    if (kind === Kind.String || kind === Kind.Number) {
      return literalOf(kind, text.slice(start, end), this.lexer.mode);
    }
    if (kind === Kind.Symbol && (text[start] === "-" || text[start] === "+")) {
      if (!this.#toNext() || this.lexer.kind !== Kind.Number) return undefined;
      const number = literalOf(Kind.Number, text.slice(this.#at, this.lexer.end), this.lexer.mode);
      if (number?.kind !== "number") return undefined;
      this.#at = this.lexer.end;
      return text[start] === "-" ? { kind: "number", text: `-${number.text}` } : number;
    }
    return kind === Kind.Word ? this.#word(text.slice(start, end)) : undefined;
  }

  #word(word: string): Literal | undefined {
    switch (word.toLowerCase()) {
      case "null":
        return null;
      case "true":
        return { kind: "boolean", value: true };
      case "false":
        return { kind: "boolean", value: false };
      case "default":
        return { kind: "default" };
    }
    // MySQL says what a string's bytes are: _binary '…', _utf8mb4 '…'.
    if (!INTRODUCER.test(word) || this.lexer.mode.family !== "mysql") return undefined;
    if (!this.#toNext() || (this.lexer.kind !== Kind.String && this.lexer.kind !== Kind.Number))
      return undefined;
    const { kind, end } = this.lexer;
    const literal = literalOf(kind, this.source.text.slice(this.#at, end), this.lexer.mode);
    this.#at = end;
    return literal;
  }

  /** Up to the comma or parenthesis that ends the value. */
  #expression(): Literal | undefined {
    const { text } = this.source;
    const start = this.#at;
    for (let depth = 0; ; ) {
      if (!this.#toNext()) return undefined;
      const c = this.lexer.kind === Kind.Symbol ? text[this.#at] : undefined;
      if (depth === 0 && (c === "," || c === ")")) {
        return { kind: "expression", bytes: text.slice(start, this.#at).trim() };
      }
      if (c === "(" || c === "[") depth++;
      else if (c === ")" || c === "]") depth--;
      this.#at = this.lexer.end;
    }
  }
}

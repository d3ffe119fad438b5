/** The rows after COPY … FROM stdin, a line each, in PostgreSQL's text format. A line with `\.` alone ends them. */

import { type Literal, unescapePostgres } from "./literal.js";
import { DumpError, type RawRow, type RowReader } from "./scanner.js";
import type { SourceText } from "./source-text.js";

export class CopyRows implements RowReader {
  #done = false;
  /** Lines end as the statement's own did; undefined until that has been passed. */
  #crlf: boolean | undefined;

  constructor(readonly source: SourceText) {}

  next(): RawRow | "more" | undefined {
    if (this.#done) return undefined;
    if (this.#crlf === undefined) {
      const first = this.#takeLine();
      if (first === undefined) return "more";
      this.#crlf = first.endsWith("\r");
    }
    const { line } = this.source;
    const text = this.#takeLine();
    if (text === undefined) return "more";
    const row = this.#crlf && text.endsWith("\r") ? text.slice(0, -1) : text;
    if (row === "\\.") {
      this.#done = true;
      return undefined;
    }
    return { values: row.split("\t").map(copyValue), line };
  }

  skip(): "more" | undefined {
    if (this.#done) return undefined;
    const { text, at, ended } = this.source;
    // Backslashes in data are doubled: no row begins like this. The statement's own line is still to be passed, or the
    // last row's end has been.
    const atEnd = this.#crlf !== undefined && text.startsWith("\\.", at);
    const end = atEnd ? at : text.indexOf("\n\\.", at) + 1;
    const next = text.indexOf("\n", end);
    if ((atEnd || end > 0) && (next >= 0 || ended)) {
      this.source.advance(next < 0 ? text.length : next + 1);
      this.#done = true;
      return undefined;
    }
    if (ended) throw this.#cutShort();
    // The end may be cut: its line feed stays.
    if (!atEnd) this.source.advance(end > 0 ? end - 1 : Math.max(at, text.length - 2));
    return "more";
  }

  /** Undefined when its end is not at hand. */
  #takeLine(): string | undefined {
    const { text, at, ended } = this.source;
    const end = text.indexOf("\n", at);
    if (end < 0 && !ended) return undefined;
    if (end < 0 && text.slice(at).trimEnd() !== "\\.") throw this.#cutShort();
    this.source.advance(end < 0 ? text.length : end + 1);
    return text.slice(at, end < 0 ? text.length : end);
  }

  #cutShort(): DumpError {
    return new DumpError(this.source.line, "the file ends within the rows of a COPY");
  }
}

function copyValue(field: string): Literal {
  if (!field.includes("\\")) return { kind: "string", bytes: field };
  if (field === "\\N") return null;
  return { kind: "string", bytes: unescapePostgres(field) };
}

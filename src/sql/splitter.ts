/**
 * Cuts scripts into statements as sqlite3's shell does: the state machine of sqlite3_complete(), in which the body
 * of CREATE TRIGGER goes on to `; END ;`, comments are space, and an open quote or comment keeps the statement open.
 *
 * Invariants
 * 1. Pieces may be cut anywhere, even inside a token; the statements found are those of the whole text.
 * 2. Time is linear in the text: nothing is looked at twice, and pieces are joined once, when a statement ends.
 * 3. A statement's text begins at its first token (spaces and comments before it are dropped) and ends with its
 *    semicolon. `line` is the line of its first token, from 1. Empty statements (a lone `;`) are not reported.
 *
 * Left out: dot commands and prompts, which belong to the shell (`atStart` tells it when a line may be one).
 */
import { isIdChar, isSpace, TokenKind, type TokenList, wordAt } from "./tokenizer.js";

export interface SplitStatement {
  readonly text: string;
  readonly line: number;
}

// The states and token classes of sqlite3_complete.
const INVALID = 0;
const START = 1;
const NORMAL = 2;

const SEMI = 0;
const WHITE = 1;
const OTHER = 2;

const TRANSITIONS: readonly (readonly number[])[] = [
  /*               SEMI WS OTHER EXPLAIN CREATE TEMP TRIGGER END */
  /* 0 INVALID */ [1, 0, 2, 3, 4, 2, 2, 2],
  /* 1 START   */ [1, 1, 2, 3, 4, 2, 2, 2],
  /* 2 NORMAL  */ [1, 2, 2, 2, 2, 2, 2, 2],
  /* 3 EXPLAIN */ [1, 3, 3, 2, 4, 2, 2, 2],
  /* 4 CREATE  */ [1, 4, 2, 2, 2, 4, 5, 2],
  /* 5 TRIGGER */ [6, 5, 5, 5, 5, 5, 5, 5],
  /* 6 SEMI    */ [6, 6, 5, 5, 5, 5, 5, 7],
  /* 7 END     */ [1, 7, 5, 5, 5, 5, 5, 5],
];

const KEYWORDS: ReadonlyMap<string, number> = new Map([
  ["EXPLAIN", 3],
  ["CREATE", 4],
  ["TEMP", 5],
  ["TEMPORARY", 5],
  ["TRIGGER", 6],
  ["END", 7],
]);
/** Longer words cannot be keywords of ours; no more of them is kept. */
const LONGEST_KEYWORD = 9;

/** Where in a token a piece of text ended. */
const Mode = {
  Between: 0,
  Word: 1,
  /** After a `-` or `/` that may begin a comment. */
  Minus: 2,
  Slash: 3,
  LineComment: 4,
  BlockComment: 5,
  /** In a block comment, after `*`. */
  BlockStar: 6,
  Quoted: 7,
} as const;
type Mode = (typeof Mode)[keyof typeof Mode];

export class StatementSplitter {
  #state: number = INVALID;
  #mode: Mode = Mode.Between;
  #word = "";
  #quote = "";
  /** Text of the statement that is open, in pieces; empty when none has begun. */
  #parts: string[] = [];
  #open = false;
  #statementLine = 1;
  #line = 1;

  /** No statement has begun: only spaces, comments and semicolons since the last one ended. */
  get atStart(): boolean {
    return !this.#open && (this.#mode === Mode.Between || this.#mode === Mode.LineComment);
  }

  /** Inside a quoted name or string (with its closing quote), or a block comment: for a shell's prompt. */
  get inside(): string | undefined {
    if (this.#mode === Mode.Quoted) return this.#quote;
    return this.#mode === Mode.BlockComment || this.#mode === Mode.BlockStar ? "*/" : undefined;
  }

  /** As sqlite3_complete(): text has been seen, and it ends with a whole statement and perhaps spaces and comments. */
  get complete(): boolean {
    const closed = this.#mode === Mode.Between || this.#mode === Mode.LineComment;
    return closed && this.#state === START;
  }

  /** The line that the next character is on. */
  get line(): number {
    return this.#line;
  }

  /** Takes the next piece of the script; answers the statements that end in it. */
  push(chunk: string): SplitStatement[] {
    const found: SplitStatement[] = [];
    // Where the open statement's text in this piece begins, and the first newline that is not counted yet.
    let from = 0;
    let newline = chunk.indexOf("\n");
    const countTo = (at: number): void => {
      for (; newline >= 0 && newline < at; newline = chunk.indexOf("\n", newline + 1)) this.#line++;
    };
    const begin = (at: number): void => {
      if (this.#open) return;
      this.#open = true;
      countTo(at);
      this.#statementLine = this.#line;
      from = at;
    };
    let i = 0;
    while (i < chunk.length) {
      if (this.#mode !== Mode.Between) {
        i = this.#continue(chunk, i, begin);
        continue;
      }
      const c = chunk.charCodeAt(i);
      if (c === 0x3b) {
        this.#state = TRANSITIONS[this.#state]![SEMI]!;
        i++;
        if (this.#state !== START || !this.#open) continue;
        this.#parts.push(chunk.slice(from, i));
        found.push({ text: this.#parts.join(""), line: this.#statementLine });
        this.#parts = [];
        this.#open = false;
      } else if (isSpace(c) || c === 0xfeff) {
        this.#state = TRANSITIONS[this.#state]![WHITE]!;
        i++;
      } else {
        i = this.#begin(chunk, i, c, begin);
      }
    }
    if (this.#open) this.#parts.push(chunk.slice(from));
    countTo(chunk.length);
    return found;
  }

  /** The end of the script: an open statement without its semicolon, if there is one. Ready for another script. */
  finish(): SplitStatement | undefined {
    if (this.#mode === Mode.Minus || this.#mode === Mode.Slash) this.#startDangling();
    const rest = this.#open ? { text: this.#parts.join("").trimEnd(), line: this.#statementLine } : undefined;
    this.#parts = [];
    this.#open = false;
    this.#state = INVALID;
    this.#mode = Mode.Between;
    this.#line = 1;
    return rest;
  }

  #startDangling(): void {
    if (!this.#open) {
      this.#open = true;
      this.#statementLine = this.#line;
      this.#parts = [this.#mode === Mode.Minus ? "-" : "/"];
    }
  }

  #step(token: number): void {
    this.#state = TRANSITIONS[this.#state]![token]!;
  }

  /** Begins a token that is neither space nor semicolon. */
  #begin(chunk: string, at: number, c: number, begin: (at: number) => void): number {
    if (c === 0x2d || c === 0x2f) {
      // Decided by the next character: a comment does not begin a statement.
      const next = at + 1 < chunk.length ? chunk.charCodeAt(at + 1) : -1;
      if (next >= 0) {
        if (c === 0x2d && next === 0x2d) this.#mode = Mode.LineComment;
        else if (c === 0x2f && next === 0x2a) this.#mode = Mode.BlockComment;
        else {
          begin(at);
          this.#step(OTHER);
          return at + 1;
        }
        return at + 2;
      }
      this.#mode = c === 0x2d ? Mode.Minus : Mode.Slash;
      return at + 1;
    }
    begin(at);
    if (c === 0x27 || c === 0x22 || c === 0x60 || c === 0x5b) {
      this.#mode = Mode.Quoted;
      this.#quote = c === 0x5b ? "]" : String.fromCharCode(c);
      return at + 1;
    }
    if (isIdChar(c)) {
      this.#mode = Mode.Word;
      this.#word = "";
      return at;
    }
    this.#step(OTHER);
    return at + 1;
  }

  /** Goes on inside a token that may have begun in an earlier piece. */
  #continue(chunk: string, at: number, begin: (at: number) => void): number {
    switch (this.#mode) {
      case Mode.Word:
        return this.#continueWord(chunk, at);
      case Mode.Quoted: {
        const close = chunk.indexOf(this.#quote, at);
        if (close < 0) return chunk.length;
        this.#mode = Mode.Between;
        this.#step(OTHER);
        return close + 1;
      }
      case Mode.LineComment: {
        const newline = chunk.indexOf("\n", at);
        if (newline < 0) return chunk.length;
        this.#mode = Mode.Between;
        this.#step(WHITE);
        return newline + 1;
      }
      case Mode.BlockStar:
        if (chunk.charCodeAt(at) === 0x2f) return this.#endBlockComment(at + 1);
        this.#mode = Mode.BlockComment;
        return at;
      case Mode.BlockComment: {
        const close = chunk.indexOf("*/", at);
        if (close >= 0) return this.#endBlockComment(close + 2);
        if (chunk.endsWith("*") && chunk.length > at) this.#mode = Mode.BlockStar;
        return chunk.length;
      }
      default:
        return this.#continueOperator(chunk, at, begin);
    }
  }

  #endBlockComment(at: number): number {
    this.#mode = Mode.Between;
    this.#step(WHITE);
    return at;
  }

  /** The piece before ended in `-` or `/`. */
  #continueOperator(chunk: string, at: number, begin: (at: number) => void): number {
    const minus = this.#mode === Mode.Minus;
    const next = chunk.charCodeAt(at);
    if (next === (minus ? 0x2d : 0x2a)) {
      this.#mode = minus ? Mode.LineComment : Mode.BlockComment;
      return at + 1;
    }
    if (!this.#open) {
      begin(at);
      this.#parts.push(minus ? "-" : "/");
    }
    this.#mode = Mode.Between;
    this.#step(OTHER);
    return at;
  }

  #continueWord(chunk: string, at: number): number {
    let i = at;
    while (i < chunk.length && isIdChar(chunk.charCodeAt(i))) i++;
    if (this.#word.length <= LONGEST_KEYWORD) {
      this.#word += chunk.slice(at, Math.min(i, at + LONGEST_KEYWORD + 1));
    }
    if (i < chunk.length) {
      this.#mode = Mode.Between;
      this.#step(
        this.#word.length > LONGEST_KEYWORD ? OTHER : (KEYWORDS.get(this.#word.toUpperCase()) ?? OTHER),
      );
    }
    return i;
  }
}

/** sqlite3_complete(): whether `text` ends with a whole statement. Blank text is not complete. */
export function isComplete(text: string): boolean {
  const splitter = new StatementSplitter();
  splitter.push(text);
  return splitter.complete;
}

/** All statements of a script, the last one with or without a semicolon. */
export function splitScript(script: string): SplitStatement[] {
  const splitter = new StatementSplitter();
  const statements = splitter.push(script);
  const rest = splitter.finish();
  if (rest !== undefined) statements.push(rest);
  return statements;
}

/**
 * The index of the token (in a list without spaces and comments) that is the semicolon ending the statement that
 * begins at token `from`, or the list's length when none does.
 */
export function statementEnd(tokens: TokenList, from: number): number {
  let state = START;
  for (let i = from; i < tokens.length; i++) {
    const kind = tokens.kinds[i];
    if (kind === TokenKind.Semicolon) {
      state = TRANSITIONS[state]![SEMI]!;
      if (state === START) return i;
    } else if (state === NORMAL) {
    } else {
      state = TRANSITIONS[state]![KEYWORDS.get(wordAt(tokens, i)) ?? OTHER]!;
    }
  }
  return tokens.length;
}

/**
 * Finds where the words, literals and comments of another database's SQL end, in a text that may be cut anywhere.
 *
 * The text holds one character a byte ("latin1"), so that bytes which are no text pass through unchanged; every encoding
 * that is read here keeps ASCII characters to themselves (charset.ts), so nothing that matters hides within another.
 *
 * Invariants
 * 1. `scan` answers false only when the text ends before it is certain where the lexeme does; with more text appended
 *    the same call gives the answer. With `last` set there is no more text, and it always answers.
 * 2. An unclosed quote or comment at the end of the last text is `Kind.Unclosed`, never a guess.
 * 3. Lexemes of one text, taken one after the other, cover it without gaps.
 */

export type Family = "mysql" | "postgresql";

/** What the dump has told about how its text is to be read; SET changes it (session.ts). */
export interface LexicalMode {
  readonly family: Family;
  /** Whether comments for MariaDB alone are part of the text. */
  readonly mariadb: boolean;
  /** Whether a backslash in an ordinary string is an escape. */
  backslashEscapes: boolean;
  /** Whether "…" is a name, as in standard SQL; else a string. */
  ansiQuotes: boolean;
}

export const Kind = {
  /** White space, comments, and the marks around MySQL's comments with code in them. */
  Space: 0,
  Word: 1,
  Number: 2,
  /** '…' with any prefix, "…" where that is a string, $tag$…$tag$. */
  String: 3,
  /** `…`, "…" where that is a name. */
  Name: 4,
  Symbol: 5,
  Unclosed: 6,
} as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

const BLANKS = /[ \t\r\n\f\v]+/y;
const WORD = /[A-Za-z_\x80-\uffff][\w$\x80-\uffff]*/y;
const MYSQL_WORD = /[A-Za-z_$@\x80-\uffff][\w$@\x80-\uffff]*/y;
const NUMBER = /0[xX][0-9a-fA-F]+|0b[01]+(?![\w.])|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?/y;
const SYMBOL = /<=>|->>|!~~\*|!~~|!~\*|~~\*|~\*|!~|~~|->|<>|<=|>=|!=|::|:=|\|\||&&|<<|>>|=>|[\s\S]/y;
const DOLLAR = /\$(?:[A-Za-z_\x80-\uffff][\w\x80-\uffff]*)?\$/y;
const CONDITIONAL = /\/\*(M?)!(\d*)/y;
/** Comments for no server there is. */
const NO_VERSION = 99_999;

export class Lexer {
  kind: Kind = Kind.Space;
  end = 0;

  constructor(readonly mode: LexicalMode) {}

  /** Looks at the lexeme that begins at `at`, which is before the text's end. */
  scan(text: string, at: number, last: boolean): boolean {
    const c = text.charCodeAt(at);
    if (c === 32 || (c >= 9 && c <= 13)) return this.#run(Kind.Space, BLANKS, text, at, true);
    if (c === 39) return this.#quoted(Kind.String, text, at + 1, last, this.mode.backslashEscapes);
    if (c >= 48 && c <= 57) return this.#number(text, at, last);
    if (isWordStart(c)) return this.#word(text, at, last);
    return this.#other(c, text, at, last);
  }

  #other(c: number, text: string, at: number, last: boolean): boolean {
    const mysql = this.mode.family === "mysql";
    // Nothing of two or three characters is decided on one.
    if (!last && text.length - at < 4) return false;
    const next = text.charCodeAt(at + 1);
    if (c === 34 && (!mysql || this.mode.ansiQuotes))
      return this.#quoted(Kind.Name, text, at + 1, last, false);
    if (c === 34) return this.#quoted(Kind.String, text, at + 1, last, this.mode.backslashEscapes);
    if (c === 96 && mysql) return this.#quoted(Kind.Name, text, at + 1, last, false);
    if (c === 45 && next === 45 && (!mysql || !(text.charCodeAt(at + 2) > 32))) {
      return this.#lineComment(text, at, last);
    }
    if (c === 35 && mysql) return this.#lineComment(text, at, last);
    if (c === 47 && next === 42) return this.#blockComment(text, at, last);
    // The end of a comment with code in it; `*/` is nothing else outside of comments.
    if (mysql && c === 42 && next === 47) return this.#found(Kind.Space, at + 2);
    if (c === 46 && next >= 48 && next <= 57) return this.#number(text, at, last);
    if (c === 36 && !mysql) {
      DOLLAR.lastIndex = at;
      if (DOLLAR.test(text)) return this.#dollarQuoted(text, at, DOLLAR.lastIndex, last);
      if (!last && text.length - at < 66) return false;
    }
    if (mysql && (c === 36 || c === 64)) return this.#run(Kind.Word, MYSQL_WORD, text, at, last);
    return this.#run(Kind.Symbol, SYMBOL, text, at, true);
  }

  #found(kind: Kind, end: number): boolean {
    this.kind = kind;
    this.end = end;
    return true;
  }

  /** `certain`: what is found does not go on in text that is yet to come, or it is no matter. */
  #run(kind: Kind, expression: RegExp, text: string, at: number, certain: boolean): boolean {
    expression.lastIndex = at;
    expression.test(text);
    const end = expression.lastIndex;
    if (!certain && end >= text.length) return false;
    return this.#found(kind, end);
  }

  #number(text: string, at: number, last: boolean): boolean {
    NUMBER.lastIndex = at;
    NUMBER.test(text);
    const end = NUMBER.lastIndex;
    // 1e may go on as 1e+5.
    if (!last && end + 2 >= text.length) return false;
    return this.#found(Kind.Number, end);
  }

  #word(text: string, at: number, last: boolean): boolean {
    const expression = this.mode.family === "mysql" ? MYSQL_WORD : WORD;
    expression.lastIndex = at;
    expression.test(text);
    const end = expression.lastIndex;
    if (!last && end + 2 >= text.length) return false;
    if (end - at === 1) {
      const c = text.charCodeAt(at) | 32;
      const mysql = this.mode.family === "mysql";
      if (text.charCodeAt(end) === 39 && (c === 98 || c === 110 || c === 120 || (c === 101 && !mysql))) {
        const escapes = c === 101 || (c === 110 && this.mode.backslashEscapes);
        return this.#quoted(Kind.String, text, end + 1, last, escapes);
      }
      if (c === 117 && !mysql && text.charCodeAt(end) === 38) {
        const quote = text.charCodeAt(end + 1);
        if (quote === 39) return this.#quoted(Kind.String, text, end + 2, last, false);
        if (quote === 34) return this.#quoted(Kind.Name, text, end + 2, last, false);
      }
    }
    return this.#found(Kind.Word, end);
  }

  /** From after the opening quote; a doubled quote stands for one. */
  #quoted(kind: Kind, text: string, from: number, last: boolean, escapes: boolean): boolean {
    const quote = text[from - 1]!;
    for (let i = from; ; i += 2) {
      const close = escapes ? nextUnescaped(text, quote, i) : text.indexOf(quote, i);
      if (close < 0) return last ? this.#found(Kind.Unclosed, text.length) : false;
      if (close + 1 >= text.length && !last) return false;
      if (text[close + 1] !== quote) return this.#found(kind, close + 1);
      i = close;
    }
  }

  #dollarQuoted(text: string, at: number, from: number, last: boolean): boolean {
    const tag = text.slice(at, from);
    const close = text.indexOf(tag, from);
    if (close >= 0) return this.#found(Kind.String, close + tag.length);
    return last ? this.#found(Kind.Unclosed, text.length) : false;
  }

  #lineComment(text: string, at: number, last: boolean): boolean {
    const end = text.indexOf("\n", at);
    if (end >= 0) return this.#found(Kind.Space, end + 1);
    return last ? this.#found(Kind.Space, text.length) : false;
  }

  #blockComment(text: string, at: number, last: boolean): boolean {
    if (this.mode.family === "postgresql") return this.#nestedComment(text, at, last);
    CONDITIONAL.lastIndex = at;
    const match = CONDITIONAL.exec(text);
    if (match !== null) {
      if (!last && CONDITIONAL.lastIndex >= text.length) return false;
      const forOthers = match[1] === "M" && !this.mode.mariadb;
      if (!forOthers && !isNoVersion(match[2]!)) return this.#found(Kind.Space, CONDITIONAL.lastIndex);
    }
    const end = text.indexOf("*/", at + 2);
    if (end >= 0) return this.#found(Kind.Space, end + 2);
    return last ? this.#found(Kind.Unclosed, text.length) : false;
  }

  #nestedComment(text: string, at: number, last: boolean): boolean {
    const mark = /\/\*|\*\//g;
    mark.lastIndex = at + 2;
    for (let depth = 1; ; ) {
      const match = mark.exec(text);
      if (match === null) return last ? this.#found(Kind.Unclosed, text.length) : false;
      depth += match[0] === "/*" ? 1 : -1;
      if (depth === 0) return this.#found(Kind.Space, mark.lastIndex);
    }
  }
}

function isWordStart(c: number): boolean {
  return (c >= 97 && c <= 122) || (c >= 65 && c <= 90) || c === 95 || c >= 128;
}

const NOT_SPECIAL = { "'": /[^'\\]*/y, '"': /[^"\\]*/y } as const;

/** The next such quote that no backslash precedes; -1 if the text ends before it. */
function nextUnescaped(text: string, quote: string, from: number): number {
  const plain = NOT_SPECIAL[quote as keyof typeof NOT_SPECIAL];
  for (let at = from; ; at = plain.lastIndex + 2) {
    if (at >= text.length) return -1;
    plain.lastIndex = at;
    plain.test(text);
    if (plain.lastIndex >= text.length) return -1;
    if (text[plain.lastIndex] === quote) return plain.lastIndex;
  }
}

function isNoVersion(digits: string): boolean {
  if (digits.length < 5) return false;
  return digits.length === 5 ? Number(digits) >= NO_VERSION : Number(digits) >= NO_VERSION * 10;
}

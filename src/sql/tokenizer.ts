/**
 * SQLite's lexer, character for character: the same text is cut into the same tokens as by the bundled SQLite
 * (built without Tcl variables, so `$a::b(x)` is not one token). Everything in src/sql that looks at text before
 * SQLite does rests on it, so a difference would be a hole: a keyword hidden from us and seen by SQLite, or the reverse.
 *
 * Invariants
 * 1. Tokens are contiguous: each begins where the one before ended, and the last ends at `limit`.
 * 2. A NUL ends the text, as it does in C; `limit` is its position or the text's length.
 * 3. Time is linear; no regular expressions, no allocation per token.
 * 4. Positions are UTF-16 offsets. Code units from 0x80 on are identifier characters, as bytes from 0x80 are in SQLite.
 *
 * Left out on purpose: keywords. A bare word is a Word; whether SQLite takes it for a keyword depends on where it
 * stands. Callers compare words where they mean something.
 */

export const TokenKind = {
  Space: 0,
  Comment: 1,
  /** A bare word: keyword or identifier. */
  Word: 2,
  /** "x", `x` or [x]. The first may turn out to be a string only where SQLite allows that (it does not: DQS=0). */
  QuotedName: 3,
  String: 4,
  Blob: 5,
  /** Decimal or hexadecimal, without digit separators. */
  Integer: 6,
  Float: 7,
  /** A number with `_` between digits. */
  SeparatedNumber: 8,
  Variable: 9,
  Semicolon: 10,
  LeftParen: 11,
  RightParen: 12,
  Comma: 13,
  Dot: 14,
  /** Any other operator; look at its text. */
  Operator: 15,
  Illegal: 16,
} as const;
export type TokenKind = (typeof TokenKind)[keyof typeof TokenKind];

// Character classes, as bits, of the ASCII range.
const SPACE = 1;
const ID = 2;
const DIGIT = 4;
const HEX = 8;

const CLASSES = new Uint8Array(128);
for (const c of [9, 10, 11, 12, 13, 32]) CLASSES[c] = SPACE;
for (let c = 0x30; c <= 0x39; c++) CLASSES[c] = ID | DIGIT | HEX;
for (let c = 0x41; c <= 0x5a; c++) CLASSES[c] = CLASSES[c + 32] = ID | (c <= 0x46 ? HEX : 0);
CLASSES[0x5f] = ID;
CLASSES[0x24] = ID;

const QUOTE = 0x27;
const UNDERSCORE = 0x5f;
const BOM = 0xfeff;

export function isSpace(c: number): boolean {
  return c < 128 && (CLASSES[c]! & SPACE) !== 0;
}
export function isIdChar(c: number): boolean {
  return c >= 128 || (CLASSES[c]! & ID) !== 0;
}
export function isDigit(c: number): boolean {
  return c >= 0x30 && c <= 0x39;
}
function isHex(c: number): boolean {
  return c < 128 && (CLASSES[c]! & HEX) !== 0;
}

/** A cursor over the tokens of one text. `next` moves to the next token and says whether there was one. */
export class Tokenizer {
  readonly text: string;
  /** Where SQLite stops reading. */
  readonly limit: number;
  kind: TokenKind = TokenKind.Space;
  start: number;
  end: number;

  constructor(text: string, at = 0) {
    this.text = text;
    const nul = text.indexOf("\0", at);
    this.limit = nul < 0 ? text.length : nul;
    this.start = at;
    this.end = at;
  }

  /** Moves to the next token, spaces and comments included. */
  next(): boolean {
    if (this.end >= this.limit) return false;
    this.start = this.end;
    this.end = this.#scan(this.start);
    return true;
  }

  /** Moves to the next token that means something. */
  nextSignificant(): boolean {
    while (this.next()) if (this.kind > TokenKind.Comment) return true;
    return false;
  }

  /** Code unit at `i`, 0 at and beyond the limit, as C's terminator. */
  #at(i: number): number {
    return i < this.limit ? this.text.charCodeAt(i) : 0;
  }

  #one(kind: TokenKind, i: number): number {
    this.kind = kind;
    return i;
  }

  #scan(start: number): number {
    const c = this.text.charCodeAt(start);
    if (c === BOM) return this.#one(TokenKind.Space, start + 1);
    if (c === 0x78 || c === 0x58) {
      if (this.#at(start + 1) === QUOTE) return this.#blob(start);
      return this.#word(start);
    }
    if (c >= 128) return this.#word(start);
    const bits = CLASSES[c]!;
    if (bits & DIGIT) return this.#number(start);
    if (bits & ID) return c === 0x24 ? this.#variable(start) : this.#word(start);
    if (bits & SPACE && c !== 11) {
      let i = start + 1;
      while (i < this.limit && isSpace(this.text.charCodeAt(i))) i++;
      return this.#one(TokenKind.Space, i);
    }
    return this.#punctuation(c, start);
  }

  #punctuation(c: number, start: number): number {
    const next = this.#at(start + 1);
    switch (c) {
      case 0x27: // '
      case 0x22: // "
      case 0x60: // `
        return this.#quoted(c, start);
      case 0x5b: // [
        return this.#bracketed(start);
      case 0x3b:
        return this.#one(TokenKind.Semicolon, start + 1);
      case 0x28:
        return this.#one(TokenKind.LeftParen, start + 1);
      case 0x29:
        return this.#one(TokenKind.RightParen, start + 1);
      case 0x2c:
        return this.#one(TokenKind.Comma, start + 1);
      case 0x2e: // .
        if (isDigit(next)) return this.#number(start);
        return this.#one(TokenKind.Dot, start + 1);
      case 0x2d: // -
        if (next === 0x2d) return this.#lineComment(start);
        if (next === 0x3e)
          return this.#one(TokenKind.Operator, this.#at(start + 2) === 0x3e ? start + 3 : start + 2);
        return this.#one(TokenKind.Operator, start + 1);
      case 0x2f: // /
        if (next === 0x2a && start + 2 < this.limit) return this.#blockComment(start);
        return this.#one(TokenKind.Operator, start + 1);
      case 0x3f: // ?
        return this.#numberedVariable(start);
      case 0x3a: // :
      case 0x40: // @
      case 0x23: // #
        return this.#variable(start);
      default:
        return this.#operator(c, next, start);
    }
  }

  #operator(c: number, next: number, start: number): number {
    switch (c) {
      case 0x2b: // +
      case 0x2a: // *
      case 0x25: // %
      case 0x26: // &
      case 0x7e: // ~
        return this.#one(TokenKind.Operator, start + 1);
      case 0x3d: // =
        return this.#one(TokenKind.Operator, next === 0x3d ? start + 2 : start + 1);
      case 0x3c: // <
        return this.#one(
          TokenKind.Operator,
          next === 0x3d || next === 0x3e || next === 0x3c ? start + 2 : start + 1,
        );
      case 0x3e: // >
        return this.#one(TokenKind.Operator, next === 0x3d || next === 0x3e ? start + 2 : start + 1);
      case 0x21: // !
        return next === 0x3d
          ? this.#one(TokenKind.Operator, start + 2)
          : this.#one(TokenKind.Illegal, start + 1);
      case 0x7c: // |
        return this.#one(TokenKind.Operator, next === 0x7c ? start + 2 : start + 1);
      default:
        return this.#one(TokenKind.Illegal, start + 1);
    }
  }

  #word(start: number): number {
    let i = start + 1;
    while (i < this.limit && isIdChar(this.text.charCodeAt(i))) i++;
    return this.#one(TokenKind.Word, i);
  }

  #quoted(quote: number, start: number): number {
    const delimiter = String.fromCharCode(quote);
    let i = start + 1;
    for (;;) {
      const close = this.text.indexOf(delimiter, i);
      if (close < 0 || close >= this.limit) return this.#one(TokenKind.Illegal, this.limit);
      if (this.#at(close + 1) !== quote) {
        return this.#one(quote === QUOTE ? TokenKind.String : TokenKind.QuotedName, close + 1);
      }
      i = close + 2;
    }
  }

  #bracketed(start: number): number {
    const close = this.text.indexOf("]", start + 1);
    if (close < 0 || close >= this.limit) return this.#one(TokenKind.Illegal, this.limit);
    return this.#one(TokenKind.QuotedName, close + 1);
  }

  #lineComment(start: number): number {
    const newline = this.text.indexOf("\n", start + 2);
    return this.#one(TokenKind.Comment, newline < 0 || newline >= this.limit ? this.limit : newline);
  }

  #blockComment(start: number): number {
    const close = this.text.indexOf("*/", start + 2);
    return this.#one(TokenKind.Comment, close < 0 || close + 2 > this.limit ? this.limit : close + 2);
  }

  #blob(start: number): number {
    let i = start + 2;
    while (isHex(this.#at(i))) i++;
    const closed = this.#at(i) === QUOTE;
    if (closed && (i - start) % 2 === 0) return this.#one(TokenKind.Blob, i + 1);
    while (i < this.limit && this.text.charCodeAt(i) !== QUOTE) i++;
    return this.#one(TokenKind.Illegal, i < this.limit ? i + 1 : i);
  }

  #numberedVariable(start: number): number {
    let i = start + 1;
    while (isDigit(this.#at(i))) i++;
    return this.#one(TokenKind.Variable, i);
  }

  #variable(start: number): number {
    let i = start + 1;
    while (i < this.limit && isIdChar(this.text.charCodeAt(i))) i++;
    return this.#one(i > start + 1 ? TokenKind.Variable : TokenKind.Illegal, i);
  }

  #number(start: number): number {
    let kind: TokenKind = TokenKind.Integer;
    let i = start;
    const digits = (test: (c: number) => boolean): void => {
      for (; ; i++) {
        const c = this.#at(i);
        if (test(c)) continue;
        if (c !== UNDERSCORE) return;
        kind = TokenKind.SeparatedNumber;
      }
    };
    const second = this.#at(start + 1) | 32;
    if (this.#at(start) === 0x30 && second === 0x78 && isHex(this.#at(start + 2))) {
      i = start + 3;
      digits(isHex);
    } else {
      digits(isDigit);
      if (this.#at(i) === 0x2e) {
        if (kind === TokenKind.Integer) kind = TokenKind.Float;
        i++;
        digits(isDigit);
      }
      const sign = this.#at(i + 1);
      const exponent = isDigit(sign) || ((sign === 0x2b || sign === 0x2d) && isDigit(this.#at(i + 2)));
      if ((this.#at(i) | 32) === 0x65 && exponent) {
        if (kind === TokenKind.Integer) kind = TokenKind.Float;
        i += 2;
        digits(isDigit);
      }
    }
    if (i < this.limit && isIdChar(this.text.charCodeAt(i))) {
      kind = TokenKind.Illegal;
      while (i < this.limit && isIdChar(this.text.charCodeAt(i))) i++;
    }
    return this.#one(kind, i);
  }
}

/** The tokens of a text that mean something (no spaces, no comments), for code that looks back and forth. */
export interface TokenList {
  readonly text: string;
  readonly length: number;
  readonly kinds: readonly TokenKind[];
  readonly starts: readonly number[];
  readonly ends: readonly number[];
}

export function tokenize(text: string): TokenList {
  const tokenizer = new Tokenizer(text);
  const kinds: TokenKind[] = [];
  const starts: number[] = [];
  const ends: number[] = [];
  while (tokenizer.nextSignificant()) {
    kinds.push(tokenizer.kind);
    starts.push(tokenizer.start);
    ends.push(tokenizer.end);
  }
  return { text, length: kinds.length, kinds, starts, ends };
}

/** The text of token `i`; "" beyond the end. */
export function tokenText(tokens: TokenList, i: number): string {
  return i >= 0 && i < tokens.length ? tokens.text.slice(tokens.starts[i]!, tokens.ends[i]!) : "";
}

/** Token `i` in upper case when it is a bare word, else "". ASCII only, as SQLite folds. */
export function wordAt(tokens: TokenList, i: number): string {
  return tokens.kinds[i] === TokenKind.Word ? upperAscii(tokenText(tokens, i)) : "";
}

/** The name that token `i` spells as an identifier (word, quoted name, or string where SQLite takes one for a name). */
export function nameAt(tokens: TokenList, i: number): string | undefined {
  switch (tokens.kinds[i]) {
    case TokenKind.Word:
      return tokenText(tokens, i);
    case TokenKind.QuotedName:
    case TokenKind.String:
      return unquote(tokenText(tokens, i));
    default:
      return undefined;
  }
}

/** All of them, lower-case, in the order in which they come. */
export function namesIn(tokens: TokenList): Set<string> {
  const names = new Set<string>();
  for (let i = 0; i < tokens.length; i++) {
    const name = nameAt(tokens, i);
    if (name !== undefined) names.add(lowerAscii(name));
  }
  return names;
}

/** Strips quotes and undoubles them; other text is answered as it is. */
export function unquote(text: string): string {
  const first = text[0];
  if (first === "[") return text.slice(1, -1);
  if (first !== "'" && first !== '"' && first !== "`") return text;
  const inner = text.slice(1, -1);
  return inner.includes(first) ? inner.replaceAll(first + first, first) : inner;
}

/** Upper case of ASCII letters only: SQLite's identifiers and keywords fold no others. */
export function upperAscii(text: string): string {
  return isAscii(text) ? text.toUpperCase() : fold(text, 0x61, -32);
}

/** Lower case of ASCII letters only. */
export function lowerAscii(text: string): string {
  return isAscii(text) ? text.toLowerCase() : fold(text, 0x41, 32);
}

function isAscii(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) >= 128) return false;
  return true;
}

function fold(text: string, from: number, delta: number): string {
  let out = "";
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    out += String.fromCharCode(c >= from && c < from + 26 ? c + delta : c);
  }
  return out;
}

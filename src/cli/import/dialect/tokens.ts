/**
 * A statement as its tokens, names and strings without their quotes, and a cursor over them. The text of a statement
 * is what the file holds, a character a byte; the tokens' texts are decoded.
 */
import type { Decode } from "./charset.js";
import { type Family, Kind, Lexer, type LexicalMode } from "./lexer.js";
import { literalOf, unquoteName } from "./literal.js";

export interface Token {
  readonly kind: "word" | "name" | "string" | "number" | "hex" | "bits" | "symbol";
  /** Words in lower case, names and strings without quotes, numbers and symbols as they are, digits of hex and bits. */
  readonly value: string;
  /** As written. */
  readonly text: string;
  /** Lines below the statement's first. */
  readonly line: number;
}

/** Throws SyntaxError on a literal that is not understood, TypeError on bytes that are no text. */
export function tokenize(bytes: string, mode: LexicalMode, decode: Decode): Token[] {
  const lexer = new Lexer(mode);
  const tokens: Token[] = [];
  let line = 0;
  for (let at = 0; at < bytes.length; at = lexer.end) {
    lexer.scan(bytes, at, true);
    if (lexer.kind === Kind.Unclosed) throw new SyntaxError("a quote or comment is not closed");
    const lexeme = bytes.slice(at, lexer.end);
    if (lexer.kind !== Kind.Space) tokens.push({ ...readLexeme(lexer.kind, lexeme, mode, decode), line });
    if (lexeme.includes("\n")) line += lexeme.split("\n").length - 1;
  }
  return tokens;
}

function readLexeme(kind: Kind, lexeme: string, mode: LexicalMode, decode: Decode): Omit<Token, "line"> {
  const text = decode(lexeme);
  if (kind === Kind.Word) return { kind: "word", value: text.toLowerCase(), text };
  if (kind === Kind.Symbol) return { kind: "symbol", value: text, text };
  if (kind === Kind.Name) {
    const value = unquoteName(text);
    if (value === undefined) throw new SyntaxError(`${text}: not understood`);
    return { kind: "name", value, text };
  }
  const literal = literalOf(kind, lexeme, mode);
  switch (literal?.kind) {
    case "number":
      return { kind: "number", value: literal.text, text };
    case "string":
      return { kind: "string", value: decode(literal.bytes), text };
    case "hex":
    case "bits":
      return { kind: literal.kind, value: literal.digits, text };
    default:
      throw new SyntaxError(`${text}: not understood`);
  }
}

/** What was written, on one line, for messages. */
export function textOf(tokens: readonly Token[], maxLength = 100): string {
  let text = "";
  for (const [i, { text: part }] of tokens.entries()) {
    const before = tokens[i - 1]?.text ?? "";
    const close =
      /^[,;).\]]$|^::$/.test(part) || /^[(.[]$|^::$/.test(before) || (part === "(" && /\w$/.test(before));
    text += i === 0 || close ? part : ` ${part}`;
    if (text.length > maxLength) return `${text.slice(0, maxLength)}…`.replace(/\s+/g, " ");
  }
  return text.replace(/\s+/g, " ");
}

/** A name in two parts; `schema` is MySQL's database. */
export interface QualifiedName {
  readonly schema: string | undefined;
  readonly name: string;
}

export class TokenReader {
  at = 0;

  constructor(
    readonly tokens: readonly Token[],
    readonly family: Family,
  ) {}

  get done(): boolean {
    return this.at >= this.tokens.length;
  }

  peek(ahead = 0): Token | undefined {
    return this.tokens[this.at + ahead];
  }

  /** Whether these words (or symbols) come next. */
  is(...words: readonly string[]): boolean {
    return words.every((word, i) => isWord(this.peek(i), word));
  }

  /** Passes these words if they come next. */
  take(...words: readonly string[]): boolean {
    if (!this.is(...words)) return false;
    this.at += words.length;
    return true;
  }

  expect(...words: readonly string[]): void {
    if (!this.take(...words)) {
      throw new SyntaxError(
        `expected ${words.join(" ").toUpperCase()} before ${this.peek()?.text ?? "the end"}`,
      );
    }
  }

  next(): Token {
    const token = this.tokens[this.at++];
    if (token === undefined) throw new SyntaxError("ends too early");
    return token;
  }

  rest(): readonly Token[] {
    const rest = this.tokens.slice(this.at);
    this.at = this.tokens.length;
    return rest;
  }

  name(): string {
    const token = this.next();
    const name = nameOf(token, this.family);
    if (name === undefined) throw new SyntaxError(`expected a name instead of ${token.text}`);
    return name;
  }

  qualifiedName(): QualifiedName {
    let schema: string | undefined;
    let name = this.name();
    // database.schema.table: the database is always the one that was dumped.
    while (this.take(".")) {
      schema = name;
      name = this.name();
    }
    return { schema, name };
  }

  /** What is between this `(` and its `)`, both passed. */
  parenthesized(): readonly Token[] {
    this.expect("(");
    const from = this.at;
    for (let depth = 1; depth > 0; ) {
      const token = this.next();
      if (isSymbol(token, "(")) depth++;
      else if (isSymbol(token, ")")) depth--;
    }
    return this.tokens.slice(from, this.at - 1);
  }
}

export function isSymbol(token: Token | undefined, symbol: string): boolean {
  return token?.kind === "symbol" && token.value === symbol;
}

/** Whether a token is this keyword, in lower case, or this symbol. */
export function isWord(token: Token | undefined, word: string): boolean {
  return (token?.kind === "word" || token?.kind === "symbol") && token.value === word;
}

/** PostgreSQL folds names that are not quoted to lower case, MySQL leaves them. */
export function nameOf(token: Token | undefined, family: Family): string | undefined {
  if (token?.kind === "name") return token.value;
  if (token?.kind === "word") return family === "postgresql" ? token.value : token.text;
  return undefined;
}

/** The pieces between commas that are in no parentheses. */
export function splitAtCommas(tokens: readonly Token[]): (readonly Token[])[] {
  const pieces: (readonly Token[])[] = [];
  let from = 0;
  let depth = 0;
  for (const [i, token] of tokens.entries()) {
    if (isSymbol(token, "(") || isSymbol(token, "[")) depth++;
    else if (isSymbol(token, ")") || isSymbol(token, "]")) depth--;
    else if (depth === 0 && isSymbol(token, ",")) {
      pieces.push(tokens.slice(from, i));
      from = i + 1;
    }
  }
  if (from < tokens.length) pieces.push(tokens.slice(from));
  return pieces;
}

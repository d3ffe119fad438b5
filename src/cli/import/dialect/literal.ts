/**
 * Values as another database's SQL writes them. Strings are taken apart here, to the byte; what the bytes are (text of
 * some encoding, or a BLOB) is known only with their column (values.ts).
 */
import { Kind, type LexicalMode } from "./lexer.js";

export type Literal =
  | null
  | { readonly kind: "number"; readonly text: string }
  /** One character a byte. */
  | { readonly kind: "string"; readonly bytes: string }
  | { readonly kind: "hex"; readonly digits: string }
  | { readonly kind: "bits"; readonly digits: string }
  | { readonly kind: "boolean"; readonly value: boolean }
  | { readonly kind: "default" }
  /** Anything else that stands where a value is to be, as it was written. */
  | { readonly kind: "expression"; readonly bytes: string };

/** MySQL: `\x` is x for any other x; `\%` and `\_` are for LIKE and keep their backslash. */
const MYSQL_ESCAPES: Readonly<Record<string, string>> = {
  0: "\0",
  b: "\b",
  n: "\n",
  r: "\r",
  t: "\t",
  Z: "\x1a",
  "%": "\\%",
  _: "\\_",
};
const POSTGRES_ESCAPES: Readonly<Record<string, string>> = {
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};
const MYSQL_ESCAPE = /\\([\s\S])/g;
const POSTGRES_ESCAPE =
  /\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})|([\s\S]))/g;

/** The value of a lexeme; undefined when it is none that is understood. */
export function literalOf(kind: Kind, lexeme: string, mode: LexicalMode): Literal | undefined {
  if (kind === Kind.Number) return numberLiteral(lexeme, mode);
  if (kind !== Kind.String) return undefined;
  const first = lexeme[0]!;
  if (first === "'" || first === '"') {
    return { kind: "string", bytes: unquote(lexeme, 0, mode, mode.backslashEscapes) };
  }
  if (first === "$") {
    const tag = lexeme.indexOf("$", 1) + 1;
    return { kind: "string", bytes: lexeme.slice(tag, -tag) };
  }
  if (lexeme[1] !== "'") return undefined;
  switch (first.toLowerCase()) {
    case "x":
      return { kind: "hex", digits: lexeme.slice(2, -1) };
    case "b":
      return { kind: "bits", digits: lexeme.slice(2, -1) };
    case "e":
      return { kind: "string", bytes: unquote(lexeme, 1, mode, true) };
    default:
      return { kind: "string", bytes: unquote(lexeme, 1, mode, mode.backslashEscapes) };
  }
}

function numberLiteral(lexeme: string, mode: LexicalMode): Literal | undefined {
  if (/^0x/i.test(lexeme)) {
    const digits = lexeme.slice(2);
    return { kind: "hex", digits: digits.length % 2 === 0 ? digits : `0${digits}` };
  }
  if (/^0b/.test(lexeme)) {
    return mode.family === "mysql" ? { kind: "bits", digits: lexeme.slice(2) } : undefined;
  }
  return { kind: "number", text: lexeme };
}

/** The name within a quoted name. */
export function unquoteName(lexeme: string): string | undefined {
  const quote = lexeme[0]!;
  if (quote !== '"' && quote !== "`") return undefined;
  return lexeme.slice(1, -1).replaceAll(quote + quote, quote);
}

function unquote(lexeme: string, prefix: number, mode: LexicalMode, escapes: boolean): string {
  const quote = lexeme[prefix]!;
  const inner = lexeme.slice(prefix + 1, -1);
  if (!escapes || !inner.includes("\\")) {
    return inner.includes(quote) ? inner.replaceAll(quote + quote, quote) : inner;
  }
  // A quote right after a backslash is not the first of two.
  const doubled = new RegExp(`\\\\[\\s\\S]|${quote}${quote}`, "g");
  const single = inner.replace(doubled, (found) => (found[0] === "\\" ? found : quote));
  return mode.family === "mysql" ? unescapeMysql(single) : unescapePostgres(single);
}

function unescapeMysql(text: string): string {
  return text.replace(MYSQL_ESCAPE, (_, c: string) => MYSQL_ESCAPES[c] ?? c);
}

/** As in E'…' and in COPY. Digits stand for a byte, \u for a character, which is UTF-8 as the rest of the text is. */
export function unescapePostgres(text: string): string {
  return text.replace(
    POSTGRES_ESCAPE,
    (_, octal?: string, hex?: string, unicode?: string, c?: string): string => {
      if (octal !== undefined) return String.fromCharCode(Number.parseInt(octal, 8) & 0xff);
      if (hex !== undefined) return String.fromCharCode(Number.parseInt(hex, 16));
      if (unicode !== undefined) return utf8Bytes(unicode);
      return POSTGRES_ESCAPES[c!] ?? c!;
    },
  );
}

function utf8Bytes(escaped: string): string {
  const units = escaped.split(/\\?[uU]/).filter((part) => part !== "");
  const text =
    units.length > 1
      ? String.fromCharCode(...units.map((unit) => Number.parseInt(unit, 16)))
      : String.fromCodePoint(Math.min(Number.parseInt(units[0]!, 16), 0x10ffff));
  return Buffer.from(text, "utf8").toString("latin1");
}

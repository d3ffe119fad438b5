/**
 * What node-sql-parser is shown in place of a definition: the same structure, with a placeholder for every name,
 * string and expression, so that it cannot change, misread or choke on any of them (see ddl-parser.ts).
 */

import type { KeyPart } from "./schema.js";
import { isSymbol, isWord, nameOf, splitAtCommas, type Token, TokenReader } from "./tokens.js";

/** No name of a user's begins like this. */
const PREFIX = "ostraka_placeholder_";
/** Stands where a foreign key names no columns of its parent. */
export const NO_COLUMN = `${PREFIX}none`;

export class Skeleton {
  #text = "";
  #count = 0;
  readonly #names = new Map<string, string>();
  readonly #parts = new Map<string, KeyPart>();

  get text(): string {
    return this.#text;
  }

  add(text: string): void {
    this.#text += `${text} `;
  }

  addName(name: string): void {
    this.add(this.#placeholder(this.#names, name));
  }

  addString(value: string): void {
    this.add(`'${this.#placeholder(this.#names, value)}'`);
  }

  addNoColumns(): void {
    this.add(`(${NO_COLUMN})`);
  }

  /** The parts of a key, with what the parser knows how to read of them. */
  addKeyParts(tokens: readonly Token[], family: "mysql" | "postgresql"): void {
    const parts = splitAtCommas(tokens).map((piece) => {
      const part = readKeyPart(new TokenReader(piece, family));
      return `${this.#placeholder(this.#parts, part)}${part.descending ? " DESC" : ""}`;
    });
    this.add(`(${parts.join(", ")})`);
  }

  /** What a placeholder stands for; throws on anything else, which would be the parser's own invention. */
  name(placeholder: string): string {
    return lookUp(this.#names, placeholder);
  }

  part(placeholder: string): KeyPart {
    return lookUp(this.#parts, placeholder);
  }

  #placeholder<T>(map: Map<string, T>, value: T): string {
    const placeholder = `${PREFIX}${++this.#count}`;
    map.set(placeholder, value);
    return placeholder;
  }
}

function lookUp<T>(map: ReadonlyMap<string, T>, placeholder: string): T {
  const value = map.get(placeholder);
  if (value === undefined) throw new SyntaxError("not understood");
  return value;
}

/** `name`, `name(20)`, or an expression; then ASC, DESC, NULLS …, a collation and an operator class. */
function readKeyPart(reader: TokenReader): KeyPart {
  const first = reader.peek();
  let column: string | undefined;
  let expression: readonly Token[] | undefined;
  let length: number | undefined;
  const size = reader.peek(2);
  if (isSymbol(first, "(")) {
    expression = reader.parenthesized();
  } else if (!isSymbol(reader.peek(1), "(")) {
    column = reader.name();
  } else if (size?.kind === "number" && isSymbol(reader.peek(3), ")")) {
    column = reader.name();
    length = Number(reader.parenthesized()[0]!.value);
  } else {
    const from = reader.at;
    reader.at++;
    reader.parenthesized();
    expression = reader.tokens.slice(from, reader.at);
  }
  const descending = reader.rest().some((token) => isWord(token, "desc"));
  // MySQL puts every expression in parentheses, also one that is only a column.
  const only = expression?.length === 1 ? nameOf(expression[0], reader.family) : undefined;
  if (only !== undefined) return { column: only, expression: undefined, length, descending };
  return { column, expression, length, descending };
}

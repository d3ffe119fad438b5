/**
 * Slices of a statement's own text, fit to stand in another statement: every parameter is written as `?N` with its number
 * in the whole statement, so that the values of the whole statement can be bound to any of them. Nothing else changes,
 * but for the pieces that a caller has replaced.
 */
import { parameterLayout } from "./parameters.js";
import { endOf, type SourceSpan } from "./syntax.js";
import { TokenKind, tokenize } from "./tokenizer.js";

/** A piece of the text, and what is to stand there. */
export interface Edit {
  readonly span: SourceSpan;
  readonly text: string;
}

export class Slices {
  readonly sql: string;
  /** Parameters of the whole statement. */
  readonly parameters: number;
  /** One for each parameter in the text, in order. */
  readonly #variables: readonly Edit[];
  readonly #numbers = new Map<number, number>();

  constructor(sql: string) {
    this.sql = sql;
    const tokens = tokenize(sql);
    const { names, numberAt } = parameterLayout(tokens);
    this.parameters = names.length;
    const variables: Edit[] = [];
    for (let i = 0; i < tokens.length; i++) {
      if (tokens.kinds[i] !== TokenKind.Variable) continue;
      const offset = tokens.starts[i]!;
      const number = numberAt.get(i)!;
      this.#numbers.set(offset, number);
      variables.push({ span: { offset, length: tokens.ends[i]! - offset }, text: `?${number}` });
    }
    this.#variables = variables;
  }

  of({ span }: { readonly span: SourceSpan }, edits: readonly Edit[] = []): string {
    return this.between(span.offset, endOf(span), edits);
  }

  /** The text from one position up to another; edits that lie elsewhere are passed over. */
  between(from: number, until: number, edits: readonly Edit[] = []): string {
    const inside = edits.filter(({ span }) => span.offset >= from && endOf(span) <= until);
    const all = [
      ...inside,
      ...this.#variables.filter(
        ({ span }) =>
          span.offset >= from &&
          endOf(span) <= until &&
          !inside.some((edit) => span.offset >= edit.span.offset && endOf(span) <= endOf(edit.span)),
      ),
    ].sort((a, b) => a.span.offset - b.span.offset);
    let text = "";
    let at = from;
    for (const { span, text: instead } of all) {
      text += this.sql.slice(at, span.offset) + instead;
      at = endOf(span);
    }
    return (text + this.sql.slice(at, until)).trim();
  }

  /** The number of the parameter that stands at an offset. */
  numberAt(offset: number): number | undefined {
    return this.#numbers.get(offset);
  }
}

export function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Slices as one condition. A comment may end each. */
export function allOf(slices: readonly string[]): string {
  return slices.map((slice) => `(${slice}\n)`).join(" AND ");
}

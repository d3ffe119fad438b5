/** What an expression is while it is translated: its SQL, and what is known of its values. */
import type { Family } from "./lexer.js";
import type { Token } from "./tokens.js";
import type { TypeName } from "./type-name.js";
import type { ValueKind } from "./value-kind.js";

export class Untranslatable extends Error {}

export interface Expression {
  readonly sql: string;
  /** Undefined where it is not known. "inexact": the result of decimal arithmetic, which here is done in binary. */
  readonly kind: ValueKind | "inexact" | undefined;
  /** Of dates and times: their type. */
  readonly time?: string | undefined;
  /** The value of a string literal. */
  readonly literal?: string;
  /** NULL, numbers, strings, true, false. */
  readonly constant?: boolean;
  /** Compares and sorts in its own way: text without case, or members in the order of their type. */
  readonly order?: "no case" | "members" | undefined;
  /** A column, whose collation SQLite knows. */
  readonly column?: boolean;
}

export interface Scope {
  readonly family: Family;
  /** Throws Untranslatable for a column that is not there. */
  column(qualifier: string | undefined, name: string): Expression;
  /** A difference worth knowing. */
  note(what: string): void;
  /** What a type's name stands for; undefined for those of the user and those that are unknown. */
  type(type: TypeName): { readonly kind: ValueKind; readonly time?: string | undefined } | undefined;
  /** SELECT …, without its parentheses; left out where there can be none. */
  subquery?(tokens: readonly Token[]): string;
}

/** As an operand of ||. */
export function asText({ kind, sql }: Expression): string {
  const asIs = kind === "text" || kind === "integer" || kind === "time" || kind === undefined;
  if (!asIs) throw new Untranslatable(`${kind} as text, which may look different here`);
  return sql;
}

export function isNumber(kind: Expression["kind"]): boolean {
  return kind === "integer" || kind === "numeric" || kind === "real" || kind === "inexact" || kind === "bit";
}

export function isTextual(kind: Expression["kind"]): boolean {
  return kind === "text" || kind === "padded";
}

export function isTime(kind: Expression["kind"]): boolean {
  return kind === "time" || kind === "timestamptz";
}

/** Of an expression of ours, in which only strings and names are in quotes. */
export function withoutOuterParentheses(sql: string): string {
  if (!sql.startsWith("(") || !sql.endsWith(")")) return sql;
  let depth = 0;
  for (const [piece] of sql.slice(0, -1).matchAll(/'[^']*'|"[^"]*"|[\s\S]/g)) {
    if (piece === "(") depth++;
    else if (piece === ")" && --depth === 0) return sql;
  }
  return sql.slice(1, -1);
}

/**
 * Spans: intervals of keys of one table. Two names are not tables: "" is the schema, "*" is everything.
 */
import type { Span } from "../sql/types.js";

export const EVERYTHING: Span = { table: "*", low: undefined, high: undefined };
export const SCHEMA: Span = { table: "", low: undefined, high: undefined };

export function intersects(a: Span, b: Span): boolean {
  if (a.table === "*" || b.table === "*") return true;
  if (a.table !== b.table) return false;
  if (a.high !== undefined && b.low !== undefined && a.high < b.low) return false;
  return !(b.high !== undefined && a.low !== undefined && b.high < a.low);
}

export function anyIntersect(left: readonly Span[], right: readonly Span[]): boolean {
  return left.some((a) => right.some((b) => intersects(a, b)));
}

export function isPoint(span: Span): span is Span & { readonly low: bigint } {
  return span.low !== undefined && span.low === span.high;
}

export function isWholeTable(span: Span): boolean {
  return span.low === undefined && span.high === undefined;
}

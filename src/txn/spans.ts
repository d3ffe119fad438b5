/**
 * Spans: intervals of keys of one table. Two names are not tables: "" is the schema, "*" is everything.
 */
import { END_OF_TABLE, type Span } from "../sql/types.js";

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

/** All of `b` is in `a`. */
export function covers(a: Span, b: Span): boolean {
  if (a.table === EVERYTHING.table) return true;
  if (a.table !== b.table) return false;
  if (a.low !== undefined && (b.low === undefined || b.low < a.low)) return false;
  return a.high === undefined || (b.high !== undefined && b.high <= a.high);
}

export function isPoint(span: Span): span is Span & { readonly low: bigint } {
  return span.low !== undefined && span.low === span.high;
}

export function isWholeTable(span: Span): boolean {
  return span.low === undefined && (span.high === undefined || span.high === END_OF_TABLE);
}

interface TableSpans {
  readonly points: Set<bigint>;
  readonly intervals: Span[];
}

/** Many spans, to be asked often: a transaction may have written thousands of keys. */
export class SpanSet {
  /** As they were given. */
  readonly spans: readonly Span[];
  readonly #everything: boolean;
  readonly #tables = new Map<string, TableSpans>();

  constructor(spans: readonly Span[]) {
    this.spans = spans;
    this.#everything = spans.some((span) => span.table === EVERYTHING.table);
    for (const span of spans) {
      let table = this.#tables.get(span.table);
      if (table === undefined) {
        table = { points: new Set(), intervals: [] };
        this.#tables.set(span.table, table);
      }
      if (isPoint(span)) table.points.add(span.low);
      else table.intervals.push(span);
    }
  }

  get empty(): boolean {
    return this.spans.length === 0;
  }

  meets(spans: readonly Span[]): boolean {
    if (this.spans.length === 0 || spans.length === 0) return false;
    return this.#everything || spans.some((span) => this.#meets(span));
  }

  #meets(span: Span): boolean {
    if (span.table === EVERYTHING.table) return true;
    const table = this.#tables.get(span.table);
    if (table === undefined) return false;
    if (table.intervals.some((interval) => intersects(interval, span))) return true;
    if (isPoint(span)) return table.points.has(span.low);
    for (const key of table.points)
      if ((span.low === undefined || key >= span.low) && (span.high === undefined || key <= span.high))
        return true;
    return false;
  }
}

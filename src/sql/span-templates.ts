/** Spans of which some depend on a statement's parameters, and the functions that answer them: see footprint.ts. */
import type { SqlValue } from "../base/values.js";
import type { Touched } from "./footprint.js";
import {
  END_OF_TABLE,
  type Footprint,
  type SeenOutcome,
  type Span,
  UNIQUE_KEYS,
  type UniqueChecks,
} from "./types.js";

/** An inclusive bound: a constant or a parameter; undefined is none. */
export type Bound = { readonly value: bigint } | { readonly parameter: number } | undefined;

export type SpanTemplate =
  | { readonly kind: "whole"; readonly table: string }
  /** UNIQUE_KEYS, any of them. */
  | { readonly kind: "unique"; readonly table: string }
  | { readonly kind: "end"; readonly table: string }
  /** All rows, as far as a key that is chosen depends on them. */
  | { readonly kind: "up to end"; readonly table: string }
  /** The same when this parameter is NULL, else nothing. */
  | { readonly kind: "end if null" | "up to end if null"; readonly table: string; readonly parameter: number }
  /** Keys between the bounds; `chosenIfNull` when a NULL parameter means a chosen key and not none. */
  | {
      readonly kind: "keys";
      readonly table: string;
      readonly low: Bound;
      readonly high: Bound;
      readonly chosenIfNull: boolean;
    };

const NO_SPANS: readonly Span[] = [];

/** Turns templates into the function that answers footprints: no work beyond the spans that depend on parameters. */
export function compileFootprint(
  touched: Pick<Touched, "reads" | "writes" | "checks" | "provesItsKey">,
): (params: readonly SqlValue[], seen?: SeenOutcome) => Footprint {
  const reads = compileSpans(touched.reads, true);
  const { byRow, byChange } = touched.provesItsKey;
  const found = byRow || byChange ? compileSpans(touched.reads, false) : reads;
  const writes = compileSpans(touched.writes, false);
  const checks = compileSpans(touched.checks, true);
  return (params, seen) => {
    const existed = seen !== undefined && ((byRow && seen.rowCount > 0) || (byChange && seen.changes > 0));
    return { reads: (existed ? found : reads)(params), writes: writes(params), checks: checks(params) };
  };
}

/** What is checked besides UNIQUE indexes; undefined where none is. */
export function compileUniqueChecks({
  uniqueTables: tables,
  otherChecks,
}: Pick<Touched, "uniqueTables" | "otherChecks">): UniqueChecks | undefined {
  return tables.size === 0 ? undefined : { tables, others: compileSpans(otherChecks, true) };
}

/** `withEnd`: a search that may find nothing, or a range, depends on rows yet to come. */
function compileSpans(
  templates: readonly SpanTemplate[],
  withEnd: boolean,
): (params: readonly SqlValue[]) => readonly Span[] {
  const fixed: Span[] = [];
  const open: SpanTemplate[] = [];
  const ends = new Set<string>();
  const wholes = new Set<string>();
  for (const template of templates) {
    if (template.kind === "end") ends.add(template.table);
    else if (withEnd && template.kind === "keys" && template.high !== undefined) ends.add(template.table);
    if (template.kind === "whole") wholes.add(template.table);
    if (dependsOnParameters(template)) open.push(template);
    else if (template.kind !== "end") resolve(template, [], fixed);
  }
  for (const table of ends)
    if (!wholes.has(table)) fixed.push({ table, low: END_OF_TABLE, high: END_OF_TABLE });
  if (open.length === 0) {
    const spans = fixed.length === 0 ? NO_SPANS : fixed;
    return () => spans;
  }
  return (params) => {
    const spans = fixed.slice();
    for (const template of open) resolve(template, params, spans);
    return spans;
  };
}

function dependsOnParameters(template: SpanTemplate): boolean {
  if (template.kind !== "keys") return "parameter" in template;
  const { low, high } = template;
  return (low !== undefined && "parameter" in low) || (high !== undefined && "parameter" in high);
}

function resolve(template: SpanTemplate, params: readonly SqlValue[], spans: Span[]): void {
  const { table } = template;
  if (template.kind !== "keys") {
    if ("parameter" in template && params[template.parameter] !== null) return;
    const { kind } = template;
    if (kind === "unique") {
      spans.push({ table, ...UNIQUE_KEYS });
      return;
    }
    const end = kind === "end" || kind === "end if null";
    spans.push({
      table,
      low: end ? END_OF_TABLE : undefined,
      high: kind === "whole" ? undefined : END_OF_TABLE,
    });
    return;
  }
  const low = boundValue(template.low, params);
  const high = template.low === template.high ? low : boundValue(template.high, params);
  if (low === null || high === null) {
    // NULL equals nothing and bounds nothing; as a key to insert it asks SQLite to choose one.
    if (template.chosenIfNull) spans.push({ table, low: END_OF_TABLE, high: END_OF_TABLE });
  } else if (low === "other" || high === "other") {
    // Text or a real may or may not be a key once affinity is applied.
    spans.push({ table, low: undefined, high: undefined });
  } else if (low === undefined || high === undefined || low <= high) {
    // No key lies between bounds that are the wrong way round. Rows have no keys beyond the end.
    spans.push({ table, low, high: high ?? (low === undefined ? undefined : END_OF_TABLE) });
  }
}

function boundValue(bound: Bound, params: readonly SqlValue[]): bigint | undefined | null | "other" {
  if (bound === undefined) return undefined;
  if ("value" in bound) return bound.value;
  const value = params[bound.parameter];
  if (value === null) return null;
  return typeof value === "bigint" ? value : "other";
}

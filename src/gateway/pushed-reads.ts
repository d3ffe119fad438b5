/**
 * Queries of one table whose ranges answer for themselves (src/sql/pushdown-types.ts), on a snapshot: rows streamed one
 * range after the other, the first rows of each range brought to the scratch, or aggregates of each put together there.
 *
 * Left out: what to do when it cannot be done so after all. The caller then runs the statement over all rows.
 */
import { UserError } from "../base/errors.js";
import { type SqlValue, ValueReader } from "../base/values.js";
import type { RowStream, ScratchLoad, StampedStatement, SystemTable } from "../machines/range/types.js";
import { parameterLayout } from "../sql/parameters.js";
import {
  type Count,
  type FirstRows,
  type MergedRows,
  PARTIAL_TABLE,
  type PartialAggregates,
  type Pushdown,
} from "../sql/pushdown-types.js";
import { tokenize } from "../sql/tokenizer.js";
import type { Span } from "../sql/types.js";
import type { Chunks } from "./chunks.js";
import type { Deadline } from "./deadline.js";
import { collect } from "./outcomes.js";
import type { PinnedSlice, Scratch } from "./scratch.js";

/** More first rows than this are not looked up one by one. */
const MOST_FIRST_ROWS = 1000;
/** Of partial aggregates, which pass through the gateway's memory. */
const MOST_PARTIAL_BYTES = 16 * 1024 * 1024;

export interface PushedRead {
  readonly plan: Pushdown;
  readonly statement: StampedStatement;
  /** What the statement reads. */
  readonly spans: readonly Span[];
}

/** Undefined when these values, or these rows, are not to be answered so. */
export async function runForm(
  scratch: Scratch,
  read: PushedRead,
  deadline: Deadline,
): Promise<RowStream | undefined> {
  const { form } = read.plan;
  switch (form?.kind) {
    case "merge":
      return merged(scratch, read, form, deadline);
    case "first":
      return firstRows(scratch, read, form, deadline);
    case "aggregate":
      return aggregated(scratch, read, form, deadline);
    default:
      return undefined;
  }
}

/** Says what of a statement is pushed down, for these values; undefined for nothing. */
export function described({ form, filters }: Pushdown, params: readonly SqlValue[]): string | undefined {
  if (form?.kind === "merge") return "merge";
  if (form?.kind === "first" && wanted(form, params) !== undefined) return "top-k";
  if (form?.kind === "aggregate") return "aggregate";
  return filters.size > 0 ? `filter on ${[...filters.keys()].join(", ")}` : undefined;
}

function loadOf(
  {
    table,
    alias,
    where,
  }: { readonly table: string; readonly alias: string | undefined; readonly where: string },
  { params, flags, stamp }: StampedStatement,
): Omit<ScratchLoad, "slice"> {
  return { table, where: { sql: where, alias, params, flags, stamp } };
}

// --- one range after the other --------------------------------------------------------------------------------------

async function merged(
  scratch: Scratch,
  { plan, statement, spans }: PushedRead,
  form: MergedRows,
  deadline: Deadline,
): Promise<RowStream | undefined> {
  const slices = scratch.slices(form.table, spans);
  if (slices.length === 0) return undefined;
  const load = { ...loadOf(form, statement), query: { list: form.list, tail: form.tail } };
  const inOrder = form.direction === "ascending" ? slices : slices.toReversed();
  return new MergedStream(plan, statement, await scratch.scan(inOrder, load, deadline));
}

class MergedStream implements RowStream {
  readonly columns: readonly string[];
  readonly columnTypes: readonly (string | null)[];
  readonly #statement: StampedStatement;
  readonly #chunks: Chunks;

  constructor({ columns, columnTypes }: Pushdown, statement: StampedStatement, chunks: Chunks) {
    this.columns = columns;
    this.columnTypes = columnTypes;
    this.#statement = statement;
    this.#chunks = chunks;
  }

  next(): ReturnType<RowStream["next"]> {
    return this.#chunks.next();
  }

  summary(): ReturnType<RowStream["summary"]> {
    return { changes: 0, totalChanges: 0, lastInsertRowid: this.#statement.stamp.lastInsertRowid };
  }

  close(): Promise<void> {
    return this.#chunks.close();
  }
}

// --- first rows -----------------------------------------------------------------------------------------------------

async function firstRows(
  scratch: Scratch,
  { statement, spans }: PushedRead,
  form: FirstRows,
  deadline: Deadline,
): Promise<RowStream | undefined> {
  const limit = wanted(form, statement.params);
  if (limit === undefined) return undefined;
  const { list, order, direction, byKey } = form;
  const load = { ...loadOf(form, statement), first: { list, order, limit, byKey } };
  const slices = scratch.slices(form.table, spans);
  if (direction === undefined) await scratch.bring(slices, load, deadline);
  else
    await bringFirst(
      scratch,
      direction === "descending" ? slices.toReversed() : slices,
      load,
      limit,
      deadline,
    );
  return scratch.run(statement, deadline, []);
}

/** Until so many rows were found: of the first slice, of the next two, of the next four, … */
async function bringFirst(
  scratch: Scratch,
  slices: readonly PinnedSlice[],
  load: Omit<ScratchLoad, "slice">,
  limit: number,
  deadline: Deadline,
): Promise<void> {
  let found = 0;
  for (let at = 0, count = 1; at < slices.length && found < limit; at += count, count *= 2)
    found += await scratch.bring(slices.slice(at, at + count), load, deadline);
}

/** How many rows of each range may be among the first of all; undefined when they are too many to be looked up. */
function wanted({ limit, offset }: FirstRows, params: readonly SqlValue[]): number | undefined {
  const count = numberOf(limit, params);
  const before = offset === undefined ? 0n : numberOf(offset, params);
  if (count === undefined || before === undefined || count < 0n) return undefined;
  const sum = count + (before < 0n ? 0n : before);
  return sum <= MOST_FIRST_ROWS ? Number(sum) : undefined;
}

function numberOf(count: Count, params: readonly SqlValue[]): bigint | undefined {
  const value = "value" in count ? count.value : params[count.parameter];
  return typeof value === "bigint" ? value : undefined;
}

// --- aggregates -----------------------------------------------------------------------------------------------------

async function aggregated(
  scratch: Scratch,
  { plan, statement, spans }: PushedRead,
  form: PartialAggregates,
  deadline: Deadline,
): Promise<RowStream | undefined> {
  const load = { ...loadOf(form, statement), query: { list: form.list, tail: form.tail } };
  const rows: SqlValue[][] = [];
  let bytes = 0;
  const slices = scratch.slices(form.table, spans);
  if (slices.length === 0) return undefined;
  const chunks = await scratch.scan(slices, load, deadline);
  try {
    for (let chunk = await chunks.next(); chunk !== undefined; chunk = await chunks.next()) {
      bytes += chunk.rows.length;
      if (bytes > MOST_PARTIAL_BYTES) return undefined;
      const reader = new ValueReader(chunk.rows);
      while (!reader.done) rows.push(reader.vector());
    }
  } finally {
    await chunks.close();
  }
  const partial: SystemTable = {
    name: PARTIAL_TABLE,
    columns: form.columns.map(({ name }) => name),
    types: form.columns.map(({ type }) => type),
    rows,
  };
  if (form.check !== undefined) {
    const ran = await scratch.run({ ...statement, ...withParameters(form.check, []) }, deadline, [partial]);
    if ((await collect(ran, MOST_PARTIAL_BYTES)).rowCount > 0) return undefined;
  }
  const text = withParameters(form.merge, statement.params);
  const stream = await scratch.run({ ...statement, ...text }, deadline, [partial]);
  return renamed(stream, plan);
}

/** A text takes exactly as many values as it has parameters. */
function withParameters(
  sql: string,
  params: readonly SqlValue[],
): Pick<StampedStatement, "sql" | "params" | "vector"> {
  const { names } = parameterLayout(tokenize(sql));
  return { sql, params: params.slice(0, names.length), vector: undefined };
}

function renamed(stream: RowStream, { columns, columnTypes }: Pushdown): RowStream {
  return {
    columns,
    columnTypes,
    next: () => stream.next(),
    summary: () => stream.summary(),
    close: () => stream.close(),
  };
}

/** An error of the statement itself: it is run again as it is, to see whether it has one at all. */
export function isOwnError(error: unknown): boolean {
  return error instanceof UserError && error.code.startsWith("SQLITE_") && error.code !== "SQLITE_INTERRUPT";
}

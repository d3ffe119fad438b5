/**
 * Queries of one table alone that ranges can answer for themselves: rows one range after the other ("merge"), the first
 * rows of each ("first"), aggregates of each (pushdown-aggregates.ts).
 *
 * Invariants
 * 1. All of WHERE, the result columns and ORDER BY are accepted expressions (pushdown-expressions.ts): for a row they
 *    are the same wherever the row is looked at.
 * 2. "merge": SQLite would give the rows in the order of keys, by ORDER BY or because it finds them so.
 * 3. "first": each range looks for its first rows as SQLite would for the first of all, by the same plan, so that of rows
 *    that are equal in the order the same ones come first.
 */
import { columnOf, isRowidName, judge, type TableInScope } from "./pushdown-expressions.js";
import { alone, compiles, fromTable, inScope, type Names } from "./pushdown-filters.js";
import { allOf, quoted, type Slices } from "./pushdown-slices.js";
import type { Count, Direction, FirstRows, KeyFacts, MergedRows, PushdownSchema } from "./pushdown-types.js";
import {
  bare,
  conjuncts,
  type Expr,
  type ExprResultColumn,
  endOf,
  type Select,
  type SelectFrom,
  type SortedColumn,
  type TableInFrom,
} from "./syntax.js";
import { lowerAscii } from "./tokenizer.js";

/** A SELECT from one table that lies in many ranges. */
export interface OneTableQuery {
  readonly sql: string;
  readonly select: Select;
  readonly body: SelectFrom;
  readonly scope: TableInScope;
  /** As written, for `FROM … AS`. */
  readonly alias: string | undefined;
  /** What query plans call the table. */
  readonly shown: string;
  readonly where: string;
  readonly key: KeyFacts;
  readonly rowidAlias: string | undefined;
  readonly slices: Slices;
  readonly schema: PushdownSchema;
}

/** Undefined when the statement is no such query, or not all of its WHERE can be judged where the rows are. */
export function oneTableQuery(
  sql: string,
  select: Select,
  slices: Slices,
  names: Names,
  schema: PushdownSchema,
): OneTableQuery | undefined {
  if (select.with !== undefined || (select.compounds?.length ?? 0) > 0) return undefined;
  const body = select.select;
  if (body.type !== "SelectFrom" || body.windowClause !== undefined) return undefined;
  const only = body.from?.select;
  if (only?.type !== "TableSelectTable" || (body.from?.joins?.length ?? 0) > 0) return undefined;
  const { tblName, indexed, alias } = only as TableInFrom;
  const facts = schema.oracle.table(tblName.objName.text);
  if (facts?.kind !== "table" || indexed !== undefined) return undefined;
  const key = schema.key(lowerAscii(facts.name));
  if (key === undefined || key.shard === "home") return undefined;
  const scope = inScope(facts, tblName.objName, alias?.name, alone(names));
  const conditions = conjuncts(body.whereClause);
  if (conditions.some((condition) => judge(condition, scope) === undefined)) return undefined;
  return {
    sql,
    select,
    body,
    scope,
    alias: alias?.name.text,
    shown:
      alias?.name.text ??
      (tblName.dbName === undefined
        ? tblName.objName.text
        : `${tblName.dbName.text}.${tblName.objName.text}`),
    where: conditions.length === 0 ? "1" : allOf(conditions.map((condition) => slices.of(condition))),
    key,
    rowidAlias: facts.integerPrimaryKey === undefined ? undefined : lowerAscii(facts.integerPrimaryKey),
    slices,
    schema,
  };
}

/** "merge" or "first", whichever fits. */
export function rowsForm(query: OneTableQuery): MergedRows | FirstRows | undefined {
  const { select, body, scope, schema, alias, where } = query;
  if (body.distinctness === "Distinct" || body.groupBy !== undefined || body.having !== undefined)
    return undefined;
  const list = resultList(query);
  if (list === undefined) return undefined;
  const orderBy = select.orderBy ?? [];
  if (!orderBy.every((term) => isOrder(term, query))) return undefined;
  const plan = planOf(query);
  const byKey = plan !== undefined && findsByKey(plan, query);
  const direction = orderBy.length > 0 ? keyDirection(query, orderBy) : byKey ? "ascending" : undefined;
  const from = { table: scope.table, alias, where };
  const order = orderBy.length === 0 ? "" : `ORDER BY ${textOf(query, orderBy)}`;
  if (!compiles(schema, `SELECT ${list} ${fromTable(scope.table, alias)} WHERE ${where} ${order}`))
    return undefined;
  if (select.limit === undefined) {
    if (direction === undefined) return undefined;
    return { kind: "merge", ...from, list, tail: order === "" ? keyOrder(query) : order, direction };
  }
  const limit = countOf(query, select.limit.expr);
  const offset = select.limit.offset && countOf(query, select.limit.offset);
  if (limit === undefined || (select.limit.offset !== undefined && offset === undefined)) return undefined;
  return {
    kind: "first",
    ...from,
    list,
    order: order === "" && byKey ? keyOrder(query) : order,
    limit,
    offset,
    direction,
    byKey,
    mayRaise: mayRaise(query),
  };
}

function mayRaise({ body, scope, select }: OneTableQuery): boolean {
  const results = body.columns.flatMap((column) => (column.type === "ExprResultColumn" ? [column.expr] : []));
  const order = (select.orderBy ?? []).map(({ expr }) => expr);
  const all = [...conjuncts(body.whereClause), ...results, ...order];
  return all.some((expr) => judge(expr, scope)?.mayRaise === true);
}

/** The result columns as written, if they are all accepted. */
function resultList({ body, scope, slices }: OneTableQuery): string | undefined {
  for (const column of body.columns) {
    if (column.type === "ExprResultColumn") {
      if (judge(column.expr, scope) === undefined) return undefined;
    } else if (column.type === "TableStarResultColumn" && lowerAscii(column.table.text) !== scope.qualifier)
      return undefined;
  }
  return slices.between(body.columns[0]!.span.offset, body.from!.span.offset);
}

/** Integers are numbers of result columns; names may be those of result columns, all of which are accepted. */
function isOrder({ expr }: SortedColumn, query: OneTableQuery): boolean {
  if (expr.type === "NumericLiteral") return /^\d+$/.test(expr.value);
  return aliased(expr, query.body) !== undefined || judge(expr, query.scope) !== undefined;
}

/** The result column that a plain name in ORDER BY stands for by its alias. */
export function aliased(expr: Expr, { columns }: SelectFrom): ExprResultColumn | undefined {
  if (expr.type !== "Id") return undefined;
  const name = lowerAscii(expr.name);
  return columns.find(
    (column): column is ExprResultColumn =>
      column.type === "ExprResultColumn" &&
      column.alias !== undefined &&
      lowerAscii(column.alias.name.text) === name,
  );
}

function textOf(
  { slices }: OneTableQuery,
  terms: readonly { readonly span: SortedColumn["span"] }[],
): string {
  return slices.between(terms[0]!.span.offset, endOf(terms.at(-1)!.span));
}

/** The steps that SQLite would take; undefined when there are several searches to be put together. */
export function planOf({ sql, schema }: OneTableQuery): readonly string[] | undefined {
  const rows = schema.oracle.explainQueryPlan(sql);
  return rows.some(({ parent }) => parent !== 0) ? undefined : rows.map(({ detail }) => detail);
}

/** SQLite walks over the table itself, and not over an index. */
function findsByKey([step, sort, ...more]: readonly string[], { shown, scope }: OneTableQuery): boolean {
  if (step === undefined || more.length > 0) return false;
  if (sort !== undefined && sort !== "USE TEMP B-TREE FOR ORDER BY") return false;
  const key = scope.hasRowid ? "INTEGER PRIMARY KEY" : "PRIMARY KEY";
  return step === `SCAN ${shown}` || step.startsWith(`SEARCH ${shown} USING ${key} (`);
}

/** Qualified: a bare name could be the alias of a result column. */
function keyOrder({ key, alias, scope }: OneTableQuery): string {
  const qualifier = quoted(alias ?? scope.table);
  return `ORDER BY ${key.keyColumns.map((column) => `${qualifier}.${quoted(column)}`).join(", ")}`;
}

/** Of an ORDER BY that is the order of the shard key. */
function keyDirection(query: OneTableQuery, terms: readonly SortedColumn[]): Direction | undefined {
  const { key, scope, rowidAlias, body } = query;
  if (terms.length !== key.keyColumns.length) return undefined;
  const descending = terms[0]!.order === "Desc";
  for (const [i, { expr, order, nulls }] of terms.entries()) {
    if (nulls !== undefined || (order === "Desc") !== descending) return undefined;
    const resolved = ordered(expr, body);
    const column = resolved && columnOf(bare(resolved), scope);
    if (column === undefined) return undefined;
    const isKey =
      key.shard === "rowid"
        ? isRowidName(column, scope) || column === rowidAlias
        : column === lowerAscii(key.keyColumns[i]!);
    if (!isKey) return undefined;
  }
  return descending ? "descending" : "ascending";
}

/** What a term of ORDER BY stands for: a number and an alias are result columns. */
export function ordered(expr: Expr, body: SelectFrom): Expr | undefined {
  if (expr.type === "NumericLiteral") {
    const before = body.columns.slice(0, Number(expr.value));
    const column = before.at(-1);
    if (before.some(({ type }) => type !== "ExprResultColumn")) return undefined;
    return before.length === Number(expr.value) ? (column as ExprResultColumn | undefined)?.expr : undefined;
  }
  return aliased(expr, body)?.expr ?? expr;
}

function countOf({ slices }: OneTableQuery, expr: Expr): Count | undefined {
  const inner = bare(expr);
  if (inner.type === "NumericLiteral" && /^\d{1,15}$/.test(inner.value))
    return { value: BigInt(inner.value) };
  if (inner.type !== "VariableExpr") return undefined;
  const number = slices.numberAt(inner.span.offset);
  return number === undefined ? undefined : { parameter: number - 1 };
}

/**
 * Aggregates over one table, computed by each range for itself and put together by one query over what the ranges
 * answered: the user's own text, in which every aggregate stands for its parts and every grouped expression for the
 * column that has its value.
 *
 * What comes out must be what SQLite computes over all rows in one go, to the last bit and type. So:
 * 1. count, min, max: counts add up; least and greatest are compared bytewise, or are numbers of one kind.
 * 2. sum, total, avg of integers, if no order of adding them up can overflow; SQLite then computes exactly, and total and
 *    avg become REAL at the very end. `check` finds out from what the ranges answered. Sums of REALs depend on the order
 *    of their rows: those are not computed so at all.
 * 3. Groups are compared bytewise, and their values must be of one kind in all ranges (1 and 1.0 are one group, shown by
 *    one of its rows); `check` again. They come in the order of their values, so SQLite must find them in that order too.
 */
import { type Affinity, affinityOf, type ColumnFacts, columnFacts } from "./pushdown-columns.js";
import { columnOf, isRowidName, judge } from "./pushdown-expressions.js";
import { compiles, fromTable } from "./pushdown-filters.js";
import { aliased, type OneTableQuery, ordered, planOf } from "./pushdown-one-table.js";
import type { Edit } from "./pushdown-slices.js";
import { PARTIAL_TABLE, type PartialAggregates } from "./pushdown-types.js";
import {
  bare,
  type Expr,
  type ExprResultColumn,
  endOf,
  type FunctionCall,
  type FunctionCallStar,
  walk,
} from "./syntax.js";
import { lowerAscii } from "./tokenizer.js";

const AGGREGATES: ReadonlySet<string> = new Set(["count", "sum", "total", "avg", "min", "max"]);
/** Far enough from 2^63 for sums of doubles to tell. */
const LARGEST_SUM = "9.0e18";

/** Undefined when the query has no aggregates, or some that cannot be put together. */
export function aggregateForm(query: OneTableQuery): PartialAggregates | undefined {
  const columns = columnFacts(query.scope.table, query.schema);
  return columns === undefined ? undefined : new AggregateBuilder(query, columns).build();
}

interface Group {
  readonly expr: Expr;
  readonly canonical: string;
  readonly name: string;
  /** Stands for the expression: compared as it is, by the column's affinity or by none. */
  readonly text: string;
}

class AggregateBuilder {
  readonly #query: OneTableQuery;
  readonly #facts: ReadonlyMap<string, ColumnFacts>;
  readonly #list: string[] = [];
  readonly #columns: { readonly name: string; readonly type: Affinity }[] = [];
  readonly #checks: string[] = [];
  readonly #edits: Edit[] = [];
  #groups: readonly Group[] = [];
  #aggregates = 0;

  constructor(query: OneTableQuery, facts: ReadonlyMap<string, ColumnFacts>) {
    this.#query = query;
    this.#facts = facts;
  }

  build(): PartialAggregates | undefined {
    const { body, select, slices, scope, alias, where, schema } = this.#query;
    if (!this.#takeGroups()) return undefined;
    const results = body.columns;
    if (!results.every((column) => column.type === "ExprResultColumn" && this.#rewrite(column.expr)))
      return undefined;
    if (body.having !== undefined && !this.#rewrite(body.having)) return undefined;
    for (const { expr } of select.orderBy ?? []) {
      if (expr.type === "NumericLiteral" || aliased(expr, body) !== undefined) continue;
      if (!this.#rewrite(expr)) return undefined;
    }
    if (this.#aggregates === 0 && this.#groups.length === 0) return undefined;
    // No rows of any table are at hand where the parts are put together.
    const { expr: limit, offset } = select.limit ?? {};
    for (const bound of [limit, offset])
      if (bound !== undefined && judge(bound, scope) === undefined) return undefined;
    const grouped = this.#groups.map(({ name }) => name).join(", ");
    const groupBy = grouped === "" ? "" : ` GROUP BY ${grouped}`;
    const from = ` FROM temp.${PARTIAL_TABLE}`;
    const tail =
      body.groupBy === undefined
        ? ""
        : `GROUP BY ${this.#groups.map(({ expr }) => `(${slices.of(expr)}\n)`).join(", ")}`;
    const list = this.#list.join(", ");
    if (!compiles(schema, `SELECT ${list} ${fromTable(scope.table, alias)} WHERE ${where} ${tail}`))
      return undefined;
    const clause = (word: string, text: string): string => (text === "" ? "" : `\n${word} ${text}`);
    const [first] = results;
    const having = body.having === undefined ? "" : slices.of(body.having, this.#edits);
    const terms = select.orderBy ?? [];
    const order =
      terms.length === 0 ? "" : slices.between(terms[0]!.span.offset, endOf(terms.at(-1)!.span), this.#edits);
    return {
      kind: "aggregate",
      table: scope.table,
      alias,
      where,
      list,
      tail,
      columns: this.#columns,
      check:
        this.#checks.length === 0
          ? undefined
          : // HAVING alone makes no query of aggregates.
            `SELECT count(*)${from}${groupBy} HAVING ${this.#checks.join(" OR ")} LIMIT 1`,
      merge: [
        `SELECT ${body.distinctness === "Distinct" ? "DISTINCT " : ""}`,
        slices.between(startOf(first as ExprResultColumn), body.from!.span.offset, this.#edits),
        `\n${from}${groupBy}`,
        clause("HAVING", having),
        clause("ORDER BY", order),
        clause("", select.limit === undefined ? "" : slices.of(select.limit)),
      ].join(""),
    };
  }

  #takeGroups(): boolean {
    const { body, scope } = this.#query;
    const groups: Group[] = [];
    for (const term of body.groupBy ?? []) {
      const expr = this.#groupedBy(term);
      const verdict = expr && judge(expr, scope);
      if (expr === undefined || verdict === undefined || verdict.columns.size === 0) return false;
      const type = this.#groupType(expr);
      if (type === undefined) return false;
      const name = `_ostraka_g${groups.length}`;
      // A column of no type has the affinity BLOB, which keeps TEXT on the other side from being applied to it.
      const text = this.#hasAffinity(expr) ? name : `(+${name})`;
      groups.push({ expr, canonical: this.#canonical(expr), name, text });
      this.#add(name, this.#query.slices.of(expr), type);
      if (type !== "TEXT" && type !== "INTEGER") {
        const kinds = `_ostraka_k${groups.length}`;
        this.#add(kinds, kindsOf(`(${this.#query.slices.of(expr)}\n)`));
        this.#checks.push(`max(${kinds}) = 2`, `${kindsOf(name)} = 2`);
      }
    }
    this.#groups = groups;
    return groups.length === 0 || this.#inGroupOrder();
  }

  /** A number is that of a result column; a name is a column's before it is an alias. */
  #groupedBy(term: Expr): Expr | undefined {
    const { body, scope } = this.#query;
    if (term.type === "NumericLiteral") return ordered(term, body);
    if (term.type === "Id" && columnOf(term, scope) === undefined) return aliased(term, body)?.expr;
    return term;
  }

  /** The affinity of a grouped expression; undefined where its values are not compared bytewise. */
  #groupType(expr: Expr): Affinity | undefined {
    if (hasCollation(expr)) return undefined;
    const inner = bare(expr);
    if (inner.type === "CastExpr")
      return this.#comparedAs(inner.expr) ? affinityOf(inner.typeName?.name) : undefined;
    const column = columnOf(inner, this.#query.scope);
    if (column === undefined || column === "") return this.#comparedAs(inner) ? "" : undefined;
    return this.#columnType(column);
  }

  #hasAffinity(expr: Expr): boolean {
    const inner = bare(expr);
    const column = columnOf(inner, this.#query.scope);
    return inner.type === "CastExpr" || (column !== undefined && column !== "");
  }

  /** A bytewise comparison: of anything but a column of another collation, as it is or below + and CAST. */
  #comparedAs(expr: Expr): boolean {
    let inner = bare(expr);
    while (inner.type === "UnaryExpr" || inner.type === "CastExpr") inner = bare(inner.expr);
    const column = columnOf(inner, this.#query.scope);
    return column === undefined || column === "" || this.#columnType(column) !== undefined;
  }

  #columnType(column: string): Affinity | undefined {
    if (isRowidName(column, this.#query.scope)) return "INTEGER";
    const facts = this.#facts.get(column);
    return facts?.binary === true ? facts.affinity : undefined;
  }

  /**
   * SQLite finds groups in the order in which it finds them in the ranges' parts: it sorts here as it does there (the
   * other way round for ORDER BY … DESC), or it walks along a key or an index in ascending order.
   */
  #inGroupOrder(): boolean {
    const query = this.#query;
    const plan = planOf(query);
    if (plan === undefined) return false;
    if (plan.includes("USE TEMP B-TREE FOR GROUP BY")) return true;
    const [step] = plan;
    const [group, ...others] = this.#groups;
    const column = columnOf(bare(group!.expr), query.scope);
    if (others.length > 0 || column === undefined || step === undefined) return false;
    if (query.select.orderBy?.some(({ order }) => order === "Desc")) return false;
    if (step === `SCAN ${query.shown}`)
      return query.scope.hasRowid && (isRowidName(column, query.scope) || column === query.rowidAlias);
    const index = / USING (?:COVERING )?INDEX (\S+)$/.exec(step)?.[1];
    const text = index === undefined ? undefined : query.schema.oracle.text?.(index);
    const parsed = text === undefined ? undefined : query.schema.parser.parse(text);
    if (parsed?.type !== "CreateIndexStmt") return false;
    const { expr, order } = parsed.columns[0]!;
    return order !== "Desc" && expr.type === "Id" && lowerAscii(expr.name) === column;
  }

  #add(name: string, text: string, type: Affinity = ""): void {
    this.#columns.push({ name, type });
    this.#list.push(`${text}\n`);
  }

  /** Puts parts and group columns where the expression has aggregates and grouped expressions. */
  #rewrite(expr: Expr): boolean {
    const canonical = this.#canonical(expr);
    const group = this.#groups.find((known) => known.canonical === canonical);
    if (group !== undefined) {
      this.#edits.push({ span: expr.span, text: group.text });
      return true;
    }
    if (isAggregate(expr)) {
      const text = this.#aggregate(expr);
      if (text === undefined) return false;
      this.#edits.push({ span: expr.span, text: `(${text})` });
      return true;
    }
    return this.#rewriteBelow(expr);
  }

  #rewriteBelow(expr: Expr): boolean {
    // What is left of a row once the groups are taken out must not be a column; aliases in HAVING stay as they are.
    if (expr.type === "Id")
      return columnOf(expr, this.#query.scope) === undefined && aliased(expr, this.#query.body) !== undefined;
    if (expr.type === "QualifiedExpr") return false;
    const parts = partsOf(expr);
    return parts?.every((part) => this.#rewrite(part)) ?? false;
  }

  /** The query over the ranges' parts that stands for an aggregate. */
  #aggregate(call: FunctionCall | FunctionCallStar): string | undefined {
    const { scope, slices } = this.#query;
    const { filterOver } = call;
    if (filterOver?.overClause !== undefined) return undefined;
    const filter = filterOver?.filterClause;
    if (filter !== undefined && judge(filter, scope) === undefined) return undefined;
    const tail = filter === undefined ? "" : ` FILTER (WHERE ${slices.of(filter)}\n)`;
    const name = lowerAscii(call.name.name);
    const part = `_ostraka_a${this.#aggregates++}`;
    if (call.type === "FunctionCallStarExpr" || call.args === undefined) {
      if (name !== "count") return undefined;
      this.#add(part, `count(*)${tail}`);
      return `sum(${part})`;
    }
    const [argument, ...others] = call.args;
    if (argument === undefined || others.length > 0) return undefined;
    if (call.distinctness !== undefined || call.orderBy !== undefined) return undefined;
    if (judge(argument, scope) === undefined || hasCollation(argument)) return undefined;
    const text = slices.of(argument);
    if (name === "count") {
      this.#add(part, `count(${text}\n)${tail}`);
      return `sum(${part})`;
    }
    if (name === "min" || name === "max") return this.#extreme(name, argument, part, tail);
    return this.#sum(name, argument, part, tail);
  }

  #extreme(name: "min" | "max", argument: Expr, part: string, tail: string): string | undefined {
    const column = columnOf(bare(argument), this.#query.scope);
    const type = column === undefined || column === "" ? undefined : this.#columnType(column);
    // Without an affinity 1 and 1.0 may be in one column, and either could be the least.
    if (type === undefined || type === "") return undefined;
    this.#add(part, `${name}(${this.#query.slices.of(argument)}\n)${tail}`);
    return `${name}(${part})`;
  }

  #sum(name: string, argument: Expr, part: string, tail: string): string | undefined {
    const column = columnOf(bare(argument), this.#query.scope);
    if (column !== undefined && column !== "" && !isRowidName(column, this.#query.scope)) {
      const affinity = this.#facts.get(column)?.affinity;
      if (affinity === "REAL" || affinity === "TEXT") return undefined;
    }
    const text = this.#query.slices.of(argument);
    const [count, integers, least, greatest] = ["n", "i", "l", "g"].map((letter) => part + letter);
    this.#add(part, `sum(${text}\n)${tail}`);
    this.#add(count!, `count(${text}\n)${tail}`);
    this.#add(integers!, `count(CASE WHEN typeof(${text}\n) = 'integer' THEN 1 END)${tail}`);
    this.#add(least!, `min(${text}\n)${tail}`);
    this.#add(greatest!, `max(${text}\n)${tail}`);
    this.#checks.push(
      `sum(${count}) <> sum(${integers})`,
      `total(${count} * max(abs(0.0 + ${least}), abs(0.0 + ${greatest}))) >= ${LARGEST_SUM}`,
    );
    if (name === "sum") return `sum(${part})`;
    if (name === "total") return `0.0 + coalesce(sum(${part}), 0)`;
    return `(0.0 + sum(${part})) / sum(${count})`;
  }

  /** Equal for expressions that SQLite takes for the same. */
  #canonical(expr: Expr): string {
    const { scope, slices } = this.#query;
    const inner = bare(expr);
    const column = columnOf(inner, scope);
    if (column !== undefined && column !== "") {
      const isRowid = isRowidName(column, scope) || column === this.#query.rowidAlias;
      return isRowid ? "rowid" : `column ${column}`;
    }
    if (inner.type === "VariableExpr") return `parameter ${slices.numberAt(inner.span.offset)}`;
    return JSON.stringify(inner, (key, value: unknown) => {
      if (key === "span") return undefined;
      if (value !== inner && isExpr(value)) return this.#canonical(value);
      if (key === "name" && typeof value === "string") return lowerAscii(value);
      return value instanceof Uint8Array ? [...value] : value;
    });
  }
}

/** How many kinds of number there are in a group: 0, 1 or 2. */
function kindsOf(text: string): string {
  return `max(typeof(${text}) = 'integer') + max(typeof(${text}) = 'real')`;
}

function startOf({ expr, span }: ExprResultColumn): number {
  return Math.max(span.offset, expr.span.offset);
}

function isAggregate(expr: Expr): expr is FunctionCall | FunctionCallStar {
  if (expr.type === "FunctionCallStarExpr") return true;
  if (expr.type !== "FunctionCallExpr") return false;
  const name = lowerAscii(expr.name.name);
  return AGGREGATES.has(name) && ((name !== "min" && name !== "max") || expr.args?.length === 1);
}

function hasCollation(expr: Expr): boolean {
  let found = false;
  walk(expr, (node) => {
    found ||= node.type === "CollateExpr";
    return !found;
  });
  return found;
}

const EXPRESSION = /(Expr|Literal|^Id)$/;

function isExpr(value: unknown): value is Expr {
  return (
    typeof value === "object" &&
    value !== null &&
    EXPRESSION.test(String((value as { type?: unknown }).type)) &&
    "span" in value
  );
}

/** What may stay around aggregates; a function's own name is no part. */
const KEPT: ReadonlySet<string> = new Set([
  "BetweenExpr",
  "BinaryExpr",
  "CaseExpr",
  "CastExpr",
  "InListExpr",
  "IsNullExpr",
  "NotNullExpr",
  "LikeExpr",
  "NumericLiteral",
  "StringLiteral",
  "BlobLiteral",
  "NullLiteral",
  "ParenthesizedExpr",
  "UnaryExpr",
  "VariableExpr",
  "FunctionCallExpr",
]);

/** Functions that answer by their arguments, around aggregates. */
const AROUND: ReadonlySet<string> = new Set(
  "abs coalesce ifnull iif if nullif length lower upper substr round min max typeof printf format concat".split(
    " ",
  ),
);

/** The expressions right below; undefined for what may not stand around aggregates. */
function partsOf(expr: Expr): readonly Expr[] | undefined {
  if (!KEPT.has(expr.type)) return undefined;
  if (expr.type === "LikeExpr" && expr.op !== "Like" && expr.op !== "Glob") return undefined;
  if (expr.type === "FunctionCallExpr") {
    const { name, distinctness, orderBy, filterOver } = expr;
    const plain = distinctness === undefined && orderBy === undefined && filterOver === undefined;
    if (!plain || !AROUND.has(lowerAscii(name.name))) return undefined;
    return expr.args ?? [];
  }
  const parts: Expr[] = [];
  for (const value of Object.values(expr))
    for (const one of Array.isArray(value) ? value : [value]) collect(one, parts);
  return parts;
}

function collect(value: unknown, parts: Expr[]): void {
  if (isExpr(value)) parts.push(value);
  else if (typeof value === "object" && value !== null && (value as { type?: unknown }).type === "WhenThen") {
    const { when, then } = value as { readonly when: Expr; readonly then: Expr };
    parts.push(when, then);
  }
}

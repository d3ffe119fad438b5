/**
 * Which rows of each table a statement can need, as conditions on that table alone: conjuncts of WHERE and ON, cut from
 * the statement's text. The statement itself runs afterwards over what was brought, so that a filter may let through
 * too much, and never too little.
 *
 * Invariants
 * 1. Every instance of a table in the statement (in FROM, in subqueries, in views, as `IN table`) is found here. A row is
 *    needed if any instance needs it; a table has filters only if each of its instances has one.
 * 2. A conjunct of WHERE filters a table that no outer join can pad with NULLs; a conjunct of a LEFT JOIN's ON filters the
 *    table joined by it. With RIGHT and FULL joins nothing does.
 * 3. SQLite has compiled each filter with the table standing alone.
 */
import { judge, type TableInScope, type Verdict } from "./pushdown-expressions.js";
import { allOf, quoted, Slices } from "./pushdown-slices.js";
import type { PushdownSchema, TableFilter } from "./pushdown-types.js";
import {
  type AnyNode,
  conjuncts,
  type DeleteStmt,
  type Expr,
  type InTableExpr,
  JoinBit,
  type NameNode,
  type QualifiedNameNode,
  type SelectFrom,
  type SelectTable,
  type StatementNode,
  type TableInFrom,
  type UpdateStmt,
  walk,
} from "./syntax.js";
import { lowerAscii } from "./tokenizer.js";
import type { TableFacts } from "./types.js";

/** Views in views, beyond which the tables below count as needed whole. */
const DEEPEST_VIEW = 8;
/** Each filter is a search of its own. */
const MOST_FILTERS = 4;

export type Filters = ReadonlyMap<string, readonly TableFilter[]>;

/** Undefined when not even the tables of the statement are known for sure. */
export function tableFilters(
  statement: StatementNode,
  slices: Slices,
  schema: PushdownSchema,
): Filters | undefined {
  const collector = new Collector(schema);
  if (!collector.collect(statement, slices, 0)) return undefined;
  return collector.finish();
}

/** An instance's filter; undefined when all rows may be needed. */
type Need = TableFilter | undefined;

class Collector {
  readonly #schema: PushdownSchema;
  readonly #needs = new Map<string, Need[]>();

  constructor(schema: PushdownSchema) {
    this.#schema = schema;
  }

  finish(): Filters {
    const filters = new Map<string, readonly TableFilter[]>();
    for (const [table, needs] of this.#needs) {
      const distinct = new Map<string, TableFilter>();
      for (const need of needs) if (need !== undefined) distinct.set(JSON.stringify(need), need);
      if (!needs.includes(undefined) && distinct.size <= MOST_FILTERS)
        filters.set(table, [...distinct.values()]);
    }
    return filters;
  }

  collect(root: StatementNode, slices: Slices, depth: number): boolean {
    const known = new Map<AnyNode, TableFilter>();
    const names = definedNames(root);
    let complete = true;
    walk(root, (node) => {
      switch (node.type) {
        case "SelectFrom":
          this.#scope(node as SelectFrom, slices, names, known);
          break;
        case "TableSelectTable": {
          const { tblName } = node as TableInFrom;
          complete &&= this.#instance(tblName, known.get(node), names, depth);
          break;
        }
        case "TableCallSelectTable":
          complete &&= this.#instance((node as TableInFrom).tblName, undefined, names, depth);
          break;
        case "InTableExpr":
          complete &&= this.#instance((node as InTableExpr).rhs, undefined, names, depth);
          break;
        default:
      }
      return complete;
    });
    if (complete && (root.type === "UpdateStmt" || root.type === "DeleteStmt"))
      return this.#instance(root.tblName, this.#target(root, slices, names), names, depth);
    return complete;
  }

  #need(table: string, need: Need): void {
    const needs = this.#needs.get(table);
    if (needs === undefined) this.#needs.set(table, [need]);
    else needs.push(need);
  }

  #instance(name: QualifiedNameNode, need: Need, names: Names, depth: number): boolean {
    const { dbName, objName } = name;
    if (dbName !== undefined && lowerAscii(dbName.text) !== "main") return false;
    const facts = this.#schema.oracle.table(objName.text);
    if (facts === undefined) return true;
    const table = lowerAscii(facts.name);
    if (facts.kind === "view") return this.#view(table, depth);
    const isCte = dbName === undefined && names.ctes.has(lowerAscii(objName.text));
    this.#need(table, isCte ? undefined : need);
    return true;
  }

  #view(view: string, depth: number): boolean {
    const text = this.#schema.oracle.text?.(view);
    const parsed = text === undefined ? undefined : this.#schema.parser.parse(text);
    if (parsed?.type !== "CreateViewStmt" || depth >= DEEPEST_VIEW) return false;
    return this.collect(parsed, new Slices(text!), depth + 1);
  }

  /** The rows that an UPDATE or DELETE changes. */
  #target(statement: UpdateStmt | DeleteStmt, slices: Slices, names: Names): Need {
    const { tblName } = statement;
    const facts = this.#baseTable(tblName, names);
    if (facts === undefined || (statement.type === "UpdateStmt" && statement.from !== undefined))
      return undefined;
    const table = inScope(facts, tblName.objName, tblName.alias, alone(names));
    return this.#filter(table, tblName.alias?.text, conjuncts(statement.whereClause), slices);
  }

  #baseTable({ dbName, objName }: QualifiedNameNode, names: Names): TableFacts | undefined {
    if (dbName === undefined && names.ctes.has(lowerAscii(objName.text))) return undefined;
    const facts = this.#schema.oracle.table(objName.text);
    return facts?.kind === "table" ? facts : undefined;
  }

  #scope(select: SelectFrom, slices: Slices, names: Names, known: Map<AnyNode, TableFilter>): void {
    const scope = scopeOf(select);
    if (scope === undefined) return;
    const qualifiers = scope.items.map(({ table }) => qualifierOf(table));
    for (const [i, item] of scope.items.entries()) {
      const { table } = item;
      if (table.type !== "TableSelectTable") continue;
      const facts = this.#baseTable(table.tblName, names);
      if (facts === undefined) continue;
      const here = inScope(facts, table.tblName.objName, table.alias?.name, {
        alone: scope.items.length === 1,
        qualifiable: qualifiers.filter((other) => other === qualifiers[i]).length === 1,
        merged: scope.merged,
        hasTruth: !names.truth,
      });
      const filter = this.#filter(
        here,
        table.alias?.name.text,
        item.nullable ? item.own : [...scope.shared, ...item.own],
        slices,
      );
      if (filter !== undefined) known.set(table, filter);
    }
  }

  #filter(table: TableInScope, alias: string | undefined, conditions: readonly Expr[], slices: Slices): Need {
    const texts: string[] = [];
    let mayRaise = false;
    for (const condition of conditions) {
      const verdict: Verdict | undefined = judge(condition, table);
      if (verdict === undefined || verdict.columns.size === 0) continue;
      const text = slices.of(condition);
      if (!this.#compiles(table.table, alias, text)) continue;
      texts.push(text);
      mayRaise ||= verdict.mayRaise;
    }
    return texts.length === 0 ? undefined : { alias, sql: allOf(texts), mayRaise };
  }

  #compiles(table: string, alias: string | undefined, condition: string): boolean {
    return compiles(this.#schema, `SELECT 1 ${fromTable(table, alias)} WHERE (${condition}\n)`);
  }
}

export function fromTable(table: string, alias: string | undefined): string {
  return `FROM main.${quoted(table)}${alias === undefined ? "" : ` AS ${quoted(alias)}`}`;
}

export function compiles({ oracle }: PushdownSchema, sql: string): boolean {
  try {
    oracle.prepare(sql);
    return true;
  } catch {
    return false;
  }
}

// --- scopes ---------------------------------------------------------------------------------------------------------

/** Names that a statement makes. */
export interface Names {
  /** Of common table expressions, wherever they are visible: a table called so may be meant or not. */
  readonly ctes: ReadonlySet<string>;
  /** TRUE or FALSE may be the name of something: it is an alias, or queries in queries see each other's columns. */
  readonly truth: boolean;
}

export function definedNames(root: object): Names {
  const ctes = new Set<string>();
  let truth = false;
  let queries = 0;
  walk(root, (node) => {
    if (node.type === "SelectFrom") truth ||= ++queries > 1;
    if (node.type === "CommonTableExpr")
      ctes.add(lowerAscii((node as AnyNode & { readonly tblName: NameNode }).tblName.text));
    else if (node.type === "Name") truth ||= /^(true|false)$/i.test((node as NameNode).text);
    return true;
  });
  return { ctes, truth };
}

type Surroundings = Pick<TableInScope, "alone" | "qualifiable" | "merged" | "hasTruth">;

export function alone(names: Names): Surroundings {
  return { alone: true, qualifiable: true, merged: new Set(), hasTruth: !names.truth };
}

export function inScope(
  facts: TableFacts,
  name: NameNode,
  alias: NameNode | undefined,
  around: Surroundings,
): TableInScope {
  const columns = new Set(facts.columns.map(lowerAscii));
  return {
    table: lowerAscii(facts.name),
    qualifier: lowerAscii((alias ?? name).text),
    aliased: alias !== undefined,
    columns,
    hasRowid: !facts.withoutRowid,
    ...around,
    hasTruth: around.hasTruth && around.alone && !columns.has("true") && !columns.has("false"),
  };
}

interface ScopeItem {
  readonly table: SelectTable;
  /** An outer join may pad it with NULLs. */
  readonly nullable: boolean;
  /** Conjuncts of the ON of the LEFT JOIN that joins it. */
  readonly own: readonly Expr[];
}

interface Scope {
  readonly items: readonly ScopeItem[];
  /** Conjuncts that every row of the join meets. */
  readonly shared: readonly Expr[];
  readonly merged: ReadonlySet<string> | "all";
}

/** Undefined for shapes that are left alone. */
function scopeOf({ from, whereClause }: SelectFrom): Scope | undefined {
  if (from?.select === undefined) return undefined;
  const items: ScopeItem[] = [{ table: from.select, nullable: false, own: [] }];
  const shared = conjuncts(whereClause);
  const merged = new Set<string>();
  let natural = false;
  for (const { operator, table, constraint } of from.joins ?? []) {
    const bits = operator.joinType ?? 0;
    if ((bits & JoinBit.right) !== 0) return undefined;
    natural ||= (bits & JoinBit.natural) !== 0;
    const nullable = (bits & JoinBit.left) !== 0;
    const on = constraint?.type === "OnJoinConstraint" ? conjuncts(constraint.expr) : [];
    if (constraint?.type === "UsingJoinConstraint")
      for (const { text } of constraint.columns) merged.add(lowerAscii(text));
    items.push({ table, nullable, own: nullable ? on : [] });
    if (!nullable) shared.push(...on);
  }
  // Names of tables in parentheses are seen from outside.
  if (items.some(({ table }) => table.type === "SubSelectTable")) return undefined;
  return { items, shared, merged: natural ? "all" : merged };
}

function qualifierOf(table: SelectTable): string | undefined {
  if (table.type === "SubSelectTable") return undefined;
  if (table.alias !== undefined) return lowerAscii(table.alias.name.text);
  return table.type === "SelectSelectTable" ? undefined : lowerAscii(table.tblName.objName.text);
}

/**
 * What of a statement the ranges do for themselves, by the statement's analysis: made once for each and kept with it.
 */
import { statementParser } from "../machines/range/statement-parser.js";
import type { StampedStatement } from "../machines/range/types.js";
import type { TableKey } from "../placement/descriptor.js";
import { pushdown } from "../sql/pushdown.js";
import type { Pushdown } from "../sql/pushdown-types.js";
import type { Analysis, SchemaOracle } from "../sql/types.js";
import type { Conditions } from "./scratch.js";

const plans = new WeakMap<Analysis, Pushdown | "none">();

/**
 * Undefined when there is nothing to push down. The statement must run as it was analysed, and touch nothing but the
 * shared database.
 */
export function pushdownOf(
  analysis: Analysis,
  oracle: SchemaOracle,
  tables: readonly TableKey[],
): Pushdown | undefined {
  const known = plans.get(analysis);
  if (known !== undefined) return known === "none" ? undefined : known;
  const plan = isOurs(analysis, oracle)
    ? pushdown(analysis.sql, {
        oracle,
        parser: statementParser,
        key: (name) => tables.find((table) => table.name === name),
      })
    : undefined;
  plans.set(analysis, plan ?? "none");
  return plan;
}

function isOurs({ class: { kind }, touchesTemp, systemTables }: Analysis, { temp }: SchemaOracle): boolean {
  if ((kind !== "select" && kind !== "write") || touchesTemp || systemTables.length > 0) return false;
  return temp === undefined || temp.names.size === 0;
}

/** What rows of each table must meet, for these values. Without a stamp, the same again is known to be the same. */
export function conditionsOf(
  { filters }: Pushdown,
  statement: StampedStatement,
  { usesStamp }: Pick<Analysis, "usesStamp">,
): Conditions {
  const { params, flags } = statement;
  const stamp = usesStamp ? statement.stamp : undefined;
  return new Map(
    [...filters].map(([table, list]) => [
      table,
      list.map(({ sql, alias }) => ({ sql, alias, params, flags, stamp })),
    ]),
  );
}

/**
 * As `conditionsOf`, for statements of a transaction, which cannot begin again when a condition fails that the statement
 * would not have come to. `snapshot`: the version of the schema that it runs on.
 */
export function safeConditions(
  plan: Pushdown | undefined,
  statement: StampedStatement,
  analysis: Analysis,
  snapshot: number,
): Conditions | undefined {
  if (plan === undefined || plan.version !== snapshot) return undefined;
  for (const filters of plan.filters.values()) if (filters.some(({ mayRaise }) => mayRaise)) return undefined;
  return plan.filters.size === 0 ? undefined : conditionsOf(plan, statement, analysis);
}

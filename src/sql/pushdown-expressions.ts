/**
 * Which expressions may be evaluated for one table's rows where these lie, and mean there what they mean in the whole
 * statement.
 *
 * Invariants
 * 1. Every name in an accepted expression is a column of the one table (or its rowid), both in the statement and where
 *    the table stands alone. Names that might be something else (a column of another table or of an outer query, the
 *    merged column of a USING join, an alias) are not accepted.
 * 2. An accepted expression depends on the row, the parameters, the stamp's time and the settings that travel with a
 *    load, and on nothing else: no subquery, aggregate, window, randomness, session value.
 * 3. `mayRaise` is set where evaluating it can fail for some row: a row that the statement itself may never evaluate
 *    it for.
 */
import { type Expr, type FunctionCall, type LikeExpr, walk } from "./syntax.js";
import { lowerAscii } from "./tokenizer.js";

/** A table in a FROM clause, as the names in expressions see it. Names are in lower case. */
export interface TableInScope {
  readonly table: string;
  /** What qualifies its columns: the alias, or the table's name. */
  readonly qualifier: string;
  readonly aliased: boolean;
  readonly columns: ReadonlySet<string>;
  readonly hasRowid: boolean;
  /** Nothing else is in the FROM clause. */
  readonly alone: boolean;
  /** Its qualifier is nobody else's in the FROM clause. */
  readonly qualifiable: boolean;
  /** Unqualified names that stand for columns merged by USING; "all" with NATURAL. */
  readonly merged: ReadonlySet<string> | "all";
  /** TRUE and FALSE are no names of anything around. */
  readonly hasTruth: boolean;
}

export interface Verdict {
  /** Columns that are named, in lower case, the rowid by the name used. */
  readonly columns: ReadonlySet<string>;
  readonly mayRaise: boolean;
}

const ROWID_NAMES: ReadonlySet<string> = new Set(["rowid", "_rowid_", "oid"]);

/** Answer by their arguments, and never fail. */
const PURE: ReadonlySet<string> = new Set(
  (
    "coalesce ifnull iif if nullif length octet_length lower upper substr substring trim ltrim rtrim instr typeof round " +
    "date time datetime julianday strftime unixepoch timediff current_time current_date current_timestamp " +
    "glob unicode char sign sqlite_version likely unlikely likelihood hex unhex quote concat concat_ws " +
    "acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10 log2 mod pi pow power " +
    "radians sin sinh sqrt tan tanh trunc"
  ).split(" "),
);

/** Answer by their arguments, or fail by them. */
const RAISING: ReadonlySet<string> = new Set(
  (
    "abs printf format replace json json_array json_array_length json_error_position json_extract json_object json_type " +
    "json_valid json_quote json_insert json_remove json_replace json_set json_patch jsonb jsonb_array jsonb_extract " +
    "jsonb_insert jsonb_object jsonb_remove jsonb_replace jsonb_set jsonb_patch"
  ).split(" "),
);

const PLAIN: ReadonlySet<string> = new Set([
  "BetweenExpr",
  "CaseExpr",
  "WhenThen",
  "CastExpr",
  "CollateExpr",
  "InListExpr",
  "IsNullExpr",
  "NotNullExpr",
  "NumericLiteral",
  "StringLiteral",
  "BlobLiteral",
  "NullLiteral",
  "CurrentDateLiteral",
  "CurrentTimeLiteral",
  "CurrentTimestampLiteral",
  "ParenthesizedExpr",
  "UnaryExpr",
  "VariableExpr",
]);

/** Undefined when the expression is not accepted. */
export function judge(expr: Expr, table: TableInScope): Verdict | undefined {
  const columns = new Set<string>();
  let mayRaise = false;
  let accepted = true;
  walk(expr, (any) => {
    if (!accepted) return false;
    const node = any as Expr;
    switch (node.type) {
      case "Id":
      case "QualifiedExpr": {
        const column = columnOf(node, table);
        if (column === undefined) accepted = false;
        else if (column !== "") columns.add(column);
        return false;
      }
      case "BinaryExpr":
        mayRaise ||= node.op.startsWith("Arrow");
        return true;
      case "LikeExpr":
        accepted = node.op === "Like" || node.op === "Glob";
        mayRaise ||= mayRefuseEscape(node);
        return true;
      case "FunctionCallExpr": {
        const verdict = judgeCall(node);
        accepted = verdict !== undefined;
        mayRaise ||= verdict === "raises";
        if (accepted) for (const arg of node.args ?? []) if (!accept(arg)) accepted = false;
        return false;
      }
      default:
        if (any.type === "Type") return false;
        accepted = PLAIN.has(any.type);
        return true;
    }
  });
  return accepted ? { columns, mayRaise } : undefined;

  function accept(arg: Expr): boolean {
    const verdict = judge(arg, table);
    if (verdict === undefined) return false;
    for (const column of verdict.columns) columns.add(column);
    mayRaise ||= verdict.mayRaise;
    return true;
  }
}

/** The column of the table that a name stands for; "" for TRUE and FALSE; undefined when it may be something else. */
export function columnOf(expr: Expr, table: TableInScope): string | undefined {
  if (expr.type === "Id") {
    const name = lowerAscii(expr.name);
    if (table.columns.has(name)) return table.merged !== "all" && !table.merged.has(name) ? name : undefined;
    if (ROWID_NAMES.has(name)) return table.alone && table.hasRowid ? name : undefined;
    return (name === "true" || name === "false") && table.hasTruth ? "" : undefined;
  }
  if (expr.type !== "QualifiedExpr") return undefined;
  if (!table.qualifiable || lowerAscii(expr.table.text) !== table.qualifier) return undefined;
  if (expr.schema !== undefined && (table.aliased || lowerAscii(expr.schema.text) !== "main"))
    return undefined;
  const column = lowerAscii(expr.column.text);
  if (table.columns.has(column)) return column;
  return ROWID_NAMES.has(column) && table.hasRowid ? column : undefined;
}

export function isRowidName(column: string, table: Pick<TableInScope, "columns">): boolean {
  return ROWID_NAMES.has(column) && !table.columns.has(column);
}

function judgeCall(call: FunctionCall): "pure" | "raises" | undefined {
  if (call.distinctness !== undefined || call.orderBy !== undefined || call.filterOver !== undefined)
    return undefined;
  const name = lowerAscii(call.name.name);
  const count = call.args?.length ?? 0;
  // With one argument they are aggregates.
  if (name === "min" || name === "max") return count >= 2 ? "pure" : undefined;
  if (name === "like") return count === 2 ? "pure" : "raises";
  if (PURE.has(name)) return "pure";
  return RAISING.has(name) ? "raises" : undefined;
}

/** ESCAPE takes exactly one character. */
function mayRefuseEscape({ escape: sign }: LikeExpr): boolean {
  return sign !== undefined && !(sign.type === "StringLiteral" && [...sign.value].length === 1);
}

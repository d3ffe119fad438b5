/**
 * Syntax trees of statements, as far as pushing work down to ranges looks at them, and the parser that makes them. The
 * parser is a package and pure code may import none, so it is injected (src/machines/range/statement-parser.ts).
 *
 * Trees only say where things are in the user's text: what is sent to ranges are slices of that text. They are never
 * turned back into SQL, and SQLite judges every slice before it is used.
 *
 * Positions are UTF-16 offsets. The spans of expressions are exact; those of clauses may begin with a space, and that of
 * an item of a list with the list.
 */

export interface SourceSpan {
  readonly offset: number;
  readonly length: number;
}

interface Node<T extends string> {
  readonly type: T;
  readonly span: SourceSpan;
}

export interface NameNode extends Node<"Name"> {
  readonly text: string;
}

export interface QualifiedNameNode extends Node<"QualifiedName"> {
  readonly dbName: NameNode | undefined;
  readonly objName: NameNode;
  /** Of UPDATE and DELETE: FROM clauses keep it beside the name. */
  readonly alias: NameNode | undefined;
}

// --- expressions ----------------------------------------------------------------------------------------------------

export interface Id extends Node<"Id"> {
  readonly name: string;
}

export interface QualifiedExpr extends Node<"QualifiedExpr"> {
  readonly schema: NameNode | undefined;
  readonly table: NameNode;
  readonly column: NameNode;
}

export interface BinaryExpr extends Node<"BinaryExpr"> {
  readonly left: Expr;
  readonly op: string;
  readonly right: Expr;
}

export interface FunctionTail extends Node<"FunctionTail"> {
  readonly filterClause: Expr | undefined;
  readonly overClause: object | undefined;
}

export interface FunctionCall extends Node<"FunctionCallExpr"> {
  readonly name: Id;
  readonly distinctness: string | undefined;
  readonly args: readonly Expr[] | undefined;
  readonly orderBy: object | undefined;
  readonly filterOver: FunctionTail | undefined;
}

export interface FunctionCallStar extends Node<"FunctionCallStarExpr"> {
  readonly name: Id;
  readonly filterOver: FunctionTail | undefined;
}

export interface ParenthesizedExpr extends Node<"ParenthesizedExpr"> {
  readonly exprs: readonly Expr[];
}

export interface LikeExpr extends Node<"LikeExpr"> {
  readonly lhs: Expr;
  readonly not: boolean;
  readonly op: string;
  readonly rhs: Expr;
  readonly escape: Expr | undefined;
}

export interface StringLiteral extends Node<"StringLiteral"> {
  readonly value: string;
}

export interface NumericLiteral extends Node<"NumericLiteral"> {
  readonly value: string;
}

export interface TypeNode extends Node<"Type"> {
  readonly name: string;
}

export interface CastExpr extends Node<"CastExpr"> {
  readonly expr: Expr;
  readonly typeName: TypeNode | undefined;
}

export interface UnaryExpr extends Node<"UnaryExpr"> {
  readonly op: string;
  readonly expr: Expr;
}

export interface CollateExpr extends Node<"CollateExpr"> {
  readonly expr: Expr;
  readonly collation: string;
}

export interface VariableExpr extends Node<"VariableExpr"> {
  readonly name: string;
}

export interface InTableExpr extends Node<"InTableExpr"> {
  readonly lhs: Expr;
  readonly rhs: QualifiedNameNode;
}

/** What is looked at only through its children. */
type OtherExpr = Node<
  | "BetweenExpr"
  | "CaseExpr"
  | "InListExpr"
  | "InSelectExpr"
  | "ExistsExpr"
  | "SubqueryExpr"
  | "IsNullExpr"
  | "NotNullExpr"
  | "NameExpr"
  | "RaiseExpr"
  | "BlobLiteral"
  | "KeywordLiteral"
  | "NullLiteral"
  | "CurrentDateLiteral"
  | "CurrentTimeLiteral"
  | "CurrentTimestampLiteral"
>;

export type Expr =
  | Id
  | QualifiedExpr
  | BinaryExpr
  | FunctionCall
  | FunctionCallStar
  | ParenthesizedExpr
  | LikeExpr
  | StringLiteral
  | NumericLiteral
  | CastExpr
  | UnaryExpr
  | CollateExpr
  | VariableExpr
  | InTableExpr
  | OtherExpr;

// --- SELECT ---------------------------------------------------------------------------------------------------------

export interface SortedColumn extends Node<"SortedColumn"> {
  readonly expr: Expr;
  readonly order: string | undefined;
  readonly nulls: string | undefined;
}

export interface Limit extends Node<"Limit"> {
  readonly expr: Expr;
  readonly offset: Expr | undefined;
}

interface Alias extends Node<"AsAs" | "ElidedAs"> {
  readonly name: NameNode;
}

export interface ExprResultColumn extends Node<"ExprResultColumn"> {
  readonly expr: Expr;
  readonly alias: Alias | undefined;
}

export interface TableStarResultColumn extends Node<"TableStarResultColumn"> {
  readonly table: NameNode;
}

export type ResultColumn = ExprResultColumn | TableStarResultColumn | Node<"StarResultColumn">;

export interface TableInFrom extends Node<"TableSelectTable"> {
  readonly tblName: QualifiedNameNode;
  readonly alias: Alias | undefined;
  readonly indexed: object | undefined;
}

interface CallInFrom extends Node<"TableCallSelectTable"> {
  readonly tblName: QualifiedNameNode;
  readonly alias: Alias | undefined;
}

interface SelectInFrom extends Node<"SelectSelectTable"> {
  readonly select: Select;
  readonly alias: Alias | undefined;
}

/** Tables in parentheses. */
type JoinInFrom = Node<"SubSelectTable">;

export type SelectTable = TableInFrom | CallInFrom | SelectInFrom | JoinInFrom;

interface JoinOperator extends Node<"CommaJoinOperator" | "TypedJoinJoinOperator"> {
  readonly joinType?: number | undefined;
}

/** Bits of `joinType`. */
export const JoinBit = { natural: 4, left: 8, right: 16 } as const;

interface OnClause extends Node<"OnJoinConstraint"> {
  readonly expr: Expr;
}

interface UsingClause extends Node<"UsingJoinConstraint"> {
  readonly columns: readonly NameNode[];
}

export interface JoinedTable extends Node<"JoinedSelectTable"> {
  readonly operator: JoinOperator;
  readonly table: SelectTable;
  readonly constraint: OnClause | UsingClause | undefined;
}

export interface FromClause extends Node<"FromClause"> {
  readonly select: SelectTable | undefined;
  readonly joins: readonly JoinedTable[] | undefined;
}

export interface SelectFrom extends Node<"SelectFrom"> {
  readonly distinctness: string | undefined;
  readonly columns: readonly ResultColumn[];
  readonly from: FromClause | undefined;
  readonly whereClause: Expr | undefined;
  readonly groupBy: readonly Expr[] | undefined;
  readonly having: Expr | undefined;
  readonly windowClause: readonly object[] | undefined;
}

export interface Select extends Node<"Select"> {
  readonly with: object | undefined;
  readonly select: SelectFrom | Node<"SelectValues">;
  readonly compounds: readonly object[] | undefined;
  readonly orderBy: readonly SortedColumn[] | undefined;
  readonly limit: Limit | undefined;
}

// --- statements -----------------------------------------------------------------------------------------------------

export interface SelectStmt extends Node<"SelectStmt"> {
  readonly body: Select;
}

export interface UpdateStmt extends Node<"UpdateStmt"> {
  readonly with: object | undefined;
  readonly orConflict: string | undefined;
  readonly tblName: QualifiedNameNode;
  readonly sets: readonly { readonly colNames: readonly NameNode[]; readonly expr: Expr }[];
  readonly from: FromClause | undefined;
  readonly whereClause: Expr | undefined;
}

export interface DeleteStmt extends Node<"DeleteStmt"> {
  readonly with: object | undefined;
  readonly tblName: QualifiedNameNode;
  readonly whereClause: Expr | undefined;
}

export interface CreateViewStmt extends Node<"CreateViewStmt"> {
  readonly select: Select;
}

export interface ColumnDefinition extends Node<"ColumnDefinition"> {
  readonly colName: NameNode;
  readonly colType: TypeNode | undefined;
  readonly constraints: readonly { readonly constraint: { readonly type: string } }[];
}

export interface CreateTableStmt extends Node<"CreateTableStmt"> {
  readonly body:
    | (Node<"ColumnsAndConstraintsCreateTableBody"> & {
        readonly columns: readonly ColumnDefinition[];
        readonly flags: number;
      })
    | Node<"AsSelectCreateTableBody">;
}

/** Bit of a table's flags. */
export const STRICT_TABLE = 65536;

export interface CreateIndexStmt extends Node<"CreateIndexStmt"> {
  readonly unique: boolean;
  readonly columns: readonly SortedColumn[];
  readonly whereClause: Expr | undefined;
}

export type StatementNode =
  | SelectStmt
  | UpdateStmt
  | DeleteStmt
  | CreateViewStmt
  | CreateTableStmt
  | CreateIndexStmt;

export interface StatementParser {
  /** The tree of one statement; undefined for other kinds of statement, and for what the parser does not take. */
  parse(sql: string): StatementNode | undefined;
}

// --- walking --------------------------------------------------------------------------------------------------------

export interface AnyNode {
  readonly type: string;
  readonly span: SourceSpan;
}

/** Visits a node and all nodes below it; those below are left out where `visit` answers false. */
export function walk(node: object, visit: (node: AnyNode) => boolean | undefined): void {
  if (isNode(node) && visit(node) === false) return;
  for (const value of Object.values(node)) {
    if (typeof value === "object" && value !== null && !(value instanceof Uint8Array)) walk(value, visit);
  }
}

function isNode(value: object): value is AnyNode {
  return "type" in value && "span" in value;
}

export function endOf({ offset, length }: SourceSpan): number {
  return offset + length;
}

/** An expression without the parentheses around it. */
export function bare(expr: Expr): Expr {
  let inner = expr;
  while (inner.type === "ParenthesizedExpr" && inner.exprs.length === 1) inner = inner.exprs[0]!;
  return inner;
}

/** What AND joins at the top of an expression. */
export function conjuncts(expr: Expr | undefined, found: Expr[] = []): Expr[] {
  if (expr === undefined) return found;
  const inner = bare(expr);
  if (inner.type === "BinaryExpr" && inner.op === "And") {
    conjuncts(inner.left, found);
    conjuncts(inner.right, found);
  } else found.push(inner);
  return found;
}

/**
 * Whether an UPDATE or DELETE looks at no other rows of its table than those that its WHERE finds. Constraints of the
 * table, triggers and foreign key actions may look at any; then the table is needed whole.
 */
import { framesOf } from "./program.js";
import type { PushdownSchema } from "./pushdown-types.js";
import { type DeleteStmt, type NameNode, type UpdateStmt, walk } from "./syntax.js";
import { lowerAscii } from "./tokenizer.js";

const ROWID = /^(rowid|_rowid_|oid)$/;

export function writesOnlyWhatItFinds(
  sql: string,
  statement: UpdateStmt | DeleteStmt,
  schema: PushdownSchema,
): boolean {
  const { oracle, parser } = schema;
  const facts = oracle.table(statement.tblName.objName.text);
  if (facts?.kind !== "table" || facts.hasTriggers) return false;
  const table = lowerAscii(facts.name);
  // Actions of foreign keys are frames of their own; looks at other tables are not, and do not matter here.
  const frames = framesOf(oracle.explain(sql));
  if (frames.length !== 1) return false;
  const made = oracle.text?.(table);
  const parsed = made === undefined ? undefined : parser.parse(made);
  if (parsed === undefined || refersTo(parsed, table)) return false;
  if (statement.type === "DeleteStmt") return true;
  if (statement.orConflict !== undefined || facts.withoutRowid) return false;
  const changed = statement.sets.flatMap(({ colNames }) => colNames.map(({ text }) => lowerAscii(text)));
  const key = facts.integerPrimaryKey === undefined ? undefined : lowerAscii(facts.integerPrimaryKey);
  if (changed.some((column) => column === key || ROWID.test(column))) return false;
  // An index that is written and allows no duplicates is searched for them.
  return frames[0]!.ops.every((op) => {
    if (op.opcode !== "OpenWrite" || op.p3 !== 0) return true;
    const object = oracle.objectByRootPage(0, op.p2);
    if (object === undefined) return false;
    return object.kind === "table" || allowsDuplicates(object.name, schema);
  });
}

function allowsDuplicates(index: string, { oracle, parser }: PushdownSchema): boolean {
  const text = oracle.text?.(index);
  const parsed = text === undefined ? undefined : parser.parse(text);
  return parsed?.type === "CreateIndexStmt" && !parsed.unique;
}

function refersTo(createTable: object, table: string): boolean {
  let found = false;
  walk(createTable, (node) => {
    if (node.type === "ForeignKeyClause")
      found ||= lowerAscii((node as typeof node & { readonly tblName: NameNode }).tblName.text) === table;
    return !found;
  });
  return found;
}

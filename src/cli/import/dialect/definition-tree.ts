/** From the parser's trees of a skeleton back to what was written. Whatever is not as expected is not understood. */
import { columnIn, isNode, type Node, nodes, textIn } from "./ddl-parser.js";
import type { Definition } from "./definition.js";
import type { Column, ForeignKey, Key, KeyPart } from "./schema.js";
import { NO_COLUMN, type Skeleton } from "./skeleton.js";
import type { QualifiedName } from "./tokens.js";

const ACTIONS: Readonly<Record<string, string | undefined>> = {
  cascade: "CASCADE",
  "set null": "SET NULL",
  "set default": "SET DEFAULT",
  restrict: "RESTRICT",
  "no action": undefined,
};

export function applyColumnTree(
  tree: Node,
  skeleton: Skeleton,
  column: Column,
  definition: Definition,
  deferred: boolean,
): void {
  if (tree.resource !== "column") throw notUnderstood();
  const { line } = column;
  column.notNull = textIn(tree, "nullable", "type") === "not null";
  if (tree.auto_increment) column.autoIncrement = true;
  const collation =
    textIn(tree, "collate", "collate", "name") ?? textIn(tree, "collate", "collate", "name", "value");
  if (collation !== undefined) column.collation = skeleton.name(collation).toLowerCase();
  const key: Key = { name: undefined, parts: [partOf(column.name)], line };
  if (tree.primary_key) definition.primaryKey = key;
  if (tree.unique) definition.uniques.push(key);
  if (isNode(tree.reference_definition)) {
    const reference = referenceOf(tree.reference_definition, skeleton);
    definition.foreignKeys.push({ name: undefined, columns: [column.name], ...reference, deferred, line });
  }
}

export function applyConstraintTree(
  tree: Node,
  skeleton: Skeleton,
  definition: Definition,
  { line, deferred }: { readonly line: number; readonly deferred: boolean },
): void {
  const constraintName = nameIn(tree.constraint, skeleton);
  const name = constraintName ?? nameIn(tree.index, skeleton);
  const parts = nodes(tree.definition).map((node) => keyPartOf(node, skeleton));
  if (parts.length === 0) throw notUnderstood();
  if (tree.resource === "index" && /^(?:key|index)$/i.test(String(tree.keyword))) {
    definition.indexes.push({ name, parts, line, unique: false, where: undefined });
    return;
  }
  switch (String(tree.constraint_type).toLowerCase()) {
    case "primary key":
      definition.primaryKey = { name, parts, line };
      break;
    case "unique":
    case "unique key":
    case "unique index":
      if (deferred)
        definition.refused.push(["deferrable UNIQUE", `${name ?? ""}: it is checked at once here`]);
      definition.uniques.push({ name, parts, line });
      break;
    case "foreign key": {
      if (!isNode(tree.reference_definition)) throw notUnderstood();
      const columns = parts.map(plainColumn);
      const reference = referenceOf(tree.reference_definition, skeleton);
      definition.foreignKeys.push({ name: constraintName, columns, ...reference, deferred, line });
      break;
    }
    default:
      throw notUnderstood();
  }
}

type Reference = Pick<ForeignKey, "parent" | "parentColumns" | "onDelete" | "onUpdate" | "matchFull">;

function referenceOf(tree: Node, skeleton: Skeleton): Reference {
  const [table] = nodes(tree.table);
  if (table === undefined) throw notUnderstood();
  const name = nameIn(table.table, skeleton);
  if (name === undefined) throw notUnderstood();
  const parent: QualifiedName = { schema: nameIn(table.db, skeleton), name };
  const columns = nodes(tree.definition);
  const none = columns.length === 1 && columnIn(columns[0]!) === NO_COLUMN;
  const actions = new Map(
    nodes(tree.on_action).map((action) => [textIn(action, "type"), textIn(action, "value", "value")]),
  );
  return {
    parent,
    parentColumns: none ? [] : columns.map((node) => plainColumn(keyPartOf(node, skeleton))),
    onDelete: actionOf(actions.get("on delete")),
    onUpdate: actionOf(actions.get("on update")),
    matchFull: /full/i.test(String(tree.match)),
  };
}

function actionOf(action: string | undefined): string | undefined {
  if (action === undefined) return undefined;
  const lower = action.toLowerCase();
  if (!(lower in ACTIONS)) throw notUnderstood();
  return ACTIONS[lower];
}

export function keyPartOf(node: Node, skeleton: Skeleton): KeyPart {
  const placeholder = columnIn(node);
  if (placeholder === undefined) throw notUnderstood();
  const part = skeleton.part(placeholder);
  return { ...part, descending: /^desc$/i.test(String(node.order_by)) };
}

function partOf(column: string): KeyPart {
  return { column, expression: undefined, length: undefined, descending: false };
}

function plainColumn(part: KeyPart): string {
  if (part.column === undefined) throw notUnderstood();
  return part.column;
}

function nameIn(value: unknown, skeleton: Skeleton): string | undefined {
  if (value === null || value === undefined) return undefined;
  if (typeof value !== "string") throw notUnderstood();
  return skeleton.name(value);
}

function notUnderstood(): SyntaxError {
  return new SyntaxError("not understood");
}

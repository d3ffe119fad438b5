/** CREATE INDEX, through node-sql-parser as definitions are. */
import { type DdlParser, nodes, textIn } from "./ddl-parser.js";
import { keyPartOf } from "./definition-tree.js";
import type { Index } from "./schema.js";
import { Skeleton } from "./skeleton.js";
import type { QualifiedName, Token, TokenReader } from "./tokens.js";

/** Ways to index that find equal values and ranges, as SQLite's do. */
const ORDERED = new Set(["btree", "hash"]);

export type CreatedIndex =
  | { readonly table: QualifiedName; readonly index: Index }
  | { readonly table: QualifiedName; readonly refused: readonly [kind: string, name: string] };

/** After CREATE. Throws SyntaxError when it is not understood. */
export function readCreateIndex(reader: TokenReader, parser: DdlParser, line: number): CreatedIndex {
  const { family } = reader;
  const unique = reader.take("unique");
  const special = ["fulltext", "spatial", "vector"].find((word) => reader.take(word));
  reader.expect("index");
  reader.take("concurrently");
  reader.take("if", "not", "exists");
  let name = reader.is("on") ? undefined : reader.qualifiedName().name;
  let method = takeMethod(reader);
  reader.expect("on");
  reader.take("only");
  const table = reader.qualifiedName();
  method = takeMethod(reader) ?? method;
  const parts = reader.parenthesized();
  const where = takeWhere(reader);
  const shown = name ?? "an index without a name";
  if (special !== undefined)
    return { table, refused: [special === "fulltext" ? "full-text index" : `${special} index`, shown] };
  if (method !== undefined && !ORDERED.has(method)) return { table, refused: [`${method} index`, shown] };
  const skeleton = new Skeleton();
  skeleton.add(`CREATE ${unique ? "UNIQUE " : ""}INDEX i ON t`);
  skeleton.addKeyParts(parts, family);
  const tree = parser.statement(skeleton.text);
  const columns = nodes(tree?.index_columns);
  const isUnique = /^unique$/i.test(String(tree?.index_type));
  if (textIn(tree, "keyword") !== "index" || columns.length === 0 || isUnique !== unique) {
    throw new SyntaxError("not understood");
  }
  name ??= undefined;
  return {
    table,
    index: { name, parts: columns.map((node) => keyPartOf(node, skeleton)), line, unique, where },
  };
}

function takeMethod(reader: TokenReader): string | undefined {
  return reader.take("using") ? reader.next().value : undefined;
}

/** INCLUDE, WITH and the like only make an index faster. */
function takeWhere(reader: TokenReader): readonly Token[] | undefined {
  while (!reader.done) {
    if (reader.take("where")) return reader.rest();
    if (reader.is("(")) reader.parenthesized();
    else reader.next();
  }
  return undefined;
}

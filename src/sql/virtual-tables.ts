/**
 * What a program touches that opens or writes a virtual table: the table itself, which stands for its shadow tables too,
 * and for full text with its content elsewhere the tables that the content is read from. Content is never written by
 * the module. A module that is not known here may touch everything.
 */
import { lowerAscii, nameAt, TokenKind, type TokenList, tokenize, tokenText, wordAt } from "./tokenizer.js";
import { EVERY_TABLE, HEADER, SCHEMA, type SchemaOracle } from "./types.js";

export interface VirtualTouch {
  readonly reads: readonly string[];
  readonly writes: readonly string[];
}

const EVERYTHING: VirtualTouch = { reads: [EVERY_TABLE], writes: [EVERY_TABLE] };
const NOTHING: VirtualTouch = { reads: [], writes: [] };
/** Functions and eponymous tables that read nothing of the database. */
const TABLES_OF_NOTHING: readonly string[] = ["json_each", "json_tree", "jsonb_each", "jsonb_tree"];
/** Those of pragmas that look at the schema alone, or at the first range's header. */
const TABLES_OF_SCHEMA: readonly string[] = (
  "table_info table_xinfo table_list index_list index_info index_xinfo foreign_key_list collation_list function_list " +
  "module_list pragma_list compile_options database_list"
)
  .split(" ")
  .map((name) => `pragma_${name}`);
const TABLES_OF_HEADER: readonly string[] = ["pragma_user_version", "pragma_application_id"];
const OWN_TABLES = /^(FTS[345]|RTREE|RTREE_I32|GEOPOLY)$/;

type LookUp = (pointer: string) => VirtualTouch | undefined;

const byOracle = new WeakMap<SchemaOracle, LookUp>();

/** Learns which virtual table a pointer in EXPLAIN means, by explaining a read of each; once for an oracle. */
export function virtualTablesOf(oracle: SchemaOracle): LookUp {
  const known = byOracle.get(oracle);
  if (known !== undefined) return known;
  let byPointer: ReadonlyMap<string, VirtualTouch> | undefined;
  const lookUp: LookUp = (pointer) => {
    byPointer ??= learn(oracle);
    return byPointer.get(pointer);
  };
  byOracle.set(oracle, lookUp);
  return lookUp;
}

/** The virtual table that a shadow table belongs to, in lower case; other tables are their own. */
export function shadowOwner(table: string, oracle: SchemaOracle): string {
  if (oracle.table(table)?.kind !== "shadow") return table;
  for (let at = table.lastIndexOf("_"); at > 0; at = table.lastIndexOf("_", at - 1)) {
    const owner = table.slice(0, at);
    if (oracle.table(owner)?.kind === "virtual") return owner;
  }
  return table;
}

function learn(oracle: SchemaOracle): Map<string, VirtualTouch> {
  const found = new Map<string, VirtualTouch>();
  const add = (name: string, touch: VirtualTouch): void => {
    try {
      for (const op of oracle.explain(`SELECT * FROM ${quoted(name)}`))
        if (op.opcode === "VOpen" && op.p4 !== null) found.set(op.p4, touch);
    } catch {
      // Not in this build, or not readable without arguments: it stays unknown, and stands for everything.
    }
  };
  for (const name of TABLES_OF_NOTHING) add(name, NOTHING);
  for (const name of TABLES_OF_SCHEMA) add(name, { reads: [SCHEMA], writes: [] });
  for (const name of TABLES_OF_HEADER) add(name, { reads: [SCHEMA, HEADER], writes: [] });
  for (const { name, sql } of oracle.virtualTables?.() ?? []) add(name, touchOf(name, sql, oracle));
  return found;
}

function touchOf(name: string, sql: string, oracle: SchemaOracle): VirtualTouch {
  const tokens = tokenize(sql);
  const using = tokens.kinds.findIndex((_, i) => wordAt(tokens, i) === "USING");
  if (using < 0 || !OWN_TABLES.test(wordAt(tokens, using + 1))) return EVERYTHING;
  const own = lowerAscii(name);
  const content = contentOf(tokens, using + 2);
  if (content === undefined || content === "") return { reads: [own], writes: [own] };
  return { reads: [own, ...tablesRead(content, oracle)], writes: [own] };
}

/** Where content is said to be elsewhere. FTS5 takes the beginning of an option's name for the option. */
function contentOf(tokens: TokenList, from: number): string | undefined {
  for (let i = from; i + 1 < tokens.length; i++) {
    const option = wordAt(tokens, i);
    const given = option !== "" && "CONTENT".startsWith(option) && tokenText(tokens, i + 1) === "=";
    if (given && isArgumentStart(tokens, i)) return nameAt(tokens, i + 2) ?? "";
  }
  return undefined;
}

function isArgumentStart(tokens: TokenList, i: number): boolean {
  return tokens.kinds[i - 1] === TokenKind.LeftParen || tokens.kinds[i - 1] === TokenKind.Comma;
}

/** Tables that a read of a table or view reads. */
function tablesRead(name: string, oracle: SchemaOracle): readonly string[] {
  const tables = new Set<string>();
  try {
    for (const { opcode, p2, p3 } of oracle.explain(`SELECT * FROM main.${quoted(name)}`)) {
      if (opcode === "VOpen") return [EVERY_TABLE];
      if (opcode !== "OpenRead") continue;
      const table = p3 === 0 ? oracle.objectByRootPage(0, p2)?.table : undefined;
      if (table === undefined) return [EVERY_TABLE];
      tables.add(shadowOwner(lowerAscii(table), oracle));
    }
  } catch {
    // There is none, yet or any more: the module fails.
    return [EVERY_TABLE];
  }
  return [...tables];
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

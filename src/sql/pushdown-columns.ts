/**
 * Affinities and collations of a table's columns, from the text that made it: what SQLite does not tell of a column
 * without opening the database.
 */
import type { PushdownSchema } from "./pushdown-types.js";
import { type ColumnDefinition, type NameNode, STRICT_TABLE } from "./syntax.js";
import { lowerAscii, upperAscii } from "./tokenizer.js";

export type Affinity = "INTEGER" | "TEXT" | "REAL" | "NUMERIC" | "";

export interface ColumnFacts {
  readonly affinity: Affinity;
  /** Compared bytewise. */
  readonly binary: boolean;
}

/** By name in lower case; undefined when the text is not understood. */
export function columnFacts(
  table: string,
  schema: PushdownSchema,
): ReadonlyMap<string, ColumnFacts> | undefined {
  const text = schema.oracle.text?.(table);
  const parsed = text === undefined ? undefined : schema.parser.parse(text);
  if (parsed?.type !== "CreateTableStmt" || parsed.body.type !== "ColumnsAndConstraintsCreateTableBody")
    return undefined;
  const { columns, flags } = parsed.body;
  const strict = (flags & STRICT_TABLE) !== 0;
  return new Map(
    columns.map((column) => [
      lowerAscii(column.colName.text),
      { affinity: affinityOf(column.colType?.name, strict), binary: isBinary(column) },
    ]),
  );
}

/** By the rules of "Determination Of Column Affinity" in SQLite's documentation. */
export function affinityOf(type: string | undefined, strict = false): Affinity {
  const name = upperAscii(type ?? "");
  if (name === "" || (strict && name === "ANY")) return "";
  if (name.includes("INT")) return "INTEGER";
  if (name.includes("CHAR") || name.includes("CLOB") || name.includes("TEXT")) return "TEXT";
  if (name.includes("BLOB")) return "";
  if (name.includes("REAL") || name.includes("FLOA") || name.includes("DOUB")) return "REAL";
  return "NUMERIC";
}

function isBinary({ constraints }: ColumnDefinition): boolean {
  return constraints.every(({ constraint }) => {
    if (constraint.type !== "CollateColumnConstraint") return true;
    const { collationName } = constraint as unknown as { readonly collationName: NameNode };
    return upperAscii(collationName.text) === "BINARY";
  });
}

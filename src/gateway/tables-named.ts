/**
 * The tables that a statement's text names, itself or by the views that it names, for statements that SQLite cannot be
 * asked about here: those on system tables, which only a process has, and schema changes, whose program does not show the
 * rows they look at.
 */
import type { SchemaSnapshot } from "../machines/range/types.js";
import { namesIn, tokenize } from "../sql/tokenizer.js";
import type { Span } from "../sql/types.js";

/** `temp`: the texts of the session's TEMP objects. */
export function tablesNamed(
  sql: string,
  { tables, statements }: Pick<SchemaSnapshot, "tables" | "statements">,
  temp: readonly string[] = [],
): readonly Span[] {
  const names = namesIn(tokenize(sql));
  const views = [...statements, ...temp]
    .filter((text) => VIEW.test(text))
    // As SQLite keeps it: the name comes first, and may be any word.
    .map((text) => [...namesIn(tokenize(text.replace(VIEW, "")))]);
  // A view may name another one.
  for (let before = -1; before < names.size; ) {
    before = names.size;
    for (const [name = "", ...named] of views)
      if (names.has(name)) for (const other of named) names.add(other);
  }
  return tables
    .filter(({ name }) => names.has(name))
    .map(({ name }) => ({ table: name, low: undefined, high: undefined }));
}

const VIEW = /^\s*create\s+(temp\s+|temporary\s+)?view\b/i;

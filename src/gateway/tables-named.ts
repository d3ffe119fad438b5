/**
 * The tables that a statement's text names, for statements that SQLite cannot be asked about here: those on system
 * tables, which only a process has, and schema changes, whose program does not show the rows they look at. A view may
 * read any table.
 */
import type { TableKey } from "../placement/descriptor.js";
import { lowerAscii, nameAt, tokenize } from "../sql/tokenizer.js";
import type { Span } from "../sql/types.js";

export function tablesNamed(sql: string, tables: readonly TableKey[]): readonly Span[] {
  const tokens = tokenize(sql);
  const names = new Set<string>();
  for (let i = 0; i < tokens.length; i++) {
    const name = nameAt(tokens, i);
    if (name !== undefined) names.add(lowerAscii(name));
  }
  return tables
    .filter(({ name }) => names.has(name))
    .map(({ name }) => ({ table: name, low: undefined, high: undefined }));
}

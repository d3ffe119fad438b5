/**
 * A blob takes twice its bytes as a literal, and a text with quotes more than its own: an INSERT of a dump may be longer
 * than a statement may be although its row is not. Sent with the long literals as parameters it is as long as the row.
 */
import type { InputValue, StatementInput } from "../driver/types.js";
import { Tokenizer, TokenKind } from "../sql/tokenizer.js";

/** Shorter statements are within the limit, whatever their characters. */
const LONG_STATEMENT = 4 * 1024 * 1024;
const LONG_LITERAL = 64 * 1024;
const INSERT = /^(?:insert|replace)\b/i;
const VALUES = /^values$/i;

/** The same statement. Only what follows VALUES is looked at: there a literal is a value. */
export function bindLongLiterals(sql: string): string | StatementInput {
  if (sql.length < LONG_STATEMENT || !INSERT.test(sql)) return sql;
  const args: InputValue[] = [];
  let shorter = "";
  let done = 0;
  let inValues = false;
  const tokens = new Tokenizer(sql);
  while (tokens.nextSignificant()) {
    const { kind, start, end } = tokens;
    if (kind === TokenKind.Variable) return sql;
    if (kind === TokenKind.Word) inValues ||= VALUES.test(sql.slice(start, end));
    const literal = kind === TokenKind.String || kind === TokenKind.Blob;
    if (!literal || !inValues || end - start < LONG_LITERAL) continue;
    shorter += `${sql.slice(done, start)}?`;
    done = end;
    args.push(
      kind === TokenKind.Blob
        ? Buffer.from(sql.slice(start + 2, end - 1), "hex")
        : sql.slice(start + 1, end - 1).replaceAll("''", "'"),
    );
  }
  return { sql: shorter + sql.slice(done), args };
}

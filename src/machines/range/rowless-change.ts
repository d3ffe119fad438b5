/**
 * Changes of the schema that do on every range what they do on one: whether they can be made depends on the schema alone,
 * which all ranges share, and not on their rows. What is not known to be one is none.
 */
import { TokenKind, tokenize, wordAt } from "../../sql/tokenizer.js";

const MADE = new Set(["VIEW", "TRIGGER", "TABLE"]);
const DROPPED = new Set([...MADE, "INDEX"]);

/** Where no table is virtual, and foreign keys are not enforced. */
export function isRowless(sql: string): boolean {
  const tokens = tokenize(sql);
  const what = wordAt(tokens, 1);
  if (wordAt(tokens, 0) === "DROP") return DROPPED.has(what);
  if (wordAt(tokens, 0) !== "CREATE" || !MADE.has(what)) return false;
  if (what !== "TABLE") return true;
  // CREATE TABLE .. AS SELECT puts rows into it.
  const columns = tokens.kinds.indexOf(TokenKind.LeftParen);
  return columns > 0 && !tokens.kinds.slice(0, columns).some((_, i) => wordAt(tokens, i) === "AS");
}

/**
 * The last look at a text before it is applied: what would break the batch around it, or answer differently on two
 * replicas, is refused here even if every check before the log let it pass. Refusing is deterministic.
 */
import { UserError } from "../../base/errors.js";
import { identifierAt } from "../../sql/rewrite.js";
import { lowerAscii, TokenKind, tokenize } from "../../sql/tokenizer.js";
import { firstWord } from "./parameters.js";

/** Verbs that act on more than rows and schema. What SQLite does not know at all gets its own syntax error. */
const CONTROL = new Set([
  "begin",
  "commit",
  "end",
  "rollback",
  "savepoint",
  "release",
  "attach",
  "detach",
  "vacuum",
  "pragma",
]);

/** Any text that has none of these is let pass without a closer look. */
const SUSPECT = /total_changes|pragma_|dbstat|_ostraka_/i;
/** Our own tables; the views that stand for sqlite_schema may be read. */
const HIDDEN = /^_ostraka_(?!schema_(rowid_)?view$)/;
const checked = new Map<string, UserError | undefined>();
const MAX_CHECKED = 1024;

/** Pragmas that only answer. Others act, some as soon as they are prepared. */
const ANSWERING_PRAGMA =
  /^\s*pragma\s+(main\s*\.\s*|temp\s*\.\s*)?(table_info|table_xinfo|table_list|index_list|index_info|index_xinfo|foreign_key_list|foreign_key_check|collation_list|function_list|compile_options)\b/i;

/** For statements run outside the log: no control of transactions, no pragma that acts. Writes need `refuseAtApply` too. */
export function refuseAtRead(sql: string): void {
  const word = firstWord(sql);
  if (word === "pragma" && ANSWERING_PRAGMA.test(sql)) return;
  // EXPLAIN PRAGMA acts as well: pragmas do when they are prepared.
  const explainsPragma = word === "explain" && /\bpragma\b/i.test(withoutQuotes(sql));
  if (!CONTROL.has(word) && !explainsPragma) return;
  throw new UserError("OSTRAKA_UNSUPPORTED", `${word.toUpperCase()} cannot run here`);
}

export function refuseAtApply(sql: string): void {
  let refusal: UserError | undefined;
  if (checked.has(sql)) refusal = checked.get(sql);
  else {
    refusal = judge(sql);
    if (checked.size >= MAX_CHECKED) checked.clear();
    if (sql.length < 4096) checked.set(sql, refusal);
  }
  if (refusal !== undefined) throw refusal;
}

/** Without text literals and comments; quoted names stay. */
function withoutQuotes(sql: string): string {
  return sql.replace(/'(?:[^']|'')*'|--[^\n]*|\/\*[\s\S]*?\*\//g, " ");
}

function judge(sql: string): UserError | undefined {
  const word = firstWord(sql);
  if (CONTROL.has(word) || word === "explain")
    return new UserError("OSTRAKA_UNSUPPORTED", `${word.toUpperCase()} cannot be applied`);
  if (!SUSPECT.test(sql)) return undefined;
  const tokens = tokenize(sql);
  for (let i = 0; i < tokens.length; i++) {
    const name = lowerAscii(identifierAt(tokens, i) ?? "");
    if (HIDDEN.test(name)) return new UserError("SQLITE_ERROR", `no such table: ${name}`);
    const local = localName(name, tokens.kinds[i + 1] === TokenKind.LeftParen);
    if (local !== undefined)
      return new UserError(
        "OSTRAKA_UNSUPPORTED",
        `${local} differs between replicas and cannot be used in a write`,
      );
  }
  return undefined;
}

/**
 * What depends on this connection's or this file's past: how many rows it has changed, where pages lie. The pragmas
 * as table functions (`pragma_...`) answer from the connection, and some of them act.
 */
function localName(name: string, called: boolean): string | undefined {
  if (name === "total_changes" && called) return "total_changes()";
  return name === "dbstat" || /^pragma_[a-z_]/.test(name) ? name : undefined;
}

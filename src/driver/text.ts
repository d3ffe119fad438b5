/**
 * What the driver must know of a statement's text, told from its first word: whether it ends or opens a transaction,
 * may insert, or surely writes nothing. Anything not recognised is taken for a write, which costs an idempotency key
 * and nothing else. The server decides what a statement is; this only chooses how to send it again.
 */
import { TokenKind, tokenize, tokenText, wordAt } from "../sql/tokenizer.js";

export type Word = "begin" | "commit" | "rollback" | "savepoint" | "release" | "insert" | "query" | "other";

const WORDS: Readonly<Record<string, Word>> = {
  begin: "begin",
  commit: "commit",
  end: "commit",
  rollback: "rollback",
  savepoint: "savepoint",
  release: "release",
  insert: "insert",
  replace: "insert",
  select: "query",
  values: "query",
  explain: "query",
};

/** Longer ones are not worth the look. */
const LONGEST_WITH = 100_000;
const VERBS: ReadonlySet<string> = new Set(["select", "values", "insert", "replace", "update", "delete"]);

export function firstWord(sql: string): Word {
  let at = skipBlank(sql, 0);
  const start = at;
  for (; at < sql.length; at++) {
    const lower = sql.charCodeAt(at) | 32;
    if (lower < 97 || lower > 122) break;
  }
  // The longest word of interest.
  if (at === start || at - start > 9) return "other";
  const word = sql.slice(start, at).toLowerCase();
  return word === "with" ? wordAfterWith(sql) : (WORDS[word] ?? "other");
}

/** What a WITH clause is followed by: the first verb outside parentheses. */
function wordAfterWith(sql: string): Word {
  if (sql.length > LONGEST_WITH) return "other";
  const tokens = tokenize(sql);
  let depth = 0;
  for (let i = 0; i < tokens.length; i++) {
    const text = tokenText(tokens, i);
    if (text === "(") depth++;
    else if (text === ")") depth--;
    else if (depth === 0 && tokens.kinds[i] === TokenKind.Word && VERBS.has(text.toLowerCase()))
      return WORDS[text.toLowerCase()] ?? "other";
  }
  return "other";
}

/** Past spaces, semicolons and comments. */
function skipBlank(sql: string, from: number): number {
  let at = from;
  for (;;) {
    const code = sql.charCodeAt(at);
    if (code === 32 || (code >= 9 && code <= 13) || code === 59 || code === 0xfeff) at++;
    else if (code === 45 && sql.charCodeAt(at + 1) === 45) {
      const end = sql.indexOf("\n", at);
      if (end < 0) return sql.length;
      at = end + 1;
    } else if (code === 47 && sql.charCodeAt(at + 1) === 42) {
      const end = sql.indexOf("*/", at + 2);
      if (end < 0) return sql.length;
      at = end + 2;
    } else return at;
  }
}

/** ROLLBACK TO leaves the transaction open: ROLLBACK [TRANSACTION [name]] TO. */
export function endsTransaction(sql: string): "commit" | "rollback" | undefined {
  const word = firstWord(sql);
  if (word === "commit") return "commit";
  if (word !== "rollback") return undefined;
  const tokens = tokenize(sql);
  const first = tokens.kinds.findIndex((kind) => kind !== TokenKind.Semicolon);
  return [1, 2, 3].some((i) => wordAt(tokens, first + i) === "TO") ? undefined : "rollback";
}

/** Whether a statement may leave something behind in its session: TEMP objects, settings. */
export function leavesSessionState(sql: string): boolean {
  return /\b(temp|temporary|pragma|attach)\b/i.test(sql);
}

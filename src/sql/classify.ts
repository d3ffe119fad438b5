/**
 * Says from tokens alone what kind of thing a statement is, before anything is prepared: SQLite cannot be asked
 * first, because PRAGMA takes effect when it is prepared and because BEGIN, COMMIT and their like are ours to act on.
 *
 * Invariants
 * 1. Exactly one statement: a second one, or anything but comments and semicolons after the first, is an error here,
 *    never passed on (a smuggled COMMIT would end a batch).
 * 2. What this module acts on alone (transaction control, pragmas) is checked to its last token by SQLite's grammar,
 *    with SQLite's messages. Everything else is only told apart by its verb; SQLite judges the rest at prepare.
 */
import { UserError } from "../base/errors.js";
import { RESERVED_WORDS } from "./keywords.js";
import { statementEnd } from "./splitter.js";
import { lowerAscii, nameAt, TokenKind, type TokenList, tokenize, tokenText, wordAt } from "./tokenizer.js";
import type { StatementClass } from "./types.js";

/** One statement out of a text, without the semicolons and comments around it. */
export interface ParsedStatement {
  /** The statement's own text: from its first token to its last. "" when there is none. */
  readonly sql: string;
  /** Its tokens; positions are those of `sql`. */
  readonly tokens: TokenList;
}

/** The only statement in `text`. Throws UserError when there is more than one; an empty one has no tokens. */
export function singleStatement(text: string): ParsedStatement {
  const tokens = tokenize(text);
  let from = 0;
  while (tokens.kinds[from] === TokenKind.Semicolon) from++;
  const end = statementEnd(tokens, from);
  for (let i = end; i < tokens.length; i++) {
    if (tokens.kinds[i] !== TokenKind.Semicolon) {
      throw new UserError(
        "SQLITE_MISUSE",
        `more than one statement: the second begins at "${clip(text.slice(tokens.starts[i]!))}"`,
      );
    }
  }
  if (end === from) return { sql: "", tokens: tokenize("") };
  const start = tokens.starts[from]!;
  // A comment behind the last token is part of the last column's name, and of a stored view.
  const last = tokens.ends[end - 1]!;
  const behind = text.slice(last, tokens.starts[end]).split("\0", 1)[0]!;
  const stop = last + behind.trimEnd().length;
  if (start === 0 && end === tokens.length && stop === text.length) return { sql: text, tokens };
  const sql = text.slice(start, stop);
  return {
    sql,
    tokens: {
      text: sql,
      length: end - from,
      kinds: tokens.kinds.slice(from, end),
      starts: tokens.starts.slice(from, end).map((at) => at - start),
      ends: tokens.ends.slice(from, end).map((at) => at - start),
    },
  };
}

/** The class of the only statement in `text`. Throws UserError with SQLite's message for what SQLite cannot begin with. */
export function classify(text: string): StatementClass {
  return classifyTokens(singleStatement(text).tokens);
}

export function classifyTokens(tokens: TokenList): StatementClass {
  if (tokens.length === 0) return { kind: "empty" };
  const verb = wordAt(tokens, 0);
  switch (verb) {
    case "SELECT":
    case "VALUES":
      return { kind: "select" };
    case "INSERT":
    case "REPLACE":
    case "UPDATE":
    case "DELETE":
      return { kind: "write" };
    case "WITH":
      return classifyWith(tokens);
    case "CREATE":
    case "DROP":
    case "ALTER":
      return { kind: "ddl", temp: isTempDdl(tokens, verb) };
    case "ATTACH":
      return { kind: "attach" };
    case "DETACH":
      return { kind: "detach" };
    case "ANALYZE":
      return { kind: "analyze" };
    case "REINDEX":
      return { kind: "reindex" };
    case "VACUUM":
      return { kind: "vacuum", into: wordAt(tokens, 1) === "INTO" || wordAt(tokens, 2) === "INTO" };
    case "EXPLAIN":
      return classifyExplain(tokens);
    case "PRAGMA":
      return classifyPragma(tokens);
    default:
      return classifyTransactionControl(tokens, verb);
  }
}

/** The index of the token after which the statement proper stands in EXPLAIN [QUERY PLAN]; 0 for anything else. */
export function explainedFrom(tokens: TokenList): number {
  if (wordAt(tokens, 0) !== "EXPLAIN") return 0;
  return wordAt(tokens, 1) === "QUERY" && wordAt(tokens, 2) === "PLAN" ? 3 : 1;
}

/**
 * The index of the verb (SELECT, VALUES, INSERT, REPLACE, UPDATE, DELETE) behind a WITH clause that begins at token
 * `from`; `from` itself where there is no WITH. Undefined when the clause is malformed.
 */
export function mainVerb(tokens: TokenList, from: number): number | undefined {
  if (wordAt(tokens, from) !== "WITH") return from;
  let i = from + 1;
  // RECURSIVE is itself allowed as a name: WITH recursive AS (...).
  if (wordAt(tokens, i) === "RECURSIVE" && wordAt(tokens, i + 1) !== "AS") {
    if (tokens.kinds[i + 1] !== TokenKind.LeftParen) i++;
  }
  for (;;) {
    if (nameAt(tokens, i) === undefined) return undefined;
    i++;
    if (tokens.kinds[i] === TokenKind.LeftParen) i = closingParen(tokens, i) + 1;
    if (wordAt(tokens, i) !== "AS") return undefined;
    i++;
    if (wordAt(tokens, i) === "NOT") i++;
    if (wordAt(tokens, i) === "MATERIALIZED") i++;
    if (tokens.kinds[i] !== TokenKind.LeftParen) return undefined;
    i = closingParen(tokens, i) + 1;
    if (tokens.kinds[i] !== TokenKind.Comma) return i < tokens.length ? i : undefined;
    i++;
  }
}

/** The index of the parenthesis that closes the one at `open`; the list's length when none does. */
export function closingParen(tokens: TokenList, open: number): number {
  let depth = 0;
  for (let i = open; i < tokens.length; i++) {
    const kind = tokens.kinds[i];
    if (kind === TokenKind.LeftParen) depth++;
    else if (kind === TokenKind.RightParen && --depth === 0) return i;
  }
  return tokens.length;
}

/** SQLite's own complaint about the token at `i`. */
export function syntaxError(tokens: TokenList, i: number): UserError {
  if (i >= tokens.length) return new UserError("SQLITE_ERROR", "incomplete input");
  const text = tokenText(tokens, i);
  return tokens.kinds[i] === TokenKind.Illegal
    ? new UserError("SQLITE_ERROR", `unrecognized token: "${text}"`)
    : new UserError("SQLITE_ERROR", `near "${text}": syntax error`);
}

function clip(text: string): string {
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}

function classifyWith(tokens: TokenList): StatementClass {
  const verb = mainVerb(tokens, 0);
  switch (verb === undefined ? "" : wordAt(tokens, verb)) {
    case "INSERT":
    case "REPLACE":
    case "UPDATE":
    case "DELETE":
      return { kind: "write" };
    default:
      // A SELECT, or something that SQLite refuses at prepare.
      return { kind: "select" };
  }
}

function classifyExplain(tokens: TokenList): StatementClass {
  const from = explainedFrom(tokens);
  if (from >= tokens.length) throw syntaxError(tokens, tokens.length);
  return { kind: "explain", queryPlan: from === 3 };
}

function isTempDdl(tokens: TokenList, verb: string): boolean {
  const second = wordAt(tokens, 1);
  if (verb === "CREATE" && (second === "TEMP" || second === "TEMPORARY")) return true;
  // The object's name follows its kind, and IF [NOT] EXISTS: CREATE UNIQUE INDEX IF NOT EXISTS temp.i ON t.
  let i = 1;
  while (DDL_WORDS.has(wordAt(tokens, i)) && tokens.kinds[i + 1] !== TokenKind.Dot) i++;
  if (tokens.kinds[i + 1] !== TokenKind.Dot) return false;
  return lowerAscii(nameAt(tokens, i) ?? "") === "temp";
}

const DDL_WORDS: ReadonlySet<string> = new Set([
  "TABLE",
  "INDEX",
  "UNIQUE",
  "VIEW",
  "TRIGGER",
  "VIRTUAL",
  "IF",
  "NOT",
  "EXISTS",
]);

function classifyTransactionControl(tokens: TokenList, verb: string): StatementClass {
  switch (verb) {
    case "BEGIN":
      return classifyBegin(tokens);
    case "COMMIT":
    case "END": {
      expectEnd(tokens, skipTransactionName(tokens, 1));
      return { kind: "commit" };
    }
    case "ROLLBACK": {
      const i = skipTransactionName(tokens, 1);
      if (wordAt(tokens, i) !== "TO") {
        expectEnd(tokens, i);
        return { kind: "rollback" };
      }
      return { kind: "rollback to", name: savepointName(tokens, i + 1) };
    }
    case "SAVEPOINT": {
      const name = expectName(tokens, 1);
      expectEnd(tokens, 2);
      return { kind: "savepoint", name: lowerAscii(name) };
    }
    case "RELEASE":
      return { kind: "release", name: savepointName(tokens, 1) };
    default:
      throw syntaxError(tokens, 0);
  }
}

function classifyBegin(tokens: TokenList): StatementClass {
  const second = wordAt(tokens, 1);
  switch (second) {
    case "DEFERRED":
    case "IMMEDIATE":
    case "EXCLUSIVE":
    case "CONCURRENT":
      expectEnd(tokens, skipTransactionName(tokens, 2));
      return {
        kind: "begin",
        mode: second.toLowerCase() as "deferred" | "immediate" | "exclusive" | "concurrent",
      };
    case "READ":
      if (wordAt(tokens, 2) !== "ONLY") throw syntaxError(tokens, 2);
      expectEnd(tokens, skipTransactionName(tokens, 3));
      return { kind: "begin", mode: "read only" };
    default:
      expectEnd(tokens, skipTransactionName(tokens, 1));
      return { kind: "begin", mode: "deferred" };
  }
}

/** [TRANSACTION [name]] */
function skipTransactionName(tokens: TokenList, at: number): number {
  if (wordAt(tokens, at) !== "TRANSACTION") return at;
  return isName(tokens, at + 1) ? at + 2 : at + 1;
}

/** [SAVEPOINT] name, to the end. SAVEPOINT is itself a possible name, and then only behind another SAVEPOINT. */
function savepointName(tokens: TokenList, at: number): string {
  const i = wordAt(tokens, at) === "SAVEPOINT" ? at + 1 : at;
  const name = expectName(tokens, i);
  expectEnd(tokens, i + 1);
  return lowerAscii(name);
}

function isName(tokens: TokenList, i: number): boolean {
  return nameAt(tokens, i) !== undefined && !RESERVED_WORDS.has(wordAt(tokens, i));
}

function expectName(tokens: TokenList, i: number): string {
  if (!isName(tokens, i)) throw syntaxError(tokens, i);
  return nameAt(tokens, i)!;
}

function expectEnd(tokens: TokenList, i: number): void {
  if (i < tokens.length) throw syntaxError(tokens, i);
}

/** PRAGMA [schema.]name [= value | (value)] */
function classifyPragma(tokens: TokenList): StatementClass {
  let i = 1;
  let name = expectName(tokens, i++);
  let schema: string | undefined;
  if (tokens.kinds[i] === TokenKind.Dot) {
    schema = lowerAscii(name);
    name = expectName(tokens, i + 1);
    i += 2;
  }
  const pragma = { kind: "pragma", schema, name: lowerAscii(name) } as const;
  if (i >= tokens.length) return { ...pragma, argument: undefined, assigned: false };
  const assigned = tokenText(tokens, i) === "=";
  if (!assigned && tokens.kinds[i] !== TokenKind.LeftParen) throw syntaxError(tokens, i);
  const [argument, after] = pragmaValue(tokens, i + 1);
  i = after;
  if (!assigned) {
    if (tokens.kinds[i] !== TokenKind.RightParen) throw syntaxError(tokens, i);
    i++;
  }
  expectEnd(tokens, i);
  return { ...pragma, argument, assigned };
}

function pragmaValue(tokens: TokenList, at: number): [value: string, after: number] {
  const word = wordAt(tokens, at);
  if (word === "ON" || word === "DELETE" || word === "DEFAULT") return [tokenText(tokens, at), at + 1];
  if (isName(tokens, at)) return [nameAt(tokens, at)!, at + 1];
  const sign = tokenText(tokens, at);
  const i = sign === "-" || sign === "+" ? at + 1 : at;
  const kind = tokens.kinds[i];
  if (kind !== TokenKind.Integer && kind !== TokenKind.Float) throw syntaxError(tokens, i);
  return [(sign === "-" ? "-" : "") + tokenText(tokens, i), i + 1];
}

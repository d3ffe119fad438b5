/**
 * Small changes to the user's own text: slices of it with other tokens put in, never SQL made from a tree.
 *
 * - `hideOurTables`: sqlite_schema and sqlite_master (and those of TEMP) are read through TEMP views that every
 *   connection has, which leave out our own tables; pragma_table_list through a query that does. An alias keeps
 *   `sqlite_master.name` meaning what it did. Functions of pragmas that are asked for a table of ours find none.
 * - `bindSession`: changes(), total_changes() and last_insert_rowid() at the top level become the session's values,
 *   but for last_insert_rowid() where the statement's own rows may have changed it: behind RETURNING, and in an INSERT of
 *   several rows. Names of result columns stay what they would have been.
 *
 * Invariant: text inside CREATE VIEW and CREATE TRIGGER is never changed: it is stored, and means what it says whenever
 * it runs.
 */
import { RESERVED_WORDS } from "./keywords.js";
import { lowerAscii, nameAt, TokenKind, type TokenList, tokenize, tokenText, wordAt } from "./tokenizer.js";

/** The second with a column `rowid`, for statements that name it: a view has none of its own. */
const SCHEMA_VIEWS = {
  main: ["_ostraka_schema_view", "_ostraka_schema_rowid_view"],
  temp: ["_ostraka_temp_schema_view", "_ostraka_temp_schema_rowid_view"],
} as const;

interface Edit {
  readonly at: number;
  readonly until: number;
  readonly text: string;
}

function applyEdits(sql: string, edits: readonly Edit[]): string {
  if (edits.length === 0) return sql;
  let out = "";
  let at = 0;
  for (const edit of edits.toSorted((a, b) => a.at - b.at || a.until - b.until)) {
    out += sql.slice(at, edit.at) + edit.text;
    at = edit.until;
  }
  return out + sql.slice(at);
}

const SCHEMA_TABLE = /^sqlite_(temp_)?(master|schema)$/i;

/** Tables and functions of which it matters that they are named, in quotes. Where a string stands takes long to tell. */
const NOTABLE = /^'(sqlite_|_ostraka_|pragma_|dbstat)/i;

/**
 * The name that stands at a token. SQLite takes a string for one where only a table can be named: FROM 'sqlite_master'.
 * Of such strings only those are answered that name something special.
 */
export function identifierAt(tokens: TokenList, i: number): string | undefined {
  if (tokens.kinds[i] !== TokenKind.String) return nameAt(tokens, i);
  if (!NOTABLE.test(tokenText(tokens, i))) return undefined;
  const qualifies = tokens.kinds[i + 1] === TokenKind.Dot;
  const qualified = tokens.kinds[i - 1] === TokenKind.Dot;
  if (qualifies || qualified || tablePlace(tokens, i) !== undefined) return nameAt(tokens, i);
  return undefined;
}

/** Which schema's table of contents is named at a token: SQLite takes sqlite_master of temp for sqlite_temp_master. */
export function schemaTableAt(tokens: TokenList, i: number): "main" | "temp" | undefined {
  const name = identifierAt(tokens, i);
  if (name === undefined) return undefined;
  const match = SCHEMA_TABLE.exec(name);
  if (match === null) return undefined;
  if (tokens.kinds[i - 1] !== TokenKind.Dot) return match[1] === undefined ? "main" : "temp";
  const schema = lowerAscii(nameAt(tokens, i - 2) ?? "");
  if (schema === "temp") return "temp";
  return schema === "main" && match[1] === undefined ? "main" : undefined;
}

/** CREATE VIEW and CREATE TRIGGER keep their text. */
export function keepsItsText(tokens: TokenList): boolean {
  if (wordAt(tokens, 0) !== "CREATE") return false;
  for (let i = 1; i <= 2; i++) if (/^(VIEW|TRIGGER)$/.test(wordAt(tokens, i))) return true;
  return false;
}

const TABLE_LIST = "pragma_table_list";
const TABLE_LIST_FILTER = " WHERE substr(name, 1, 8) <> '_ostraka'";
/** Of the columns of pragma_table_list, those that a query in its place has not. */
const HIDDEN_COLUMN = /\b(arg|_?rowid_?|oid)\b/i;
const ABOUT_A_TABLE = /^pragma_(table_(info|xinfo|list)|index_(list|info|xinfo)|foreign_key_list)$/i;

/** What tells of tables at tokens `first` to `last`, and what is read in its place. */
interface Teller {
  readonly first: number;
  readonly last: number;
  readonly instead: string;
}

function tellerAt(tokens: TokenList, i: number): Teller | undefined {
  const first = tokens.kinds[i - 1] === TokenKind.Dot ? i - 2 : i;
  const schema = schemaTableAt(tokens, i);
  if (schema !== undefined) {
    const rowid = /\b(_?rowid_?|oid)\b/i.test(tokens.text);
    const [view, rowidView] = SCHEMA_VIEWS[schema];
    return { first, last: i, instead: rowid ? rowidView : view };
  }
  if (lowerAscii(identifierAt(tokens, i) ?? "") !== TABLE_LIST || HIDDEN_COLUMN.test(tokens.text))
    return undefined;
  // It stands in such a query already.
  if (tokens.text.startsWith(TABLE_LIST_FILTER, tokens.ends[i])) return undefined;
  const called = tokens.kinds[i + 1] === TokenKind.LeftParen && tokens.kinds[i + 2] === TokenKind.RightParen;
  return {
    first,
    last: called ? i + 2 : i,
    instead: `(SELECT * FROM ${TABLE_LIST}${TABLE_LIST_FILTER})`,
  };
}

/** The argument of a pragma's function that names one of our tables. */
function ourArgument(tokens: TokenList, i: number): Edit | undefined {
  const argument = i + 2;
  if (tokens.kinds[i + 1] !== TokenKind.LeftParen || tokens.kinds[argument] !== TokenKind.String)
    return undefined;
  const ours = /^'_ostraka/i.test(tokenText(tokens, argument));
  if (!ours || !ABOUT_A_TABLE.test(nameAt(tokens, i) ?? "")) return undefined;
  return { at: tokens.starts[argument]!, until: tokens.ends[argument]!, text: "''" };
}

const MAY_TELL = /sqlite_(temp_)?(master|schema)|pragma_/i;

/** The text with what tells of our own tables kept from doing so; the same string when nothing would. */
export function hideOurTables(tokens: TokenList): string {
  const sql = tokens.text;
  if (!MAY_TELL.test(sql) || keepsItsText(tokens)) return sql;
  const aliased = new Map<number, Edit>();
  const edits: Edit[] = [];
  for (let i = 0; i < tokens.length; i++) {
    const argument = ourArgument(tokens, i);
    if (argument !== undefined) edits.push(argument);
    const teller = tellerAt(tokens, i);
    if (teller === undefined) continue;
    const { first, last, instead } = teller;
    const start = tokens.starts[first]!;
    if (tokens.kinds[i + 1] === TokenKind.Dot) {
      // main.sqlite_master.name: the alias has no schema.
      if (first < i) edits.push({ at: start, until: tokens.starts[i]!, text: "" });
      continue;
    }
    const position = tablePosition(tokens, first, last);
    if (position === undefined) continue;
    const alias = position === "operand" || hasAlias(tokens, last) ? "" : ` AS ${tokenText(tokens, i)}`;
    for (const column of resultColumnsAround(tokens, i, 0)) aliased.set(column.at, column);
    edits.push({ at: start, until: tokens.ends[last]!, text: instead + alias });
  }
  return applyEdits(sql, [...edits, ...aliased.values()]);
}

/** Whether a name stands where a table is read: in FROM, or (as an operand) behind IN. */
function tablePosition(tokens: TokenList, first: number, last: number): "source" | "operand" | undefined {
  if (tokens.kinds[last + 1] === TokenKind.LeftParen) return undefined;
  return wordAt(tokens, first - 2) === "DELETE" ? undefined : tablePlace(tokens, first);
}

/** The same for whatever begins at a token: tables that are deleted from, and functions that answer tables, too. */
function tablePlace(tokens: TokenList, first: number): "source" | "operand" | undefined {
  switch (wordAt(tokens, first - 1)) {
    case "FROM":
      return wordAt(tokens, first - 2) === "DISTINCT" ? undefined : "source";
    case "JOIN":
      return "source";
    case "IN":
      return "operand";
    default:
  }
  const before = tokens.kinds[first - 1];
  if (before === TokenKind.LeftParen) {
    // FROM (sqlite_master JOIN …): climb out of the parentheses.
    let open = first - 1;
    while (tokens.kinds[open - 1] === TokenKind.LeftParen) open--;
    const outer = wordAt(tokens, open - 1);
    if (outer === "FROM" || outer === "JOIN") return "source";
    return tokens.kinds[open - 1] === TokenKind.Comma && inFromClause(tokens, open - 1)
      ? "source"
      : undefined;
  }
  return before === TokenKind.Comma && inFromClause(tokens, first - 1) ? "source" : undefined;
}

/** Looks back from a comma for the clause that it stands in, at its own level of parentheses. */
function inFromClause(tokens: TokenList, comma: number): boolean {
  let depth = 0;
  for (let i = comma - 1; i >= 0; i--) {
    const kind = tokens.kinds[i];
    if (kind === TokenKind.RightParen) depth++;
    else if (kind === TokenKind.LeftParen) {
      if (depth === 0) return wordAt(tokens, i - 1) === "FROM" || wordAt(tokens, i - 1) === "JOIN";
      depth--;
    } else if (depth === 0 && kind === TokenKind.Word) {
      const word = wordAt(tokens, i);
      if (word === "FROM") return true;
      if (CLAUSES.has(word)) return false;
    }
  }
  return false;
}

const CLAUSES: ReadonlySet<string> = new Set([
  "SELECT",
  "WHERE",
  "GROUP",
  "HAVING",
  "ORDER",
  "LIMIT",
  "VALUES",
  "SET",
  "RETURNING",
  "INSERT",
  "UPDATE",
  "DELETE",
  "WINDOW",
]);
const JOIN_WORDS: ReadonlySet<string> = new Set([
  "CROSS",
  "FULL",
  "INNER",
  "LEFT",
  "NATURAL",
  "OUTER",
  "RIGHT",
  "INDEXED",
]);

function hasAlias(tokens: TokenList, i: number): boolean {
  const next = tokens.kinds[i + 1];
  if (next === TokenKind.QuotedName || next === TokenKind.String) return true;
  const word = wordAt(tokens, i + 1);
  if (word === "" || JOIN_WORDS.has(word)) return false;
  if (word === "AS") return true;
  if (word === "WINDOW" && wordAt(tokens, i + 3) === "AS") return false;
  return !RESERVED_WORDS.has(word);
}

export interface SessionValues {
  readonly changes: number;
  readonly totalChanges: number;
  readonly lastInsertRowid: bigint;
}

const SESSION_FUNCTION = /(total_)?changes|last_insert_rowid/i;

/** False only when no session value can be called for: `bindSession` would leave the text as it is. */
export function mayReadSessionValues(sql: string): boolean {
  return SESSION_FUNCTION.test(sql);
}

/**
 * The text with calls of changes(), total_changes() and last_insert_rowid() replaced by these values. Only for
 * SELECT, writes and CREATE TABLE … AS: other statements come back as they are.
 */
export function bindSession(sql: string, values: SessionValues): string {
  if (!SESSION_FUNCTION.test(sql)) return sql;
  const tokens = tokenize(sql);
  const from = bindableFrom(tokens);
  if (from === undefined) return sql;
  const edits: Edit[] = [];
  const aliased = new Map<number, Edit>();
  const ordered = tokens.kinds.some((_, i) => wordAt(tokens, i) === "BY");
  const ownRowidFrom = insertsSeveral(tokens) ? 0 : returningAt(tokens);
  for (let i = from; i + 2 < tokens.length; i++) {
    const end = emptyCallEnd(tokens, i);
    const value = end === undefined ? undefined : sessionValue(tokens, i, ownRowidFrom, values);
    if (end === undefined || value === undefined) continue;
    // Parentheses keep `--5` from coming about; alone in ORDER BY or GROUP BY a literal would number a column.
    const text = ordered ? `(${value}|0)` : value.startsWith("-") ? `(${value})` : value;
    edits.push({ at: tokens.starts[i]!, until: tokens.ends[end]!, text });
    for (const column of resultColumnsAround(tokens, i, from)) aliased.set(column.at, column);
  }
  return applyEdits(sql, [...edits, ...aliased.values()]);
}

/** Behind it last_insert_rowid() is that of the row that was just inserted: SQLite's own, primed from the stamp. */
function returningAt(tokens: TokenList): number {
  const at = tokens.kinds.findIndex((_, i) => wordAt(tokens, i) === "RETURNING");
  return at < 0 ? tokens.length : at;
}

/** An INSERT of more than one tuple of VALUES: each row sees the rowid of the one before, so SQLite's own again. */
function insertsSeveral(tokens: TokenList): boolean {
  let depth = 0;
  const outer: number[] = [];
  tokens.kinds.forEach((kind, i) => {
    if (kind === TokenKind.LeftParen) depth++;
    else if (kind === TokenKind.RightParen) depth--;
    else if (depth === 0) outer.push(i);
  });
  const verb = outer.findIndex((i) => VERBS.has(wordAt(tokens, i)));
  if (verb < 0 || !/^(INSERT|REPLACE)$/.test(wordAt(tokens, outer[verb]!))) return false;
  const source = outer.findIndex((i, at) => at > verb && /^(VALUES|SELECT|WITH)$/.test(wordAt(tokens, i)));
  if (source < 0) return false;
  if (wordAt(tokens, outer[source]!) !== "VALUES") return true;
  const behind = outer[source + 1];
  if (behind === undefined || tokens.kinds[behind] === TokenKind.Semicolon) return false;
  return !/^(RETURNING|ON)$/.test(wordAt(tokens, behind));
}

const VERBS: ReadonlySet<string> = new Set(["INSERT", "REPLACE", "SELECT", "UPDATE", "DELETE", "CREATE"]);

/** The last token of a call without arguments whose name is at `i`: f(), f(*), f(ALL), f(DISTINCT). */
function emptyCallEnd(tokens: TokenList, i: number): number | undefined {
  if (tokens.kinds[i] !== TokenKind.Word && tokens.kinds[i] !== TokenKind.QuotedName) return undefined;
  if (tokens.kinds[i + 1] !== TokenKind.LeftParen || tokens.kinds[i - 1] === TokenKind.Dot) return undefined;
  const inside = tokenText(tokens, i + 2);
  const end = inside === "*" || /^(all|distinct)$/i.test(inside) ? i + 3 : i + 2;
  return tokens.kinds[end] === TokenKind.RightParen ? end : undefined;
}

function sessionValue(
  tokens: TokenList,
  i: number,
  ownRowidFrom: number,
  values: SessionValues,
): string | undefined {
  switch (lowerAscii(nameAt(tokens, i)!)) {
    case "changes":
      return String(values.changes);
    case "total_changes":
      return String(values.totalChanges);
    case "last_insert_rowid":
      return i >= ownRowidFrom ? undefined : String(values.lastInsertRowid);
    default:
      return undefined;
  }
}

/** Where binding may begin: at the start of a query or write, behind AS in CREATE TABLE … AS; undefined for the rest. */
function bindableFrom(tokens: TokenList): number | undefined {
  switch (wordAt(tokens, 0)) {
    case "SELECT":
    case "VALUES":
    case "WITH":
    case "INSERT":
    case "REPLACE":
    case "UPDATE":
    case "DELETE":
      return 0;
    case "CREATE": {
      if (keepsItsText(tokens)) return undefined;
      for (let i = 2; i < tokens.length && tokens.kinds[i] !== TokenKind.LeftParen; i++) {
        if (wordAt(tokens, i) === "AS" && /^(SELECT|VALUES|WITH)$/.test(wordAt(tokens, i + 1))) return i + 1;
      }
      return undefined;
    }
    default:
      return undefined;
  }
}

/** Aliases for the result columns, at every level of parentheses, that hold token `i` and have no alias yet. */
function resultColumnsAround(tokens: TokenList, i: number, from: number): Edit[] {
  const edits: Edit[] = [];
  let at = i;
  for (;;) {
    let start: number | undefined;
    let depth = 0;
    let j = at - 1;
    for (; j >= from; j--) {
      const kind = tokens.kinds[j];
      if (kind === TokenKind.RightParen) depth++;
      else if (kind === TokenKind.LeftParen) {
        if (depth === 0) break;
        depth--;
      } else if (depth === 0) {
        const word = wordAt(tokens, j);
        if (word === "SELECT" || word === "RETURNING") {
          const edit = aliasFor(tokens, start ?? j + 1);
          if (edit !== undefined) edits.push(edit);
          break;
        }
        if (kind === TokenKind.Comma) start ??= j + 1;
        else if (word !== "" && (CLAUSES.has(word) || word === "FROM")) break;
      }
    }
    // Out of the parentheses that enclose this level.
    depth = 0;
    for (; j >= from; j--) {
      const kind = tokens.kinds[j];
      if (kind === TokenKind.RightParen) depth++;
      else if (kind === TokenKind.LeftParen && depth-- === 0) break;
    }
    if (j < from) return edits;
    at = j;
  }
}

function aliasFor(tokens: TokenList, at: number): Edit | undefined {
  let start = at;
  if (/^(DISTINCT|ALL)$/.test(wordAt(tokens, start))) start++;
  let depth = 0;
  let end = start;
  for (; end < tokens.length; end++) {
    const kind = tokens.kinds[end];
    if (kind === TokenKind.LeftParen) depth++;
    else if (kind === TokenKind.RightParen && depth-- === 0) break;
    else if (depth > 0) continue;
    else if (kind === TokenKind.Comma || kind === TokenKind.Semicolon) break;
    else {
      const word = wordAt(tokens, end);
      if (word === "AS") return undefined;
      if (word !== "" && (CLAUSES.has(word) || COMPOUND.has(word) || word === "FROM")) break;
    }
  }
  if (endsInAlias(tokens, start, end)) return undefined;
  const stop = tokens.ends[end - 1]!;
  const name = tokens.text.slice(tokens.starts[start]!, stop);
  return { at: stop, until: stop, text: ` AS "${name.replaceAll('"', '""')}"` };
}

const COMPOUND: ReadonlySet<string> = new Set(["UNION", "EXCEPT", "INTERSECT"]);
const OPERATOR_WORDS: ReadonlySet<string> = new Set(
  "LIKE GLOB MATCH REGEXP ESCAPE BETWEEN AND OR NOT IS IN COLLATE THEN ELSE WHEN CASE DISTINCT FROM CAST".split(
    " ",
  ),
);

/** `expr name` without AS: a name right behind something that ends an operand. */
function endsInAlias(tokens: TokenList, start: number, end: number): boolean {
  const last = end - 1;
  if (last <= start) return false;
  const kind = tokens.kinds[last];
  if (kind === TokenKind.Word) {
    const word = wordAt(tokens, last);
    if (RESERVED_WORDS.has(word) || word === "END") return false;
  } else if (kind !== TokenKind.QuotedName && kind !== TokenKind.String) return false;
  switch (tokens.kinds[last - 1]) {
    case TokenKind.Word:
      return !OPERATOR_WORDS.has(wordAt(tokens, last - 1));
    case TokenKind.Operator:
    case TokenKind.Dot:
    case TokenKind.LeftParen:
      return false;
    default:
      return true;
  }
}

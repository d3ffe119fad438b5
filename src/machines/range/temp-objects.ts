/**
 * TEMP objects of a session as statements: SQLite keeps their text without the word TEMP (`CREATE TABLE x`), so
 * making them again elsewhere has to put it back.
 *
 * Rests on how SQLite stores text: "CREATE TABLE|VIEW|INDEX|UNIQUE INDEX|TRIGGER|VIRTUAL TABLE " and then the
 * user's own characters from the bare name on; IF NOT EXISTS and schema qualifiers are already gone.
 */
import { TokenKind, tokenize, wordAt } from "../../sql/tokenizer.js";

const STORED = /^\s*CREATE\s+(TABLE|VIEW|TRIGGER|VIRTUAL\s+TABLE|(?:UNIQUE\s+)?INDEX)\s+/i;

/** A statement that creates the same object in the TEMP schema. Text that already says TEMP stays as it is. */
export function asTemp(stored: string): string {
  const match = STORED.exec(stored);
  if (match === null) return stored;
  const rest = stored.slice(match[0].length);
  const kind = (match[1] as string).toUpperCase();
  // Indexes and virtual tables know no TEMP keyword: they are qualified. A qualified or IF NOT EXISTS text is the user's.
  if (kind === "TABLE" || kind === "VIEW" || kind === "TRIGGER") return `CREATE TEMP ${kind} ${rest}`;
  if (/^IF\s+NOT\s+EXISTS\b/i.test(rest) || /^(temp|"temp"|`temp`|\[temp\])\s*\./i.test(rest)) return stored;
  return `CREATE ${kind} temp.${rest}`;
}

/**
 * SQL that tells of a row `o` of the TEMP schema whether it is a trigger on a table of the shared database whose name a TEMP
 * object bears too: rows are in the order in which objects were made, and that one came later.
 */
export const IS_HIDDEN_BEHIND = `o.type = 'trigger' AND EXISTS (SELECT 1 FROM temp.sqlite_temp_schema later
  WHERE later.type IN ('table', 'view') AND later.name = o.tbl_name COLLATE NOCASE AND later.rowid > o.rowid)`;

/** The text of a trigger that is on a table of the shared database, whatever else is called so. */
export function onShared(trigger: string): string {
  const tokens = tokenize(trigger);
  const on = tokens.kinds.findIndex((_, i) => wordAt(tokens, i) === "ON");
  if (on < 0 || tokens.kinds[on + 2] === TokenKind.Dot) return trigger;
  const at = tokens.starts[on + 1]!;
  return `${trigger.slice(0, at)}main.${trigger.slice(at)}`;
}

/** Prefix of everything that is ours, not the session's. */
export const INTERNAL_PREFIX = "_ostraka_";

export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** SQL without comments, texts and quoted names. */
export function withoutQuoted(sql: string): string {
  return sql.replace(
    /--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)|'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]/g,
    " ",
  );
}

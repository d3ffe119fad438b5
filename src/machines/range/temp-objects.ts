/**
 * TEMP objects of a session as statements: SQLite keeps their text without the word TEMP (`CREATE TABLE x`), so
 * making them again elsewhere has to put it back.
 *
 * Rests on how SQLite stores text: "CREATE TABLE|VIEW|INDEX|UNIQUE INDEX|TRIGGER|VIRTUAL TABLE " and then the
 * user's own characters from the bare name on; IF NOT EXISTS and schema qualifiers are already gone.
 */

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

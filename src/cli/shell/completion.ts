/**
 * What Tab offers: commands after a dot or backslash, file names where a command wants one, and elsewhere keywords
 * and the names of tables, views and columns. Names are read from the schema when it may have changed.
 */
import { readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { KEYWORDS, RESERVED_WORDS } from "../../sql/keywords.js";
import { nameLiteral } from "../format/literals.js";
import { FORMATS } from "../format/printer.js";
import { metaCommandNames } from "./meta.js";
import type { Shell } from "./shell.js";

export interface SchemaNames {
  readonly tables: readonly string[];
  readonly columns: readonly string[];
}

export const NO_NAMES: SchemaNames = { tables: [], columns: [] };

/** More columns than this are of no help to anybody. */
const MAX_COLUMNS = 10_000;

export async function readSchemaNames(shell: Shell): Promise<SchemaNames> {
  const tables = await shell.query(
    "select name from sqlite_schema where type in ('table','view') union select name from sqlite_temp_schema where type in ('table','view')",
  );
  const columns = await shell.query(
    "select distinct i.name from sqlite_schema s, pragma_table_xinfo(s.name) i where s.type in ('table','view') " +
      `and s.name not like 'sqlite\\_%' escape '\\' order by 1 limit ${MAX_COLUMNS}`,
  );
  return { tables: tables.map((row) => String(row[0])), columns: columns.map((row) => String(row[0])) };
}

const FILE_COMMANDS = /^\s*(?:\.(?:read|output|once|import)|\\(?:i|include|o|out))\s/;
const TABLE_COMMANDS = /^\s*(?:\.(?:schema|dump|indexes|tables)|\\(?:d|dt|dv|di))\s/;

/** For node:readline: the candidates, and the part of the line that they complete. */
export function complete(line: string, names: SchemaNames): [candidates: string[], completed: string] {
  if (/^[.\\]\S*$/.test(line)) return [matching(metaCommandNames(), line), line];
  if (FILE_COMMANDS.test(line)) {
    const path = /\S*$/.exec(line)?.[0] ?? "";
    return [fileNames(path), path];
  }
  const word = /[^\s(),;=<>+*/|]*$/.exec(line)?.[0] ?? "";
  if (/^\s*\.mode\s/.test(line)) return [matching([...FORMATS], word), word];
  const quoted = (name: string): string => nameLiteral(name, (w) => RESERVED_WORDS.has(w.toUpperCase()));
  const tables = names.tables
    .filter((name) => !name.startsWith("sqlite_") || word.startsWith("sqlite"))
    .map(quoted);
  if (TABLE_COMMANDS.test(line)) return [matching(tables, word), word];
  if (word === "") return [[], word];
  const dot = word.lastIndexOf(".");
  if (dot >= 0) {
    const rest = word.slice(dot + 1);
    return [matching(names.columns.map(quoted), rest), rest];
  }
  const candidates = new Set([...matching(tables, word), ...matching(names.columns.map(quoted), word)]);
  // Keywords in the case that was begun.
  const lower = word === word.toLowerCase();
  for (const keyword of matching(KEYWORDS, word)) candidates.add(lower ? keyword.toLowerCase() : keyword);
  return [[...candidates], word];
}

function matching(all: readonly string[], prefix: string): string[] {
  const wanted = prefix.toLowerCase();
  return all.filter((name) => name.toLowerCase().startsWith(wanted));
}

function fileNames(prefix: string): string[] {
  const directory = prefix.endsWith("/") ? prefix : dirname(prefix);
  const start = prefix.endsWith("/") ? "" : basename(prefix);
  try {
    return readdirSync(directory === "" ? "." : directory, { withFileTypes: true })
      .filter(
        (entry) => entry.name.startsWith(start) && (start.startsWith(".") || !entry.name.startsWith(".")),
      )
      .map((entry) => {
        const path = prefix.includes("/") ? join(directory, entry.name) : entry.name;
        return entry.isDirectory() ? `${path}/` : path;
      });
  } catch {
    return [];
  }
}

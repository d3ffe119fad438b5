/**
 * What is refused before SQLite is asked, from tokens: what cannot be replicated, what reaches outside the database, and
 * what would touch our own tables. Each refusal says what to do instead where there is something.
 */
import { UserError } from "../base/errors.js";
import { closingParen, mainVerb } from "./classify.js";
import { isReadablePragmaFunction } from "./pragmas.js";
import { lowerAscii, nameAt, TokenKind, type TokenList, tokenText, unquote, wordAt } from "./tokenizer.js";
import type { StatementClass } from "./types.js";

/** Names that begin so are ours: tables of the machine, hidden from users. */
export const INTERNAL_PREFIX = "_ostraka";
/** Names that begin so are system tables, which every node can answer. */
export const SYSTEM_PREFIX = "ostraka_";

export const SYSTEM_TABLES: ReadonlySet<string> = new Set([
  "ostraka_nodes",
  "ostraka_ranges",
  "ostraka_transactions",
  "ostraka_outbox",
  "ostraka_statements",
  "ostraka_settings",
]);

export function unsupported(message: string): UserError {
  return new UserError("OSTRAKA_UNSUPPORTED", message);
}

/** Throws UserError for statements that are refused whatever the schema. */
export function refuse(tokens: TokenList, statementClass: StatementClass): void {
  switch (statementClass.kind) {
    case "attach":
      throw unsupported(
        "ATTACH is not supported: a cluster has one database; use ostraka import to load another",
      );
    case "detach":
      throw unsupported("DETACH is not supported: there are no attached databases");
    case "vacuum":
      if (statementClass.into)
        throw unsupported("VACUUM INTO is not supported: use ostraka backup or ostraka dump");
      return;
    case "pragma":
      return;
    default:
  }
  const writes = statementClass.kind === "write" || statementClass.kind === "ddl";
  for (let i = 0; i < tokens.length; i++) {
    const kind = tokens.kinds[i];
    if (kind !== TokenKind.Word && kind !== TokenKind.QuotedName) continue;
    const name = lowerAscii(nameAt(tokens, i)!);
    if (name.startsWith(INTERNAL_PREFIX)) throw new UserError("SQLITE_ERROR", `no such table: ${name}`);
    if (name === "load_extension" && tokens.kinds[i + 1] === TokenKind.LeftParen) {
      throw unsupported("load_extension() is not supported");
    }
    if (name.startsWith("pragma_")) refusePragmaFunction(name, writes);
    if (name === "dbstat" && writes)
      throw unsupported("dbstat differs between replicas: it cannot feed a write");
    if (writes && name === "rootpage") {
      throw unsupported("root pages differ between replicas: rootpage cannot be used in a write");
    }
  }
  if (statementClass.kind === "ddl") refuseDdl(tokens);
}

function refusePragmaFunction(name: string, writes: boolean): void {
  const pragma = name.slice("pragma_".length);
  if (pragma === "") return;
  if (!isReadablePragmaFunction(pragma)) {
    throw unsupported(`${name}() is not supported: use PRAGMA ${pragma}`);
  }
  if (writes) throw unsupported(`${name} may differ between replicas: it cannot feed a write`);
}

function refuseDdl(tokens: TokenList): void {
  const name = createdOrChangedName(tokens);
  if (name !== undefined && lowerAscii(name).startsWith(SYSTEM_PREFIX)) {
    throw new UserError("SQLITE_ERROR", `object name reserved for internal use: ${name}`);
  }
  const what = constantContext(tokens);
  if (what === "index") refuseNow(tokens, 0, tokens.length, "an index");
  if (what !== "table") return;
  for (let i = 0; i < tokens.length; i++) {
    const word = wordAt(tokens, i);
    if ((word !== "CHECK" && word !== "AS") || tokens.kinds[i + 1] !== TokenKind.LeftParen) continue;
    const end = closingParen(tokens, i + 1);
    refuseNow(tokens, i + 1, end, word === "CHECK" ? "a CHECK constraint" : "a generated column");
  }
}

/** The object's name in CREATE, DROP and ALTER … RENAME TO. */
function createdOrChangedName(tokens: TokenList): string | undefined {
  const last = tokens.length - 1;
  if (
    wordAt(tokens, 0) === "ALTER" &&
    wordAt(tokens, last - 1) === "TO" &&
    wordAt(tokens, last - 2) === "RENAME"
  ) {
    return nameAt(tokens, last);
  }
  let i = 1;
  while (/^(TEMP|TEMPORARY|UNIQUE|VIRTUAL|TABLE|INDEX|VIEW|TRIGGER|IF|NOT|EXISTS)$/.test(wordAt(tokens, i)))
    i++;
  return nameAt(tokens, tokens.kinds[i + 1] === TokenKind.Dot ? i + 2 : i);
}

function constantContext(tokens: TokenList): "index" | "table" | undefined {
  const verb = wordAt(tokens, 0);
  for (let i = 1; i <= 3; i++) {
    const word = wordAt(tokens, i);
    if (word === "INDEX") return verb === "CREATE" ? "index" : undefined;
    if (word === "TABLE") return verb === "DROP" ? undefined : "table";
    if (!/^(TEMP|TEMPORARY|UNIQUE)$/.test(word)) return undefined;
  }
  return undefined;
}

const DATE_FUNCTIONS: ReadonlySet<string> = new Set([
  "date",
  "time",
  "datetime",
  "julianday",
  "unixepoch",
  "strftime",
  "timediff",
]);
const CURRENT = /^CURRENT_(DATE|TIME|TIMESTAMP)$/;

/** SQLite itself refuses these when they are evaluated; our own date functions are declared deterministic and would not. */
function refuseNow(tokens: TokenList, from: number, to: number, where: string): void {
  for (let i = from; i < to; i++) {
    const word = wordAt(tokens, i);
    if (CURRENT.test(word)) {
      throw new UserError("SQLITE_ERROR", `non-deterministic use of ${lowerAscii(word)}() in ${where}`);
    }
    const name = lowerAscii(nameAt(tokens, i) ?? "");
    if (!DATE_FUNCTIONS.has(name) || tokens.kinds[i + 1] !== TokenKind.LeftParen) continue;
    const end = closingParen(tokens, i + 1);
    let values = 0;
    let now = false;
    for (let j = i + 2; j < end; j++) {
      values++;
      const text =
        tokens.kinds[j] === TokenKind.String ? lowerAscii(unquote(tokenText(tokens, j))).trim() : "";
      if (text === "now" || text === "localtime" || text === "utc") now = true;
    }
    // Without a time value, or with only a format, the functions mean now.
    const needed = name === "strftime" ? 2 : 1;
    if (now || values < needed) {
      throw new UserError("SQLITE_ERROR", `non-deterministic use of ${name}() in ${where}`);
    }
  }
}

/**
 * A write whose victims depend on the order of a scan: which rows a LIMIT takes, which row OR IGNORE or OR FAIL meets
 * first. `looped` tells whether more than one row may be written.
 */
export function dependsOnScanOrder(tokens: TokenList, looped: boolean): boolean {
  const verb = mainVerb(tokens, 0);
  if (verb === undefined) return false;
  const word = wordAt(tokens, verb);
  if (word !== "UPDATE" && word !== "DELETE" && word !== "INSERT") return false;
  let limit = false;
  let order = false;
  let select = false;
  for (let i = verb; i < tokens.length; i++) {
    if (tokens.kinds[i] === TokenKind.LeftParen) i = closingParen(tokens, i);
    const here = wordAt(tokens, i);
    if (here === "LIMIT") limit = true;
    else if (here === "ORDER") order = true;
    else if (here === "SELECT") select = true;
  }
  if (word !== "INSERT" && limit && !order) return true;
  const lenient = wordAt(tokens, verb + 1) === "OR" && /^(IGNORE|FAIL)$/.test(wordAt(tokens, verb + 2));
  return lenient && looped && (word === "UPDATE" || select);
}

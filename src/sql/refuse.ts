/**
 * What is refused before SQLite is asked, from tokens: what cannot be replicated, what reaches outside the database, and
 * what would touch our own tables. Each refusal says what to do instead where there is something.
 */
import { UserError } from "../base/errors.js";
import { closingParen, mainVerb } from "./classify.js";
import { isReadablePragmaFunction } from "./pragmas.js";
import { identifierAt, schemaTableAt } from "./rewrite.js";
import { lowerAscii, nameAt, TokenKind, type TokenList, tokenText, wordAt } from "./tokenizer.js";
import type { StatementClass } from "./types.js";

/** Names that begin so are ours: tables of the machine, hidden from users. */
const INTERNAL_PREFIX = "_ostraka";
/** Names that begin so are system tables, which every node can answer. */
export const SYSTEM_PREFIX = "ostraka_";

export const SYSTEM_TABLES: ReadonlySet<string> = new Set([
  "ostraka_nodes",
  "ostraka_ranges",
  "ostraka_transactions",
  "ostraka_outbox",
  "ostraka_statements",
  "ostraka_trace",
  "ostraka_settings",
]);

export const ROOT_PAGES =
  "root pages are not the same on every replica: rootpage of sqlite_schema cannot be used";

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
      if (statementClass.into) throw unsupported("VACUUM INTO is not supported: use ostraka dump");
      return;
    case "pragma":
      return;
    default:
  }
  const writes = statementClass.kind === "write" || statementClass.kind === "ddl";
  if (statementClass.kind === "ddl") refuseDdl(tokens);
  const kept = statementClass.kind === "ddl" && makesViewOrTrigger(tokens);
  for (let i = 0; i < tokens.length; i++) {
    const given = identifierAt(tokens, i);
    if (given === undefined) continue;
    const name = lowerAscii(given);
    if (name.startsWith(INTERNAL_PREFIX)) throw new UserError("SQLITE_ERROR", `no such table: ${name}`);
    if (name === "load_extension" && tokens.kinds[i + 1] === TokenKind.LeftParen) {
      throw unsupported("load_extension() is not supported");
    }
    if (name.startsWith("pragma_")) refusePragmaFunction(name, writes);
    if (kept && SYSTEM_TABLES.has(name))
      throw unsupported(`${name} is there for statements that name it, not for views and triggers`);
    if (name === "dbstat" && writes)
      throw unsupported("dbstat differs between replicas: it cannot feed a write");
    if (name === "rootpage" && (writes || namesSchemaTable(tokens))) {
      throw unsupported(ROOT_PAGES);
    }
  }
  if (tokens.kinds.some((_, i) => ROWID.test(nameAt(tokens, i) ?? ""))) refuseRowidBesideStar(tokens);
  if (statementClass.kind === "write") refuseSystemTable(tokens);
}

const ROWID = /^(_?rowid_?|oid)$/i;

/** The view that stands for sqlite_schema shows its rowid only where it is named, and then as a column like others. */
function refuseRowidBesideStar(tokens: TokenList): void {
  const everything = tokens.kinds.some(
    (kind, i) =>
      kind === TokenKind.Operator &&
      tokenText(tokens, i) === "*" &&
      (tokens.kinds[i - 1] === TokenKind.Dot || /^(SELECT|DISTINCT|ALL)$/.test(wordAt(tokens, i - 1))),
  );
  if (everything && namesSchemaTable(tokens))
    throw unsupported("rowid of sqlite_schema cannot be used beside *: name the columns");
}

function namesSchemaTable(tokens: TokenList): boolean {
  return tokens.kinds.some((_, i) => schemaTableAt(tokens, i) !== undefined);
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
  const given = newName(tokens);
  if (given !== undefined && (isSystem(given) || isInternal(given))) throw reserved(given);
  const object = objectName(tokens);
  if (object !== undefined && isSystem(object)) throw reserved(object);
}

function makesViewOrTrigger(tokens: TokenList): boolean {
  const kind = wordAt(tokens, /^TEMP(ORARY)?$/.test(wordAt(tokens, 1)) ? 2 : 1);
  return wordAt(tokens, 0) === "CREATE" && (kind === "VIEW" || kind === "TRIGGER");
}

function isSystem(name: string): boolean {
  return lowerAscii(name).startsWith(SYSTEM_PREFIX);
}

/** The name of what Ostraka keeps beside a database's own objects. */
export function isInternal(name: string): boolean {
  return lowerAscii(name).startsWith(INTERNAL_PREFIX);
}

function reserved(name: string): UserError {
  return new UserError("SQLITE_ERROR", `object name reserved for internal use: ${name}`);
}

function refuseSystemTable(tokens: TokenList): void {
  const name = writtenName(tokens);
  if (name === undefined) return;
  if (SYSTEM_TABLES.has(lowerAscii(name)))
    throw new UserError("SQLITE_ERROR", `table ${name} may not be modified`);
  if (isInternal(name)) throw new UserError("SQLITE_ERROR", `no such table: ${name}`);
}

/** The table that INSERT, REPLACE, UPDATE or DELETE names. */
function writtenName(tokens: TokenList): string | undefined {
  const verb = mainVerb(tokens, 0);
  if (verb === undefined) return undefined;
  let i = verb + 1;
  if (wordAt(tokens, i) === "OR") i += 2;
  if (/^(INTO|FROM)$/.test(wordAt(tokens, i))) i++;
  return nameAt(tokens, tokens.kinds[i + 1] === TokenKind.Dot ? i + 2 : i);
}

/** The name that an object would get. */
function newName(tokens: TokenList): string | undefined {
  if (wordAt(tokens, 0) === "CREATE") return objectName(tokens);
  const to = tokens.length - 2;
  const renames = wordAt(tokens, to) === "TO" && wordAt(tokens, to - 1) === "RENAME";
  return wordAt(tokens, 0) === "ALTER" && renames ? nameAt(tokens, to + 1) : undefined;
}

/** The name behind CREATE, ALTER or DROP and the kind of the object. */
function objectName(tokens: TokenList): string | undefined {
  let i = 1;
  while (/^(TEMP|TEMPORARY|UNIQUE|VIRTUAL|TABLE|INDEX|VIEW|TRIGGER|IF|NOT|EXISTS)$/.test(wordAt(tokens, i)))
    i++;
  return nameAt(tokens, tokens.kinds[i + 1] === TokenKind.Dot ? i + 2 : i);
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

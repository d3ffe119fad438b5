/** DEFAULT values: literals, the present time, new UUIDs, and where a column's numbers come from. */
import { blobLiteral } from "../../format/literals.js";
import type { ColumnType } from "./column-type.js";
import { translate } from "./expression.js";
import { type Scope, Untranslatable, withoutOuterParentheses } from "./expression-types.js";
import type { Family } from "./lexer.js";
import type { Column } from "./schema.js";
import { isSymbol, isWord, type QualifiedName, type Token, TokenReader } from "./tokens.js";

/** A random UUID (version 4). */
const NEW_UUID =
  "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-' || " +
  "substr('89AB', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))";

const NOW = new Set(
  (
    "current_timestamp now localtimestamp localtime sysdate utc_timestamp statement_timestamp transaction_timestamp " +
    "clock_timestamp current_date curdate utc_date current_time curtime utc_time"
  ).split(" "),
);
const UUIDS = new Set(["uuid", "gen_random_uuid", "uuid_generate_v4"]);

/** The SQL after DEFAULT; undefined where there is to be none. Throws Untranslatable. */
export function defaultSql(tokens: readonly Token[], type: ColumnType, scope: Scope): string | undefined {
  const word = calledAlone(tokens, scope.family);
  if (word !== undefined && NOW.has(word)) return nowSql(type);
  if (word !== undefined && UUIDS.has(word)) return `(${NEW_UUID})`;
  const value = translate(tokens, scope);
  if (value.sql === "NULL") return undefined;
  if (value.constant !== true) return `(${withoutOuterParentheses(value.sql)})`;
  const { literal } = value;
  if (literal !== undefined && type.kind === "blob") return blobLiteral(Buffer.from(literal, "utf8"));
  const isNumber = literal !== undefined && /^-?\d{1,15}(?:\.\d+)?$/.test(literal);
  if (isNumber && (type.kind === "integer" || type.kind === "numeric" || type.kind === "real"))
    return literal;
  if (value.kind === "blob" && type.kind !== "blob") throw new Untranslatable("bytes as something else");
  if (value.kind === "boolean" && type.kind !== "boolean" && type.kind !== "integer") {
    throw new Untranslatable("a truth value as something else");
  }
  return value.sql;
}

/** The name of the function that all of this is a call of, without arguments that matter. */
function calledAlone(tokens: readonly Token[], family: Family): string | undefined {
  const reader = new TokenReader(tokens, family);
  let depth = 0;
  while (reader.take("(")) depth++;
  reader.take("pg_catalog", ".");
  reader.take("public", ".");
  const word = reader.next().value.toLowerCase();
  if (reader.is("(")) {
    const inside = reader.parenthesized();
    if (inside.length > 1 || (inside.length === 1 && inside[0]!.kind !== "number")) return undefined;
  }
  while (depth > 0 && reader.take(")")) depth--;
  return reader.done && depth === 0 ? word : undefined;
}

function nowSql(type: ColumnType): string {
  switch (type.time) {
    case "date":
      return "CURRENT_DATE";
    case "time":
    case "timetz":
      return "CURRENT_TIME";
    case "timestamp":
    case "timestamptz":
      return "CURRENT_TIMESTAMP";
    default:
      throw new Untranslatable("the present time in a column of another type");
  }
}

/** The sequence that gives the column's numbers: nextval('…'::regclass), or MariaDB's nextval(`…`). */
export function sequenceOf(column: Column, family: Family): QualifiedName | undefined {
  const tokens = column.default;
  if (column.sequence !== undefined) return column.sequence;
  if (tokens === undefined) return undefined;
  const reader = new TokenReader(tokens, family);
  reader.take("pg_catalog", ".");
  if (!reader.take("nextval")) return undefined;
  const [first] = reader.is("(") ? reader.parenthesized() : [];
  if (first?.kind === "string") return parseRegclass(first.value);
  if (family !== "mysql") return undefined;
  const named = new TokenReader(
    tokens.slice(2, -1).filter((token) => !isSymbol(token, ")")),
    family,
  );
  return isWord(named.peek(), "(") ? undefined : named.qualifiedName();
}

/** `public."Some_seq"`: the text of a name. */
export function parseRegclass(text: string): QualifiedName {
  const parts = [...text.matchAll(/"((?:[^"]|"")*)"|([^".]+)/g)].map(
    ([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain!.toLowerCase(),
  );
  const name = parts[parts.length - 1] ?? text;
  return { schema: parts[parts.length - 2], name };
}

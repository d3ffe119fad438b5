/** Keys as people write and read them: a table and values of its shard key. */
import { UserError } from "../../base/errors.js";
import { decodeKey, encodeKey, HOME_TABLE_ID, type Key } from "../../base/keys.js";
import type { SqlValue } from "../../base/values.js";
import type { TableKey } from "../../placement/descriptor.js";
import type { SchemaOracle } from "../../sql/types.js";

const INTEGER = /^[+-]?\d{1,19}$/;
const REAL = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/**
 * The keys at which to split, of a list of values separated by commas: values of one key that has several columns; of a
 * key that has one, each is a place of its own. Values are converted as SQLite converts what is stored in the columns,
 * and so are those in quotes: what is never stored is not in the order of what is. X'blob' is taken literally.
 */
export function splitKeys(table: TableKey, text: string, oracle: SchemaOracle): Key[] {
  if (table.shard === "home")
    throw new UserError("OSTRAKA_UNSUPPORTED", `the table ${table.name} stays whole in the first range`);
  const values = literals(text);
  if (values.length === 0) throw new UserError("OSTRAKA_CONFIG", "a value to split at is needed");
  if (table.shard === "rowid") return values.map((value) => encodeKey(table.id, [rowid(value)]));
  const types = declaredTypes(table, oracle);
  if (types.length === 1) return values.map((value) => encodeKey(table.id, [convert(value, types[0]!)]));
  if (values.length > types.length)
    throw new UserError(
      "OSTRAKA_CONFIG",
      `the key of ${table.name} has ${types.length} columns, and ${values.length} values are given`,
    );
  return [
    encodeKey(
      table.id,
      values.map((value, i) => convert(value, types[i]!)),
    ),
  ];
}

interface Literal {
  readonly text: string;
  /** What it surely is. */
  readonly exact: SqlValue | undefined;
}

function literals(text: string): Literal[] {
  const found: Literal[] = [];
  const pattern = /\s*(?:x'((?:[0-9a-f]{2})*)'|'((?:[^']|'')*)'|([^,']*))\s*(?:,|$)/giy;
  while (pattern.lastIndex < text.length) {
    const match = pattern.exec(text);
    if (match === null)
      throw new UserError("OSTRAKA_CONFIG", `${JSON.stringify(text)} is not a list of values`);
    const [, blob, quoted, plain] = match;
    if (blob !== undefined) found.push({ text: "", exact: Uint8Array.from(Buffer.from(blob, "hex")) });
    else if (quoted !== undefined) found.push({ text: "", exact: quoted.replaceAll("''", "'") });
    else found.push({ text: plain!.trim(), exact: undefined });
  }
  return found;
}

function rowid({ text, exact }: Literal): SqlValue {
  const value = typeof exact === "string" ? exact : text;
  if (!INTEGER.test(value))
    throw new UserError(
      "SQLITE_MISMATCH",
      `${JSON.stringify(value)} is not a whole number, as the table's keys are`,
    );
  const number = BigInt(value);
  if (BigInt.asIntN(64, number) !== number)
    throw new UserError("SQLITE_MISMATCH", `${value} is beyond the integers that keys can be`);
  return number;
}

function declaredTypes(table: TableKey, oracle: SchemaOracle): string[] {
  const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;
  const columns = table.keyColumns.map(quoted).join(", ");
  const { columnTypes } = oracle.prepare(`SELECT ${columns} FROM ${quoted(table.name)}`);
  return columnTypes.map((type) => (type ?? "").toUpperCase());
}

/** Column affinity (SQLite's "Determination Of Column Affinity"), as far as a text is converted by it. */
function convert({ text: plain, exact = plain }: Literal, type: string): SqlValue {
  const numeric = type.includes("INT") || !(/CHAR|CLOB|TEXT|BLOB/.test(type) || type === "");
  if (!numeric || typeof exact !== "string") return exact;
  // SQLite's white space.
  const text = exact.replace(/^[ \t\n\v\f\r]+|[ \t\n\v\f\r]+$/g, "");
  if (INTEGER.test(text)) {
    const number = BigInt(text);
    return BigInt.asIntN(64, number) === number ? number : Number(text);
  }
  if (!REAL.test(text)) return exact;
  const number = Number(text);
  return Number.isSafeInteger(number) && !/REAL|FLOA|DOUB/.test(type) ? BigInt(number) : number;
}

/** A key as people read it; undefined for the ends of the keyspace. */
export function describeKey(
  key: Key,
  tables: readonly TableKey[],
): { readonly table: string; readonly values: string } | undefined {
  if (key === "") return undefined;
  const { tableId, values, after } = decodeKey(key);
  const table =
    tables.find(({ id, shard }) => shard !== "home" && id === tableId)?.name ??
    (tableId === HOME_TABLE_ID ? "(whole tables)" : `(table ${tableId})`);
  return { table, values: values.map(describeValue).join(",") + (after ? "+" : "") };
}

function describeValue(value: SqlValue): string {
  if (value === null) return "NULL";
  if (value instanceof Uint8Array) return `X'${Buffer.from(value).toString("hex").toUpperCase()}'`;
  return String(value);
}

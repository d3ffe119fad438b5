/**
 * Types of MySQL and PostgreSQL as SQLite's. The declared type keeps its name where SQLite draws the right affinity from
 * it, so that a schema still reads as it was written; dates, JSON and UUIDs are TEXT, which they would not be by theirs.
 */
import type { Expression } from "./expression-types.js";
import type { Family } from "./lexer.js";
import { Schema } from "./schema.js";
import type { Token } from "./tokens.js";
import type { TypeName } from "./type-name.js";
import type { ValueKind } from "./value-kind.js";

export interface ColumnType {
  readonly declared: string;
  readonly kind: ValueKind;
  /** A date's or time's own type, by the name that both databases would understand. */
  readonly time?: string;
  /** The only values of an ENUM, or what those of a SET are made of. */
  readonly members?: { readonly of: "enum" | "set"; readonly values: readonly string[] };
  /** Counts by itself (SERIAL). */
  readonly serial?: boolean;
  /** What a domain adds. */
  readonly domain?: {
    readonly notNull: boolean;
    readonly default: readonly Token[] | undefined;
    readonly checks: readonly (readonly Token[])[];
  };
  /** What is lost: [kind, what]. */
  readonly note?: readonly [kind: string, what: string];
  /** Digits after the point, of exact decimals. */
  readonly scale?: number;
  /** Compares without case whatever its collation. */
  readonly ignoresCase?: boolean;
}

const INTEGER: ColumnType = { declared: "INTEGER", kind: "integer" };
const REAL: ColumnType = { declared: "REAL", kind: "real" };
const TEXT: ColumnType = { declared: "TEXT", kind: "text" };
const BLOB: ColumnType = { declared: "BLOB", kind: "blob" };

const MYSQL: Readonly<Record<string, ColumnType>> = {
  ...named(
    "tinyint smallint mediumint int integer bigint int1 int2 int3 int4 int8 middleint year bool boolean",
    INTEGER,
  ),
  serial: { ...INTEGER, serial: true },
  bit: { declared: "INTEGER", kind: "bit" },
  ...named("float double real float4 float8", REAL),
  "double precision": REAL,
  ...named("tinytext text mediumtext longtext json uuid inet4 inet6 xmltype", TEXT),
  ...named("long clob", TEXT),
  "long varchar": TEXT,
  ...named("binary varbinary tinyblob blob mediumblob longblob vector", BLOB),
  "long varbinary": BLOB,
  "char byte": BLOB,
  date: { declared: "TEXT", kind: "time", time: "date" },
  datetime: { declared: "TEXT", kind: "time", time: "timestamp" },
  timestamp: { declared: "TEXT", kind: "time", time: "timestamp" },
  time: { declared: "TEXT", kind: "time", time: "time" },
};

const POSTGRES: Readonly<Record<string, ColumnType>> = {
  ...named("smallint integer bigint int int2 int4 int8 oid xid cid", INTEGER),
  ...named("serial bigserial smallserial serial4 serial8 serial2", { ...INTEGER, serial: true }),
  ...named("real float float4 float8", REAL),
  "double precision": REAL,
  boolean: { declared: "BOOLEAN", kind: "boolean" },
  bool: { declared: "BOOLEAN", kind: "boolean" },
  ...named(
    "text json jsonb uuid xml name inet cidr macaddr macaddr8 interval money varbit bit jsonpath",
    TEXT,
  ),
  "bit varying": TEXT,
  bytea: BLOB,
  citext: { ...TEXT, ignoresCase: true },
  date: { declared: "TEXT", kind: "time", time: "date" },
  timestamp: { declared: "TEXT", kind: "time", time: "timestamp" },
  "timestamp without time zone": { declared: "TEXT", kind: "time", time: "timestamp" },
  "timestamp with time zone": { declared: "TEXT", kind: "timestamptz", time: "timestamptz" },
  timestamptz: { declared: "TEXT", kind: "timestamptz", time: "timestamptz" },
  time: { declared: "TEXT", kind: "time", time: "time" },
  "time without time zone": { declared: "TEXT", kind: "time", time: "time" },
  "time with time zone": { declared: "TEXT", kind: "time", time: "timetz" },
  timetz: { declared: "TEXT", kind: "time", time: "timetz" },
};

const DECIMAL = new Set(["decimal", "numeric", "dec", "fixed"]);
const CHARACTER = new Set(["char", "character", "nchar", "national char", "national character", "bpchar"]);
const VARYING = new Set([
  "varchar",
  "character varying",
  "char varying",
  "nvarchar",
  "nchar varying",
  "nchar varchar",
  "national varchar",
  "national char varying",
  "national character varying",
  "varchar2",
]);
const GEOMETRY =
  /^(?:geometry|point|linestring|polygon|multipoint|multilinestring|multipolygon|geometrycollection|geomcollection)$/;

/** A column of this type in an expression. */
export function columnExpression(sql: string, { kind, time, members, ignoresCase }: ColumnType): Expression {
  const order = members?.of === "enum" ? "members" : ignoresCase === true ? "no case" : undefined;
  return { sql, kind, time, order };
}

/** The type of a column as SQLite is to have it. Never fails: a type nobody knows is kept as text, and told of. */
export function resolveType(type: TypeName, schema: Schema, family: Family): ColumnType {
  if (type.array) return { ...TEXT, note: ["array", `${type.text}: kept as text, {…}`] };
  if (type.schema === undefined) {
    const known = builtIn(type, family);
    if (known !== undefined) return known;
  }
  const user = Schema.find(schema.types, { schema: type.schema, name: type.name });
  if (user?.kind === "enum") return { ...TEXT, members: { of: "enum", values: user.values } };
  if (user?.kind === "domain") {
    const base = resolveType(user.type, schema, family);
    return { ...base, domain: { notNull: user.notNull, default: user.default, checks: user.checks } };
  }
  return { ...TEXT, note: ["type without a counterpart", `${type.text}: kept as text`] };
}

function builtIn(type: TypeName, family: Family): ColumnType | undefined {
  const { name, sizes } = type;
  const size = sizes.length === 0 ? "" : `(${sizes.join(",")})`;
  if (DECIMAL.has(name)) {
    // MySQL's DECIMAL has no digits after the point unless told so, PostgreSQL's as many as it takes.
    const scale = sizes[1] ?? (sizes.length > 0 || family === "mysql" ? 0 : undefined);
    const declared = `${name === "decimal" ? "DECIMAL" : "NUMERIC"}${size}`;
    return scale === undefined ? { declared, kind: "numeric" } : { declared, kind: "numeric", scale };
  }
  if (VARYING.has(name)) return { declared: `VARCHAR${size}`, kind: "text" };
  if (CHARACTER.has(name)) {
    return { declared: `CHAR${size}`, kind: family === "postgresql" ? "padded" : "text" };
  }
  if (family === "postgresql") return POSTGRES[name];
  if (name === "enum" || name === "set") return { ...TEXT, members: { of: name, values: type.members } };
  if (GEOMETRY.test(name)) {
    return {
      ...BLOB,
      note: ["geometry", `${type.text}: kept as MySQL stores it, bytes that SQLite has no functions for`],
    };
  }
  return MYSQL[name];
}

function named(names: string, type: ColumnType): Record<string, ColumnType> {
  return Object.fromEntries(names.split(" ").map((name) => [name, type]));
}

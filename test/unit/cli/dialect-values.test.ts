/** Values and types of other databases as SQLite's. */
import { describe, expect, test } from "vitest";
import { decoderFor, decodeUtf8 } from "../../../src/cli/import/dialect/charset.js";
import { resolveType } from "../../../src/cli/import/dialect/column-type.js";
import type { Family } from "../../../src/cli/import/dialect/lexer.js";
import type { Literal } from "../../../src/cli/import/dialect/literal.js";
import { Schema } from "../../../src/cli/import/dialect/schema.js";
import { DumpSession } from "../../../src/cli/import/dialect/session.js";
import { readType } from "../../../src/cli/import/dialect/type-name.js";
import { utcTimestamp } from "../../../src/cli/import/dialect/utc.js";
import type { ValueKind } from "../../../src/cli/import/dialect/value-kind.js";
import { inputValue } from "../../../src/cli/import/dialect/values.js";

function read(family: Family, kind: ValueKind, literal: Literal): unknown {
  const losses: string[] = [];
  const context = { family, decode: decodeUtf8, loss: (what: string) => losses.push(what) };
  const value = inputValue(literal, { name: "c", kind }, context);
  const shown = value instanceof Uint8Array ? `x${Buffer.from(value).toString("hex")}` : value;
  return losses.length === 0 ? shown : [shown, losses[0]!.split(/[ ,]/)[0]];
}

const number = (text: string): Literal => ({ kind: "number", text });
const string = (bytes: string): Literal => ({ kind: "string", bytes });

describe("values", () => {
  test.each([
    ["integer", "00042", 42],
    ["integer", "-0", 0],
    ["integer", "9007199254740993", 9007199254740993n],
    ["integer", "-9223372036854775808", -(2n ** 63n)],
    ["integer", "18446744073709551615", [2 ** 64, "number"]],
    ["numeric", "0.10", 0.1],
    ["numeric", "1234567890123.45", 1234567890123.45],
    ["numeric", "12345678901234.5678", [12345678901234.568, "number"]],
    ["numeric", "0.30000000000000004", 0.30000000000000004],
    ["numeric", "00000000000000000001.50", 1.5],
    ["numeric", "1e400", Number.POSITIVE_INFINITY],
    ["numeric", "100000000000000000000000", 1e23],
    ["numeric", "123456789012345678", 123456789012345678n],
    ["real", "2.2250738585072014e-308", 2.2250738585072014e-308],
    ["text", "1.50", "1.50"],
    ["blob", "5", "5"],
  ] as const)("a number in a column of kind %s: %s", (kind, text, expected) => {
    expect(read("mysql", kind, number(text))).toEqual(expected);
    if (kind !== "blob") expect(read("postgresql", kind, string(text))).toEqual(expected);
  });

  test.each([
    ["postgresql", "boolean", string("t"), 1],
    ["postgresql", "boolean", { kind: "boolean", value: false }, 0],
    ["mysql", "integer", { kind: "boolean", value: true }, 1],
    ["postgresql", "numeric", string("NaN"), ["NaN", "NaN"]],
    ["postgresql", "real", string("-Infinity"), Number.NEGATIVE_INFINITY],
    ["postgresql", "padded", string("ab  "), "ab"],
    ["mysql", "text", string("ab  "), "ab  "],
    ["mysql", "bit", string("\x02\xaa"), 682],
    ["mysql", "bit", string("12"), 0x3132],
    ["mysql", "bit", { kind: "hex", digits: "02AA" }, 682],
    ["mysql", "bit", { kind: "bits", digits: "1010" }, 10],
    ["mysql", "integer", { kind: "hex", digits: "ff" }, 255],
    ["mysql", "blob", { kind: "hex", digits: "00ff" }, "x00ff"],
    ["mysql", "blob", { kind: "bits", digits: "100000001" }, "x0101"],
    ["mysql", "blob", string("\\x41"), "x5c783431"],
    ["postgresql", "blob", string("\\x41ff"), "x41ff"],
    ["postgresql", "blob", string("a\\\\b\\000\\377"), "x615c6200ff"],
    ["mysql", "text", { kind: "hex", digits: "c3bc" }, "ü"],
    ["mysql", "text", string("\u00c3\u00bc"), "ü"],
    ["postgresql", "text", { kind: "bits", digits: "0101" }, "0101"],
    ["postgresql", "timestamptz", string("2024-02-29 23:30:00.5-01"), "2024-03-01 00:30:00.5"],
    ["postgresql", "timestamptz", string("infinity"), ["infinity", "timestamp"]],
    ["mysql", "time", string("0000-00-00"), "0000-00-00"],
    ["mysql", "integer", null, null],
  ] as const)("%s, kind %s: %j", (family, kind, literal, expected) => {
    expect(read(family, kind, literal)).toEqual(expected);
  });

  test("what is no value of its column", () => {
    expect(() => read("mysql", "text", string("\u00e9"))).toThrow("not UTF-8 text");
    expect(() => read("mysql", "bit", string("\xff".repeat(8)))).toThrow("a number that SQLite cannot hold");
    expect(() => read("mysql", "text", { kind: "expression", bytes: "now()" })).toThrow("not a literal");
  });

  test("timestamps in UTC", () => {
    expect(utcTimestamp("2024-01-01 00:00:00+05:30")).toBe("2023-12-31 18:30:00");
    expect(utcTimestamp("1890-01-01 00:00:00.123456-00:25:21")).toBe("1890-01-01 00:25:21.123456");
    expect(utcTimestamp("0044-03-15 00:00:00+00")).toBe("0044-03-15 00:00:00");
    expect(utcTimestamp("0000-12-31 23:59:59+00")).toBe("0000-12-31 23:59:59");
    for (const other of [
      "0044-03-15 00:00:00+00 BC",
      "infinity",
      "12024-01-01 00:00:00+00",
      "9999-12-31 23:00:00-05",
    ]) {
      expect(utcTimestamp(other), other).toBeUndefined();
    }
  });

  test("encodings", () => {
    expect(decoderFor("utf8mb4", "mysql")!("\u00f0\u009f\u0098\u0080")).toBe("😀");
    expect(decoderFor("latin1", "mysql")!("\u0080\u0081\u00e9")).toBe("€\u0081é");
    expect(decoderFor("LATIN1", "postgresql")!("\u0080\u00e9")).toBe("\u0080é");
    expect(decoderFor("LATIN9", "postgresql")!("\u00a4")).toBe("€");
    expect(decoderFor("WIN1252", "postgresql")!("\u0093")).toBe("“");
    expect(decoderFor("KOI8R", "postgresql")!("\u00c1")).toBe("а");
    for (const name of ["gbk", "SJIS", "big5", "utf16", "GB18030"])
      expect(decoderFor(name, "mysql")).toBeUndefined();
  });
});

describe("types", () => {
  const typeOf = (family: Family, text: string): string => {
    const session = new DumpSession(family);
    const schema = new Schema();
    schema.types.set("public\0mood", { kind: "enum", values: ["a", "b"] });
    schema.types.set("public\0Pos", {
      kind: "domain",
      type: readType(session.reader("integer")),
      notNull: true,
      default: undefined,
      checks: [],
    });
    const reader = session.reader(text);
    const { declared, kind, note, members, domain } = resolveType(readType(reader), schema, family);
    const more = members === undefined ? "" : ` ${members.of}(${members.values})`;
    return `${declared} ${kind}${more}${domain?.notNull ? " not null" : ""}${note === undefined ? "" : ` (${note[0]})`}${reader.done ? "" : " …"}`;
  };

  test.each([
    ["int(10) unsigned zerofill", "INTEGER integer"],
    ["bigint", "INTEGER integer"],
    ["tinyint(1)", "INTEGER integer"],
    ["bit(10)", "INTEGER bit"],
    ["decimal(20,4) unsigned", "DECIMAL(20,4) numeric"],
    ["double precision", "REAL real"],
    ["float(7,3)", "REAL real"],
    ["varchar(20)", "VARCHAR(20) text"],
    ["national char varying(5)", "VARCHAR(5) text"],
    ["char(3)", "CHAR(3) text"],
    ["longtext", "TEXT text"],
    ["varbinary(16)", "BLOB blob"],
    ["enum('x','it''s',_utf8mb4'z')", "TEXT text enum(x,it's,z)"],
    ["set('a','b')", "TEXT text set(a,b)"],
    ["datetime(6)", "TEXT time"],
    ["year(4)", "INTEGER integer"],
    ["json", "TEXT text"],
    ["geometry", "BLOB blob (geometry)"],
    ["uuid", "TEXT text"],
    ["made_up", "TEXT text (type without a counterpart)"],
  ])("MySQL's %s", (text, expected) => {
    expect(typeOf("mysql", text)).toBe(expected);
  });

  test.each([
    ["integer", "INTEGER integer"],
    ["bigserial", "INTEGER integer"],
    ["numeric", "NUMERIC numeric"],
    ["numeric(10,2)", "NUMERIC(10,2) numeric"],
    ["double precision", "REAL real"],
    ["boolean", "BOOLEAN boolean"],
    ["character varying(20)", "VARCHAR(20) text"],
    ["character(5)", "CHAR(5) padded"],
    ["timestamp(3) with time zone", "TEXT timestamptz"],
    ["timestamp without time zone", "TEXT time"],
    ["time(3) without time zone", "TEXT time"],
    ["interval year to month", "TEXT text"],
    ["bit varying(5)", "TEXT text"],
    ["text[]", "TEXT text (array)"],
    ["integer[3][]", "TEXT text (array)"],
    ["bytea", "BLOB blob"],
    ["jsonb", "TEXT text"],
    ["public.mood", "TEXT text enum(a,b)"],
    ['public."Pos"', "INTEGER integer not null"],
    ["public.mood[]", "TEXT text (array)"],
    ["public.geometry(Point,4326)", "TEXT text (type without a counterpart)"],
    ["int4range", "TEXT text (type without a counterpart)"],
  ])("PostgreSQL's %s", (text, expected) => {
    expect(typeOf("postgresql", text)).toBe(expected);
  });
});

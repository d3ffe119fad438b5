/** Dumps cut into statements and rows, wherever the text that is at hand may end. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import type { Literal } from "../../../src/cli/import/dialect/literal.js";
import { DumpScanner } from "../../../src/cli/import/dialect/scanner.js";
import { type Dialect, DumpSession } from "../../../src/cli/import/dialect/session.js";
import { SourceText } from "../../../src/cli/import/dialect/source-text.js";

const folder = mkdtempSync(join(tmpdir(), "ostraka-dialect-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;

interface Scanned {
  readonly kind: string;
  readonly text: string;
  readonly line: number;
  readonly rows?: readonly { readonly values: readonly Literal[]; readonly line: number }[];
}

/** `readRows` false: they are passed over. */
async function scan(
  dialect: Dialect,
  content: string | Uint8Array,
  chunkBytes?: number,
  readRows = true,
): Promise<Scanned[]> {
  const path = join(folder, `${files++}.sql`);
  writeFileSync(path, content);
  const source = await SourceText.open(path, undefined, chunkBytes);
  try {
    const session = new DumpSession(dialect);
    const scanner = new DumpScanner(source, session);
    const found: Scanned[] = [];
    for (let item = await scanner.next(); item !== undefined; item = await scanner.next()) {
      const { kind, line } = item;
      if (item.kind !== "rows") {
        if (item.kind === "statement") session.apply(item.bytes);
        found.push({ kind, line, text: item.bytes });
        continue;
      }
      const rows: { values: readonly Literal[]; line: number }[] = [];
      while (readRows) {
        const row = item.rows.next();
        if (row === undefined) break;
        if (row === "more") await scanner.more();
        else rows.push(row);
      }
      found.push({ kind, line, text: item.head, rows });
    }
    return found;
  } finally {
    await source.close();
  }
}

function shown(literal: Literal): unknown {
  if (literal === null) return null;
  switch (literal.kind) {
    case "number":
      return Number(literal.text);
    case "string":
    case "expression":
      return literal.kind === "string" ? literal.bytes : [literal.bytes];
    case "boolean":
      return literal.value;
    case "default":
      return ["DEFAULT"];
    default:
      return [literal.kind, literal.digits];
  }
}

/** A small generator of our own, so that a failure can be run again with SEED. */
const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
let state = seed >>> 0 || 1;
function random(below: number): number {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % below;
}

const MYSQL = String.raw`-- a comment; with 'quotes
/*!40101 SET NAMES utf8mb4 */;
/*M!999999\- enable the sandbox mode */
# another; comment
CREATE TABLE t (a int /* ; */, b text COMMENT 'x;''y\';' /*!80023 INVISIBLE */);
INSERT INTO ${"`t`"} VALUES
(1,'it''s \'; \\'),
(-2.5e3,"dq "" \" '"), -- note
(NULL,_binary '\0\n\Z'),(0xFF00,b'101'),(x'ab',_utf8mb4'u'),(TRUE,DEFAULT),
(now(),concat('a,(', 1) || 'b')
ON DUPLICATE KEY UPDATE b = 'x;y';
DELIMITER ;;
CREATE PROCEDURE p() BEGIN SELECT 1; SELECT ';;'; END ;;
DELIMITER $$
CREATE FUNCTION f() RETURNS int BEGIN RETURN 1; END$$
DELIMITER ;
REPLACE INTO t (a, ${"`values`"}) VALUES (3, '');
INSERT INTO t SELECT 1, 'values (2)';
COMMIT`;

const POSTGRES = String.raw`\restrict abc
SET standard_conforming_strings = on;
/* a /* nested; */ comment; */
CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS $_$ BEGIN RETURN $$;'$$; END; $_$;
CREATE FUNCTION g() RETURNS int BEGIN ATOMIC SELECT CASE WHEN a THEN 1; END; SELECT 2; END;
CREATE RULE r AS ON DELETE TO t DO (SELECT 1; SELECT 2);
INSERT INTO t (a, value) OVERRIDING SYSTEM VALUE VALUES (1, E'\'\x41\u00e9\n'), (true, 'back\slash'), ('{}'::text[], NULL)
  ON CONFLICT DO NOTHING;
COPY t (a, b) FROM stdin;
1	x;y'
\N	\\N\ttab\\.\101
	more
\.
COPY u FROM stdin;
\.
SELECT $1, E'it''\';';
`;

describe("statements and rows", () => {
  const mysqlRows = [
    [1, "it's '; \\"],
    [-2500, 'dq " " \''],
    [null, "\0\n\x1a"],
    [
      ["hex", "FF00"],
      ["bits", "101"],
    ],
    [["hex", "ab"], "u"],
    [true, ["DEFAULT"]],
    [["now()"], ["concat('a,(', 1) || 'b'"]],
  ];

  test("MySQL's", async () => {
    const found = await scan("mysql", MYSQL);
    expect(found.map(({ kind, text, line }) => [kind, text.slice(0, 30), line])).toEqual([
      ["statement", "SET NAMES utf8mb4 */", 2],
      ["statement", "CREATE TABLE t (a int /* ; */,", 5],
      ["rows", "INSERT INTO `t` VALUES", 6],
      ["statement", "CREATE PROCEDURE p() BEGIN SEL", 13],
      ["statement", "CREATE FUNCTION f() RETURNS in", 15],
      ["rows", "REPLACE INTO t (a, `values`) V", 17],
      ["statement", "INSERT INTO t SELECT 1, 'value", 18],
      ["statement", "COMMIT", 19],
    ]);
    expect(found[2]!.rows!.map(({ values }) => values.map(shown))).toEqual(mysqlRows);
    expect(found[2]!.rows!.map(({ line }) => line)).toEqual([7, 8, 9, 9, 9, 9, 10]);
    expect(found[3]!.text).toBe("CREATE PROCEDURE p() BEGIN SELECT 1; SELECT ';;'; END");
    expect(found[4]!.text).toBe("CREATE FUNCTION f() RETURNS int BEGIN RETURN 1; END");
    expect(found[5]!.rows!.map(({ values }) => values.map(shown))).toEqual([[3, ""]]);
  });

  test("PostgreSQL's", async () => {
    const found = await scan("postgresql", POSTGRES);
    expect(found.map(({ kind, text, line }) => [kind, text.slice(0, 30), line])).toEqual([
      ["command", "restrict abc", 1],
      ["statement", "SET standard_conforming_string", 2],
      ["statement", "CREATE FUNCTION f() RETURNS te", 4],
      ["statement", "CREATE FUNCTION g() RETURNS in", 5],
      ["statement", "CREATE RULE r AS ON DELETE TO ", 6],
      ["rows", "INSERT INTO t (a, value) OVERR", 7],
      ["rows", "COPY t (a, b) FROM stdin", 9],
      ["rows", "COPY u FROM stdin", 14],
      ["statement", "SELECT $1, E'it''\\';'", 16],
    ]);
    expect(found[5]!.rows!.map(({ values }) => values.map(shown))).toEqual([
      [1, "'A\u00c3\u00a9\n"],
      [true, "back\\slash"],
      [["'{}'::text[]"], null],
    ]);
    expect(found[6]!.rows!.map(({ values, line }) => [...values.map(shown), line])).toEqual([
      ["1", "x;y'", 10],
      [null, "\\N\ttab\\.A", 11],
      ["", "more", 12],
    ]);
    expect(found[7]!.rows).toEqual([]);
  });

  test("the same wherever the text at hand ends", async () => {
    for (const [dialect, content] of [
      ["mysql", MYSQL],
      ["postgresql", POSTGRES],
    ] as const) {
      const whole = await scan(dialect, content);
      const skipped = whole.map((item) => (item.rows === undefined ? item : { ...item, rows: [] }));
      for (const chunk of [1, 2, 3, 5, 7, 11, 64, 100]) {
        expect(await scan(dialect, content, chunk), `${dialect}, chunks of ${chunk}`).toEqual(whole);
        expect(await scan(dialect, content, chunk, false), `${dialect}, skipped, ${chunk}`).toEqual(skipped);
      }
    }
  });

  test("Windows' line ends", async () => {
    const found = await scan("postgresql", "COPY t (a, b) FROM stdin;\r\n1\tx\r\n\\.\r\nSELECT 1;\r\n");
    expect(found[0]!.rows!.map(({ values }) => values.map(shown))).toEqual([["1", "x"]]);
    expect(found[1]!.text).toBe("SELECT 1");
    const mysql = await scan("mysql", "DELIMITER $$\r\nSELECT 1;\r\n$$\r\nDELIMITER ;\r\nSELECT 2;\r\n");
    expect(mysql.map(({ text, line }) => [text, line])).toEqual([
      ["SELECT 1;", 2],
      ["SELECT 2", 5],
    ]);
  });
});

describe("what is wrong", () => {
  const fails = async (dialect: Dialect, content: string): Promise<unknown> => {
    try {
      return await scan(dialect, content);
    } catch (error) {
      const { line, message } = error as { line: number; message: string };
      return `${line}: ${message}`;
    }
  };

  test("a file that ends too early names the line", async () => {
    expect(await fails("mysql", "SELECT 1;\n\nINSERT INTO t VALUES (1,\n2),\n(3,'x")).toBe(
      "5: a quote or comment that opens in this row is not closed",
    );
    expect(await fails("mysql", "INSERT INTO t VALUES (1,2),\n(3,4)")).toBe(
      "2: the file ends within this statement",
    );
    expect(await fails("mysql", "SELECT 1,\n\n'x;\n")).toBe(
      "3: a quote or comment that opens here is not closed",
    );
    expect(await fails("postgresql", "SELECT 1;\nSELECT $a$;\n$b$;")).toBe(
      "2: a quote or comment that opens here is not closed",
    );
    expect(await fails("postgresql", "COPY t FROM stdin;\n1\n2\n")).toBe(
      "4: the file ends within the rows of a COPY",
    );
    expect(await fails("postgresql", "COPY t FROM stdin;\n1\n2")).toBe(
      "3: the file ends within the rows of a COPY",
    );
  });

  test("settings decide how the rest is read", async () => {
    const [, insert] = await scan(
      "mysql",
      "SET SQL_MODE='ANSI_QUOTES,NO_BACKSLASH_ESCAPES';INSERT INTO \"t\" VALUES ('\\','x');",
    );
    expect(insert!.rows!.map(({ values }) => values.map(shown))).toEqual([["\\", "x"]]);
    const restored = await scan(
      "mysql",
      "SET @old=@@sql_mode;SET sql_mode='NO_BACKSLASH_ESCAPES';SET sql_mode=@old;INSERT INTO t VALUES ('\\'');",
    );
    expect(restored[3]!.rows!.map(({ values }) => values.map(shown))).toEqual([["'"]]);
    const [, old] = await scan(
      "postgresql",
      "SET standard_conforming_strings = off;INSERT INTO t VALUES ('\\'\\t');",
    );
    expect(old!.rows!.map(({ values }) => values.map(shown))).toEqual([["'\t"]]);
  });
});

describe(`any bytes (seed ${seed})`, () => {
  const bytesOf = (): string => {
    const special = "'\"\\\n\r\t\0\x1a;,()`-/*#$ab \u00c3\u00bc";
    return Array.from({ length: random(12) }, () =>
      random(3) === 0 ? String.fromCharCode(random(256)) : special[random(special.length)]!,
    ).join("");
  };
  const values = Array.from({ length: 400 }, () => Array.from({ length: 3 }, bytesOf));

  test("come back as they were from MySQL's strings", async () => {
    const escaped = (text: string): string =>
      text.replace(
        // biome-ignore lint/suspicious/noControlCharactersInRegex: MySQL escapes them
        /['"\\\n\r\0\x1a]/g,
        (c) => `\\${{ "\n": "n", "\r": "r", "\0": "0", "\x1a": "Z" }[c] ?? c}`,
      );
    const rows = values.map((row) => `(${row.map((value) => `'${escaped(value)}'`).join(",")})`);
    const content = Buffer.from(`INSERT INTO t VALUES ${rows.join(",\n")};`, "latin1");
    for (const chunk of [1 + random(20), 1000, undefined]) {
      const [found] = await scan("mysql", content, chunk);
      expect(found!.rows!.map((row) => row.values.map(shown))).toEqual(values);
    }
  });

  test("come back as they were from COPY and E'…'", async () => {
    const escaped = (text: string): string =>
      text.replace(/[\\\n\r\t\b\f\v]/g, (c) =>
        c === "\\" ? "\\\\" : `\\${{ "\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", "\v": "v" }[c]}`,
      );
    const copied = values.map((row) => row.map(escaped).join("\t"));
    const inserted = values.map(
      (row) => `(${row.map((value) => `E'${escaped(value).replaceAll("'", "''")}'`).join(",")})`,
    );
    const content = Buffer.from(
      `COPY t FROM stdin;\n${copied.join("\n")}\n\\.\nINSERT INTO t VALUES ${inserted.join(",")};`,
      "latin1",
    );
    for (const chunk of [1 + random(20), 1000, undefined]) {
      const [copy, insert] = await scan("postgresql", content, chunk);
      expect(copy!.rows!.map((row) => row.values.map(shown))).toEqual(values);
      expect(insert!.rows!.map((row) => row.values.map(shown))).toEqual(values);
    }
  });

  test("statements are the same wherever the text at hand ends", async () => {
    const pieces = {
      mysql: [
        "'it''s'",
        "'\\''",
        '"a""b"',
        "`c;`",
        "-- x;\n",
        "/* ; */",
        "/*!50000 1 */",
        "1e-5",
        "# y'\n",
        "a$b",
      ],
      postgresql: [
        "'it''s'",
        "E'it''\\';'",
        '"a""b"',
        "$x$;$$;$x$",
        "--;\n",
        "/*/*;*/'*/",
        "1.5e+3",
        "a::b",
        "U&'x'",
      ],
    };
    for (let round = 0; round < 120; round++) {
      const dialect = round % 2 === 0 ? "mysql" : "postgresql";
      const from = pieces[dialect];
      const statements = Array.from({ length: 1 + random(3) }, () =>
        Array.from({ length: 20 + random(150) }, () => from[random(from.length)]!).join(" "),
      );
      const content = statements.map((text) => `SELECT ${text};`).join("\n");
      const whole = await scan(dialect, content);
      expect(whole.map(({ text }) => text)).toEqual(statements.map((text) => `SELECT ${text}`.trimEnd()));
      const chunk = 1 + random(40);
      expect(await scan(dialect, content, chunk), `chunks of ${chunk}`).toEqual(whole);
    }
  });
});

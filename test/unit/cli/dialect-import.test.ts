/** Whole dumps: into SQLite itself, and what is told of what did not come along. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { dump } from "../../../src/cli/dump.js";
import { CommandFailure } from "../../../src/cli/exit.js";
import { type DumpResult, importDump } from "../../../src/cli/import/dialect/dump-import.js";
import type { Dialect } from "../../../src/cli/import/dialect/session.js";
import { databaseOf, SqliteSession } from "./sqlite-session.js";

const folder = mkdtempSync(join(tmpdir(), "ostraka-dumps-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const DUMPS = join(import.meta.dirname, "dumps");

interface Imported {
  readonly session: SqliteSession;
  /** What was answered, or the error's text. */
  readonly result: DumpResult | string;
  readonly told: string;
  all(sql: string): unknown[];
}

async function importFile(
  dialect: Dialect,
  path: string,
  { table, session = new SqliteSession() }: { table?: string; session?: SqliteSession } = {},
): Promise<Imported> {
  let told = "";
  let result: DumpResult | string;
  try {
    result = await importDump({ database: databaseOf(session), session }, path, {
      dialect,
      table,
      warn: (text) => {
        told += text;
      },
    });
  } catch (error) {
    if (!(error instanceof CommandFailure)) throw error;
    expect(error.exitCode).toBe(1);
    result = error.message.replaceAll(path, basename(path));
  }
  const all = (sql: string): unknown[] => session.sqlite.prepare(sql).raw().all();
  return { session, result, told: told.replaceAll(path, basename(path)), all };
}

let files = 0;
function importText(
  dialect: Dialect,
  content: string | Uint8Array,
  options: { table?: string; session?: SqliteSession } = {},
): Promise<Imported> {
  const path = join(folder, `dump${files++}.sql`);
  writeFileSync(path, content);
  return importFile(dialect, path, options).then((imported) => ({
    ...imported,
    result:
      typeof imported.result === "string"
        ? imported.result.replaceAll(basename(path), "FILE")
        : imported.result,
    told: imported.told.replaceAll(basename(path), "FILE"),
  }));
}

async function dumped(session: SqliteSession): Promise<string> {
  let text = "";
  await dump(session, (piece) => {
    text += piece;
  });
  return text;
}

describe("dumps with something of everything", () => {
  test.each([
    ["mysql", "mysql8"],
    ["postgresql", "postgresql"],
  ] as const)("%s", async (dialect, name) => {
    const imported = await importFile(dialect, join(DUMPS, `${name}.sql`));
    const result = JSON.stringify(imported.result);
    const found = `${await dumped(imported.session)}\n${imported.told}${result}\n`;
    expect(found).toBe(readFileSync(join(DUMPS, `${name}.expected.txt`), "utf8"));
  });
});

describe("what comes over", () => {
  test("phpMyAdmin's keys and counters after the rows, values that have to be computed", async () => {
    const t = await importText(
      "mysql",
      `SET SQL_MODE = "NO_AUTO_VALUE_ON_ZERO";
CREATE TABLE \`users\` (\`id\` int(11) NOT NULL, \`login\` varchar(30) NOT NULL DEFAULT 'none', \`boss\` int(11));
INSERT INTO \`users\` (\`id\`, \`login\`, \`boss\`) VALUES (1, 'ann', NULL), (2, CONCAT('b', "ob"), 1), (3, DEFAULT, 2);
REPLACE INTO users VALUES (3, 'cy', 1);
INSERT IGNORE INTO users VALUES (3, 'dee', 1);
ALTER TABLE \`users\` ADD PRIMARY KEY (\`id\`), ADD UNIQUE KEY \`login\` (\`login\`), ADD KEY \`boss\` (\`boss\`);
ALTER TABLE \`users\` MODIFY \`id\` int(11) NOT NULL AUTO_INCREMENT, AUTO_INCREMENT=40;
ALTER TABLE \`users\` ADD CONSTRAINT \`fk\` FOREIGN KEY (\`boss\`) REFERENCES \`users\` (\`id\`) ON DELETE SET NULL;`,
    );
    expect(t.result).toEqual({ tables: 1, rows: 5 });
    expect(t.all("select * from users")).toEqual([
      [1n, "ann", null],
      [2n, "bob", 1n],
      [3n, "cy", 1n],
    ]);
    expect(t.all("select seq from sqlite_sequence")).toEqual([[39n]]);
    expect(t.all("select name from pragma_index_list('users') order by 1")).toEqual([
      ["boss"],
      ["sqlite_autoindex_users_1"],
    ]);
    expect(t.all('select "from", "to", on_delete from pragma_foreign_key_list(\'users\')')).toEqual([
      ["boss", "id", "SET NULL"],
    ]);
  });

  test("bytes that are no text, and text in another encoding", async () => {
    const binary = Buffer.concat([
      Buffer.from("CREATE TABLE t (id int PRIMARY KEY, b blob);\nINSERT INTO t VALUES (1,'"),
      Buffer.from([0xff, 0xfe, 0x5c, 0x27, 0xc3]),
      Buffer.from("');\n"),
    ]);
    const t = await importText("mariadb", binary);
    expect(t.all("select hex(b) from t")).toEqual([["FFFE27C3"]]);
    const latin1 = Buffer.from(
      "SET NAMES latin1;CREATE TABLE `\u00fc` (a text);INSERT INTO `\u00fc` VALUES ('\u00e9\u0080');",
      "latin1",
    );
    const u = await importText("mysql", latin1);
    expect(u.all('select a from "\u00fc"')).toEqual([["\u00e9\u20ac"]]);
    const wrong = await importText(
      "mysql",
      Buffer.from("CREATE TABLE t (a text);\nINSERT INTO t VALUES ('x'),\n('\u00e9');", "latin1"),
    );
    expect(wrong.result).toBe("FILE:3: a: not UTF-8 text\nno row was loaded");
    const gbk = await importText("mysql", "SET NAMES gbk;");
    expect(gbk.result).toContain("FILE:1: text in gbk cannot be read here; dump it anew in UTF-8");
  });

  test("what compares without case in MySQL does so here", async () => {
    const t = await importText(
      "mysql",
      `CREATE TABLE p (k varchar(9) PRIMARY KEY, b varchar(9) COLLATE utf8mb4_bin) DEFAULT CHARSET=utf8mb4;
CREATE TABLE c (k varchar(9), FOREIGN KEY (k) REFERENCES p (k));
CREATE TABLE bin (k varchar(9)) COLLATE=utf8mb4_0900_bin;
INSERT INTO p VALUES ('Abc', 'x'); INSERT INTO c VALUES ('aBC');`,
    );
    expect(t.result).toEqual({ tables: 3, rows: 2 });
    expect(t.all("select k from p where k = 'ABC'")).toEqual([["Abc"]]);
    expect(t.all("select b from p where b = 'X'")).toEqual([]);
    expect(t.all("select sql from sqlite_schema where name = 'bin'")).toEqual([
      ["CREATE TABLE bin (\n  k VARCHAR(9)\n)"],
    ]);
  });

  test("members of a SET, in any number", async () => {
    const t = await importText(
      "mysql",
      "CREATE TABLE t (s set('a','b','long one'));INSERT INTO t VALUES (''),('a'),('a,b'),('b,long one'),(NULL);",
    );
    expect(t.result).toEqual({ tables: 1, rows: 5 });
    for (const wrong of ["c", "a,", ",", "a,,b", "a,a", "ab", "aa"]) {
      expect(() => t.session.sqlite.prepare("insert into t values (?)").run(wrong), wrong).toThrow("CHECK");
    }
  });

  test("schemas and databases, where a name is there twice", async () => {
    const t = await importText(
      "mysql",
      `CREATE DATABASE a; USE \`a\`; CREATE TABLE t (x int PRIMARY KEY); INSERT INTO t VALUES (1);
CREATE DATABASE b; USE b; CREATE TABLE t (x int PRIMARY KEY, y int, KEY k (y), FOREIGN KEY (y) REFERENCES t (x));
INSERT INTO t VALUES (2, NULL); CREATE TABLE u (y int, KEY k (y)); INSERT INTO a.t VALUES (3);`,
    );
    expect(t.result).toEqual({ tables: 3, rows: 3 });
    expect(t.all("select x from t")).toEqual([[1n], [3n]]);
    expect(t.all("select x from b_t")).toEqual([[2n]]);
    expect(t.all("select \"table\" from pragma_foreign_key_list('b_t')")).toEqual([["b_t"]]);
    expect(t.all("select name from sqlite_schema where type = 'index' order by 1")).toEqual([["k"], ["u_k"]]);
    expect(t.told).toContain("line 2: b.t is b_t now");
  });

  test("only one table", async () => {
    const path = join(DUMPS, "postgresql.sql");
    const t = await importFile("postgresql", path, { table: "customer" });
    expect(t.result).toEqual({ tables: 1, rows: 3 });
    expect(t.told).not.toContain("rows are missing");
    expect(t.all("select count(*) from sqlite_schema where type = 'view'")).toEqual([[0n]]);
    const child = await importFile("postgresql", path, { table: "order" });
    expect(child.result).toEqual({ tables: 1, rows: 2 });
    expect(child.told).toContain("order.order_customer_id_fkey: customer is not imported");
    const none = await importFile("postgresql", path, { table: "nope" });
    expect(none.result).toBe("postgresql.sql has no table named nope");
  });

  test("partitions of partitions, and columns that are inherited", async () => {
    const t = await importText(
      "postgresql",
      `CREATE TABLE public.m (id int, y int) PARTITION BY RANGE (y);
CREATE TABLE public.m1 (y int, id int) PARTITION BY RANGE (id);
CREATE TABLE public.m11 PARTITION OF public.m1 FOR VALUES FROM (0) TO (9);
ALTER TABLE ONLY public.m ATTACH PARTITION public.m1 FOR VALUES FROM (0) TO (9);
CREATE TABLE public.par (a int); CREATE TABLE public.chi (b int) INHERITS (public.par);
INSERT INTO public.m11 VALUES (1, 2);
COPY public.chi (a, b) FROM stdin;
3	4
\\.
`,
    );
    expect(t.result).toEqual({ tables: 3, rows: 2 });
    expect(t.all("select id, y from m")).toEqual([[2n, 1n]]);
    expect(t.all("select a, b from chi")).toEqual([[3n, 4n]]);
  });
});

describe("what does not", () => {
  const TABLE = "CREATE TABLE t (id int PRIMARY KEY, a int CHECK (a > 0));\n";

  test("rows that the database refuses: where, and what is in by then", async () => {
    const t = await importText("mysql", `${TABLE}INSERT INTO t VALUES (1,1),\n(2,0);\n`);
    expect(t.result).toBe(
      "FILE:3: CHECK constraint failed: a > 0 (SQLITE_CONSTRAINT_CHECK)\nno row was loaded",
    );
    const rows = Array.from({ length: 1500 }, (_, i) => `(${i + 1},1)`).join(",\n");
    const late = await importText(
      "mysql",
      `${TABLE}INSERT INTO t VALUES ${rows};\nINSERT INTO t VALUES (1,1);`,
    );
    expect(late.result).toBe(
      "FILE:1502: UNIQUE constraint failed: t.id (SQLITE_CONSTRAINT_PRIMARYKEY)\n" +
        "1000 rows were loaded, the last from line 1001; nothing after it was",
    );
    const short = await importText("mysql", `${TABLE}INSERT INTO t VALUES (1,1),\n(2);\n`);
    expect(short.result).toBe("FILE:3: 1 values for 2 columns\nno row was loaded");
    const computed = await importText("mysql", `${TABLE}INSERT INTO t VALUES (1,\nuuid_short());\n`);
    expect(computed.result).toBe("FILE:2: a: uuid_short() is no literal (uuid_short())\nno row was loaded");
    const column = await importText("mysql", `${TABLE}INSERT INTO t (id, b) VALUES (1,1);\n`);
    expect(column.result).toBe("FILE:2: t has no column b\nno row was loaded");
  });

  test("foreign keys that lead nowhere", async () => {
    const t = await importText(
      "postgresql",
      `CREATE TABLE public.p (id int PRIMARY KEY); CREATE TABLE public.c (p int);
COPY public.c (p) FROM stdin;\n1\n2\n\\.\nINSERT INTO public.p VALUES (2);
ALTER TABLE ONLY public.c ADD CONSTRAINT f FOREIGN KEY (p) REFERENCES public.p(id);`,
    );
    expect(t.result).toBe("FILE: all 3 rows were loaded, but 1 refer to rows that are not there (c to p: 1)");
  });

  test("rows without a table, and statements that would have changed rows", async () => {
    const t = await importText(
      "mysql",
      `${TABLE}INSERT INTO t VALUES (1,1);\nINSERT INTO nowhere VALUES (1);\nUPDATE t SET a = 2;
CREATE TABLE broken;\nINSERT INTO t SELECT 2, 2;\nWHATEVER is this;`,
    );
    expect(t.result).toBe("1 rows into 1 tables, but rows are missing");
    expect(t.told).toBe(`FILE: not carried over, or not as it was:
  statement that is not understood: 1
    line 7: WHATEVER is this
FILE: rows are missing:
  statement that changes rows: 2
    line 4: UPDATE t SET a = 2
    line 6: INSERT INTO t SELECT 2, 2
  table that is not understood: 1
    line 5: CREATE TABLE broken (broken: not a list of columns)
  rows of a table that the dump does not make: 1
    line 3: nowhere
`);
  });

  test("a definition that is not understood leaves the others in place", async () => {
    const t = await importText(
      "postgresql",
      "CREATE TABLE public.t (\n a int NOT NULL SOMETHING NEW,\n b text NOT NULL,\n CONSTRAINT c UNIQUE (b) WITHOUT OVERLAPS\n);\nINSERT INTO public.t VALUES (1, 'x');",
    );
    expect(t.result).toEqual({ tables: 1, rows: 1 });
    expect(t.told).toBe(`FILE: not carried over, or not as it was:
  what is said of a column, not understood: 1
    line 2: t: a int NOT NULL SOMETHING NEW
  definition that is not understood: 1
    line 4: t: CONSTRAINT c UNIQUE(b) WITHOUT OVERLAPS
`);
  });

  test("nothing is begun where a table is there already, or could not be made", async () => {
    const session = new SqliteSession();
    session.sqlite.exec("create table t(x)");
    const there = await importText("mysql", `CREATE TABLE s (a int);${TABLE}`, { session });
    expect(there.result).toBe("table t exists already; nothing was loaded");
    expect(there.all("select name from sqlite_schema")).toEqual([["t"]]);
    const impossible = await importText(
      "postgresql",
      'CREATE TABLE public.s (a int);\nCREATE TABLE public.t (a int, "A" int);',
    );
    expect(impossible.result).toBe("FILE:2: table t: duplicate column name: A\nnothing was loaded");
    expect(impossible.all("select name from sqlite_schema")).toEqual([]);
  });

  test("files that are no such dump", async () => {
    expect((await importText("mysql", "PGDMP\u0001")).result).toContain("is in pg_dump's own format");
    expect((await importText("mysql", Buffer.from([0x1f, 0x8b, 8]))).result).toContain("is compressed");
    expect((await importText("mysql", Buffer.from("\ufeffSELECT", "utf16le"))).result).toContain("is UTF-16");
    expect((await importText("mysql", "--\n-- PostgreSQL database dump\n--\n")).result).toContain(
      "--dialect postgresql",
    );
    expect((await importText("postgresql", "-- MariaDB dump 10.19\n")).result).toContain(
      "--dialect mysql or mariadb",
    );
    expect((await importFile("mysql", join(folder, "missing.sql"))).result).toMatch(
      /^cannot read .*missing\.sql/,
    );
  });

  test("a dump without its last line, or cut within a row", async () => {
    const cut = await importText("mysql", `-- MySQL dump 10.13\n${TABLE}INSERT INTO t VALUES (1,1);\n`);
    expect(cut.result).toBe("1 rows into 1 tables, but rows are missing");
    expect(cut.told).toContain("may have been cut short");
    const within = await importText("mysql", `${TABLE}INSERT INTO t VALUES (1,1),\n(2,`);
    expect(within.result).toBe("FILE:3: the file ends within this statement\nno row was loaded");
    expect(within.all("select name from sqlite_schema")).toEqual([]);
  });

  test("a second database of pg_dumpall", async () => {
    const t = await importText(
      "postgresql",
      "\\connect template1\n\\connect a\nCREATE TABLE public.t (x int);\nCOPY public.t (x) FROM stdin;\n1\n\\.\n" +
        "\\connect b\nCREATE TABLE public.t (y text);\nCOPY public.t (y) FROM stdin;\n2\n\\.\n",
    );
    expect(t.result).toBe("1 rows into 1 tables, but rows are missing");
    expect(t.told).toBe(
      "FILE: rows are missing:\n  another database; dump each by itself: 1\n    line 7: \\connect b\n",
    );
    expect(t.all("select x from t")).toEqual([[1n]]);
  });

  test("an index that the rows do not meet", async () => {
    const t = await importText(
      "postgresql",
      "CREATE TABLE public.t (a text);\nINSERT INTO public.t VALUES ('x'), ('x');\nCREATE UNIQUE INDEX i ON public.t USING btree (a);",
    );
    expect(t.result).toBe(
      "FILE:3: i: UNIQUE constraint failed: t.a (SQLITE_CONSTRAINT_UNIQUE)\n" +
        "all rows were loaded; indexes and views after this one were not made",
    );
  });
});

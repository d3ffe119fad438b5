/** What is pushed down, and what is not: shapes of statements, one by one. */
import { afterAll, describe, expect, test } from "vitest";
import { logIndex } from "../../../src/base/ids.js";
import { createOracle } from "../../../src/machines/range/oracle.js";
import { statementParser } from "../../../src/machines/range/statement-parser.js";
import { pushdown } from "../../../src/sql/pushdown.js";
import { affinityOf } from "../../../src/sql/pushdown-columns.js";
import { Slices } from "../../../src/sql/pushdown-slices.js";
import type { KeyFacts, Pushdown, PushdownSchema } from "../../../src/sql/pushdown-types.js";

const STATEMENTS = [
  "CREATE TABLE t(id INTEGER PRIMARY KEY, a INT, b TEXT, c REAL, d, n TEXT COLLATE NOCASE, g AS (a + 1))",
  "CREATE TABLE u(a INT, y TEXT UNIQUE, t INT REFERENCES t(id))",
  "CREATE TABLE tree(id INTEGER PRIMARY KEY, up INT REFERENCES tree(id), x)",
  "CREATE TABLE w(k TEXT NOT NULL, j INT NOT NULL, v, PRIMARY KEY(k, j)) WITHOUT ROWID",
  "CREATE TABLE h(x)",
  "CREATE TABLE hooked(id INTEGER PRIMARY KEY, x)",
  'CREATE TABLE odd("true" INT, z INT)',
  "CREATE INDEX t_a ON t(a)",
  "CREATE INDEX t_bd ON t(b DESC)",
  "CREATE VIEW v AS SELECT id, b FROM t WHERE a > 5",
  "CREATE VIEW vv AS SELECT * FROM v JOIN u ON u.t = v.id WHERE u.a = 1",
  "CREATE TRIGGER hook AFTER DELETE ON hooked BEGIN DELETE FROM hooked WHERE x = old.id; END",
];
const KEYS: Readonly<Record<string, KeyFacts>> = {
  w: { shard: "key", keyColumns: ["k", "j"] },
  h: { shard: "home", keyColumns: [] },
};
const oracle = createOracle({ version: 3, statements: STATEMENTS, appliedIndex: logIndex(1), tables: [] });
const schema: PushdownSchema = {
  oracle,
  parser: statementParser,
  key: (table) => KEYS[table] ?? { shard: "rowid", keyColumns: ["rowid"] },
};

afterAll(() => oracle.close());

function plan(sql: string): Pushdown | undefined {
  return pushdown(sql, schema);
}

/** Filters as text: `table: condition`, aliases in brackets. */
function filters(sql: string): string[] {
  return [...(plan(sql)?.filters ?? [])].flatMap(([table, list]) =>
    list.map(({ alias, sql: condition }) => {
      const named = alias === undefined ? table : `${table}[${alias}]`;
      return `${named}: ${condition.replaceAll("\n", "")}`;
    }),
  );
}

describe("filters", () => {
  test.each([
    ["SELECT * FROM t WHERE b = ?", ["t: (b = ?1)"]],
    ["SELECT * FROM t AS x WHERE x.b = :e AND x.a > 1", ["t[x]: (x.b = ?1) AND (x.a > 1)"]],
    [
      "SELECT * FROM t WHERE (b = 'x' OR a = 1) AND c IN (1, ?)",
      ["t: (b = 'x' OR a = 1) AND (c IN (1, ?1))"],
    ],
    ["SELECT * FROM main.t WHERE main.t.a = 1", ["t: (main.t.a = 1)"]],
    ["SELECT * FROM t WHERE rowid > 5 AND g = 2", ["t: (rowid > 5) AND (g = 2)"]],
    [
      "SELECT * FROM t WHERE b LIKE 'x%' AND date(b) < date('now')",
      ["t: (b LIKE 'x%') AND (date(b) < date('now'))"],
    ],
    ["SELECT * FROM t WHERE b = 'x' -- why", ["t: (b = 'x')"]],
    ["SELECT * FROM t WHERE NOT a", ["t: (NOT a)"]],
    ["SELECT * FROM t WHERE a = true", ["t: (a = true)"]],
    // Each table by what is said of it alone.
    ["SELECT * FROM t JOIN u ON t.id = u.t AND u.a = 3 WHERE t.b = 'x'", ["t: (t.b = 'x')", "u: (u.a = 3)"]],
    ["SELECT * FROM t, u WHERE t.id = u.t AND y = 'q' AND b = 'x'", ["t: (b = 'x')", "u: (y = 'q')"]],
    [
      "SELECT * FROM t LEFT JOIN u ON t.id = u.t AND u.a = 3 AND t.a = 1 WHERE b = 'x'",
      ["t: (b = 'x')", "u: (u.a = 3)"],
    ],
    // Instances are joined by OR.
    [
      "SELECT * FROM t AS x JOIN t AS z ON x.id = z.a WHERE x.b = 'p' AND z.b = 'q'",
      ["t[x]: (x.b = 'p')", "t[z]: (z.b = 'q')"],
    ],
    ["SELECT * FROM t WHERE a = 1 UNION ALL SELECT * FROM t WHERE a = 1", ["t: (a = 1)"]],
    ["WITH q AS (SELECT a FROM t WHERE b = 'x') SELECT * FROM q WHERE a = 2", ["t: (b = 'x')"]],
    [
      "SELECT * FROM u WHERE EXISTS (SELECT 1 FROM t WHERE t.a = u.a AND c = 5) AND y = 'r'",
      ["u: (y = 'r')", "t: (c = 5)"],
    ],
    ["SELECT * FROM v WHERE b = 'x'", ["t: (a > 5)"]],
    ["SELECT * FROM vv", ["t: (a > 5)", "u: (u.a = 1)"]],
    ["SELECT count(*) FROM t WHERE a = ?2 AND b = ?1", ["t: (a = ?2) AND (b = ?1)"]],
    ["SELECT * FROM t WHERE a = ?2 AND b = ? AND c = @x", ["t: (a = ?2) AND (b = ?3) AND (c = ?4)"]],
    ["SELECT * FROM t WHERE b = 'é' AND a = 1", ["t: (b = 'é') AND (a = 1)"]],
  ])("%s", (sql, expected) => {
    expect(filters(sql)).toEqual(expected);
  });

  test.each([
    // Nothing that holds for a row of the table alone.
    "SELECT * FROM t",
    "SELECT * FROM t WHERE a = 1 OR b = (SELECT max(y) FROM u)",
    "SELECT * FROM t WHERE random() > a",
    "SELECT * FROM t WHERE a = changes()",
    "SELECT * FROM t WHERE ?1 = 5",
    "SELECT a AS q FROM t WHERE q = 1",
    // Some instance needs all rows.
    "SELECT * FROM t WHERE a = 1 AND id IN (SELECT id FROM t)",
    "SELECT * FROM t AS x, t AS z WHERE x.a = 1",
    "SELECT a FROM t WHERE a = 1 UNION SELECT b FROM t",
    "SELECT * FROM v, t WHERE v.b = 'x'",
    // Outer joins that would see a row too few.
    "SELECT * FROM u LEFT JOIN t ON t.id = u.t WHERE t.a IS NULL",
    "SELECT * FROM t RIGHT JOIN u ON t.id = u.t AND t.a = 1 WHERE t.b = 'x'",
    "SELECT * FROM t FULL JOIN u USING (a) WHERE t.b = 'x'",
    "SELECT * FROM t LEFT JOIN u ON t.a = 1",
    // Names that may be something else.
    "SELECT * FROM t JOIN u USING (a) WHERE a = 1",
    "SELECT * FROM t NATURAL JOIN u WHERE b = 'x'",
    "SELECT * FROM u JOIN (t JOIN w ON w.j = t.a) ON t.b = 'x'",
    "WITH t AS (SELECT 1 AS a) SELECT * FROM t WHERE a = 1",
    "SELECT y AS true FROM u WHERE a = true",
    "SELECT * FROM odd WHERE z IN (SELECT a FROM u WHERE a = true)",
    "SELECT 1 FROM temp.t WHERE a = 1",
  ])("none: %s", (sql) => {
    expect(filters(sql)).toEqual([]);
  });

  test("those that can fail say so", () => {
    const raises = (sql: string) =>
      plan(sql)!
        .filters.get("t")!
        .map(({ mayRaise }) => mayRaise);
    expect(raises("SELECT * FROM t WHERE json_extract(b, '$.x') = 1")).toEqual([true]);
    expect(raises("SELECT * FROM t WHERE b LIKE 'x' ESCAPE b")).toEqual([true]);
    expect(raises("SELECT * FROM t WHERE b LIKE 'x' ESCAPE '!'")).toEqual([false]);
  });

  test("of writes, where nothing else of the table is looked at", () => {
    expect(filters("UPDATE t SET b = 'y' WHERE c = 1 AND d = ?")).toEqual(["t: (c = 1) AND (d = ?1)"]);
    expect(filters("UPDATE t AS x SET a = 2 WHERE x.c = 1")).toEqual(["t[x]: (x.c = 1)"]);
    expect(filters("DELETE FROM u WHERE a = 1 AND y = 'x'")).toEqual(["u: (a = 1) AND (y = 'x')"]);
    expect(filters("DELETE FROM w WHERE v = 1")).toEqual(["w: (v = 1)"]);
    for (const sql of [
      "UPDATE t SET id = id + 1 WHERE c = 1",
      "UPDATE u SET y = 'x' WHERE a = 1",
      "UPDATE OR REPLACE t SET b = 1 WHERE c = 1",
      "UPDATE w SET v = 2 WHERE v = 1",
      "UPDATE t SET b = 1 FROM u WHERE t.c = 1 AND u.a = t.a",
      "UPDATE t SET b = (SELECT max(b) FROM t) WHERE c = 1",
      "DELETE FROM hooked WHERE x = 1",
      "DELETE FROM tree WHERE x = 1",
      "DELETE FROM t WHERE json_extract(b, '$.x') = 1",
      "INSERT INTO u SELECT a, b, id FROM t WHERE a = 1",
    ])
      expect(filters(sql), sql).toEqual([]);
  });
});

describe("queries of one table", () => {
  const form = (sql: string) => plan(sql)?.form;

  test.each([
    ["SELECT * FROM t", "ascending"],
    ["SELECT b, a + ? FROM t AS x WHERE c = 1", "ascending"],
    ["SELECT * FROM t ORDER BY id DESC", "descending"],
    ["SELECT id AS x, b FROM t WHERE b > 'a' ORDER BY x", "ascending"],
    ["SELECT b FROM t ORDER BY rowid", "ascending"],
    ["SELECT * FROM w", "ascending"],
    ["SELECT v FROM w ORDER BY k, j", "ascending"],
    ["SELECT v FROM w ORDER BY k DESC, j DESC", "descending"],
    ["SELECT * FROM t WHERE id > 7", "ascending"],
  ])("merge: %s", (sql, direction) => {
    expect(form(sql)).toMatchObject({ kind: "merge", direction });
  });

  test.each([
    "SELECT id FROM t",
    "SELECT a FROM t WHERE a > 1",
    "SELECT * FROM t ORDER BY b",
    "SELECT -id AS id FROM t ORDER BY id",
    "SELECT DISTINCT * FROM t",
    "SELECT *, row_number() OVER () FROM t",
    "SELECT * FROM w ORDER BY k",
    "SELECT * FROM w ORDER BY k, j DESC",
    "SELECT * FROM h",
    "SELECT *, random() FROM t",
    "SELECT *, (SELECT 1) FROM t",
    "SELECT * FROM t WHERE a IN (SELECT a FROM u)",
    "SELECT * FROM t NOT INDEXED",
    "SELECT * FROM v",
  ])("no merge: %s", (sql) => {
    expect(form(sql)?.kind).not.toBe("merge");
  });

  test("first rows", () => {
    expect(form("SELECT * FROM t ORDER BY c DESC LIMIT ? OFFSET 2")).toMatchObject({
      kind: "first",
      order: "ORDER BY c DESC",
      limit: { parameter: 0 },
      offset: { value: 2n },
      direction: undefined,
      byKey: true,
    });
    expect(form("SELECT * FROM t LIMIT 4, 3")).toMatchObject({
      kind: "first",
      limit: { value: 3n },
      offset: { value: 4n },
      direction: "ascending",
    });
    expect(form("SELECT a FROM t ORDER BY a LIMIT 3")).toMatchObject({ kind: "first", byKey: false });
    for (const sql of [
      "SELECT * FROM t ORDER BY c LIMIT 1 + 1",
      "SELECT * FROM t ORDER BY c LIMIT 'x'",
      "SELECT * FROM t ORDER BY random() LIMIT 1",
      "SELECT DISTINCT b FROM t ORDER BY b LIMIT 1",
      "SELECT * FROM t, u ORDER BY c LIMIT 1",
    ])
      expect(form(sql)?.kind, sql).toBeUndefined();
  });

  test.each([
    ["SELECT count(*) FROM t", "count(*)", "SELECT (sum(_ostraka_a0)) FROM temp._ostraka_partial"],
    [
      "SELECT max(id) - min(id) AS n FROM t WHERE a = ?",
      "max(id), min(id)",
      "SELECT (max(_ostraka_a0)) - (min(_ostraka_a1)) AS n FROM temp._ostraka_partial",
    ],
    [
      "SELECT c, count(b) FROM t GROUP BY c HAVING count(*) > ?1 ORDER BY 2 DESC LIMIT 3",
      "c, max(typeof((c)) = 'integer') + max(typeof((c)) = 'real'), count(b), count(*)",
      "SELECT _ostraka_g0, (sum(_ostraka_a0)) FROM temp._ostraka_partial GROUP BY _ostraka_g0 HAVING (sum(_ostraka_a1)) > ?1 ORDER BY 2 DESC LIMIT 3",
    ],
    [
      "SELECT a, count(*) AS n FROM t GROUP BY t.a ORDER BY n, a",
      "t.a, count(*)",
      "SELECT _ostraka_g0, (sum(_ostraka_a0)) AS n FROM temp._ostraka_partial GROUP BY _ostraka_g0 ORDER BY n, _ostraka_g0",
    ],
    [
      "SELECT lower(b) AS x, min(c) FILTER (WHERE a > 1) FROM t GROUP BY x",
      "lower(b), max(typeof((lower(b))) = 'integer') + max(typeof((lower(b))) = 'real'), min(c) FILTER (WHERE a > 1)",
      "SELECT (+_ostraka_g0) AS x, (min(_ostraka_a0)) FROM temp._ostraka_partial GROUP BY _ostraka_g0",
    ],
  ])("aggregates: %s", (sql, list, merge) => {
    const found = form(sql);
    const flat = (text: string) =>
      text.replace(/\s+/g, " ").replaceAll(" )", ")").replaceAll(" ,", ",").trim();
    expect(found?.kind === "aggregate" && flat(found.list)).toBe(list);
    expect(found?.kind === "aggregate" && flat(found.merge)).toBe(merge);
  });

  test("sums are checked, and only those of integers", () => {
    const sum = form("SELECT sum(a), avg(a) FROM t");
    expect(sum?.kind === "aggregate" && sum.check).toContain("9.0e18");
    expect(form("SELECT sum(c) FROM t")).toBeUndefined();
    expect(form("SELECT total(b) FROM t")).toBeUndefined();
  });

  test.each([
    "SELECT count(DISTINCT a) FROM t",
    "SELECT group_concat(b) FROM t",
    "SELECT count(*) OVER () FROM t",
    "SELECT a, max(b) FROM t",
    "SELECT b, count(*) FROM t GROUP BY a",
    "SELECT n, count(*) FROM t GROUP BY n",
    "SELECT max(n) FROM t",
    "SELECT max(d) FROM t",
    "SELECT count(*) FROM t GROUP BY b COLLATE NOCASE",
    // By an index that gives groups in descending order.
    "SELECT b, count(*) FROM t GROUP BY b",
    "SELECT a, count(*) FROM t GROUP BY a ORDER BY 2 DESC",
    "SELECT count(*) FROM t, u",
    "SELECT count(*) FROM h",
    "SELECT count(*) + (SELECT 1) FROM t",
    "SELECT count(*) FROM t LIMIT (SELECT count(*) FROM u)",
    "SELECT count(*) FROM t LIMIT 1 OFFSET (SELECT count(*) > 10 FROM u)",
    "SELECT count(*) FROM (SELECT * FROM t)",
  ])("no aggregates: %s", (sql) => {
    expect(form(sql)?.kind).toBeUndefined();
  });

  test("result columns keep the names and types that SQLite gives them", () => {
    expect(plan("SELECT count(*), a FROM t GROUP BY a")).toMatchObject({
      version: 3,
      columns: ["count(*)", "a"],
      columnTypes: [null, "INT"],
    });
  });
});

test("what the parser does not take, or SQLite does not compile, is not pushed down", () => {
  for (const sql of [
    "SELECT",
    "SELECT * FROM nothing WHERE a = 1",
    "SELECT nope FROM t WHERE a = 1",
    "PRAGMA x",
    "",
  ])
    expect(plan(sql), sql).toBeUndefined();
  expect(plan(`SELECT * FROM t WHERE a = ${"(".repeat(5000)}1${")".repeat(5000)}`)).toBeUndefined();
});

test("slices number parameters as the whole text does", () => {
  const slices = new Slices("SELECT ?, ?5, :a, ?, :a /* ? */, '?'");
  expect(slices.parameters).toBe(7);
  expect(slices.between(0, slices.sql.length)).toBe("SELECT ?1, ?5, ?6, ?7, ?6 /* ? */, '?'");
  expect(slices.between(10, 24, [{ span: { offset: 14, length: 2 }, text: "(x)" }])).toBe("?5, (x), ?7, ?6");
});

test("affinities", () => {
  expect(
    ["INT", "charint", "VARCHAR(3)", "CLOB", "", "blob", "DOUBLE", "FLOATING POINT", "DECIMAL", "ANY"].map(
      (t) => affinityOf(t),
    ),
  ).toEqual(["INTEGER", "INTEGER", "TEXT", "TEXT", "", "", "REAL", "INTEGER", "NUMERIC", "NUMERIC"]);
  expect(affinityOf("ANY", true)).toBe("");
});

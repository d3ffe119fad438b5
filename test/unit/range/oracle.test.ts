/** The schema oracle: what SQLite says of statements, without rows and without effects. */
import { describe, expect, it } from "vitest";
import { UserError } from "../../../src/base/errors.js";
import type { LogIndex } from "../../../src/base/ids.js";
import { createOracle } from "../../../src/machines/range/oracle.js";
import { SessionFlag } from "../../../src/sql/types.js";

function oracle(...statements: string[]) {
  return createOracle({ version: 7, statements, tables: [], appliedIndex: 1 as LogIndex });
}

function errorOf(run: () => unknown): UserError {
  try {
    run();
  } catch (error) {
    if (error instanceof UserError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("preparing", () => {
  it("answers columns, declared types and whether rows come back", () => {
    const o = oracle("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, x)");
    expect(o.version).toBe(7);
    expect(o.prepare("SELECT id, name AS n, x, 1+1 FROM t WHERE id = :id AND name = @id")).toEqual({
      readonly: true,
      returnsRows: true,
      columns: ["id", "n", "x", "1+1"],
      columnTypes: ["INTEGER", "TEXT", null, null],
    });
    expect(o.prepare("INSERT INTO t(name) VALUES (?) RETURNING id")).toMatchObject({
      readonly: false,
      returnsRows: true,
      columns: ["id"],
    });
    expect(o.prepare("DELETE FROM t")).toEqual({
      readonly: false,
      returnsRows: false,
      columns: [],
      columnTypes: [],
    });
  });

  it("throws SQLite's own code and message", () => {
    const o = oracle("CREATE TABLE t(id INTEGER PRIMARY KEY)");
    for (const [sql, message] of [
      ["SELEC 1", 'near "SELEC": syntax error'],
      ["SELECT nope FROM t", "no such column: nope"],
      ["INSERT INTO missing VALUES (1)", "no such table: missing"],
      ["CREATE TABLE t(a)", "table t already exists"],
    ] as const) {
      const error = errorOf(() => o.prepare(sql));
      expect([error.code, error.message]).toEqual(["SQLITE_ERROR", message]);
      expect(errorOf(() => o.explain(sql)).message).toBe(message);
    }
    expect(errorOf(() => o.prepare("SELECT 1; SELECT 2")).code).toBe("SQLITE_MISUSE");
    expect(errorOf(() => o.prepare("-- nothing")).code).toBe("SQLITE_MISUSE");
  });

  it("refuses what would take effect at prepare, however it is written", () => {
    const o = oracle("CREATE TABLE p(id INTEGER PRIMARY KEY)", "CREATE TABLE c(id REFERENCES p)");
    const program = o.explain("INSERT INTO c VALUES (1)").map((row) => row.opcode);
    for (const sql of [
      "PRAGMA foreign_keys=off",
      " /* x */ pragma foreign_keys=off",
      "EXPLAIN PRAGMA foreign_keys=off",
      "explain /* explain */ query plan pragma foreign_keys=off",
      "-- c\n;PRAGMA foreign_keys=off",
      "BEGIN",
      "COMMIT",
      "SAVEPOINT a",
      "ATTACH 'x' AS y",
      "VACUUM",
    ])
      expect(errorOf(() => o.prepare(sql)).code).toBe("OSTRAKA_UNSUPPORTED");
    expect(errorOf(() => o.explain("PRAGMA foreign_keys=off")).code).toBe("OSTRAKA_UNSUPPORTED");
    expect(errorOf(() => o.explain("QUERY PLAN PRAGMA foreign_keys=off"))).toBeInstanceOf(UserError);
    expect(o.explain("INSERT INTO c VALUES (1)").map((row) => row.opcode)).toEqual(program);
  });

  it("never executes: DDL and writes leave no trace", () => {
    const o = oracle("CREATE TABLE t(id INTEGER PRIMARY KEY)");
    o.prepare("CREATE TABLE u(a)");
    o.explain("DROP TABLE t");
    o.prepare("INSERT INTO t VALUES (1) RETURNING id");
    expect(o.table("u")).toBeUndefined();
    expect(o.table("t")?.columns).toEqual(["id"]);
  });

  it("compiles overridden functions and the view that stands for sqlite_schema", () => {
    const o = oracle("CREATE TABLE t(id INTEGER PRIMARY KEY, at TEXT DEFAULT CURRENT_TIMESTAMP)");
    expect(o.prepare("SELECT random(), datetime('now'), randomblob(4)").columns).toHaveLength(3);
    expect(o.prepare("SELECT sql FROM temp._ostraka_schema_view").columns).toEqual(["sql"]);
  });
});

describe("explaining", () => {
  it("maps root pages to tables and indexes, main and temp", () => {
    const o = oracle("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)", "CREATE INDEX by_a ON t(a)").withTemp([
      "CREATE TABLE scratch(x)",
      "CREATE INDEX by_x ON scratch(x)",
    ]);
    const opened = (sql: string) =>
      o
        .explain(sql)
        .filter((row) => row.opcode === "OpenRead" || row.opcode === "OpenWrite")
        .map((row) => o.objectByRootPage(row.p3, row.p2));
    expect(opened("SELECT b FROM t WHERE a = ?3 AND b > :low")).toEqual([
      { name: "t", table: "t", kind: "table" },
      { name: "by_a", table: "t", kind: "index" },
    ]);
    expect(opened("DELETE FROM scratch WHERE x = ?")).toContainEqual({
      name: "scratch",
      table: "scratch",
      kind: "table",
    });
    expect(opened("SELECT * FROM scratch WHERE x = 1")).toContainEqual({
      name: "by_x",
      table: "scratch",
      kind: "index",
    });
    expect(o.objectByRootPage(0, 1)?.name).toBe("sqlite_schema");
    expect(o.objectByRootPage(0, 999)).toBeUndefined();
    expect(o.explainQueryPlan("SELECT b FROM t WHERE a = @a").map((row) => row.detail)).toEqual([
      "SEARCH t USING INDEX by_a (a=?)",
    ]);
  });

  it("takes statistics into account", () => {
    const schema = ["CREATE TABLE t(a, b)", "CREATE INDEX ia ON t(a)", "CREATE INDEX ib ON t(b)"];
    const plan = (...more: string[]) =>
      oracle(...schema, ...more)
        .explainQueryPlan("SELECT * FROM t WHERE a = 1 AND b = 2")
        .map((row) => row.detail);
    const rows = (a: number, b: number) => [
      "CREATE TABLE sqlite_stat1(tbl,idx,stat)",
      `INSERT INTO sqlite_stat1 VALUES ('t','ia','100000 ${a}'),('t','ib','100000 ${b}')`,
    ];
    expect(plan(...rows(1, 5000))).toEqual(["SEARCH t USING INDEX ia (a=?)"]);
    expect(plan(...rows(5000, 1))).toEqual(["SEARCH t USING INDEX ib (b=?)"]);
  });

  it("shows recursive triggers and foreign keys unless the session has them off", () => {
    const o = oracle(
      "CREATE TABLE p(id INTEGER PRIMARY KEY, u UNIQUE)",
      "CREATE TABLE audit(x)",
      "CREATE TRIGGER gone AFTER DELETE ON p BEGIN INSERT INTO audit VALUES (old.id); END",
      "CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p(id) ON DELETE CASCADE)",
    );
    const touches = (at: typeof o, sql: string) =>
      new Set(
        at
          .explain(sql)
          .filter((row) => row.opcode === "OpenWrite")
          .map((row) => at.objectByRootPage(row.p3, row.p2)?.table),
      );
    expect(touches(o, "REPLACE INTO p VALUES (1, 2)")).toContain("audit");
    expect(touches(o, "DELETE FROM p WHERE id = 1")).toContain("c");
    const loose = o.withFlags(SessionFlag.ForeignKeysOff);
    expect(touches(loose, "DELETE FROM p WHERE id = 1")).not.toContain("c");
    expect(touches(loose, "REPLACE INTO p VALUES (1, 2)")).not.toContain("audit");
  });
});

describe("facts of tables", () => {
  it("knows rowid aliases, WITHOUT ROWID, AUTOINCREMENT, triggers and kinds", () => {
    const o = oracle(
      "CREATE TABLE plain(a, b INT PRIMARY KEY)",
      "CREATE TABLE Alias(id INTEGER PRIMARY KEY, g AS (id + 1) STORED)",
      "CREATE TABLE descending(id INTEGER PRIMARY KEY DESC)",
      "CREATE TABLE wr(a TEXT, b TEXT, PRIMARY KEY(a, b)) WITHOUT ROWID",
      "CREATE TABLE sqlite_sequence(name,seq)",
      "CREATE TABLE auto(id INTEGER PRIMARY KEY /* autoincrement */ AUTOINCREMENT, x)",
      "CREATE TABLE named(id INTEGER PRIMARY KEY, \"autoincrement\" DEFAULT 'autoincrement')",
      "CREATE TRIGGER tr AFTER INSERT ON plain BEGIN SELECT 1; END",
      "CREATE VIEW v AS SELECT * FROM plain",
      "CREATE VIEW broken AS SELECT * FROM gone",
      "CREATE TABLE É(id INTEGER PRIMARY KEY)",
      "CREATE TABLE é(k PRIMARY KEY) WITHOUT ROWID",
    );
    // SQLite folds ASCII letters only.
    expect(o.table("É")).toMatchObject({ name: "É", withoutRowid: false });
    expect(o.table("é")).toMatchObject({ name: "é", withoutRowid: true });
    expect(o.table("plain")).toEqual({
      name: "plain",
      kind: "table",
      withoutRowid: false,
      integerPrimaryKey: undefined,
      autoincrement: false,
      columns: ["a", "b"],
      hasTriggers: true,
    });
    expect(o.table("ALIAS")).toMatchObject({ name: "Alias", integerPrimaryKey: "id", columns: ["id", "g"] });
    expect(o.table("descending")?.integerPrimaryKey).toBeUndefined();
    expect(o.table("wr")).toMatchObject({ withoutRowid: true, integerPrimaryKey: undefined });
    expect(o.table("auto")).toMatchObject({ integerPrimaryKey: "id", autoincrement: true });
    expect(o.table("named")?.autoincrement).toBe(false);
    expect(o.table("v")).toMatchObject({ kind: "view", hasTriggers: false });
    expect(o.table("broken")).toMatchObject({ kind: "view", columns: [] });
    expect(o.table("sqlite_sequence")?.kind).toBe("table");
    expect(o.table("sqlite_schema")?.kind).toBe("table");
    expect(o.table("none")).toBeUndefined();
  });

  it("makes virtual tables once, with their shadow tables", () => {
    const o = oracle(
      "CREATE VIRTUAL TABLE f USING fts5(body)",
      "CREATE TABLE 'f_data'(id INTEGER PRIMARY KEY, block BLOB)",
      "CREATE TABLE 'f_content'(id INTEGER PRIMARY KEY, c0)",
      "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)",
      'CREATE TABLE "r_rowid"(rowid INTEGER PRIMARY KEY,nodeno)',
    );
    expect(o.table("f")).toMatchObject({ kind: "virtual", columns: ["body"] });
    expect(o.table("f_data")?.kind).toBe("shadow");
    expect(o.table("r_rowid")?.kind).toBe("shadow");
    expect(o.explain("INSERT INTO f VALUES ('x')").some((row) => row.opcode === "VUpdate")).toBe(true);
  });

  it("leaves virtual tables out whose content is gone, and makes them where it came later", () => {
    const f = "CREATE VIRTUAL TABLE f USING fts4(content='c')";
    const shadow = "CREATE TABLE 'f_segments'(blockid INTEGER PRIMARY KEY, block BLOB)";
    const gone = oracle(f, shadow, "CREATE TABLE t(a)");
    expect(gone.table("f")).toBeUndefined();
    expect(gone.table("t")?.kind).toBe("table");
    const again = oracle(f, shadow, "CREATE TABLE t(a)", "CREATE TABLE c(x, y)");
    expect(again.table("f")).toMatchObject({ kind: "virtual" });
    expect(again.table("f_segments")).toMatchObject({ kind: "shadow" });
    expect(again.prepare("SELECT x, y FROM f").columns).toEqual(["x", "y"]);
  });

  it("lets TEMP objects hide main ones, and skips those that no longer fit", () => {
    const o = oracle("CREATE TABLE t(a)").withTemp([
      "CREATE TABLE t(b, c)",
      "CREATE VIEW tv AS SELECT b FROM t",
      "CREATE TRIGGER tt AFTER INSERT ON t BEGIN SELECT 1; END",
      "CREATE TRIGGER orphan AFTER INSERT ON dropped BEGIN SELECT 1; END",
      "CREATE TEMP TABLE as_typed(q)",
    ]);
    expect(o.table("t")).toMatchObject({ columns: ["b", "c"], hasTriggers: true });
    expect(o.prepare("SELECT * FROM tv").columns).toEqual(["b"]);
    expect(o.prepare("SELECT * FROM main.t").columns).toEqual(["a"]);
    expect(o.table("as_typed")?.columns).toEqual(["q"]);
  });
});

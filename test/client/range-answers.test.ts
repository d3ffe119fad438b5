/** Statements over several ranges, one by one: what they answer is what plain SQLite answers. */
import SQLite from "better-sqlite3";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openForFile } from "./embedded-database.js";

const SCHEMA = `create table g (id integer primary key, a integer, b text, n numeric);
  insert into g values (1, 1, '2', 1), (2, 1, '1', '1'), (3, 2, '3', 2.0), (4, 2, '2', 'x'), (5, 3, '4', 3), (6, 3, '3', '3');
  create table plain (id integer primary key, x); insert into plain values (1, 1), (5, 5);
  create view "view" as select x from plain; create view temp as select x from plain`;

const db = await openForFile();
const plain = new SQLite(":memory:");
afterAll(() => void plain.close());

beforeAll(async () => {
  plain.exec(SCHEMA);
  await db.exec(SCHEMA);
  await db.admin("range.split", { table: "g", at: ["2", "4", "6"] });
  await db.admin("range.split", { table: "plain", at: ["3"] });
});

async function told(sql: string): Promise<unknown> {
  const { columns, rows } = await db.execute(sql);
  return { columns, rows: rows.map((row) => [...row]) };
}

describe("a grouped expression is compared as one, not as a column", () => {
  test.each([
    "select a + 1 as z, b, a + 1 = b, (a + 1) < b from g group by a + 1, b order by 1, 2",
    "select abs(a), b, abs(a) between b and b, case abs(a) when b then 1 end from g group by 1, 2 order by 1, 2",
    "select a + 1 as z, b from g group by z, b having z = b order by z",
    "select coalesce(n, 0) as z, b from g group by z, b having z >= b order by z, b",
    "select cast(a as text) as z, a + 0 from g group by 1, 2 having cast(a as text) = a + 0 order by 1",
  ])("%s", async (sql) => {
    const statement = plain.prepare(sql).raw();
    const columns = statement.columns().map(({ name }) => name);
    expect(await told(sql)).toEqual({ columns, rows: statement.all() });
  });
});

test("views whose names are words stand beside system tables", async () => {
  for (const view of ['"view"', "temp"])
    expect(await told(`select x from ${view}, (select 1 from ostraka_nodes) order by x`)).toMatchObject({
      rows: [[1], [5]],
    });
});

test("a parent is found by its rowid where others are looked for in an index", async () => {
  await db.exec(`create table parent (id integer primary key, name text unique, up integer references parent);
    insert into parent values (1, 'a', null), (5, 'b', 1), (9, 'c', 5);
    create table child (id integer primary key, p integer references parent, name text references parent (name))`);
  await db.admin("range.split", { table: "parent", at: ["3", "7"] });
  await db.execute("insert into child values (1, 1, null), (2, 9, 'b')");
  await db.execute("insert into child values (?, ?, ?)", [3, "5", "a"]);
  await db.execute("insert into parent values (20, 'd', 1)");
  await db.transaction((tx) => tx.execute("update parent set up = 20, name = 'e' where id = 9"));
  expect(await told("select id, name, up from parent where id > 5 order by id")).toMatchObject({
    rows: [
      [9, "e", 20],
      [20, "d", 1],
    ],
  });
  for (const sql of ["insert into child values (4, 2, 'a')", "insert into parent values (21, 'f', 2)"])
    await expect(db.execute(sql)).rejects.toMatchObject({ code: "SQLITE_CONSTRAINT_FOREIGNKEY" });
});

test("user_version and application_id are the first range's, wherever they are asked for", async () => {
  await db.exec("pragma user_version = 7; pragma application_id = 0x10");
  const asks = [
    ["pragma user_version", [[7]]],
    ["pragma application_id", [[16]]],
    ["select user_version, application_id from pragma_user_version, pragma_application_id", [[7, 16]]],
    ["select id, user_version from g, pragma_user_version where id in (4, 6) order by id", [[4, 7], [6, 7]]],
  ] as const; // biome-ignore format: a table
  const session = await db.session();
  const begins = [
    [],
    ["begin", "update g set a = a where id > 3", "savepoint s"],
    ["begin read only"],
    ["create temp table own (x)"],
  ];
  for (const statements of begins) {
    for (const sql of statements) await session.execute(sql);
    for (const [sql, rows] of asks)
      expect([statements[0], sql, (await session.execute(sql)).rows.map((row) => [...row])]).toEqual([
        statements[0],
        sql,
        rows,
      ]);
    if (session.state !== "idle") await session.execute("rollback");
  }
  await session.close();
});

test("what pragmas tell of the schema is told by one range", async () => {
  for (const sql of ["select * from pragma_table_info('g')", "select * from pragma_user_version"])
    expect((await db.execute(`explain query plan ${sql}`)).rows[0]?.[3]).toMatch(/^single range \d+$/);
  expect((await db.execute("select name from pragma_index_list('parent')")).rows[0]?.[0]).toMatch(
    /autoindex/,
  );
});

test("tables of ours are not told of, by a pragma or its function", async () => {
  const session = await db.session();
  await session.execute("create temp table own (x)");
  for (const executor of [db, session]) {
    for (const sql of [
      "pragma table_list",
      "select * from pragma_table_list",
      "select * from pragma_table_list()",
    ]) {
      const names = (await executor.execute(sql)).rows.map((row) => row.name);
      expect(names, sql).toContain("parent");
      expect(names.includes("own"), sql).toBe(executor === session);
      expect(
        names.filter((name) => String(name).startsWith("_ostraka")),
        sql,
      ).toEqual([]);
    }
    for (const sql of [
      "pragma table_info(_ostraka_state)",
      "pragma main.table_xinfo('_Ostraka_state')",
      "select * from pragma_table_info('_ostraka_state')",
      "select * from pragma_table_list('_ostraka_state')",
    ])
      expect((await executor.execute(sql)).rows, sql).toHaveLength(0);
    expect((await executor.execute("pragma table_info(_ostraka_state)")).columns).toContain("dflt_value");
  }
  expect((await db.execute("explain query plan select name from pragma_table_list")).rows[0]?.[3]).toMatch(
    /^single range \d+$/,
  );
  await session.close();
});

test("a write over several ranges that looks for no key has changed nothing, and says so", async () => {
  await db.exec("create table t (id integer primary key, n); insert into t values (1, 1), (5, 5)");
  await db.admin("range.split", { table: "t", at: ["3"] });
  const greatest = "update t set n = (select max(n) from t) where id";
  const none = { sql: `${greatest} = ?`, args: [null] };
  const timeoutMs = 5000;
  expect(await db.execute(none.sql, none.args, { timeoutMs })).toMatchObject({ rowsAffected: 0 });
  expect(await db.execute(`${greatest} between 2 and 1`, [], { timeoutMs })).toMatchObject({
    rowsAffected: 0,
  });
  const results = await db.batch([none, "update t set n = n + 1 where id in (1, 5)", none], { timeoutMs });
  expect(results.map(({ rowsAffected }) => rowsAffected)).toEqual([0, 2, 0]);
  await db.execute("drop table t");
});

/** Tables in several ranges as a client sees them: nothing tells that they are not whole. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type * as Embedded from "../../src/embedded/index.js";
import { open, openForFile } from "./embedded-database.js";

const db = await openForFile();

async function ids(executor: Pick<Embedded.Database, "execute">): Promise<unknown[]> {
  return (await executor.execute("select id from t order by id")).rows.map(({ id }) => id);
}

describe.each(["integer primary key", "integer primary key autoincrement"])("a table with an %s", (key) => {
  beforeEach(async () => {
    await db.exec(`drop table if exists t; create table t (id ${key}, v text not null);
      insert into t (v) values ('a'), ('b'), ('c'), ('d'), ('e'), ('f'), ('g'), ('h'), ('i')`);
    await db.admin("range.split", { table: "t", at: ["4", "7"] });
  });

  const next = key.endsWith("autoincrement") ? 10 : 7;

  test("goes on counting where it ended, whichever ranges are empty", async () => {
    expect((await db.execute("insert into t (v) values ('x') returning id")).rows[0]?.id).toBe(10);
    await db.execute("delete from t where id = 10");
    await db.execute("delete from t where id >= 7");
    const after = key.endsWith("autoincrement") ? 11 : 7;
    expect((await db.execute("insert into t (v) values ('x') returning id")).rows[0]?.id).toBe(after);
    expect(await ids(db)).toEqual([1, 2, 3, 4, 5, 6, after]);
  });

  test("counts on in transactions over several ranges, too", async () => {
    await db.execute("delete from t where id >= 7");
    await db.transaction(async (tx) => {
      await tx.execute("update t set v = 'changed' where id = 1");
      await tx.execute("insert into t (v) values ('x')");
      await tx.execute("update t set v = 'changed' where id = 5");
      await tx.execute("insert into t (v) values ('y')");
      expect(await ids(tx)).toEqual([1, 2, 3, 4, 5, 6, next, next + 1]);
    });
    expect(await ids(db)).toEqual([1, 2, 3, 4, 5, 6, next, next + 1]);
  });

  test("counts from where sqlite_sequence says", async () => {
    if (!key.endsWith("autoincrement")) return;
    await db.execute("delete from t where id > 5");
    await db.execute("update sqlite_sequence set seq = 500");
    expect((await db.execute("insert into t (v) values ('x') returning id")).rows[0]?.id).toBe(501);
    await db.execute("delete from t where id > 5");
    await db.execute("delete from sqlite_sequence");
    expect((await db.execute("insert into t (v) values ('x') returning id")).rows[0]?.id).toBe(6);
    await db.transaction(async (tx) => {
      await tx.execute("update t set v = 'changed'");
      await tx.execute("update sqlite_sequence set seq = 3");
    });
    await db.execute("delete from t where id > 2");
    expect((await db.execute("insert into t (v) values ('x') returning id")).rows[0]?.id).toBe(4);
  });

  test("tells of what was added wherever it is counted", async () => {
    if (!key.endsWith("autoincrement")) return;
    for (let i = 0; i < 20; i++) {
      const { rows } = await db.execute("insert into t (v) select count(*) from t returning id");
      expect((await db.execute("select seq from sqlite_sequence")).rows[0]?.seq).toBe(rows[0]?.id);
    }
  });

  test("begins anew when it is empty", async () => {
    await db.execute("delete from t");
    const first = key.endsWith("autoincrement") ? 10 : 1;
    expect((await db.execute("insert into t (v) values ('x') returning id")).rows[0]?.id).toBe(first);
    expect(await ids(db)).toEqual([first]);
  });
});

test("what belongs to no table is the database's, not a range's", async () => {
  await db.exec(`drop table if exists t; create table t (id integer primary key, v);
    insert into t (v) values (0), (0), (0), (0), (0), (0), (0), (0), (0)`);
  await db.admin("range.split", { table: "t", at: ["4", "7"] });
  await db.exec("create table other (x)");
  await db.execute("pragma user_version = 7");
  expect((await db.execute("pragma user_version")).rows[0]?.[0]).toBe(7);
  await db.exec(
    "insert into other select id from t; create table copied as select * from t where id in (1, 5, 9)",
  );
  expect((await db.execute("select count(*) from other")).rows[0]?.[0]).toBe(9);
  expect((await db.execute("select id from copied order by id")).rows.map(({ id }) => id)).toEqual([1, 5, 9]);
  await db.exec("drop table other; drop table copied");
});

test("changes of the schema that a transaction has undone are not made", async () => {
  await db.exec(`drop table if exists t; create table t (id integer primary key, v);
    create view seen as select id from t; insert into t (id) values (1), (5), (9)`);
  await db.admin("range.split", { table: "t", at: ["4", "7"] });
  const session = await db.session();
  await session.exec(`begin; alter table t add column kept default 1; savepoint s;
    alter table t rename column v to w; drop view seen; create table undone (x); rollback to s;
    create table made (x); insert into made select id from t where kept = 1`);
  await expect(
    session.batch(["create table batched (x)", "insert into t values (1, 2, 3)"]),
  ).rejects.toMatchObject({ code: "SQLITE_CONSTRAINT_PRIMARYKEY" });
  await session.exec("commit");
  await session.exec("begin; savepoint s; drop table made; rollback to s; update t set v = id; commit");
  await session.close();
  const { rows } = await db.execute(
    "select name from sqlite_schema where name in ('seen', 'undone', 'made', 'batched') order by name",
  );
  expect(rows.map(({ name }) => name)).toEqual(["made", "seen"]);
  expect((await db.execute("select v, kept from t where id = 9")).rows[0]).toMatchObject({ v: 9, kept: 1 });
  await db.exec("drop view seen; drop table made");
});

test("rows may go in before the table of their foreign key is made, while foreign keys are off", async () => {
  await db.exec(`drop table if exists t; create table t (id integer primary key, v);
    insert into t (id) values (1), (5), (9)`);
  const session = await db.session();
  await session.exec(`pragma foreign_keys = off;
    begin; create table child (id integer primary key, up references parent (id));
    insert into child values (1, 1); update t set v = 1; commit;
    insert into child values (2, 1); insert into child select id + 2, up from child`);
  await session.exec("begin; delete from child where id = 4; insert into child values (5, 1); commit");
  await session.exec("pragma foreign_keys = on");
  const missing = { code: "SQLITE_ERROR", message: "no such table: main.parent" };
  for (const sql of ["insert into child values (6, null)", "update child set up = up + 1"]) {
    await expect(session.execute(sql)).rejects.toMatchObject(missing);
    await expect(db.execute(sql)).rejects.toMatchObject(missing);
  }
  await session.exec("begin; update t set v = 2");
  await expect(session.execute("insert into child select 7, null")).rejects.toMatchObject(missing);
  expect((await session.execute("select count(*) from t where v = 2")).rows[0]?.[0]).toBe(3);
  await session.exec("commit; create table parent (id integer primary key); insert into parent values (1)");
  expect((await session.execute("pragma foreign_key_check")).rows).toEqual([]);
  expect((await session.execute("select count(*) from child")).rows[0]?.[0]).toBe(4);
  await session.exec("drop table child; drop table parent");
  await session.close();
});

test("system tables feed writes and cannot be written", async () => {
  await db.exec("create table node (id integer primary key, address text)");
  const added = await db.execute("insert into node select node_id, address from ostraka_nodes");
  expect(added.rowsAffected).toBe(1);
  await expect(db.execute("delete from ostraka_nodes")).rejects.toMatchObject({
    message: "table ostraka_nodes may not be modified",
  });
  await expect(db.execute("create temp table n as select * from ostraka_nodes")).rejects.toMatchObject({
    code: "OSTRAKA_UNSUPPORTED",
  });
  await db.exec("drop table node");
});

test("EXPLAIN and CREATE TABLE … AS know the system tables", async () => {
  await db.exec("drop table if exists t; create table t (id integer primary key, v)");
  await db.admin("range.split", { table: "t", at: ["4"] });
  const plans: [sql: string, first: RegExp][] = [
    ["select * from ostraka_nodes", /^single range \d+$/],
    ["select * from ostraka_nodes, t", /^gather from 2 ranges \d+, \d+ \(t\)$/],
    ["insert into t (v) select node_id from ostraka_nodes", /^gather from 2 ranges \d+, \d+ \(t\)$/],
    ["create table node as select * from ostraka_nodes", /^every range/],
  ];
  const session = await db.session();
  await session.execute("create temp table mine (x)");
  for (const [sql, first] of plans) {
    const { rows } = await db.execute(`explain query plan ${sql}`);
    expect(rows[0]?.detail).toMatch(first);
    expect(rows[1]?.detail).toBe("SCAN ostraka_nodes");
    expect((await db.execute(`explain ${sql}`)).rows[0]?.opcode).toBe("Init");
    for (const begin of ["savepoint s", "begin; insert into t values (1, 1)", "begin read only"]) {
      await session.exec(begin);
      expect((await session.execute(`explain query plan ${sql}`)).rows[0]?.detail).toMatch(first);
      await session.execute("rollback");
    }
    expect((await session.execute(`explain query plan ${sql}`)).rows[0]?.detail).toMatch(first);
  }
  await session.close();
  await db.execute("create table node as select * from ostraka_nodes");
  expect((await db.execute("select node_id from node")).rows).toEqual([{ node_id: 1 }]);
  await db.exec("drop table node");
});

test("a change of the schema that one range refuses is refused at once", async () => {
  await db.exec(`drop table if exists t; create table t (id integer primary key, v);
    insert into t (id) values (1), (5), (9)`);
  await db.admin("range.split", { table: "t", at: ["4", "7"] });
  await db.exec(`create table page (id integer primary key, words);
    create virtual table found using fts5(words, content = page, content_rowid = id);
    create trigger page_found after insert on page begin
      insert into found (rowid, words) values (new.id, new.words); end;
    insert into page (words) values ('whole')`);
  await expect(db.execute("drop table found")).rejects.toMatchObject({
    code: "OSTRAKA_UNSUPPORTED",
    message: expect.stringMatching(/^rows of page would have to move/),
  });
  await db.exec("drop table page; drop table found");
});

describe.each(["one range", "several ranges"])("TEMP objects in a transaction over %s", (where) => {
  const own = mkdtempSync(join(tmpdir(), "ostraka-temp-"));
  let here: Embedded.Database;
  let session: Embedded.Session;

  beforeAll(async () => {
    here = await open(own);
    await here.exec(`create table t (id integer primary key, v); create table u (id integer primary key, v);
      insert into t (id) values (1), (5), (9); insert into u (id) values (1), (5)`);
    if (where === "one range") return;
    await here.admin("range.split", { table: "t", at: ["4", "7"] });
    await here.admin("range.split", { table: "u", at: ["4"] });
  });

  beforeEach(async () => {
    session = await here.session();
    return () => session.close();
  });

  afterAll(async () => {
    await here.close();
    rmSync(own, { recursive: true, force: true });
  });

  const list = async (sql: string) => (await session.execute(sql)).rows.map((row) => row[0]);

  test("stay what the transaction made of them while it goes on to more rows", async () => {
    await session.exec(`begin; create temp table w (a); insert into w select id from t where id < 5;
      update u set v = 2 where id in (select a from w); update t set v = 1`);
    expect(await list("select a from w")).toEqual([1]);
    await session.exec("savepoint s; insert into w select id from t; drop table w; rollback to s");
    await session.exec("update u set v = 3 where id = 5; commit");
    expect(await list("select a from w")).toEqual([1]);
    expect(await list("select v from u order by id")).toEqual([2, 3]);
  });

  test("feed it, go on being written, and are as before when it is rolled back", async () => {
    await session.exec(`create temp table w (a); insert into w values (12), (13);
      begin; insert into u select a, a from w; update t set v = 2; update w set a = a + 1; update u set v = 4`);
    expect(await list("select a from w order by a")).toEqual([13, 14]);
    await session.exec("rollback");
    expect(await list("select a from w order by a")).toEqual([12, 13]);
    expect(await list("select count(*) from u")).toEqual([2]);
    await session.exec(
      "begin; create temp table x (a); insert into x values (30); insert into u(id) select a from x",
    );
    await session.exec("commit; delete from u where id = 30");
  });

  test("do not hide changes of the schema, nor do their errors stop COMMIT", async () => {
    await session.exec(
      "create temp table w (a unique); insert into w values (5); begin; insert into t values (20, 0)",
    );
    await expect(session.execute("insert into w values (6), (6)")).rejects.toMatchObject({
      code: "SQLITE_CONSTRAINT_UNIQUE",
    });
    await session.exec("alter table t add column made; update t set made = 1 where id in (20, 5)");
    expect(await list("select id from t where made = 1 order by id")).toEqual([5, 20]);
    await session.exec("commit; alter table t drop column made; delete from t where id = 20");
    expect(await list("select a from w")).toEqual([5]);
  });
});

describe("transactions whose statements each touch one range", () => {
  beforeEach(async () => {
    await db.exec(`drop table if exists t; create table t (id integer primary key, v integer not null);
      insert into t select value, value * 10 from json_each('[1,2,3,4,5,6,7,8,9]')`);
    await db.admin("range.split", { table: "t", at: ["4", "7"] });
  });

  const values = async () => (await db.execute("select v from t order by id")).rows.map(({ v }) => v);
  const add = "update t set v = v + ? where id = ? returning v";
  const get = "select v from t where id = ?";

  test("commit all of it, in the order of their statements", async () => {
    await db.transaction(async (tx) => {
      for (const id of [1, 9, 5, 1, 9]) await tx.execute(add, [1, id]);
      expect((await tx.execute(get, [1])).rows[0]?.v).toBe(12);
      expect((await tx.execute(get, [9])).rows[0]?.v).toBe(92);
    });
    expect(await values()).toEqual([12, 20, 30, 40, 51, 60, 70, 80, 92]);
  });

  test("one after the other never lose to one another", async () => {
    const tx = await db.begin();
    await tx.execute(get, [9]);
    await tx.execute(add, [1, 1]);
    await tx.commit();
    for (let i = 0; i < 20; i++) {
      const next = await db.begin();
      await next.execute(add, [1, 1 + (i % 2)]);
      await next.execute("insert into t values (?, 0)", [100 + i]);
      await next.execute(get, [5]);
      // What the one before has read, and may still hold.
      await next.execute("update t set v = ? where id = 5", [i]);
      await next.commit();
    }
    expect((await values()).slice(0, 5)).toEqual([21, 30, 30, 40, 19]);
  });

  test("undo to a savepoint at every range, and roll back", async () => {
    await db.transaction(async (tx) => {
      await tx.execute(add, [1, 1]);
      await tx.execute("savepoint s");
      await tx.execute(add, [1, 9]);
      await tx.execute(add, [1, 1]);
      await tx.execute(add, [1, 5]);
      await tx.execute("rollback to s");
      expect((await tx.execute(get, [5])).rows[0]?.v).toBe(50);
      await tx.execute(add, [2, 9]);
      await tx.execute("release s");
    });
    expect(await values()).toEqual([11, 20, 30, 40, 50, 60, 70, 80, 92]);
    const tx = await db.begin();
    await tx.execute(add, [1, 1]);
    await tx.execute(add, [1, 9]);
    await tx.rollback();
    expect(await values()).toEqual([11, 20, 30, 40, 50, 60, 70, 80, 92]);
  });

  test("go on in a workspace with all that they did", async () => {
    await db.transaction(async (tx) => {
      await tx.execute(add, [1, 1]);
      await tx.execute(add, [1, 9]);
      const { rows } = await tx.execute("select sum(v) as sum from t");
      expect(rows[0]?.sum).toBe(452);
      await tx.execute("update t set v = 0 where id in (2, 5)");
    });
    expect(await values()).toEqual([11, 0, 30, 40, 0, 60, 70, 80, 91]);
  });

  test("keep going after a statement that failed", async () => {
    await db.transaction(async (tx) => {
      await tx.execute(add, [1, 1]);
      await expect(tx.execute("insert into t values (9, 0)")).rejects.toMatchObject({
        code: "SQLITE_CONSTRAINT_PRIMARYKEY",
      });
      await tx.execute(add, [1, 5]);
    });
    expect(await values()).toEqual([11, 20, 30, 40, 51, 60, 70, 80, 90]);
  });

  test.each(["in a workspace", "at leaders"])(
    "lose when what they read elsewhere has changed (%s)",
    async (where) => {
      const tx = await db.begin();
      await tx.execute(get, [1]);
      await db.execute(add, [1, 1]);
      const rest = async () => {
        if (where === "at leaders") await tx.execute(add, [1, 9]);
        else await tx.execute("update t set v = v + 1 where id in (5, 9)");
        await tx.commit();
      };
      await expect(rest()).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
      await tx.rollback();
      expect(await values()).toEqual([11, 20, 30, 40, 50, 60, 70, 80, 90]);
    },
  );

  test("see no state that never was", async () => {
    const tx = await db.begin();
    await tx.execute(get, [1]);
    await db.transaction(async (other) => {
      await other.execute(add, [-5, 1]);
      await other.execute(add, [5, 9]);
    });
    await expect(tx.execute(get, [9])).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
    await tx.rollback();
  });

  test("that only read are validated without votes", async () => {
    const tx = await db.begin();
    const [low, high] = [await tx.execute(get, [1]), await tx.execute(get, [9])];
    expect([low.rows[0]?.v, high.rows[0]?.v]).toEqual([10, 90]);
    await tx.commit();
    const late = await db.begin();
    await late.execute(get, [1]);
    await late.execute(get, [9]);
    await db.execute(add, [1, 1]);
    await expect(late.commit()).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
  });

  test("check constraints that wait for COMMIT", async () => {
    await db.exec(`create table c (id integer primary key, p references t deferrable initially deferred)`);
    const tx = await db.begin();
    await tx.execute("insert into c values (1, 9)");
    await tx.execute(add, [1, 1]);
    await tx.execute("insert into c values (2, 99)");
    await expect(tx.commit()).rejects.toMatchObject({ code: "SQLITE_CONSTRAINT_FOREIGNKEY" });
    await tx.rollback();
    expect((await db.execute("select count(*) from c")).rows[0]?.[0]).toBe(0);
    await db.exec("drop table c");
  });
});

test("what stays whole lies in the first range, also when it is made and filled in one transaction", async () => {
  await db.exec(`drop table if exists t; create table t (id integer primary key, v);
    insert into t (v) values ('a'), ('b'), ('c'), ('d'), ('e'), ('f'), ('g'), ('h'), ('i'); create table feeds (v)`);
  await db.admin("range.split", { table: "t", at: ["4", "7"] });
  await db.transaction(async (tx) => {
    await tx.execute("create table odd (k real primary key, v) without rowid");
    await tx.execute("insert into odd select id, v from t");
    await tx.execute("create virtual table f using fts5(v)");
    await tx.execute("create trigger feed after insert on feeds begin insert into f values (new.v); end");
    await tx.execute("insert into feeds select v from t");
  });
  await db.execute("insert into odd values (10, 'j')");
  await db.execute("insert into feeds values ('b')");
  const [row] = (
    await db.execute(
      "select (select count(*) from odd), (select count(*) from feeds), (select count(*) from f where f match 'b')",
    )
  ).rows;
  expect([...row!]).toEqual([10, 10, 2]);
  await db.execute("insert into f(f) values ('integrity-check')");
  await db.exec("drop table feeds; drop table odd; drop table f");
});

describe("a schema change that was told", () => {
  test.each([
    ["reads", "select count(*) from t"],
    ["writes", "update t set v = 'x' where id % 5 = 0"],
    ["changes the schema again", "create table again_NEW (a)"],
  ])("is known to a transaction that comes next and %s over all ranges", async (_, sql) => {
    await db.exec(`drop table if exists t; create table t (id integer primary key, v text not null);
      insert into t with recursive c (x) as (select 1 union all select x + 1 from c where x < 40) select x, 'a' from c`);
    await db.admin("range.split", { table: "t", at: Array.from({ length: 20 }, (_, i) => `${2 * i + 1}`) });
    for (let i = 0; i < 3; i++) {
      await db.execute(`create table new_${i} (a)`);
      const tx = await db.begin();
      await tx.execute(sql.replace("NEW", `${i}`));
      await tx.execute(`insert into new_${i} values (1)`);
      await tx.commit();
      await db.exec(`drop table new_${i}; drop table if exists again_${i}`);
    }
  });
});

test("writes that each look at a unique constraint of all ranges get through side by side", async () => {
  await db.exec(`drop table if exists t; create table t (id integer primary key, v text unique);
    insert into t values (1, 'a'), (10, 'b'), (20, 'c'), (30, 'd')`);
  await db.admin("range.split", { table: "t", at: ["10", "20", "30"] });
  const writers = Array.from({ length: 8 }, async (_, i) => {
    for (let at = 0; at < 3; at++)
      await db.execute("insert into t values (?, ?)", [2 + ((i * 3 + at) % 4) * 10 + i, `${i} ${at}`]);
  });
  await Promise.all(writers);
  const counted = await db.execute("select count(*), count(distinct v) from t");
  expect(counted.rows[0]).toMatchObject({ 0: 28, 1: 28 });
});

describe("transactions that add to a unique index of several ranges", () => {
  beforeEach(async () => {
    await db.exec(`drop table if exists t;
      create table t (id integer primary key, v text collate nocase unique, n real unique);
      insert into t values (1, 'a', 1), (10, 'b', 2), (20, 'c', 3)`);
    await db.admin("range.split", { table: "t", at: ["10", "20"] });
  });

  /** Two at once, committed one after the other; answers what became of the second. */
  async function both(first: string, second: string): Promise<string> {
    const one = await db.begin();
    const two = await db.begin();
    await one.execute(first);
    await two.execute(second);
    await one.commit();
    return two.commit().then(
      () => "committed",
      (error) => error.code,
    );
  }

  test.each([
    ["other values", "insert into t values (2, 'x', 10)", "insert into t values (12, 'y', 11)"],
    ["NULL", "insert into t values (2, null, 10)", "insert into t values (12, null, null)"],
    ["values for others", "update t set v = 'x' where id = 1", "update t set v = 'y' where id = 20"],
  ])("do not meet: %s", async (_, first, second) => {
    expect(await both(first, second)).toBe("committed");
  });

  test.each([
    ["the same", "insert into t values (2, 'x', 10)", "insert into t values (12, 'x', 11)"],
    ["the same by the collation", "insert into t values (2, 'x', 10)", "insert into t values (12, 'X', 11)"],
    ["the same number", "insert into t values (2, 'x', 10)", "insert into t values (12, 'y', 10.0)"],
    [
      "one that was there for a while",
      "insert into t values (2, 'x', 10)",
      "insert into t values (12, 'x', 11), (12, 'w', 12) on conflict (id) do update set v = excluded.v",
    ],
    ["with the same rowid", "insert into t values (2, 'x', 10)", "insert into t values (2, 'y', 11)"],
    ["with rowids that SQLite chooses", "insert into t (v) values ('x')", "insert into t (v) values ('y')"],
    ["one that another row gets", "update t set v = 'x' where id = 1", "insert into t values (12, 'X', 11)"],
  ])("meet: %s", async (_, first, second) => {
    expect(await both(first, second)).toBe("OSTRAKA_RETRY");
    const doubles = await db.execute("select count(*) - count(distinct v) from t where v is not null");
    expect(doubles.rows[0]?.[0]).toBe(0);
  });

  test("meet also in what was undone since", async () => {
    const one = await db.begin();
    const two = await db.begin();
    await one.execute("insert into t values (2, 'x', 10)");
    await two.execute("savepoint s");
    await two.execute("insert into t values (12, 'x', 11)");
    await two.execute("rollback to s");
    await two.execute("insert into t values (13, 'y', 12)");
    await one.commit();
    await expect(two.commit()).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
  });

  test("meet where one of them was told of a failure", async () => {
    const one = await db.begin();
    const two = await db.begin();
    await one.execute("delete from t where id = 20");
    await expect(two.execute("insert into t values (2, 'c', 9)")).rejects.toMatchObject({
      code: "SQLITE_CONSTRAINT_UNIQUE",
    });
    await two.execute("insert into t values (3, 'told', 9)");
    await one.commit();
    await expect(two.commit()).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
  });
});

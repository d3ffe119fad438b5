/**
 * What a transaction has done stays with it, and what it was told did not happen does not: when its workspace is lost or
 * could not be opened, when ranges have gone, and when others change what only several ranges together can tell.
 */
import { beforeAll, describe, expect, test } from "vitest";
import type * as Embedded from "../../src/embedded/index.js";
import { openForFile } from "./embedded-database.js";

const db = await openForFile();

beforeAll(async () => {
  await db.exec("create table log (x)");
});

type Executor = Pick<Embedded.Session, "execute">;

const counting = (to: number): string =>
  `with recursive r(i) as (select 1 union all select i + 1 from r where i < ${to}) select i from r`;
const ENDLESS = `select count(*) from t, (${counting(1e9)}) where t.id = 1`;

async function rows(executor: Executor, sql: string): Promise<unknown[][]> {
  return (await executor.execute(sql)).rows.map((row) => Array.from(row));
}

async function one(executor: Executor, sql: string): Promise<unknown> {
  return (await rows(executor, sql))[0]?.[0];
}

async function codeOf(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => "done",
    (error: { code?: unknown }) => error.code,
  );
}

async function nine(at: readonly string[]): Promise<void> {
  await db.exec(`drop table if exists t; create table t (id integer primary key, v);
    insert into t (v) values ('1'), ('2'), ('3'), ('4'), ('5'), ('6'), ('7'), ('8'), ('9')`);
  if (at.length > 0) await db.admin("range.split", { table: "t", at });
}

describe.each([
  ["one range", []],
  ["three ranges", ["4", "7"]],
])("over %s", (_, at) => {
  beforeAll(() => nine(at));

  test("a transaction whose workspace was lost goes on with what it has done", async () => {
    await db.execute("delete from log");
    const s = await db.session();
    await s.execute("begin");
    await s.execute(`insert into log select i from (${counting(20)})`);
    expect(await codeOf(s.execute(ENDLESS, [], { timeoutMs: 100 }))).toBe("OSTRAKA_TIMEOUT");
    expect(await one(s, "select x from log where rowid = 20")).toBe(20);
    expect(await codeOf(s.execute(ENDLESS, [], { timeoutMs: 100 }))).toBe("OSTRAKA_TIMEOUT");
    // Neither does it lose anything where the next one cannot be opened in time.
    await codeOf(s.execute("select count(*) from log", [], { timeoutMs: 1 }));
    await s.execute("commit");
    expect(await one(db, "select count(*) from log")).toBe(20);
    await s.close();
  });

  test("a transaction goes on after a statement that could not open a workspace in time", async () => {
    for (const timeoutMs of [1, 2, 3, 5, 8]) {
      const s = await db.session();
      await s.execute("begin");
      await codeOf(s.execute(`select count(*) from t, (${counting(20)})`, [], { timeoutMs }));
      expect(await one(s, `select count(*) from t, (${counting(20)})`)).toBe(180);
      await s.execute("rollback");
      await s.close();
    }
  });

  test("what was stopped has not been done, also when it came to its end before it heard of that", async () => {
    await db.execute("delete from log");
    const long = `insert into log select count(*) from (${counting(600_000)})`;
    const startedMs = performance.now();
    await db.execute(long);
    const tookMs = Math.max(60, performance.now() - startedMs);
    let expected = 1;
    for (const less of [20, 35, 50, 65, 80, 95]) {
      const s = await db.session();
      await s.execute("begin");
      expect(await one(s, `select count(*) from log, (${counting(1)})`)).toBe(expected);
      const code = await codeOf(s.execute(long, [], { timeoutMs: Math.max(5, Math.ceil(tookMs) - less) }));
      if (code === "done") expected++;
      expect(await one(s, `select count(*) from log, (${counting(1)})`)).toBe(expected);
      await s.execute("commit");
      expect(await one(db, "select count(*) from log")).toBe(expected);
      await s.close();
    }
  });

  test("a transaction that has changed the schema goes on in another workspace", async () => {
    const s = await db.session();
    await s.execute("begin");
    await s.execute("create table mine (x)");
    await s.execute("insert into mine values (1)");
    expect(await codeOf(s.execute(ENDLESS, [], { timeoutMs: 100 }))).toBe("OSTRAKA_TIMEOUT");
    expect(await one(s, "select x from mine")).toBe(1);
    await s.execute("commit");
    expect(await one(db, "select x from mine")).toBe(1);
    await db.execute("drop table mine");
    await s.close();
  });

  test("that TEMP objects went with a transaction's workspace is told", async () => {
    const s = await db.session();
    await s.execute("create temp table kept (x)");
    await s.execute("begin");
    await s.execute("insert into kept values (1)");
    expect(await codeOf(s.execute(ENDLESS, [], { timeoutMs: 100 }))).toBe("OSTRAKA_TIMEOUT");
    expect(await codeOf(s.execute("select * from kept"))).toBe("OSTRAKA_TEMP_LOST");
    await s.execute("rollback");
    expect(await codeOf(s.execute("select * from kept"))).toBe("SQLITE_ERROR");
    await s.close();
  });

  test("a view is read whole beside a system table", async () => {
    await db.exec("create view seen as select * from t; create view again as select * from seen");
    const sql = "select count(*) from again, (select count(*) from ostraka_nodes)";
    expect(await one(db, sql)).toBe(9);
    const s = await db.session();
    for (const begin of ["begin", "begin read only"]) {
      await s.execute(begin);
      expect(await one(s, sql)).toBe(9);
      await s.execute("rollback");
    }
    await s.execute("create temp view own as select * from again");
    const own = "select count(*) from own, (select count(*) from ostraka_nodes)";
    expect(await one(s, own)).toBe(9);
    await s.execute("begin");
    expect(await one(s, own)).toBe(9);
    await s.execute("rollback");
    await s.close();
    await db.exec("drop view again; drop view seen");
  });

  test("CREATE TABLE … AS is made once, also after it was undone or where the table is there", async () => {
    await db.execute("create table if not exists t as select 1 as other");
    expect(await one(db, "select count(*) from t")).toBe(9);
    await db.transaction(async (tx) => {
      await tx.execute("savepoint a");
      await tx.execute("create table made as select * from t where id > 6");
      await tx.execute("rollback to a");
      await tx.execute("create table made as select * from t where id > 6");
      expect(await one(tx, "select count(*) from made")).toBe(3);
    });
    expect(await one(db, "select count(*) from made")).toBe(3);
    await db.execute("drop table made");
  });

  test("what was undone does not say how the rest is committed", async () => {
    const s = await db.session();
    for (const [undone, done] of [
      ["create table made (x)", "delete from t where v > '7' limit 1"],
      ["delete from t where v > '7' limit 1", "create table made (x)"],
    ] as const) {
      await s.execute("begin");
      await s.execute("savepoint a");
      await s.execute(undone);
      await s.execute("rollback to a");
      await s.execute(done);
      await s.execute("commit");
    }
    expect(await one(db, "select count(*) from t")).toBe(8);
    await s.close();
    await db.execute("drop table made");
    await nine(at);
  });

  test("a unique index sees rows that come before COMMIT", async () => {
    const s = await db.session();
    await s.execute("begin");
    await s.execute("create unique index once on t (v)");
    await db.execute("insert into t (v) values ('1')");
    expect(await codeOf(s.execute("commit"))).not.toBe("done");
    await codeOf(s.execute("rollback"));
    expect(await codeOf(db.execute("create unique index once on t (v)"))).toBe("SQLITE_CONSTRAINT_UNIQUE");
    await db.execute("delete from t where id > 9");
    await s.close();
  });

  test.each([
    ["OR FAIL", "insert or fail into t values (-5, '777'), (-6, '4')"],
    ["RAISE(FAIL)", "insert into t values (-5, '777'), (-6, '778')"],
  ])("a UNIQUE index holds what a statement has kept that failed by %s", async (_, failing) => {
    await db.exec(`create unique index u on t (v);
      create trigger f after insert on t when new.v = '778' begin select raise(fail, 'no'); end`);
    const s = await db.session();
    await s.execute("begin");
    await s.execute("insert into t values (50, '777')");
    expect(await codeOf(db.execute(failing))).toMatch(/^SQLITE_CONSTRAINT_/);
    expect(await codeOf(s.execute("commit"))).toBe("OSTRAKA_RETRY");
    await codeOf(s.execute("rollback"));
    expect(await rows(db, "select id from t where v = '777'")).toEqual([[-5]]);
    await s.close();
    await nine(at);
  });

  test("what the checks of a write have found counts also after ROLLBACK TO", async () => {
    await db.exec("create unique index u on t (v); create table o (i)");
    const s = await db.session();
    await s.execute("begin");
    await s.execute(`insert into o ${counting(4)}`);
    await db.execute("insert into t values (60, '777')");
    expect(await one(db, "select count(*) from o")).toBe(0);
    const told = [];
    for (const sql of ["savepoint s", "insert into t values (50, '777')", "rollback to s", "commit"])
      told.push(await codeOf(s.execute(sql)));
    // It was told that 777 is free, and is before the other's insert, or it was not; it is behind who saw nothing in o.
    expect(told.join()).toMatch(/OSTRAKA_RETRY|SQLITE_CONSTRAINT_UNIQUE/);
    await codeOf(s.execute("rollback"));
    await s.close();
    await db.execute("drop table o");
    await nine(at);
  });

  test("what was deleted stays away, also in a transaction that is going to be refused", async () => {
    await db.exec("create table o (x, y); create unique index ox on o (x) where x > 5");
    const s = await db.session();
    await s.execute("begin");
    await s.execute(`insert or replace into o select i, i from (${counting(3)})`);
    await s.execute("delete from t where v > '7'");
    expect(await one(s, "select count(*) from t")).toBe(7);
    expect((await s.execute("delete from t where v > '7'")).rowsAffected).toBe(0);
    await codeOf(s.execute("commit"));
    await codeOf(s.execute("rollback"));
    await s.close();
    await db.execute("drop table o");
    await nine(at);
  });

  test("what a TEMP trigger lets stand by RAISE(IGNORE) is refused, not lost", async () => {
    const s = await db.session();
    await s.execute(
      "create temp trigger x after insert on main.t when new.v < 0 begin select raise /* so */ ( ignore); end",
    );
    expect(await codeOf(s.execute("insert into t values (10, -5)"))).toBe("OSTRAKA_UNSUPPORTED");
    await s.execute("begin");
    await s.execute("insert into t values (11, -5)");
    expect(await codeOf(s.execute("commit"))).toBe("OSTRAKA_UNSUPPORTED");
    await codeOf(s.execute("rollback"));
    await s.execute("drop trigger x");
    await s.execute("insert into t values (12, -5)");
    expect(await rows(db, "select id from t where v = -5 or v = '-5'")).toEqual([[12]]);
    await s.close();
    await nine(at);
  });

  test("a TEMP trigger stays with its table when a TEMP table takes the name", async () => {
    await nine(at);
    const s = await db.session();
    await s.exec(`create temp table seen (id, v);
      create temp trigger x after update of v on t begin insert into seen values (new.id, new.v); end;
      create temp table t (z)`);
    await s.execute("update main.t set v = 'x' where id in (1, 9)");
    await s.execute("update t set z = 1");
    expect(await rows(s, "select id, v from seen order by id")).toEqual([
      [1, "x"],
      [9, "x"],
    ]);
    await s.exec("drop table temp.t; update t set v = 'y' where id in (2, 8)");
    expect(await one(s, "select count(*) from seen where v = 'y'")).toBe(2);
    await s.execute("drop trigger x");
    await s.close();
  });

  test("a table is dropped as its children say", async () => {
    await db.exec(`create table p (id integer primary key); insert into p select id from t;
      create table c (id integer primary key, p references p (id)); insert into c select id, 10 - id from t`);
    if (at.length > 0) await db.admin("range.split", { table: "c", at: ["5"] });
    expect(await codeOf(db.execute("drop table p"))).toBe("SQLITE_CONSTRAINT_FOREIGNKEY");
    await db.exec(`drop table c; create table c (id integer primary key, p references p (id) on delete cascade);
      insert into c select id, 10 - id from t`);
    if (at.length > 0) await db.admin("range.split", { table: "c", at: ["5"] });
    await db.execute("drop table p");
    expect(await one(db, "select count(*) from c")).toBe(0);
    await db.execute("drop table c");
  });

  test("a key that SQLite chooses comes after the greatest row that is left", async () => {
    await db.transaction(async (tx) => {
      await tx.execute("update t set v = v || '!' where id in (1, 5, 9)");
      await tx.execute("delete from t where id = 9");
      expect(await one(tx, "insert into t (v) values ('new') returning id")).toBe(9);
      await tx.execute("delete from t where id = 9");
      await tx.execute("delete from t where id = 8");
      await tx.execute("delete from t where id = 7");
      expect(await one(tx, "insert into t (v) values ('new') returning id")).toBe(7);
      await tx.execute("update t set v = 'newer' where id = 7");
      expect(await one(tx, "insert into t (v) values ('last') returning id")).toBe(8);
    });
    expect(await rows(db, "select id, v from t where id > 5")).toEqual([
      [6, "6"],
      [7, "newer"],
      [8, "last"],
    ]);
    await nine(at);
  });
});

test("what was read of a range that was merged away since is not forgotten", async () => {
  await nine(["5"]);
  const s = await db.session();
  await s.execute("begin");
  expect(await one(s, "select v from t where id = 1")).toBe("1");
  expect(await one(s, "select v from t where id = 7")).toBe("7");
  await db.execute("update t set v = 'other' where id = 7");
  const ranges = (await rows(db, "select distinct range_id from ostraka_ranges order by range_id")).flat();
  for (let at = 1; at < ranges.length; at++) await db.admin("range.merge", { range: ranges[0] });
  const insert = s.execute(`insert into log select v from t, (${counting(20)})`);
  const told = [await codeOf(insert), await codeOf(s.execute("commit"))];
  expect(told).toContain("OSTRAKA_RETRY");
  await codeOf(s.execute("rollback"));
  await s.close();
});

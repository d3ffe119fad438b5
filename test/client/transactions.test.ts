/**
 * Sessions and transactions as a client sees them, on a real database of one node inside this process: what runs at the
 * leader, on a pin, and on a private copy has to look the same from here.
 */
import { beforeEach, describe, expect, test } from "vitest";
import type * as Embedded from "../../src/embedded/index.js";
import { openForFile } from "./embedded-database.js";

const db = await openForFile();

beforeEach(async () => {
  await db.exec(
    "drop table if exists acc; create table acc (id integer primary key, n integer); insert into acc values (1, 100), (2, 0)",
  );
});

const COUNT =
  "with recursive r(i) as (select 1 union all select i + 1 from r where i < 200000) select count(*) as c from r, acc where acc.id = 1";

async function one(executor: Pick<Embedded.Session, "execute">, sql: string): Promise<unknown> {
  return (await executor.execute(sql)).rows[0]?.[0];
}

test("LIKE is what the session says wherever a statement runs", async () => {
  await db.exec("drop table if exists w; create table w (id integer primary key, x, hit default 0)");
  await db.exec("insert into w (x) values ('ab'), ('AB'), ('Ab')");
  const s = await db.session();
  const hits = async (sql: string): Promise<unknown[]> => {
    await s.execute(sql);
    return (await db.execute("select id from w where hit <> 0 order by id")).rows.map(({ id }) => id);
  };
  await s.execute("pragma case_sensitive_like = on");
  // Of one row, of all of them, beside others in a transaction, and in a batch.
  expect(await hits("update w set hit = x like 'a%' where id = 2")).toEqual([]);
  expect(await hits("update w set hit = 1 where x like 'a%'")).toEqual([1]);
  await s.execute("begin");
  await s.execute("update w set hit = 0 where id = 1");
  expect(await one(s, "select x like 'A%' from w where id = 1")).toBe(0);
  await s.execute("update w set hit = x like 'A%' where id = 3");
  expect(await hits("commit")).toEqual([3]);
  await s.batch([
    "update w set hit = x like 'A%' where id = 1",
    "update w set hit = x like 'AB' where id = 2",
  ]);
  expect(await hits("update w set hit = hit")).toEqual([2, 3]);
  await s.execute("pragma case_sensitive_like = off");
  expect(await hits("update w set hit = x like 'A%' where id = 1")).toEqual([1, 2, 3]);
  await s.execute("drop table w");
  await s.close();
});

describe("transactions", () => {
  test("32 clients that read and write the same row all get through", async () => {
    const clients = Array.from({ length: 32 }, () =>
      db.transaction(async (tx) => {
        const n = Number(await one(tx, "select n from acc where id = 1"));
        await tx.execute("update acc set n = ? where id = 1", [n + 1]);
      }),
    );
    await Promise.all(clients);
    expect(await one(db, "select n from acc where id = 1")).toBe(132);
  });

  test("of two that read and write the same row, one commits and the other gets OSTRAKA_RETRY", async () => {
    const a = await db.begin();
    const b = await db.begin();
    await one(a, "select n from acc where id = 1");
    await one(b, "select n from acc where id = 1");
    await a.execute("update acc set n = 1 where id = 1");
    await b.execute("update acc set n = 2 where id = 1");
    await a.commit();
    await expect(b.commit()).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
    expect(await one(db, "select n from acc where id = 1")).toBe(1);
  });

  test("write skew is refused, whichever way the reads ran", async () => {
    for (const read of ["select sum(n) from acc", `select (${COUNT}) + (select sum(n) from acc)`]) {
      const a = await db.begin();
      const b = await db.begin();
      await one(a, read);
      await one(b, read);
      await a.execute("update acc set n = n - 1 where id = 1");
      await b.execute("update acc set n = n - 1 where id = 2");
      await a.commit();
      await expect(b.commit()).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
    }
  });

  test("autocommit writes of unknown cost run at the same time, each in a process of its own", async () => {
    await db.exec("create table many (v)");
    const writes = Array.from({ length: 12 }, (_, i) =>
      db.execute(
        "with recursive r(i) as (select 1 union all select i + 1 from r where i < 500) insert into many select ? from r",
        [i],
      ),
    );
    await Promise.all(writes);
    const { rows } = await db.execute("select v, count(*) from many group by v order by v");
    expect(rows.map((row) => [...row])).toEqual(writes.map((_, i) => [i, 500]));
    await db.exec("drop table many");
  });

  test("an open transaction that idles blocks nobody", async () => {
    const idle = await db.begin();
    await idle.execute("update acc set n = 7 where id = 1");
    await db.execute("update acc set n = 8 where id = 2");
    await db.execute("update acc set n = 9 where id = 1");
    await idle.rollback();
    expect(await one(db, "select sum(n) from acc")).toBe(17);
  });

  test("a failed statement does not end a transaction; savepoints undo parts of it", async () => {
    const s = await db.session();
    await s.execute("begin");
    await s.execute("insert into acc values (3, 3)");
    await expect(s.execute("insert into acc values (3, 3)")).rejects.toMatchObject({
      code: "SQLITE_CONSTRAINT_PRIMARYKEY",
    });
    await s.execute("savepoint a");
    await s.execute("insert into acc values (4, 4)");
    await s.execute("savepoint b");
    await s.execute("insert into acc values (5, 5)");
    await s.execute("rollback to a");
    expect(await one(s, "select count(*) from acc")).toBe(3);
    await s.execute("release a");
    await s.execute("commit");
    expect(await one(s, "select count(*) from acc")).toBe(3);
    await s.close();
  });

  test("goes on in a private copy and keeps what it had done", async () => {
    const s = await db.session();
    await s.execute("begin");
    await s.execute("insert into acc values (3, 3)");
    await s.execute("savepoint a");
    await s.execute("create table made (x)");
    await s.execute(
      "insert into made with recursive r(i) as (select 1 union all select i + 1 from r where i < 1000) select i from r",
    );
    expect(await one(s, "select count(*) from made")).toBe(1000);
    await s.execute("rollback to a");
    await expect(s.execute("select * from made")).rejects.toMatchObject({ code: "SQLITE_ERROR" });
    await s.execute("create table made (x, y)");
    await s.execute("commit");
    expect((await s.execute("select * from made")).columns).toEqual(["x", "y"]);
    expect(await one(s, "select count(*) from acc")).toBe(3);
    await s.execute("drop table made");
    await s.close();
  });

  test("deferred foreign keys are checked by COMMIT, which leaves the transaction open", async () => {
    await db.exec(
      "drop table if exists child; create table child (id integer primary key, parent integer references acc (id) deferrable initially deferred)",
    );
    const s = await db.session();
    await s.execute("begin");
    await s.execute("insert into child values (1, 77)");
    await expect(s.execute("commit")).rejects.toMatchObject({ code: "SQLITE_CONSTRAINT_FOREIGNKEY" });
    expect(s.state).toBe("open");
    await s.execute("insert into acc values (77, 0)");
    await s.execute("commit");
    expect(await one(db, "select count(*) from child join acc on parent = acc.id")).toBe(1);
    await s.close();
    await db.execute("drop table child");
  });

  test("a read-only transaction sees one snapshot and refuses writes", async () => {
    const tx = await db.begin("read");
    expect(await one(tx, "select sum(n) from acc")).toBe(100);
    await db.execute("update acc set n = n + 1");
    expect(await one(tx, "select sum(n) from acc")).toBe(100);
    await expect(tx.execute("delete from acc")).rejects.toMatchObject({ code: "SQLITE_READONLY" });
    await tx.rollback();
    expect(await one(db, "select sum(n) from acc")).toBe(102);
  });

  test("batch is all or nothing", async () => {
    await expect(
      db.batch(["insert into acc values (51, 1)", "insert into acc values (1, 1)"]),
    ).rejects.toMatchObject({ code: "SQLITE_CONSTRAINT_PRIMARYKEY" });
    expect(await one(db, "select count(*) from acc where id = 51")).toBe(0);
    const results = await db.batch([
      { sql: "insert into acc values (?, ?)", args: [52, 5] },
      "select n from acc where id = 52",
    ]);
    expect(results.map((result) => result.rowsAffected)).toEqual([1, 0]);
    expect(results[1]!.rows[0]!.n).toBe(5);
  });

  test("after OSTRAKA_RETRY nothing but ROLLBACK passes", async () => {
    const s = await db.session();
    await s.execute("begin");
    await one(s, "select n from acc where id = 1");
    await db.execute("update acc set n = n + 1 where id = 1");
    await s.execute("update acc set n = 5 where id = 2").catch(() => undefined);
    await expect(s.execute("commit")).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
    await expect(s.execute("select 1")).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
    await s.execute("rollback");
    expect(await one(s, "select n from acc where id = 2")).toBe(0);
    await s.close();
  });
});

describe("sessions", () => {
  test("TEMP objects join the database and feed it", async () => {
    const s = await db.session();
    await s.execute("create temp table tt (a)");
    await s.execute("insert into tt values (1), (2)");
    expect((await s.execute("select a, n from tt join acc on id = a order by a")).rows.length).toBe(2);
    await s.execute("insert into acc select a + 100, a from tt");
    expect(await one(s, "select changes()")).toBe(2);
    expect(await one(s, "select last_insert_rowid()")).toBe(102);
    await s.execute("begin");
    await s.execute("delete from tt");
    await s.execute("rollback");
    expect(await one(s, "select count(*) from tt")).toBe(2);
    await s.close();
    const other = await db.session();
    await expect(other.execute("select * from tt")).rejects.toMatchObject({ code: "SQLITE_ERROR" });
    expect(await one(other, "select count(*) from acc")).toBe(4);
    await other.close();
  });

  test("the database is not shown our own tables", async () => {
    const s = await db.session();
    const names = async (sql: string) => (await s.execute(sql)).rows.map((row) => String(row[0]));
    expect(await names("select name from sqlite_schema order by rowid")).toEqual(["acc"]);
    expect(await names("select name from main.sqlite_master")).toEqual(["acc"]);
    expect((await s.execute("pragma table_list")).rows.map((row) => row.name)).not.toContainEqual(
      expect.stringMatching(/^_ostraka/),
    );
    await s.execute("begin read only");
    expect(await names("select name from sqlite_schema")).toEqual(["acc"]);
    await s.execute("commit");
    await s.close();
  });

  test("runaway statements are stopped by signal and timeout, and others are answered meanwhile", async () => {
    const endless = "with recursive r(i) as (select 1 union all select i + 1 from r) select count(*) from r";
    const controller = new AbortController();
    const runaway = db.execute(endless, [], { signal: controller.signal });
    const timed = db.execute(`insert into acc ${endless.replace("count(*)", "i, i")}`, [], {
      timeoutMs: 1000,
    });
    await db.execute("update acc set n = 1 where id = 1");
    controller.abort();
    await expect(runaway).rejects.toThrow();
    await expect(timed).rejects.toMatchObject({ code: "OSTRAKA_TIMEOUT" });
    expect(await one(db, "select count(*) from acc")).toBe(2);
  });

  test("what is too large is refused", async () => {
    await expect(db.execute("insert into acc values (9, zeroblob(500000000))")).rejects.toMatchObject({
      code: expect.stringMatching(/SQLITE_TOOBIG|OSTRAKA_TOO_LARGE/),
    });
    await expect(
      db.execute("insert into acc values (9, ?)", [new Uint8Array(17 * 1024 * 1024)]),
    ).rejects.toMatchObject({ code: "OSTRAKA_TOO_LARGE" });
  });

  test("a million rows stream", async () => {
    let count = 0;
    for await (const row of db.iterate(
      "with recursive r(i) as (select 1 union all select i + 1 from r where i < 1000000) select i from r",
    )) {
      count += row.length;
    }
    expect(count).toBe(1_000_000);
  });
});

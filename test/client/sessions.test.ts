/** What a session is told of its statements, and what becomes of those that fail, as on a SQLite connection of its own. */
import { beforeEach, expect, test } from "vitest";
import type * as Embedded from "../../src/embedded/index.js";
import { openForFile } from "./embedded-database.js";

const db = await openForFile();
let s: Embedded.Session;

beforeEach(async () => {
  await s?.close();
  s = await db.session();
  await db.exec(`drop view if exists seen; drop table if exists t; drop table if exists other; drop table if exists log;
    create table t (id integer primary key, v); insert into t (v) values ('1'), ('2');
    create table other (x); insert into other values (1), (2), (3); create table log (x)`);
});

const FEW = "with recursive r(i) as (select 1 union all select i + 1 from r where i < 3) select i from r";

async function one(executor: Pick<Embedded.Session, "execute">, sql: string): Promise<unknown> {
  return (await executor.execute(sql)).rows[0]?.[0];
}

async function codeOf(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => "done",
    (error: { code?: unknown }) => error.code,
  );
}

test("a BEGIN IMMEDIATE that fails begins nothing and keeps nobody waiting", async () => {
  const holder = await db.session();
  await holder.execute("begin immediate");
  expect(await codeOf(s.execute("begin immediate", [], { timeoutMs: 50 }))).toBe("OSTRAKA_TIMEOUT");
  expect(await codeOf(s.execute("rollback"))).toBe("SQLITE_ERROR");
  await holder.execute("commit");
  const startedMs = performance.now();
  await db.execute("update t set v = 'x' where id = 1");
  expect(performance.now() - startedMs).toBeLessThan(700);
  await holder.close();
});

test("a batch counts among the session's changes", async () => {
  await s.batch(["insert into t (v) values ('3'), ('4')"]);
  expect(
    Array.from((await s.execute("select changes(), total_changes(), last_insert_rowid()")).rows[0]!),
  ).toEqual([2, 2, 4]);
  await s.batch(["insert into t (v) values ('5')", "update t set v = 'x' where id < 3"]);
  expect(await one(s, "select last_insert_rowid()")).toBe(5);
  expect(await one(s, "select total_changes()")).toBe(5);
});

test("a write that has failed has changed nothing", async () => {
  await db.execute("create unique index if not exists only on t (v)");
  for (const begin of [undefined, "begin"]) {
    if (begin !== undefined) await s.execute(begin);
    expect((await s.execute("update t set v = v || '.'")).rowsAffected).toBe(2);
    expect(await codeOf(s.execute("insert into t (v) values ('a'), ('a')"))).toBe("SQLITE_CONSTRAINT_UNIQUE");
    expect(await one(s, "select changes()")).toBe(0);
  }
  await s.execute("rollback");
});

test("a batch is all or nothing, whatever is in it", async () => {
  for (const begin of [undefined, "begin"]) {
    if (begin !== undefined) await s.execute(begin);
    for (const word of ["begin", "commit", "rollback"]) {
      const batch = ["insert into log values (1)", word, "insert into log values (2)"];
      expect(await codeOf(s.batch(batch))).toBe("OSTRAKA_UNSUPPORTED");
    }
    if (begin !== undefined) await s.execute("savepoint outer");
    const undone = ["insert into log values (1)", "rollback to outer"];
    expect(await codeOf(s.batch(undone))).toBe("SQLITE_ERROR");
    await s.batch(["savepoint a", "insert into log values (3)", "rollback to a", "release a"]);
    if (begin !== undefined) await s.execute("commit");
    expect(await one(db, "select count(*) from log")).toBe(0);
  }
});

test("a script of the pool that leaves its transaction open is refused and rolled back", async () => {
  expect(await codeOf(db.exec("begin; insert into log values (1)"))).toBe("OSTRAKA_UNSUPPORTED");
  expect(await codeOf(db.exec("savepoint s; insert into log values (1)"))).toBe("OSTRAKA_UNSUPPORTED");
  await db.exec("begin; insert into log values (2); commit");
  expect(await one(db, "select group_concat(x) from log")).toBe("2");
});

test("the pool's settings are nobody's to change", async () => {
  await db.execute("pragma foreign_keys = on");
  expect(await codeOf(db.execute("pragma foreign_keys = off"))).toBe("OSTRAKA_UNSUPPORTED");
  expect(await one(db, "pragma foreign_keys")).toBe(1);
});

test("PRAGMA query_only keeps a session from writing, in transactions, batches and TEMP objects, too", async () => {
  await s.execute("create temp table mine (a)");
  expect(await one(s, "pragma query_only")).toBe(0);
  await s.execute("insert into log values (1)");
  await s.execute("pragma query_only = on");
  expect(await one(s, "pragma query_only")).toBe(1);
  const refused = [
    "insert into log values (2)",
    "update t set v = 0 where 0",
    "delete from t",
    "with x(a) as (select 2) insert into log select a from x",
    "insert into log values (2) returning x",
    "insert into mine values (1)",
    "create table made (a)",
    "create temp table made (a)",
    "drop table other",
    "analyze",
    "reindex",
  ];
  const readonly = { code: "SQLITE_READONLY", message: "attempt to write a readonly database" };
  for (const begin of [undefined, "begin"]) {
    if (begin !== undefined) await s.execute(begin);
    for (const sql of refused) await expect(s.execute(sql), sql).rejects.toMatchObject(readonly);
    await expect(s.batch(["select 1", "insert into log values (2)"])).rejects.toMatchObject(readonly);
    expect(await one(s, "select changes()")).toBe(0);
    expect(await one(s, "select count(*) from log")).toBe(1);
    expect((await s.batch(["select 1", "select count(*) from mine"]))[1]!.rows[0]![0]).toBe(0);
    expect(await one(s, "explain insert into log values (2)")).toBe(0);
    expect(await codeOf(s.execute("insert into nowhere values (2)"))).toBe("SQLITE_ERROR");
  }
  await s.execute("pragma query_only = off");
  await s.execute("insert into log values (3)");
  await s.execute("pragma query_only = 1");
  await s.execute("commit");
  for (const sql of ["begin immediate", "begin exclusive", "vacuum", "pragma user_version = 9"])
    await expect(s.execute(sql), sql).rejects.toMatchObject(readonly);
  expect(s.state).toBe("idle");
  expect(await one(s, "pragma user_version")).toBe(0);
  expect(await one(db, "select group_concat(x) from log")).toBe("1,3");
  await db.execute("insert into log values (4)");
  expect(await codeOf(db.execute("pragma query_only = 1"))).toBe("OSTRAKA_UNSUPPORTED");
  await s.execute("pragma query_only = 0");
  await s.execute("insert into log values (5)");
  expect(await one(s, "select group_concat(x) from log")).toBe("1,3,4,5");
});

test("PRAGMA legacy_alter_table is off and stays so", async () => {
  await s.execute("pragma legacy_alter_table = off");
  expect(await one(s, "pragma legacy_alter_table")).toBe(0);
  const on = s.execute("pragma legacy_alter_table = on");
  await expect(on).rejects.toMatchObject({ code: "OSTRAKA_UNSUPPORTED" });
  await expect(on).rejects.toThrow("PRAGMA legacy_alter_table = ON: ALTER TABLE");
});

test("an error that tells what was read is validated as what was read", async () => {
  await db.execute("insert into t (v) values ('boom')");
  await s.execute("begin");
  const overflowing = `select abs(case when count(*) > 0 then -9223372036854775807 - 1 else 0 end) from t, (${FEW}) where v = 'boom'`;
  expect(await codeOf(s.execute(overflowing))).toBe("SQLITE_ERROR");
  await db.execute("delete from t where v = 'boom'");
  await s.execute("insert into log values ('it was there')");
  expect(await codeOf(s.execute("commit"))).toBe("OSTRAKA_RETRY");
});

test("a pragma that looks at rows is a part of the transaction", async () => {
  await db.exec("create table p (id integer primary key); create table c (p references p)");
  await s.execute("begin");
  expect((await s.execute("pragma foreign_key_check")).rows).toHaveLength(0);
  const careless = await db.session();
  await careless.execute("pragma foreign_keys = off");
  await careless.execute("insert into c values (1)");
  await careless.close();
  await s.execute("insert into log values ('all is well')");
  expect(await codeOf(s.execute("commit"))).toBe("OSTRAKA_RETRY");
  await db.exec("delete from c; drop table c; drop table p");
});

test("a statement that lost a race and was done again counts once", async () => {
  await db.exec("insert into t (v) values ('3'), ('4'), ('5'), ('6'), ('7'), ('8'), ('9')");
  await db.admin("range.split", { table: "t", at: ["4", "7"] });
  const other = await db.session();
  const update = `update t set v = v || (select count(*) from (${FEW}))`;
  for (let i = 0; i < 6; i++) await Promise.all([s.execute(update), other.execute(update)]);
  expect(await one(s, "select total_changes()")).toBe(54);
  await other.close();
});

test("what is written to TEMP objects in a transaction that only reads is counted, and rolled back with it", async () => {
  await s.execute("create temp table own (x)");
  await s.execute("begin read only");
  expect((await s.execute("insert into own values (1), (2)")).rowsAffected).toBe(2);
  expect(await one(s, "select changes()")).toBe(2);
  await s.execute("commit");
  expect(await one(s, "select count(*) from own")).toBe(2);
  await s.execute("begin read only");
  await s.execute("delete from own");
  await s.execute("rollback");
  expect(await one(s, "select count(*) from own")).toBe(2);
});

test("sessions that hold on to processes keep no statement waiting", async () => {
  await db.admin("range.split", { table: "other", at: ["2"] });
  const sessions = await Promise.all(Array.from({ length: 32 }, () => db.session()));
  for (const session of sessions) await session.execute("create temp table own (x)");
  const options = { timeoutMs: 5_000 };
  const { rows } = await db.execute("select count(*) from other a join other b using (x)", [], options);
  expect(rows[0]?.[0]).toBe(3);
  await db.execute("insert into log select x from other a join other b using (x)", [], options);
  expect(await one(db, "select count(*) from log")).toBe(3);
  for (const session of sessions) await session.close();
});

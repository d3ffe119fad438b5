/** Tables in several ranges as a client sees them: nothing tells that they are not whole. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type * as Embedded from "../../src/embedded/index.js";

const { open } = (await import("../../dist/embedded/index.js" as string)) as typeof Embedded;

const directory = mkdtempSync(join(tmpdir(), "ostraka-ranges-"));
let db: Embedded.Database;

beforeAll(async () => {
  db = await open(directory);
});

afterAll(async () => {
  await db.close();
  rmSync(directory, { recursive: true, force: true });
});

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

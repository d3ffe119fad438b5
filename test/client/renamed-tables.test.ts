/** Tables that a transaction renames, or drops and makes anew, and goes on to use. */
import { beforeEach, describe, expect, test } from "vitest";
import { openForFile } from "./embedded-database.js";

const db = await openForFile();

async function rows(sql: string): Promise<unknown[][]> {
  return (await db.execute(sql)).rows.map((row) => [...row]);
}

describe.each([
  ["one range", []],
  ["many ranges", ["4", "7"]],
] as const)("in %s", (_, at) => {
  beforeEach(async () => {
    const made = await rows(
      "select name from sqlite_schema where type = 'table' and name not glob 'sqlite_*'",
    );
    for (const [name] of made) await db.execute(`drop table ${name as string}`);
    await db.exec(`create table t (id integer primary key, v);
      insert into t values (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8), (9, 9)`);
    if (at.length > 0) await db.admin("range.split", { table: "t", at: [...at] });
  });

  test("a table that was renamed keeps its rows where they are", async () => {
    await db.transaction(async (tx) => {
      await tx.execute("alter table t rename to r");
      await tx.execute("update r set v = 100 where id in (1, 5, 9)");
      await tx.execute("delete from r where id = 4");
      await tx.execute("savepoint s");
      await tx.execute("alter table r rename to gone");
      await tx.execute("update gone set v = 0");
      await tx.execute("rollback to s");
      await tx.execute("insert into r(v) values (55)");
    });
    expect((await rows("select v from r order by id")).flat()).toEqual([100, 2, 3, 100, 6, 7, 8, 100, 55]);
    await db.execute("update r set v = v + 1");
    expect((await rows("select v from r order by id")).flat()).toEqual([101, 3, 4, 101, 7, 8, 9, 101, 56]);
  });

  test("one that is made under the name of another is itself", async () => {
    await db.transaction(async (tx) => {
      await tx.execute("alter table t rename to old");
      await tx.execute("create table t (id integer primary key, w)");
      await tx.execute("insert into t select id, v * 10 from old where id in (1, 5, 9)");
      await tx.execute("update old set v = v + 1 where id in (1, 9)");
    });
    expect((await rows("select w from t order by id")).flat()).toEqual([10, 50, 90]);
    expect((await rows("select v from old order by id")).flat()).toEqual([2, 2, 3, 4, 5, 6, 7, 8, 10]);
    await db.transaction(async (tx) => {
      await tx.execute("drop table old");
      await tx.execute("create table old (id integer primary key)");
      await tx.execute("insert into old select id from t");
    });
    expect((await rows("select id from old order by id")).flat()).toEqual([1, 5, 9]);
  });

  test("what is read of a renamed table is what others have written", async () => {
    const tx = await db.begin();
    await tx.execute("alter table t rename to r");
    expect((await tx.execute("select v from r where id = 9")).rows[0]?.v).toBe(9);
    await db.execute("update t set v = 100 where id = 9");
    await expect(
      tx.execute("update r set v = 10 where id = 9").then(() => tx.commit()),
    ).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
    await tx.rollback().catch(() => {});
    expect(await rows("select v from t where id = 9")).toEqual([[100]]);
  });
});

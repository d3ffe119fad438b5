import { join } from "node:path";
import Database from "better-sqlite3";
import { afterEach, describe, expect, it } from "vitest";
import { decodeRows, type SqlValue } from "../../../src/base/values.js";
import { isPointRead, type MainReader, MainReaders } from "../../../src/machines/range/main-reader.js";
import type { StoreCore } from "../../../src/machines/range/store-core.js";
import type { OpcodeRow } from "../../../src/sql/types.js";
import { applySql, openStore, statement, temporaryDirectory } from "./helpers.js";

const SCHEMA = [
  "create table t(id integer primary key, a, b text collate nocase, c real default (1 + 1))",
  "create unique index by_a on t(a)",
  "create index by_b on t(b)",
  "create table w(x text, y int, z, primary key (x, y)) without rowid",
  "create view v as select a, b from t",
];

describe("a point read", () => {
  const database = new Database(":memory:");
  for (const sql of SCHEMA) database.exec(sql);
  const explain = (sql: string) =>
    database.prepare(`explain ${sql}`).all(Array(sql.split("?").length - 1).fill(null)) as OpcodeRow[];

  it.each([
    "select id, a, b, c from t where id = ?",
    "select * from t where rowid = 5",
    "select b from t where a = ?",
    "select a from t where a = ? and b > 'x' and (c is null or c <> 2)",
    "select z from w where x = ? and y = ?",
    "select t.a, w.z from t join w on w.x = t.b and w.y = t.id where t.id = ?",
    "select a from t where id = ? order by b",
    "select coalesce(a, b), case when c > 1 then 'big' else a end, a + 1, cast(c as int) from t where id = ?",
    "select a from v where a = ?",
    "select 1, 'x', null",
  ])("is %s", (sql) => expect(isPointRead(explain(sql))).toBe(true));

  it.each([
    "select * from t",
    "select * from t where b = ?",
    "select * from t where id > ? limit 1",
    "select * from t where id in (1, 2, 3)",
    "select count(*) from t where id = ?",
    "select max(id) from t",
    "select ? like ?",
    "select a || b from t where id = ?",
    "select random() from t where id = ?",
    "select upper(b) from t where id = ?",
    "select a from t where id = ? union select 1",
    "select a from t where id = (select max(id) from t)",
    "select a, (select count(*) from w) from t where id = ?",
    "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n",
    "values (1), (2)",
    "select t.a, w.z from t left join w on w.x = t.b and w.y = 1 where t.id = ?",
  ])("is not %s", (sql) => expect(isPointRead(explain(sql))).toBe(false));
});

describe("the main thread's reader", () => {
  let nowMs = 0;
  let deferred: (() => void)[] = [];
  let timers: { delayMs: number; run: () => void }[] = [];
  const readers = new MainReaders({
    monotonicMs: () => nowMs,
    defer: (run) => void deferred.push(run),
    later: (delayMs, run) => {
      timers.push({ delayMs, run });
      return { cancel: () => {} };
    },
    most: 64,
  });
  const opened: MainReader[] = [];
  let elsewhere: string[] = [];

  afterEach(() => {
    for (const reader of opened.splice(0)) reader.close();
    [nowMs, deferred, elsewhere] = [0, [], []];
    timers = [];
  });

  function readerOf(store: StoreCore, told: number | null = store.schemaVersion): MainReader {
    const reader = readers.reader(store.path, ({ read, reject }) => {
      elsewhere.push(read.statement.sql);
      reject(new Error("elsewhere"));
    });
    if (told !== null) reader.schemaTold(told);
    if (told !== null) reader.generationTold(1);
    opened.push(reader);
    return reader;
  }

  function filled(): StoreCore {
    const store = openStore(join(temporaryDirectory(), "range.db"));
    applySql(
      store,
      "create table t(id integer primary key, a)",
      "insert into t values (1, 'one'), (2, 'two')",
    );
    return store;
  }

  function read(reader: MainReader, sql: string, params: SqlValue[] = [], maxBytes = 1 << 20) {
    return new Promise<{ index: number; rows: SqlValue[][]; columns: readonly string[] }>(
      (resolve, reject) => {
        const taken = reader.take({
          read: { statement: statement(sql, params), maxBytes },
          resolve: ({ appliedIndex, outcome }) =>
            resolve({ index: appliedIndex, rows: decodeRows(outcome.rows), columns: outcome.columns }),
          reject,
        });
        if (!taken) reject(new Error("not taken"));
      },
    );
  }

  const BY_ID = "select a from t where id = ?";

  it("sees what is committed when it begins, and says at which index", async () => {
    const store = filled();
    const reader = readerOf(store);
    expect(await read(reader, BY_ID, [1n])).toEqual({ index: 1, rows: [["one"]], columns: ["a"] });
    applySql(store, "update t set a = 'ONE' where id = 1");
    const early = read(reader, BY_ID, [1n]);
    applySql(store, "update t set a = 1 where id = 1");
    expect(await early).toMatchObject({ index: 3, rows: [[1n]] });
    expect(elsewhere).toEqual([]);
  });

  it("takes nothing before it was told of a schema, and gives away what is no point read", async () => {
    const store = filled();
    await expect(read(readerOf(store, null), BY_ID, [1n])).rejects.toThrow("not taken");
    const reader = readerOf(store);
    await expect(read(reader, "select a from t")).rejects.toThrow("elsewhere");
    // The second time it knows at once.
    await expect(read(reader, "select a from t")).rejects.toThrow("not taken");
    expect(elsewhere).toEqual(["select a from t"]);
  });

  it("rejects the errors of statements, and goes on", async () => {
    const reader = readerOf(filled());
    const outcomes = await Promise.allSettled([
      read(reader, BY_ID, [1n]),
      read(reader, BY_ID, []),
      read(reader, "pragma user_version"),
      read(reader, "select a from t where id = 2", [], 1),
      read(reader, BY_ID, [2n]),
    ]);
    expect(outcomes.map((o) => (o.status === "fulfilled" ? o.value.rows[0] : o.reason.code))).toEqual([
      ["one"],
      "SQLITE_RANGE",
      "OSTRAKA_UNSUPPORTED",
      "OSTRAKA_TOO_LARGE",
      ["two"],
    ]);
  });

  it("answers only at the schema it was told of", async () => {
    const store = filled();
    const reader = readerOf(store);
    const all = "select * from t where id = 1";
    expect((await read(reader, all)).columns).toEqual(["id", "a"]);
    applySql(store, "alter table t add column z default 7");
    await expect(read(reader, all)).rejects.toThrow("elsewhere");
    reader.schemaTold(store.schemaVersion);
    reader.generationTold(1);
    expect(await read(reader, all)).toMatchObject({ columns: ["id", "a", "z"], rows: [[1n, "one", 7n]] });
    // What was judged is judged anew: the same text may be another program.
    applySql(store, "drop table t", "create table t(id int, a)");
    reader.schemaTold(store.schemaVersion);
    reader.generationTold(1);
    await expect(read(reader, all)).rejects.toThrow("elsewhere");
  });

  it("keeps nothing in the log from being moved into the file", async () => {
    const store = filled();
    const reader = readerOf(store);
    await read(reader, BY_ID, [1n]);
    applySql(store, "insert into t values (3, 'three')");
    const other = new Database(store.path);
    expect(other.pragma("wal_checkpoint(TRUNCATE)")).toEqual([{ busy: 0, log: 0, checkpointed: 0 }]);
    other.close();
    expect((await read(reader, BY_ID, [3n])).rows).toEqual([["three"]]);
  });

  it("cuts many reads into slices with other work in between", async () => {
    const store = filled();
    const reader = readerOf(store);
    let answered = 0;
    const all = Array.from({ length: 300 }, () =>
      read(reader, BY_ID, [1n]).then(({ index }) => {
        answered++;
        return index;
      }),
    );
    await Promise.resolve();
    await new Promise<void>((resolve) => queueMicrotask(resolve));
    expect(answered).toBe(75);
    expect(deferred.length).toBe(1);
    applySql(store, "insert into t values (3, 'three')");
    let turns = 0;
    for (let run = deferred.shift(); run !== undefined; run = deferred.shift()) {
      run();
      turns++;
      expect(deferred.length).toBeLessThan(2);
    }
    const indexes = await Promise.all(all);
    expect([turns, indexes[0], indexes[74], indexes[75], indexes[299]]).toEqual([6, 1, 1, 2, 2]);
  });

  it("leaves reads to the worker for a while after slow ones", async () => {
    const store = filled();
    let slow = true;
    const slowly = new MainReaders({
      monotonicMs: () => {
        if (slow) nowMs += 3;
        return nowMs;
      },
      defer: () => {},
    });
    const reader = slowly.reader(store.path, ({ reject }) => reject(new Error("elsewhere")));
    opened.push(reader);
    reader.schemaTold(store.schemaVersion);
    reader.generationTold(1);
    expect((await read(reader, BY_ID, [1n])).rows).toEqual([["one"]]);
    slow = false;
    await expect(read(reader, BY_ID, [1n])).rejects.toThrow("elsewhere");
    nowMs += 29;
    await expect(read(reader, BY_ID, [1n])).rejects.toThrow("elsewhere");
    nowMs += 1;
    expect((await read(reader, BY_ID, [1n])).rows).toEqual([["one"]]);
  });

  it("lets the file go while it is replaced, and for good when closed", async () => {
    const [store, source] = [filled(), filled()];
    applySql(source, "insert into t values (3, 'restored')");
    const reader = readerOf(store);
    await read(reader, BY_ID, [1n]);
    const { path } = await source.copy();
    const late = read(reader, BY_ID, [3n]);
    reader.pause();
    await expect(late).rejects.toThrow("elsewhere");
    await expect(read(reader, BY_ID, [3n])).rejects.toThrow("not taken");
    await store.restore(path);
    reader.resume();
    expect(await read(reader, BY_ID, [3n])).toMatchObject({ index: 2, rows: [["restored"]] });
    reader.close();
    reader.resume();
    reader.schemaTold(1);
    reader.generationTold(1);
    await expect(read(reader, BY_ID, [3n])).rejects.toThrow("not taken");
  });

  it("has no more connections open than it may", async () => {
    const store = filled();
    const many = Array.from({ length: 64 }, () => readerOf(store));
    for (const reader of many) expect((await read(reader, BY_ID, [1n])).rows).toEqual([["one"]]);
    const one = readerOf(store);
    await expect(read(one, BY_ID, [1n])).rejects.toThrow("elsewhere");
    expect(readers.open).toBe(64);
    // The first was used again meanwhile; the second makes room.
    nowMs += 9000;
    expect((await read(many[0]!, BY_ID, [2n])).rows).toEqual([["two"]]);
    nowMs += 2000;
    expect((await read(one, BY_ID, [1n])).rows).toEqual([["one"]]);
    await expect(read(readerOf(store), BY_ID, [1n])).resolves.toBeDefined();
    expect((await read(many[0]!, BY_ID, [2n])).rows).toEqual([["two"]]);
    expect(readers.open).toBe(64);
  });

  it("closes what nobody uses, but for a few", async () => {
    const store = filled();
    const many = Array.from({ length: 40 }, () => readerOf(store));
    for (const reader of many) await read(reader, BY_ID, [1n]);
    expect(timers.map(({ delayMs }) => delayMs)).toEqual([60_000]);
    nowMs += 30_000;
    for (const reader of many.slice(0, 30)) await read(reader, BY_ID, [1n]);
    nowMs += 30_000;
    timers.shift()!.run();
    expect(readers.open).toBe(30);
    // Those that were used since have their time before them.
    expect(timers.map(({ delayMs }) => delayMs)).toEqual([30_000]);
    nowMs += 30_000;
    timers.shift()!.run();
    expect(readers.open).toBe(16);
    expect(timers).toEqual([]);
    expect((await read(many[39]!, BY_ID, [2n])).rows).toEqual([["two"]]);
  });

  it("sends everything to the worker when the file cannot be read", async () => {
    const reader = readers.reader("/nonexistent/range.db", ({ reject }) => reject(new Error("elsewhere")));
    reader.schemaTold(1);
    reader.generationTold(1);
    await expect(read(reader, BY_ID, [1n])).rejects.toThrow("elsewhere");
  });
});

import { describe, expect, it } from "vitest";
import { decodeKey, encodeKey, tableStart } from "../../../src/base/keys.js";
import { openConnection } from "../../../src/machines/range/connection.js";
import { RowCounts } from "../../../src/machines/range/row-counts.js";
import type { StoreCore } from "../../../src/machines/range/store-core.js";
import type { Command } from "../../../src/machines/range/types.js";
import {
  applyCommands,
  applySql,
  execute,
  query,
  statement,
  temporaryDirectory,
  transaction,
} from "./helpers.js";
import { childOf, openRange, split, trim } from "./ranges.js";

const series = (table: string, from: number, to: number): string =>
  `with recursive n(i) as (values (${from}) union all select i + 1 from n where i < ${to}) insert into ${table} select i from n`;

const counts = (store: StoreCore): unknown => Object.fromEntries(store.rowCounts());

describe("row counts", () => {
  it("are of the slice alone, before and after trimming", async () => {
    const root = temporaryDirectory();
    const store = openRange(root);
    applySql(
      store,
      "create table t(id integer primary key)",
      "create table k(a text, b integer, primary key(a, b)) without rowid",
      "create table h(a collate nocase primary key) without rowid",
      "create virtual table f using fts5(x)",
      series("t", 1, 100),
      "insert into k select 'k', id from t",
      "insert into h values ('a'), ('b')",
      "insert into f values ('x')",
    );
    expect(counts(store)).toEqual({ t: 100, k: 100, h: 2 });
    applyCommands(store, split(encodeKey(2, ["k", 31n]), 8));
    await childOf(store);
    const child = openRange(root, 8);
    for (let i = 0; i < 2; i++) {
      expect(counts(store)).toEqual({ t: 100, k: 30, h: 2 });
      expect(counts(child)).toEqual({ t: 0, k: 70, h: 0 });
      for (const one of [store, child]) for (let j = 0; j < 4; j++) applyCommands(one, trim(1000));
      expect(child.rangeState?.untrimmed).toBe(false);
    }
    applySql(store, "delete from t where id > 90");
    expect(counts(store)).toEqual({ t: 90, k: 30, h: 2 });
  });

  it("tell how much of the file is in use", async () => {
    const store = openRange(temporaryDirectory());
    applySql(store, "create table t(a)");
    for (let i = 0; i < 5; i++) applySql(store, "insert into t values (randomblob(100000))");
    const { liveBytes, databaseBytes } = store.size();
    expect(liveBytes).toBe(databaseBytes);
    applySql(store, "delete from t");
    expect(store.size().databaseBytes).toBe(databaseBytes);
    expect(store.size().liveBytes).toBeLessThan(databaseBytes - 450_000);
  });
});

describe("the key to split at", () => {
  it("halves the rows, wherever they are", async () => {
    const root = temporaryDirectory();
    const store = openRange(root);
    expect(store.splitKey()).toBeUndefined();
    applySql(store, "create table a(id integer primary key)", "insert into a values (1)");
    expect(store.splitKey()).toBeUndefined();
    applySql(store, "insert into a values (70)");
    expect(store.splitKey()).toBe(encodeKey(1, [70n]));
    applySql(
      store,
      "create table b(x text, y integer, primary key(x, y)) without rowid",
      "delete from a",
      series("a", 1, 10),
    );
    applySql(store, "insert into b select 'b', id from a");
    // Between two tables.
    expect(store.splitKey()).toBe(tableStart(2));
    applySql(store, "insert into b select 'c', id from a");
    expect(store.splitKey()).toBe(encodeKey(2, ["b", 6n]));
    applySql(store, "create table e(x)", "drop table b", series("e", 1, 3));
    expect(store.splitKey()).toBe(encodeKey(1, [7n]));
  });

  it.each(["k", "h"])("counts the rows of a large table whose keys are no numbers (%s)", (name) => {
    const store = openRange(temporaryDirectory());
    const rows = 150_000;
    applySql(
      store,
      "create table k(a text primary key) without rowid",
      "create table h(a collate nocase primary key) without rowid",
      `with recursive n(i) as (values (1) union all select i + 1 from n where i < ${rows})
       insert into ${name} select printf('%07d', i) from n`,
    );
    const connection = openConnection(store.path, { readonly: true, role: "read" });
    const { rangeState: range, appliedIndex, schemaVersion } = store;
    const state = { range: range!, appliedIndex, schemaVersion, databaseBytes: 2 ** 30 };
    const counted = new RowCounts(connection);
    expect(counted.counts(state).get(name)).toBe(rows);
    expect(counted.splitKey(state)).toBe(
      name === "k" ? encodeKey(1, [String(rows / 2 + 1).padStart(7, "0")]) : undefined,
    );
    connection.close();
  });

  it("is never in what stays whole", () => {
    const store = openRange(temporaryDirectory());
    applySql(store, "create table h(a collate nocase primary key) without rowid", series("h", 1, 50));
    expect(store.splitKey()).toBeUndefined();
    applySql(store, "create table t(a)", series("t", 1, 5));
    expect(store.splitKey()).toBe(tableStart(2));
  });

  it("is always strictly inside, until nothing is left to split", async () => {
    const root = temporaryDirectory();
    const store = openRange(root);
    applySql(
      store,
      "create table t(id integer primary key)",
      "create table k(a text primary key) without rowid",
      series("t", 1, 40),
      "insert into k select 'k' || char(64 + id) from t",
    );
    const waiting = [3];
    let next = 10;
    let ranges = 1;
    const rows: number[] = [];
    while (waiting.length > 0) {
      const range = openRange(root, waiting.shift()!);
      const state = range.rangeState!.descriptor;
      const total = [...range.rowCounts().values()].reduce((sum, count) => sum + count, 0);
      const key = range.splitKey();
      if (key === undefined) {
        rows.push(total);
        continue;
      }
      expect(state.start < key && (state.end === "" || key < state.end)).toBe(true);
      expect(decodeKey(key).tableId).toBeGreaterThan(0);
      const [result] = applyCommands(range, split(key, next, state.generation));
      expect(result).toMatchObject({ ok: true });
      await childOf(range);
      if (next % 3 === 0) applyCommands(range, trim(1000), trim(1000));
      waiting.push(state.range, next++);
      ranges++;
      await range.close();
    }
    expect(ranges).toBe(80);
    expect(new Set(rows)).toEqual(new Set([1]));
  });
});

describe("appending", () => {
  const append = (table: string): Command => {
    const insert = statement(`insert into ${table}(a) values ('x')`, [], { appendsTo: [table] });
    return { ...(execute("select 1") as Command & { kind: "execute" }), statement: insert };
  };
  const move = { ok: false, error: ["route", "OSTRAKA_MOVE", expect.anything(), null] };

  it("goes where SQLite chooses as in the whole table, and nowhere else", async () => {
    const root = temporaryDirectory();
    const left = openRange(root);
    applySql(
      left,
      "create table t(id integer primary key, a)",
      "create table s(id integer primary key autoincrement, a)",
      "insert into t(id, a) values (1, 'a'), (5, 'b')",
      "insert into s(id, a) values (1, 'a'), (5, 'b')",
    );
    expect(applyCommands(left, append("t"))).toMatchObject([{ outcomes: [{ lastInsertRowid: 6n }] }]);
    applySql(left, "delete from t where id = 6");
    applyCommands(left, split(encodeKey(2, [5n]), 8));
    await childOf(left);
    const s = openRange(root, 8);
    // All of t is in the left range; the end of s is in the right one.
    expect(applyCommands(left, append("t"), append("s"))).toMatchObject([
      { outcomes: [{ lastInsertRowid: 6n }] },
      move,
    ]);
    expect(applyCommands(s, append("s"), append("t"))).toMatchObject([
      { outcomes: [{ lastInsertRowid: 6n }] },
      move,
    ]);
    applySql(s, "delete from s");
    expect(applyCommands(s, append("s"))).toMatchObject([{ outcomes: [{ lastInsertRowid: 7n }] }]);
    applyCommands(left, split(encodeKey(1, [5n]), 9, 2));
    await childOf(left);
    const t = openRange(root, 9);
    expect(applyCommands(left, append("t"))).toMatchObject([move]);
    expect(applyCommands(t, append("t"))).toMatchObject([{ outcomes: [{ lastInsertRowid: 7n }] }]);
    applySql(t, "delete from t where id >= 5");
    const again = append("t");
    expect(applyCommands(t, again)).toMatchObject([move]);
    // Refused without a trace: the same command may come again.
    applySql(t, "insert into t(id, a) values (10, 'c')");
    expect(applyCommands(t, { ...again, key: append("t").key })).toMatchObject([
      { outcomes: [{ lastInsertRowid: 11n }] },
    ]);
    expect(applyCommands(s, append("s"))).toMatchObject([{ outcomes: [{ lastInsertRowid: 8n }] }]);
  });

  it("of a transaction moves all of it, and leaves it undecided", async () => {
    const root = temporaryDirectory();
    const left = openRange(root);
    applySql(left, "create table t(id integer primary key, a)", "insert into t values (1, 'a'), (5, 'b')");
    applyCommands(left, split(encodeKey(1, [5n]), 8));
    await childOf(left);
    const command = transaction("tx", [
      statement("update t set a = 'changed' where id = 1"),
      statement("insert into t(a) values ('x')", [], { appendsTo: ["t"], told: "1 1 9" }),
    ]);
    expect(applyCommands(left, command)).toMatchObject([{ ...move, statement: 1 }]);
    expect(query(left, "select a from t where id = 1")).toEqual([["a"]]);
    expect(left.outcome((command as Command & { kind: "transaction" }).transaction)).toBeUndefined();
  });
});

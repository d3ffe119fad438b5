/** Stores that nobody has used for a while have no connections, and nobody notices. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { Clock } from "../../../src/base/io.js";
import { openLocalStores } from "../../../src/machines/range/store.js";
import { at, entry, execute, openStore, statement, temporaryDirectory } from "./helpers.js";

const clock: Clock = {
  monotonicMs: () => 0,
  wallMs: () => 0,
  setTimer: () => {
    throw new Error("so few stores set no timers");
  },
};

it("a store that rests says what it said before, and wakes for whatever needs its file", async () => {
  const store = openStore();
  store.apply(
    [entry(2, [execute("create table t(a)")]), entry(3, [execute("insert into t values (1)")])],
    at(3),
  );
  const before = [store.appliedIndex, store.lastWallMs, store.schemaVersion, store.size().databaseBytes];
  const state = store.rangeState;
  const { digest } = await store.digest();
  expect(store.rest()).toBe(true);
  // Nothing is open: SQLite has folded the log into the file and removed it.
  expect(existsSync(`${store.path}-wal`)).toBe(false);
  expect([store.appliedIndex, store.lastWallMs, store.schemaVersion, store.size().databaseBytes]).toEqual(
    before,
  );
  expect(store.rangeState).toBe(state);
  store.apply([entry(4, [execute("insert into t values (2)")])], at(4));
  expect(store.appliedIndex).toBe(4);
  expect(store.rangeState).toBe(state);
  expect(store.read({ statement: statement("select sum(a) from t"), maxBytes: 1000 }).rowCount).toBe(1);
  expect((await store.digest()).digest).not.toBe(digest);
  expect(store.rest()).toBe(true);
  expect(store.schema().statements).toEqual(["CREATE TABLE t(a)"]);
});

it("is read by no connection of its own before somebody reads", () => {
  const store = openStore();
  store.apply([entry(2, [execute("create table t(a)")])], at(2));
  expect(store.schema().statements).toEqual(["CREATE TABLE t(a)"]);
  store.apply([entry(3, [execute("insert into t values (1)")])], at(3));
  const select = { statement: statement("select a from t"), maxBytes: 1000 };
  expect(store.read(select).rowCount).toBe(1);
  store.apply([entry(4, [execute("drop table t")]), entry(5, [execute("create table t(a, b)")])], at(5));
  expect(store.read(select).rowCount).toBe(0);
});

it("does not rest while its file is being copied", async () => {
  const store = openStore();
  store.apply([entry(2, [execute("create table t(a)")])], at(2));
  const copy = store.copy();
  expect(store.rest()).toBe(false);
  await copy;
  expect(store.rest()).toBe(true);
});

it("a worker keeps as many open as it may, and serves all of them", async () => {
  const worker = openLocalStores({ clock, awake: 2 });
  const directory = temporaryDirectory();
  const stores = Array.from({ length: 6 }, (_, i) => worker.store(join(directory, String(i), "range.db")));
  for (const store of stores) await store.open();
  const open = (): number => stores.filter(({ path }) => existsSync(`${path}-wal`)).length;
  for (let round = 0; round < 3; round++)
    for (const [i, store] of stores.entries()) {
      const sql = round === 0 ? "create table t(a)" : `insert into t values (${i})`;
      await store.apply([entry(round + 2, [execute(sql)])], at(round + 2));
      expect(store.appliedIndex()).toBe(round + 2);
      await new Promise((resolve) => setImmediate(resolve));
      expect(open()).toBeLessThanOrEqual(3);
    }
  for (const store of stores) {
    const { outcome } = await store.read({ statement: statement("select a from t"), maxBytes: 1000 });
    expect(outcome.rowCount).toBe(2);
  }
  await worker.close();
});

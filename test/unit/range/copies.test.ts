/** Copies of a range's file made while others are under way and the writer goes on. */
import { readdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import Database from "better-sqlite3";
import { describe, expect, it } from "vitest";
import { transactionId } from "../../../src/base/ids.js";
import { encodeKey } from "../../../src/base/keys.js";
import { SYSTEM_FILES } from "../../../src/machines/range/files.js";
import { StoreCore } from "../../../src/machines/range/store-core.js";
import { applyCommands, applySql, openStore, statement, temporaryDirectory } from "./helpers.js";
import { childOf, rangePath, split } from "./ranges.js";

/** Files are copied whole at once, but the copies take until they are let go. */
function slow(path: string): {
  readonly store: StoreCore;
  readonly held: (() => void)[];
  readonly proceed: (count: number) => Promise<void>;
} {
  const held: (() => void)[] = [];
  const store = new StoreCore(path, {
    monotonicMs: () => 0,
    pause: () => Promise.resolve(),
    files: {
      ...SYSTEM_FILES,
      copy: async (from, to) => {
        await SYSTEM_FILES.copy(from, to);
        await new Promise<void>((resolve) => held.push(resolve));
      },
    },
  });
  store.open();
  applySql(store, "create table t(id integer primary key, a)");
  const proceed = async (count: number): Promise<void> => {
    while (held.length < count) await new Promise((resolve) => setImmediate(resolve));
    for (const one of held) one();
  };
  return { store, held, proceed };
}

it("shows in every copy the very state it is said to be of", async () => {
  const { store, held } = slow(join(temporaryDirectory(), "range.db"));
  const copies = [store.copy(), store.copy()];
  // The log begins anew: all it held is in the file by now.
  for (let i = 0; i < 3; i++) applySql(store, "insert into t(a) values (randomblob(3000))");
  let done = false;
  const all = Promise.all(copies).finally(() => {
    done = true;
  });
  while (!done) {
    await new Promise((resolve) => setImmediate(resolve));
    held.shift()?.();
  }
  for (const { path, appliedIndex } of await all) {
    const database = new Database(path, { readonly: true });
    expect(database.prepare("select applied_index from _ostraka_state").pluck().get()).toBe(appliedIndex);
    expect(database.prepare("select count(*) from t").pluck().get()).toBe(appliedIndex - 1);
    database.close();
  }
  await store.close();
});

it("keeps checkpoints out of the file while it is copied", async () => {
  let proceed = (): void => undefined;
  const store = new StoreCore(join(temporaryDirectory(), "range.db"), {
    monotonicMs: () => 0,
    pause: () => Promise.resolve(),
    // Slow: what is in the file by the time it is let go is what is copied.
    files: {
      ...SYSTEM_FILES,
      copy: async (from, to) => {
        await new Promise<void>((resolve) => {
          proceed = resolve;
        });
        await SYSTEM_FILES.copy(from, to);
      },
    },
  });
  store.open();
  applySql(store, "create table t(id integer primary key, a)");
  const copying = store.copy();
  applySql(store, "insert into t(a) values (randomblob(3000))");
  const checkpoint = store.checkpoint();
  await new Promise((resolve) => setImmediate(resolve));
  proceed();
  const { path, appliedIndex } = await copying;
  expect(await checkpoint).toBe(2);
  const database = new Database(path, { readonly: true });
  expect(database.prepare("select applied_index from _ostraka_state").pluck().get()).toBe(appliedIndex);
  database.close();
  await store.close();
});

describe("while the log holds what was never committed", () => {
  /** Keeps the log from being in the file whole. */
  function pinned(store: StoreCore): Database.Database {
    const pin = new Database(store.path, { readonly: true });
    pin.exec("begin");
    pin.prepare("select count(*) from t").get();
    applySql(store, "insert into t(a) values (zeroblob(1000))");
    return pin;
  }

  /** More than the connection's memory for pages takes. */
  function speculate(store: StoreCore): void {
    for (let position = 0; position < 24; position++)
      store.speculate({
        transaction: transactionId("large"),
        position,
        earlier: position === 0 ? [] : undefined,
        statement: statement("insert into t(a) values (zeroblob(1000000))"),
        maxBytes: 1000,
      });
    expect(statSync(`${store.path}-wal`).size).toBeGreaterThan(4_000_000);
  }

  it.each(["open", "rolled back"])("a copy has nothing of what is applied in its place (%s)", async (how) => {
    const { store, proceed } = slow(rangePath(temporaryDirectory(), 3));
    const pin = pinned(store);
    const first = store.copy();
    speculate(store);
    if (how === "rolled back") store.forget(transactionId("large"));
    const second = store.copy();
    applySql(store, "insert into t(a) values (zeroblob(1000))");
    await proceed(2);
    for (const { path, appliedIndex } of [await first, await second]) {
      const database = new Database(path, { readonly: true });
      const applied = database.prepare("select applied_index from _ostraka_state").pluck().get();
      expect(applied).toBe(appliedIndex);
      expect(database.prepare("select count(*) from t").pluck().get()).toBe(1);
      database.close();
    }
    pin.close();
    await store.close();
  });

  it("the child of a split is made as of its entry", async () => {
    const { store, proceed } = slow(rangePath(temporaryDirectory(), 3));
    const pin = pinned(store);
    speculate(store);
    applyCommands(store, split(encodeKey(1, [1n]), 8));
    applySql(store, "insert into t(id, a) values (-1, zeroblob(1000))");
    await proceed(1);
    expect(await childOf(store)).toMatchObject({ index: 3 });
    pin.close();
    await store.close();
  });
});

it("replaces the file under no copy that begins when another one ends", async () => {
  const held: (() => void)[] = [];
  const hold = (): Promise<void> => new Promise((resolve) => held.push(resolve));
  const store = new StoreCore(join(temporaryDirectory(), "range.db"), {
    monotonicMs: () => 0,
    pause: () => Promise.resolve(),
    files: {
      ...SYSTEM_FILES,
      copy: async (from, to) => {
        if (to.includes(".copy-")) await hold();
        await SYSTEM_FILES.copy(from, to);
      },
    },
  });
  store.open();
  applySql(store, "create table t(a)", "insert into t values (1)");
  const other = openStore();
  applySql(other, "create table t(a)");
  for (let i = 0; i < 8; i++) applySql(other, "insert into t values (1)");
  const received = await other.copy();
  let done = false;
  const copies = [store.copy(), store.copy()];
  const all = Promise.all([...copies, store.restore(received.path)]).finally(() => {
    done = true;
  });
  for (let turns = 0; !done; turns++) {
    await new Promise((resolve) => setImmediate(resolve));
    // The file to be restored is ready by then.
    if (turns > 50) held.shift()?.();
  }
  await all;
  for (const { path, appliedIndex } of await Promise.all(copies)) {
    const database = new Database(path, { readonly: true });
    expect(database.prepare("select applied_index from _ostraka_state").pluck().get()).toBe(appliedIndex);
    database.close();
  }
  await store.close();
});

it("leaves nothing of a copy for which there was no room", async () => {
  const path = join(temporaryDirectory(), "range.db");
  const store = new StoreCore(path, {
    monotonicMs: () => 0,
    pause: () => Promise.resolve(),
    files: {
      ...SYSTEM_FILES,
      copyPrefix: () => Promise.reject(Object.assign(new Error("no space"), { code: "ENOSPC" })),
    },
  });
  store.open();
  applySql(store, "create table t(id integer primary key, a)");
  // It keeps part of the log from being moved into the file.
  const reader = new Database(path, { readonly: true });
  reader.exec("begin");
  reader.prepare("select * from t").all();
  applySql(store, "insert into t(a) values (randomblob(30000))");
  for (let i = 0; i < 3; i++) await expect(store.copy()).rejects.toMatchObject({ code: "OSTRAKA_DISK_FULL" });
  reader.close();
  expect(readdirSync(dirname(path)).filter((name) => name.includes(".copy-"))).toEqual([]);
  await store.close();
});

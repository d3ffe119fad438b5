/** Copies of a range's file made while others are under way and the writer goes on. */
import { join } from "node:path";
import Database from "better-sqlite3";
import { expect, it } from "vitest";
import { SYSTEM_FILES } from "../../../src/machines/range/files.js";
import { StoreCore } from "../../../src/machines/range/store-core.js";
import { applySql, temporaryDirectory } from "./helpers.js";

it("shows in every copy the very state it is said to be of", async () => {
  const held: (() => void)[] = [];
  const store = new StoreCore(join(temporaryDirectory(), "range.db"), {
    monotonicMs: () => 0,
    pause: () => Promise.resolve(),
    // The file is copied whole at once, but the copy takes until it is let go.
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

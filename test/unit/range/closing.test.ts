import { join } from "node:path";
import { expect, it } from "vitest";
import type { Clock } from "../../../src/base/io.js";
import { SYSTEM_FILES } from "../../../src/machines/range/files.js";
import { openLocalStores } from "../../../src/machines/range/store.js";
import { at, entry, execute, statement, temporaryDirectory } from "./helpers.js";

const clock: Clock = { monotonicMs: () => 0, wallMs: () => 0, setTimer: () => ({ cancel: () => {} }) };

it("sends whoever asks a store elsewhere that is only still there for what is under way", async () => {
  let proceed = (): void => {};
  const held = new Promise<void>((resolve) => {
    proceed = resolve;
  });
  const copy = async (from: string, to: string) => {
    await SYSTEM_FILES.copy(from, to);
    await held;
  };
  const worker = openLocalStores({ clock, files: { ...SYSTEM_FILES, copy } });
  const store = worker.store(join(temporaryDirectory(), "range.db"));
  await store.open();
  await store.apply([entry(1, [execute("create table t(a)")])], at(1));
  const [first, second] = [store.copy(), store.copy()];
  const settled = Promise.allSettled([first, second]);
  const closed = store.close();
  const elsewhere = { family: "retry", code: "OSTRAKA_UNAVAILABLE" };
  const read = { statement: statement("select * from t"), maxBytes: 1000 };
  await expect(store.read(read)).rejects.toMatchObject(elsewhere);
  await expect(store.rowCounts()).rejects.toMatchObject(elsewhere);
  proceed();
  expect(await settled).toMatchObject([{ status: "fulfilled" }, { reason: elsewhere }]);
  await closed;
  await (await first).release();
  await worker.close();
});

it("applies what it was given right before it was closed, and others go on", async () => {
  const worker = openLocalStores({ clock });
  const [store, other] = [1, 2].map(() => worker.store(join(temporaryDirectory(), "range.db")));
  await Promise.all([store!.open(), other!.open()]);
  const applied = store!.apply([entry(1, [execute("create table t(a)")])], at(1));
  const closed = store!.close();
  expect(await other!.schema()).toMatchObject({ statements: [] });
  expect(await applied).toHaveLength(1);
  await closed;
  await worker.close();
});

import { rmSync } from "node:fs";
import { dirname } from "node:path";
import { afterEach, expect, it, vi } from "vitest";
import { FatalError } from "../../../src/base/errors.js";
import { groupId } from "../../../src/base/ids.js";
import type { Clock } from "../../../src/base/io.js";
import { encodeKey } from "../../../src/base/keys.js";
import { decodeRows } from "../../../src/base/values.js";
import { openLocalStores, type StoreWorker } from "../../../src/machines/range/store.js";
import { StoreCore } from "../../../src/machines/range/store-core.js";
import type { Command, RangeStore } from "../../../src/machines/range/types.js";
import { at, entry, execute, freshKey, statement, temporaryDirectory, WALL_MS } from "./helpers.js";
import { rangePath, split } from "./ranges.js";

const clock: Clock = { monotonicMs: () => 0, wallMs: () => 0, setTimer: () => ({ cancel: () => {} }) };
const workers: StoreWorker[] = [];

afterEach(async () => {
  vi.restoreAllMocks();
  for (const worker of workers.splice(0)) await worker.close();
});

async function openOne(root: string): Promise<RangeStore> {
  const worker = openLocalStores({ clock });
  workers.push(worker);
  const store = worker.store(rangePath(root, 3));
  await store.open();
  return store;
}

async function count(store: RangeStore): Promise<unknown> {
  const read = { statement: statement("select count(*) from t"), maxBytes: 1000 };
  return decodeRows((await store.read(read)).outcome.rows)[0]![0];
}

function failOnce(): void {
  vi.spyOn(StoreCore.prototype, "apply").mockImplementationOnce(() => {
    throw new FatalError("OSTRAKA_DISK_FULL", "no room");
  });
}

const insert = () => execute("insert into t values (null)");
const full = { code: "OSTRAKA_DISK_FULL" };

it("refuses what was sent behind an apply that failed, and takes it when that is tried again", async () => {
  const store = await openOne(temporaryDirectory());
  await store.apply([entry(1, [execute("create table t(id integer primary key)")])], at(1));
  failOnce();
  const two = store.apply([entry(2, [insert()])], at(2));
  const behind = store.apply([entry(3, [insert()])], at(3));
  expect(await Promise.allSettled([two, behind])).toMatchObject([{ reason: full }, { reason: full }]);
  expect(await count(store)).toBe(0n);
  await store.apply([entry(2, [insert()]), entry(3, [insert()])], at(3));
  expect(await count(store)).toBe(2n);
});

it("goes on where an entry without commands failed and comes again with others", async () => {
  const store = await openOne(temporaryDirectory());
  await store.apply([entry(1, [execute("create table t(id integer primary key)")])], at(1));
  failOnce();
  await expect(store.apply([], at(2))).rejects.toMatchObject(full);
  await store.apply([entry(3, [insert()])], at(3));
  expect(await count(store)).toBe(1n);
});

it("goes on from a snapshot that came instead of an entry that failed", async () => {
  const [root, other] = [temporaryDirectory(), temporaryDirectory()];
  const key = encodeKey(1, [5n]);
  const log = [
    entry(1, [execute("create table t(id integer primary key)")]),
    entry(2, [execute("insert into t values (1), (9)")]),
    entry(3, [split(key, 8)]),
  ];
  const store = await openOne(root);
  const made = new Promise((resolve) => store.onSplit(resolve));
  await store.apply(log, at(3));
  await made;
  rmSync(dirname(rangePath(root, 8)), { recursive: true, force: true });
  const right = { range: groupId(8), start: key, end: "", generation: 2, replicas: [] };
  const absorb: Command = { kind: "absorb", key: freshKey(), wallMs: WALL_MS, generation: 2, right };
  await expect(store.apply([entry(4, [absorb])], at(4))).rejects.toMatchObject({
    code: "OSTRAKA_TOO_EARLY",
  });
  const further = await openOne(other);
  await further.apply([...log, entry(4, [insert()]), entry(5, [insert()])], at(5));
  const { path, release } = await further.copy();
  expect(await store.restore(path)).toBe(5);
  await release();
  await store.apply([entry(6, [insert()])], at(6));
  expect(store.appliedIndex()).toBe(6);
  expect(await count(store)).toBe(await count(further).then((rows) => (rows as bigint) + 1n));
});

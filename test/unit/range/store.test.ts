import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { COORDINATOR_GROUP, transactionId } from "../../../src/base/ids.js";
import type { Clock } from "../../../src/base/io.js";
import { encodeKey } from "../../../src/base/keys.js";
import { decodeRows, type SqlValue } from "../../../src/base/values.js";
import { decodeResults } from "../../../src/machines/range/command.js";
import { openLocalStores, type StoreWorker } from "../../../src/machines/range/store.js";
import type {
  Command,
  RangeState,
  RangeStore,
  SchemaSnapshot,
  SplitChild,
} from "../../../src/machines/range/types.js";
import { END_OF_TABLE } from "../../../src/sql/types.js";
import { type BuiltRunner, buildRunner } from "../../cluster/runner-build.js";
import { at, entry, execute, freshKey, resolve, statement, temporaryDirectory, WALL_MS } from "./helpers.js";
import { CONF, rangePath, split, trim } from "./ranges.js";

const clock: Clock = {
  monotonicMs: () => 0,
  wallMs: () => 0,
  setTimer: () => {
    throw new Error("stores set no timers");
  },
};

/** The product's own code, compiled: worker threads do not run TypeScript. */
let built: BuiltRunner;
let openThread: typeof import("../../../src/machines/range/store.js").openStoreWorker;
const workers: StoreWorker[] = [];

beforeAll(async () => {
  built = buildRunner();
  built.module("machines/range/store-worker.ts");
  ({ openStoreWorker: openThread } = await import(
    pathToFileURL(built.module("machines/range/store.ts")).href
  ));
});
afterAll(() => built.remove());
afterEach(async () => {
  for (const worker of workers.splice(0)) await worker.close();
});

async function applied(store: RangeStore, ...commands: Command[]) {
  const index = store.appliedIndex() + 1;
  const [result] = await store.apply([entry(index, commands)], at(index));
  return decodeResults(result!);
}

async function rows(store: RangeStore, sql: string): Promise<SqlValue[][]> {
  return decodeRows((await store.read({ statement: statement(sql), maxBytes: 1 << 20 })).outcome.rows);
}

describe.each(["in this thread", "in a worker thread"])("a store %s", (where) => {
  function open(): StoreWorker {
    const worker = where === "in this thread" ? openLocalStores({ clock }) : openThread({ clock });
    workers.push(worker);
    return worker;
  }

  async function openOne(): Promise<RangeStore> {
    const store = open().store(join(temporaryDirectory(), "deep", "range.db"));
    expect(await store.open()).toBe(0);
    return store;
  }

  it("applies, reads, and tells its state before its answers", async () => {
    const store = await openOne();
    const told: SchemaSnapshot[] = [];
    store.onSchema((schema) => told.push(schema));
    expect(await applied(store, execute("create table t(a)"))).toMatchObject([{ ok: true }]);
    expect(told).toMatchObject([{ statements: ["CREATE TABLE t(a)"], appliedIndex: 1 }]);
    const one = store.apply([entry(2, [execute("insert into t values (1)")]), entry(3, [])], at(4));
    const two = store.apply([], at(5));
    const three = store.apply([entry(6, [execute("insert into t values (2)"), execute("oops")])], at(6));
    expect((await one).map((r) => decodeResults(r).length)).toEqual([1, 0]);
    expect(await two).toEqual([]);
    expect(decodeResults((await three)[0]!)).toMatchObject([{ ok: true }, { ok: false }]);
    expect(store.appliedIndex()).toBe(6);
    expect(store.lastWallMs()).toBeGreaterThan(0);
    expect(store.size().databaseBytes).toBeGreaterThan(4096);
    expect(await rows(store, "select a from t")).toEqual([[1n], [2n]]);
    expect(told.length).toBe(1);
    expect(await store.schema()).toEqual({ ...told[0], appliedIndex: 6 });
  });

  it("passes errors on as what they are", async () => {
    const store = await openOne();
    await expect(rows(store, "selec")).rejects.toMatchObject({ code: "SQLITE_ERROR", family: "user" });
    const broken = open().store("/dev/null/range.db");
    await expect(broken.open()).rejects.toMatchObject({ family: "fatal" });
    await expect(
      store.apply([{ ...entry(1, []), data: new Uint8Array([0x92, 99, 0x90]) }], at(1)),
    ).rejects.toMatchObject({
      code: "OSTRAKA_FORMAT",
      family: "fatal",
    });
    expect(store.appliedIndex()).toBe(0);
  });

  it("answers reads that may be ahead wherever they run", async () => {
    const store = await openOne();
    await applied(store, execute("create table t(id integer primary key, a)"));
    await applied(store, execute("insert into t values (1, 'one')"));
    const read = (sql: string) => store.read({ statement: statement(sql), maxBytes: 1000, mayBeAhead: true });
    const seen = async (sql: string) => {
      const { appliedIndex, outcome } = await read(sql);
      return [appliedIndex, decodeRows(outcome.rows)];
    };
    const [point, scan, failed] = await Promise.allSettled([
      seen("select a from t where id = 1"),
      seen("select count(*) from t"),
      seen("select oops from t where id = 1"),
    ]);
    expect(point).toMatchObject({ value: [2, [["one"]]] });
    expect(scan).toMatchObject({ value: [2, [[1n]]] });
    expect(failed).toMatchObject({ reason: { code: "SQLITE_ERROR", family: "user" } });
    const { path, appliedIndex } = await store.copy();
    await applied(store, execute("update t set a = 'two'"));
    expect(await seen("select a from t where id = 1")).toEqual([3, [["two"]]]);
    // Replaced under the reader's feet, as it were.
    const [restored, meanwhile] = await Promise.all([
      store.restore(path),
      seen("select a from t where id = 1"),
    ]);
    expect(restored).toBe(appliedIndex);
    expect([["two"], ["one"]]).toContainEqual((meanwhile[1] as SqlValue[][])[0]);
    expect(await seen("select a from t where id = 1")).toEqual([2, [["one"]]]);
    await store.close();
    // It may have left this node: there are others to ask.
    await expect(read("select a from t where id = 1")).rejects.toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
  });

  it("moves big results and speculates", async () => {
    const store = await openOne();
    await applied(store, execute("create table t(a)"), execute("insert into t values (zeroblob(100000))"));
    expect((await rows(store, "select a from t"))[0]![0]).toHaveLength(100000);
    const speculation = {
      transaction: transactionId("x"),
      position: 0,
      earlier: [],
      statement: statement("insert into t values (zeroblob(50000)) returning a"),
      maxBytes: 1 << 20,
    };
    expect(await store.speculate(speculation)).toMatchObject({
      kind: "ran",
      appliedIndex: 1,
      outcome: { rowCount: 1 },
    });
    store.forget(transactionId("x"));
    expect(await store.outcome(transactionId("x"))).toBeUndefined();
    expect(await rows(store, "select count(*) from t")).toEqual([[1n]]);
  });

  it("hands its state to another store of the same worker", async () => {
    const worker = open();
    const [one, two] = [
      worker.store(join(temporaryDirectory(), "a.db")),
      worker.store(join(temporaryDirectory(), "b.db")),
    ];
    await Promise.all([one.open(), two.open()]);
    await applied(one, execute("create table t(a)"), execute("insert into t values (1)"));
    const told: SchemaSnapshot[] = [];
    two.onSchema((schema) => told.push(schema));
    const snapshot = await one.snapshot();
    const file = join(temporaryDirectory(), "received");
    const parts: Uint8Array[] = [];
    for (let offset = 0; offset < snapshot.bytes; offset += 5000)
      parts.push(await snapshot.read(offset, 5000));
    writeFileSync(file, Buffer.concat(parts));
    await snapshot.release();
    expect(await two.restore(file)).toBe(1);
    expect(told.length).toBe(1);
    expect(two.appliedIndex()).toBe(1);
    expect(await two.digest()).toEqual(await one.digest());
    expect(await one.checkpoint()).toBe(1);
    const copy = await one.copy();
    expect(copy.appliedIndex).toBe(1);
    await copy.release();
  });

  it("tells of splits, of its slice, and of what is prepared", async () => {
    const root = temporaryDirectory();
    const worker = open();
    const store = worker.store(rangePath(root, 3));
    const states: RangeState[] = [];
    const children: SplitChild[] = [];
    store.onState((state) => states.push(state));
    store.onSplit((child) => children.push(child));
    await store.open();
    expect(store.state()).toMatchObject({ descriptor: { range: 3, generation: 1 }, frozenInto: undefined });
    await applied(
      store,
      execute("create table t(id integer primary key)"),
      execute("insert into t values (1), (2), (3), (4)"),
    );
    const key = await store.splitKey();
    expect(key).toBe(encodeKey(1, [3n]));
    const prepared = {
      transaction: transactionId("p"),
      coordinator: COORDINATOR_GROUP,
      preparedMs: 5,
      reads: [{ table: "t", low: 1n, high: END_OF_TABLE }],
      writes: [],
      schemaVersion: 2,
      body: { kind: "rows" as const, changes: [{ table: "t", key: [9n], row: [9n] }] },
    };
    expect(
      await applied(store, { kind: "prepare", key: freshKey(), wallMs: WALL_MS, prepared }),
    ).toMatchObject([{ ok: true, vote: "yes" }]);
    expect(await store.prepared()).toEqual([prepared]);
    await applied(store, resolve("p", "aborted"));
    const [result] = await applied(store, split(key!, 8));
    expect(result).toMatchObject({ ok: true });
    // Told before the answer.
    expect(store.state()).toBe(states.at(-1));
    expect(states.at(-1)).toMatchObject({ descriptor: { end: key, generation: 2 }, untrimmed: true });
    while (children.length === 0) await new Promise((done) => setTimeout(done, 5));
    expect(children).toMatchObject([{ path: rangePath(root, 8), index: 4, parent: 3 }]);
    const child = worker.store(children[0]!.path);
    expect(await child.open()).toBe(4);
    expect(child.state()).toMatchObject({ descriptor: { range: 8, start: key, end: "", generation: 2 } });
    expect(child.beginning()).toMatchObject({ parent: 3, index: 4, term: 1, conf: CONF });
    expect(await store.rowCounts()).toEqual(new Map([["t", 2]]));
    expect(await child.rowCounts()).toEqual(new Map([["t", 2]]));
    expect((await child.schema()).tables).toEqual((await store.schema()).tables);
    const told = states.length;
    await applied(store, trim(10), trim(10));
    expect(states.slice(told)).toMatchObject([{ untrimmed: false }]);
    await applied(store, execute("insert into t values (0)"));
    expect(states.length).toBe(told + 1);
    expect(store.size().liveBytes).toBeLessThanOrEqual(store.size().databaseBytes);
  });

  it("rejects once it is closed", async () => {
    const worker = open();
    const store = worker.store(join(temporaryDirectory(), "range.db"));
    await store.open();
    await worker.close();
    workers.pop();
    await expect(store.schema()).rejects.toMatchObject({
      code: expect.stringMatching(/^OSTRAKA_(CLOSED|UNAVAILABLE)$/),
    });
  });
});

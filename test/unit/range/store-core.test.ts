import { existsSync, mkdirSync, readdirSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import Database from "better-sqlite3";
import { describe, expect, it, vi } from "vitest";
import { FatalError } from "../../../src/base/errors.js";
import { transactionId } from "../../../src/base/ids.js";
import { decodeRows } from "../../../src/base/values.js";
import { Answers } from "../../../src/machines/range/answers.js";
import { openConnection } from "../../../src/machines/range/connection.js";
import { StoreCore } from "../../../src/machines/range/store-core.js";
import { toldDigest } from "../../../src/machines/range/told.js";
import type {
  SpeculationAnswer,
  StampedStatement,
  StatementOutcome,
} from "../../../src/machines/range/types.js";
import { SessionFlag } from "../../../src/sql/types.js";
import { ManualClock } from "../../sim/manual-clock.js";
import {
  applyCommands,
  applySql,
  at,
  entry,
  execute,
  newStore,
  openStore,
  query,
  statement,
  temporaryDirectory,
} from "./helpers.js";

async function snapshotFile(store: StoreCore): Promise<string> {
  const snapshot = await store.snapshot();
  const bytes = await snapshot.read(0, snapshot.bytes);
  expect(bytes.length).toBe(snapshot.bytes);
  await snapshot.release();
  const file = join(temporaryDirectory(), "received");
  writeFileSync(file, bytes);
  return file;
}

describe("snapshots", () => {
  it("are there once whatever kept the new file from being opened is gone", async () => {
    const store = openStore();
    applySql(store, "create table t(a)", "insert into t values (1)");
    const file = await snapshotFile(store);
    const other = openStore();
    // Where SQLite would have its log.
    await other.checkpoint();
    const unwanted = `${other.path}-wal`;
    rmSync(unwanted);
    mkdirSync(unwanted);
    await expect(other.restore(file)).rejects.toThrow(FatalError);
    expect(() => other.prepared()).toThrow(FatalError);
    rmdirSync(unwanted);
    expect(await other.restore(file)).toBe(1);
    expect(await other.digest()).toEqual(await store.digest());
  });

  it("carry the whole state to another replica, twice if need be", async () => {
    const store = openStore();
    applySql(
      store,
      "create table t(id integer primary key, a)",
      "insert into t(a) values ('x'), (1.5), (null)",
    );
    const file = await snapshotFile(store);
    const other = openStore();
    applySql(other, "create table junk(a)", "insert into junk values (1)");
    expect(await other.restore(file)).toBe(1);
    expect(await other.restore(file)).toBe(1);
    expect(await other.digest()).toEqual(await store.digest());
    applySql(store, "insert into t(a) values (random())");
    applySql(other, "insert into t(a) values (7)");
    expect((await other.digest()).digest).not.toBe((await store.digest()).digest);
  });

  it("stand still while the writer goes on", async () => {
    const store = openStore();
    applySql(store, "create table t(id integer primary key, a)");
    for (let i = 0; i < 20; i++)
      applySql(store, "insert into t(a) select randomblob(1000) from (values (1), (2), (3), (4))");
    const before = await store.digest();
    const pending = store.snapshot();
    for (let i = 0; i < 50; i++) {
      applySql(store, "update t set a = randomblob(900)");
      store.maintain();
      await new Promise((resolve) => setImmediate(resolve));
    }
    const snapshot = await pending;
    const file = join(temporaryDirectory(), "received");
    writeFileSync(file, await snapshot.read(0, snapshot.bytes));
    await snapshot.release();
    const other = openStore();
    await other.restore(file);
    expect(await other.digest()).toEqual(before);
    expect(readdirSync(dirname(store.path)).filter((name) => name.includes("copy"))).toEqual([]);
  });

  it("are complete while a reader keeps the log from being moved", async () => {
    const store = openStore();
    applySql(store, "create table t(id integer primary key, a)", "insert into t(a) values (1)");
    const pin = new Database(store.path, { readonly: true });
    pin.exec("begin");
    expect(pin.prepare("select count(*) from t").pluck().get()).toBe(1);
    applySql(store, "insert into t(a) values (2), (3)", "create table u(a)", "insert into u values (4)");
    const file = await snapshotFile(store);
    expect(await store.checkpoint()).toBe(2);
    pin.close();
    const other = openStore();
    expect(await other.restore(file)).toBe(2);
    expect(await other.digest()).toEqual(await store.digest());
  });

  it("that were being installed when the node died are installed at the next start", async () => {
    const store = openStore();
    applySql(store, "create table t(a)", "insert into t values (1)");
    const file = await snapshotFile(store);
    const digest = await store.digest();
    const other = openStore();
    applySql(other, "create table old(a)");
    const raw = await import("node:fs/promises");
    await raw.copyFile(file, `${other.path}.restore`);
    const path = other.path;
    // The old file and its log are still there, as after a crash between the two steps.
    const again = newStore(path);
    expect(again.open()).toBe(1);
    expect(await again.digest()).toEqual(digest);
    expect(existsSync(`${path}.restore`)).toBe(false);
  });
});

describe("private copies", () => {
  it("can be written to without the replica knowing", async () => {
    const store = openStore();
    applySql(store, "create table t(a)", "insert into t values (1)");
    const copy = await store.copy();
    expect(copy.appliedIndex).toBe(1);
    const connection = openConnection(copy.path, { readonly: false, role: "copy" });
    connection.execute(statement("insert into t values (2)"), { maxBytes: 100 });
    expect(
      decodeRows(connection.execute(statement("select count(*) from t"), { maxBytes: 100 }).rows),
    ).toEqual([[2n]]);
    connection.close();
    expect(query(store, "select count(*) from t")).toEqual([[1n]]);
  });
});

describe("checkpoints", () => {
  it("move the log into the file as it grows", () => {
    const store = openStore();
    applySql(store, "create table t(a)");
    let largest = 0;
    for (let i = 0; i < 60; i++) {
      applySql(store, "insert into t select randomblob(1000000)");
      largest = Math.max(largest, store.size().walBytes);
      store.maintain();
    }
    expect(largest).toBeGreaterThan(16 * 1024 * 1024);
    expect(largest).toBeLessThan(20 * 1024 * 1024);
    expect(store.size().databaseBytes).toBeGreaterThan(60_000_000);
  });

  it("tell of a log that a pin keeps from starting over", () => {
    const store = openStore();
    applySql(store, "create table t(a)");
    const pin = openConnection(store.path, { readonly: true, role: "read" });
    pin.database.exec("begin; select count(*) from t");
    for (let i = 0; i < 40; i++) {
      applySql(store, "insert into t select randomblob(1000000)");
      store.maintain();
    }
    expect(store.size().walBytes).toBeGreaterThan(40_000_000);
    pin.close();
    for (let i = 0; i < 6; i++) {
      applySql(store, "insert into t select randomblob(1000000)");
      store.maintain();
    }
    expect(store.size().walBytes).toBeLessThan(10_000_000);
  });
});

describe("a log that readers kept from being moved into the file", () => {
  it("is moved, and told to be, once they are gone and though nothing is written", async () => {
    const clock = new ManualClock();
    const store = new StoreCore(join(temporaryDirectory(), "range.db"), {
      monotonicMs: () => clock.monotonicMs(),
      pause: () => Promise.resolve(),
      later: (delayMs, run) => clock.setTimer(delayMs, run),
    });
    let news = 0;
    store.onNews = () => void news++;
    store.open();
    applySql(store, "create table t(a)");
    const pin = openConnection(store.path, { readonly: true, role: "read" });
    pin.database.exec("begin; select count(*) from t");
    for (let i = 0; i < 20; i++) {
      applySql(store, "insert into t select randomblob(1000000)");
      store.maintain();
    }
    await clock.advance(5_000);
    expect(store.size().walBytes).toBeGreaterThan(20_000_000);
    expect(news).toBe(0);
    pin.close();
    await clock.advance(5_000);
    expect(store.size().walBytes).toBe(0);
    expect(news).toBe(1);
    applySql(store, "insert into t values (1)");
    expect(store.size().walBytes).toBeGreaterThan(0);
    expect(store.size().walBytes).toBeLessThan(1_000_000);
    applySql(store, "insert into t select randomblob(20000000)");
    store.maintain();
    expect(store.size().walBytes).toBe(0);
    expect(news).toBe(2);
    await store.close();
  });
});

describe("bounded reads", () => {
  it("see every applied entry and nothing else", () => {
    const store = openStore();
    applySql(store, "create table t(a)");
    expect(query(store, "select * from t")).toEqual([]);
    applySql(store, "alter table t add column b default 5", "insert into t(a) values (1)");
    expect(query(store, "select * from t")).toEqual([[1n, 5n]]);
    expect(() => query(store, "insert into t(a) values (2)")).toThrow();
    expect(() => query(store, "commit")).toThrow(expect.objectContaining({ code: "OSTRAKA_UNSUPPORTED" }));
    expect(() => query(store, "explain query plan pragma recursive_triggers = on")).toThrow(
      expect.objectContaining({ code: "OSTRAKA_UNSUPPORTED" }),
    );
    expect(query(store, "explain query plan select * from t").length).toBe(1);
    expect(() => store.read({ statement: statement("select zeroblob(100)"), maxBytes: 50 })).toThrow(
      expect.objectContaining({ code: "OSTRAKA_TOO_LARGE" }),
    );
    expect(query(store, "select name from _ostraka_schema_view")).toEqual([["t"]]);
  });
});

describe("speculation", () => {
  const run = (
    store: StoreCore,
    one: StampedStatement,
    earlier: readonly StampedStatement[] = [],
    id = "t1",
  ): SpeculationAnswer =>
    store.speculate({
      transaction: transactionId(id),
      position: earlier.length,
      earlier,
      statement: one,
      maxBytes: 1 << 20,
    });
  const outcomeOf = (answer: SpeculationAnswer): StatementOutcome => {
    if (answer.kind !== "ran" || Array.isArray(answer.outcome)) throw new Error("the statement did not run");
    return answer.outcome as StatementOutcome;
  };
  const rowsOf = (answer: SpeculationAnswer) => decodeRows(outcomeOf(answer).rows);
  const count = statement("select count(*) from t");

  it("shows a transaction its own writes and nobody else", () => {
    const store = openStore();
    applySql(store, "create table t(a)");
    const insert = statement("insert into t values (1), (2)");
    expect(outcomeOf(run(store, insert)).changes).toBe(2);
    const told = { ...insert, told: toldDigest(outcomeOf(run(store, insert, [], "t9"))) };
    expect(rowsOf(run(store, count, [told]))).toEqual([[2n]]);
    expect(query(store, "select count(*) from t")).toEqual([[0n]]);
    expect(rowsOf(run(store, count, [], "t2"))).toEqual([[0n]]);
    expect(rowsOf(run(store, count, [told]))).toEqual([[2n]]);
    store.forget(transactionId("t1"));
    expect(query(store, "select count(*) from t")).toEqual([[0n]]);
  });

  it("replays after an apply and says when something changed", () => {
    const store = openStore();
    applySql(store, "create table t(a)", "insert into t values (1)");
    const update = statement("update t set a = a + 1");
    const told = { ...update, told: toldDigest(outcomeOf(run(store, update))) };
    applySql(store, "create table other(a)");
    expect(rowsOf(run(store, statement("select a from t"), [told]))).toEqual([[2n]]);
    applySql(store, "insert into t values (5)");
    expect(run(store, statement("select a from t"), [told])).toMatchObject({
      kind: "changed",
      appliedIndex: 3,
    });
    expect(query(store, "select a from t")).toEqual([[1n], [5n]]);
  });

  it("answers errors, goes on after them, and rolls back what rolls back", () => {
    const store = openStore();
    applySql(store, "create table t(a primary key)");
    const insert = statement("insert into t values (1)");
    run(store, insert);
    const failed = run(store, statement("insert into t values (1)"), [insert]);
    expect(failed).toMatchObject({
      kind: "ran",
      rolledBack: false,
      outcome: ["user", "SQLITE_CONSTRAINT_PRIMARYKEY", expect.anything(), null],
    });
    expect(rowsOf(run(store, count, [insert]))).toEqual([[1n]]);
    expect(run(store, statement("insert or rollback into t values (1)"), [insert])).toMatchObject({
      kind: "ran",
      rolledBack: true,
    });
    expect(rowsOf(run(store, count))).toEqual([[0n]]);
    expect(run(store, statement("commit"))).toMatchObject({
      kind: "ran",
      outcome: ["user", "OSTRAKA_UNSUPPORTED", expect.anything(), null],
    });
    expect(query(store, "select count(*) from t")).toEqual([[0n]]);
  });

  it("undoes schema changes", () => {
    const store = openStore();
    applySql(store, "create table t(a)");
    const create = statement("create table u(a)");
    run(store, create);
    expect(rowsOf(run(store, statement("select count(*) from u"), [create]))).toEqual([[0n]]);
    applySql(store, "create table v(a)");
    expect(query(store, "select name from _ostraka_schema_view")).toEqual([["t"], ["v"]]);
    expect(applyCommands(store, execute("insert into u values (1)"))).toMatchObject([{ ok: false }]);
  });

  it("does not disturb what is applied", async () => {
    const store = openStore();
    const plain = openStore();
    const log = [
      entry(1, [execute("create table t(id integer primary key, a default (random()))")]),
      entry(2, [execute("insert into t(a) values (1)")]),
      entry(3, [execute("insert into t default values")]),
    ];
    for (const one of log) {
      if (one.index > 1) run(store, statement("insert into t default values"));
      store.apply([one], one.index);
      plain.apply([one], one.index);
    }
    expect(await store.digest()).toEqual(await plain.digest());
  });
});

it("has a digest also where a virtual table cannot be read any more", async () => {
  const store = openStore();
  applySql(
    store,
    "create table c(id integer primary key, x)",
    "create virtual table f using fts5(x, content=c)",
    "drop table c",
  );
  const { digest } = await store.digest();
  expect((await store.digest()).digest).toBe(digest);
  applySql(store, "create table c(id integer primary key, x)");
  expect((await store.digest()).digest).not.toBe(digest);
});

describe("the schema", () => {
  it("is told with a version that counts its changes", () => {
    const store = openStore();
    const first = store.schemaVersion;
    applySql(
      store,
      "create table t(id integer primary key autoincrement, a unique)",
      "create index i on t(a)",
      "create view v as select 1",
    );
    expect(store.schemaVersion).toBe(first + 3);
    store.apply([entry(2, [execute("create trigger x after insert on t begin select 1; end")])], at(2));
    expect(store.schemaVersion).toBe(first + 4);
    applySql(store, "insert into t(a) values (1)", "analyze");
    const schema = store.schema();
    expect(schema).toMatchObject({ version: first + 5, appliedIndex: 3 });
    const empty = new Database(":memory:");
    for (const sql of schema.statements) empty.exec(sql);
    expect(
      empty.prepare("select name from sqlite_schema where sql is not null order by name").pluck().all(),
    ).toEqual(["i", "sqlite_sequence", "sqlite_stat1", "sqlite_stat4", "t", "v", "x"]);
    expect(applyCommands(store, execute("create table t(a)"))).toMatchObject([{ ok: false }]);
    expect(store.schemaVersion).toBe(first + 5);
  });
});

it("reads by the schema that an apply has left that failed further on", () => {
  const store = openStore();
  applySql(store, "create table t(a)", "insert into t values (1)");
  expect(query(store, "select * from t")).toEqual([[1n]]);
  const log = [
    entry(3, [execute("alter table t add column b default 2", [], { flags: SessionFlag.ForeignKeysOff })]),
    entry(4, [execute("insert into t values (3, 4)")]),
  ];
  const endEntry = Answers.prototype.endEntry;
  let entries = 0;
  const spy = vi.spyOn(Answers.prototype, "endEntry").mockImplementation(function (this: Answers) {
    if (++entries === 2) throw new FatalError("OSTRAKA_DISK_FULL", "no room");
    endEntry.call(this);
  });
  expect(() => store.apply(log, at(4))).toThrow("no room");
  spy.mockRestore();
  expect(store.appliedIndex).toBe(3);
  const read = () => store.read({ statement: statement("select * from t"), maxBytes: 1000 });
  expect(read()).toMatchObject({ columns: ["a", "b"] });
  store.apply(log.slice(1), at(4));
  expect(read()).toMatchObject({ columns: ["a", "b"], rowCount: 2 });
});

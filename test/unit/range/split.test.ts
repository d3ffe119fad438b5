import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, truncateSync } from "node:fs";
import { dirname, join } from "node:path";
import Database from "better-sqlite3";
import { describe, expect, it, vi } from "vitest";
import { FatalError } from "../../../src/base/errors.js";
import { COORDINATOR_GROUP, groupId, term, transactionId } from "../../../src/base/ids.js";
import { encodeKey, encodeKeyAfter, tableStart } from "../../../src/base/keys.js";
import { decodeResults } from "../../../src/machines/range/command.js";
import { type FileWork, SYSTEM_FILES } from "../../../src/machines/range/files.js";
import { LogKeeper } from "../../../src/machines/range/log-keeper.js";
import { writeNote } from "../../../src/machines/range/split-notes.js";
import { RangeState } from "../../../src/machines/range/state.js";
import type { StoreCore } from "../../../src/machines/range/store-core.js";
import type { Command } from "../../../src/machines/range/types.js";
import { SimRandom } from "../../sim/sim-random.js";
import {
  applyCommands,
  applySql,
  at,
  entry,
  execute,
  freshKey,
  prepare,
  query,
  resolve,
  span,
  temporaryDirectory,
  WALL_MS,
} from "./helpers.js";
import { CONF, childOf, childrenOf, openRange, rangePath, split, trim } from "./ranges.js";

function numbers(root: string, rows = 10): StoreCore {
  const store = openRange(root);
  applySql(
    store,
    "create table t(id integer primary key, a)",
    `with recursive n(i) as (values (1) union all select i + 1 from n where i < ${rows}) insert into t select i, 'a' || i from n`,
  );
  return store;
}

/** All that a folder has, but for what is shared memory: as a process that dies leaves it. */
function crashed(root: string): string {
  const target = temporaryDirectory();
  for (const name of readdirSync(root, { recursive: true, encoding: "utf8" })) {
    const from = join(root, name);
    if (statSync(from).isDirectory() || name.endsWith("-shm")) continue;
    mkdirSync(dirname(join(target, name)), { recursive: true });
    copyFileSync(from, join(target, name));
  }
  return target;
}

describe("a split", () => {
  it("makes a range of the keys from its key on, as of its entry", async () => {
    const root = temporaryDirectory();
    const store = numbers(root);
    const write = {
      ...execute("insert into t values (100, 'answered') returning id"),
      key: { client: "writer", sequence: 1, lowestUnanswered: 1, issuedMs: WALL_MS },
    };
    const [first] = applyCommands(store, write);
    applyCommands(store, resolve("gone", "aborted"));
    const before = store.appliedIndex;
    const log = [
      entry(before + 1, [execute("insert into t values (11, 'before')")], 1),
      entry(before + 2, [execute("insert into t values (12, 'before')"), split(encodeKey(1, [5n]), 8)], 1),
      entry(before + 3, [execute("insert into t values (-1, 'after')")], 2),
    ];
    const answers = store.apply(log, at(before + 3)).results.flatMap(decodeResults);
    expect(answers.map(({ ok }) => ok)).toEqual([true, true, true, true]);
    expect(store.rangeState).toEqual({
      descriptor: { range: 3, start: "", end: encodeKey(1, [5n]), generation: 2 },
      frozenInto: undefined,
      untrimmed: true,
      absorbed: [],
      absorbedAt: 0,
      rightNeighbour: 8,
    });
    const descriptor = { range: 8, start: encodeKey(1, [5n]), end: "", generation: 2 };
    const told = { path: rangePath(root, 8), parent: 3, index: before + 2, term: 1, conf: CONF };
    expect(await childOf(store)).toEqual({ descriptor, ...told });
    const child = openRange(root, 8);
    expect(child.appliedIndex).toBe(before + 2);
    expect(child.rangeState).toEqual({
      descriptor,
      frozenInto: undefined,
      untrimmed: true,
      absorbed: [],
      absorbedAt: 0,
      rightNeighbour: undefined,
    });
    expect(child.beginning()).toEqual({ parent: 3, index: before + 2, term: 1, conf: CONF });
    expect(store.beginning()).toBeUndefined();
    expect(query(child, "select count(*), min(id), max(id) from t")).toEqual([[13n, 1n, 100n]]);
    // Answers and outcomes come along.
    expect(applyCommands(child, write)).toEqual([{ ...first, repeated: true }]);
    expect(child.outcome(transactionId("gone"))).toBe("aborted");
    expect(readdirSync(dirname(child.path)).filter((name) => /partial/.test(name))).toEqual([]);
  });

  it("is refused where it cannot be, and changes nothing", async () => {
    const root = temporaryDirectory();
    const store = numbers(root);
    const before = await store.digest();
    const key = encodeKey(1, [5n]);
    const refused = (commands: Command[]): string[] => {
      const index = store.appliedIndex + 1;
      const [bytes] = store.apply([entry(index, commands)], at(index)).results;
      return decodeResults(bytes!).map((result) => (result.ok ? "ok" : result.error[1]));
    };
    expect(refused([split(key, 8, 2)])).toEqual(["OSTRAKA_ROUTE"]);
    expect(refused([split("", 8)])).toEqual(["OSTRAKA_ROUTE"]);
    expect(refused([split(tableStart(0), 8)])).toEqual(["OSTRAKA_UNSUPPORTED"]);
    expect(refused([split(encodeKeyAfter(1, [5n]), 8)])).toEqual(["OSTRAKA_UNSUPPORTED"]);
    expect(refused([split(key, 3)])).toEqual(["OSTRAKA_UNSUPPORTED"]);
    expect(refused([split(key, 8), trim(1)])).toEqual(["OSTRAKA_RETRY", "ok"]);
    applyCommands(store, prepare(store, "p", { kind: "nothing" }, { reads: [span("t", 1n, 1n)] }));
    expect(refused([split(key, 8)])).toEqual(["OSTRAKA_RETRY"]);
    applyCommands(store, resolve("p", "aborted"));
    expect(store.rangeState).toMatchObject({ descriptor: { generation: 1, end: "" }, untrimmed: false });
    expect(existsSync(rangePath(root, 8))).toBe(false);
    expect((await store.digest()).digest).not.toBe(before.digest);
  });

  it("leaves the schema to changes of all ranges", () => {
    const store = numbers(temporaryDirectory());
    applyCommands(store, split(encodeKey(1, [5n]), 8));
    const move = { ok: false, error: ["route", "OSTRAKA_MOVE", expect.anything(), null] };
    const create = execute("create table u(a)");
    expect(applyCommands(store, create)).toMatchObject([move]);
    const body = { kind: "schema" as const, statements: [statementOf(create)], changes: [] };
    applyCommands(store, prepare(store, "p", body), resolve("p", "committed"));
    expect(store.schema().tables).toMatchObject([
      { name: "t", id: 1 },
      { name: "u", id: 2 },
    ]);
  });

  it("makes equal children of equal parents, and ids of tables go on alike", async () => {
    const roots = [temporaryDirectory(), temporaryDirectory()];
    const log = [
      [execute("create table t(id integer primary key, a)"), execute("create table w(x)")],
      [execute("insert into t values (1, 'a'), (5, 'b'), (9, 'c')"), execute("drop table w")],
      [split(encodeKey(1, [5n]), 8)],
      [execute("insert into t values (2, 'later')"), trim(1)],
      [trim(5)],
    ].map((commands, i) => entry(i + 1, commands));
    const parents: unknown[] = [];
    const children: unknown[] = [];
    const change: Command = {
      kind: "prepare",
      key: freshKey(),
      wallMs: WALL_MS,
      prepared: {
        transaction: transactionId("p"),
        coordinator: COORDINATOR_GROUP,
        preparedMs: WALL_MS,
        reads: [],
        writes: [],
        schemaVersion: 4,
        body: {
          kind: "schema",
          statements: [statementOf(execute("create table x(a)"))],
          changes: [],
        },
      },
    };
    const commit = resolve("p", "committed");
    for (const [i, root] of roots.entries()) {
      const store = openRange(root);
      if (i === 0) store.apply(log, at(log.length));
      else for (const one of log) store.apply([one], one.index);
      await childOf(store);
      const child = openRange(root, 8);
      expect(applyCommands(child, change, commit)).toMatchObject([{ vote: "yes" }, { ok: true }]);
      expect(applyCommands(store, change, commit)).toMatchObject([{ vote: "yes" }, { ok: true }]);
      expect(child.schema().tables).toEqual(store.schema().tables);
      parents.push(await store.digest());
      children.push(await child.digest());
    }
    expect(parents[0]).toEqual(parents[1]);
    expect(children[0]).toEqual(children[1]);
  });

  it("can follow on another, while the first child is being made", async () => {
    const held: (() => void)[] = [];
    const root = temporaryDirectory();
    const files = {
      ...SYSTEM_FILES,
      copy: async (from: string, to: string) => {
        await new Promise<void>((done) => held.push(done));
        await SYSTEM_FILES.copy(from, to);
      },
    };
    const store = openRange(root, 3, files);
    applySql(
      store,
      "create table t(id integer primary key, a)",
      "insert into t values (1, 1), (2, 2), (3, 3)",
    );
    applyCommands(store, split(encodeKey(1, [3n]), 8));
    applySql(store, "insert into t values (0, 'between')");
    applyCommands(store, split(encodeKey(1, [2n]), 9, 2));
    applySql(store, "insert into t values (-1, 'after')");
    expect(await store.checkpoint()).toBe(1);
    const copy = store.copy();
    while (held.length < 2) await new Promise((done) => setImmediate(done));
    for (let i = 0; i < 3; i++) {
      held.shift()?.();
      await new Promise((done) => setTimeout(done, 20));
    }
    held.shift()?.();
    const made = (await childrenOf(store, 2)).map(({ descriptor }) => descriptor.range).sort();
    expect(made).toEqual([8, 9]);
    expect(query(openRange(root, 8), "select id from t")).toEqual([[1n], [2n], [3n]]);
    expect(query(openRange(root, 9), "select id from t")).toEqual([[0n], [1n], [2n], [3n]]);
    while (held.length > 0) held.shift()?.();
    expect((await copy).appliedIndex).toBe(5);
    expect(await store.checkpoint()).toBe(5);
  });
});

function statementOf(command: Command) {
  if (command.kind !== "execute") throw new Error("not a statement");
  return command.statement;
}

describe("a crash during a split", () => {
  /**
   * `power`: of the log only what was synced is sure to be there. Then with `pinned` (a reader keeps the log from being
   * moved into the file) and `copying` (no checkpoint can be tried).
   */
  const ways = ["process", "power"].flatMap((kind) =>
    [false, true].flatMap((pinned) => [false, true].map((copying) => ({ kind, pinned, copying }))),
  );

  it.each(ways)("at any step loses no child: $kind, pinned $pinned, copying $copying", async (way) => {
    const { kind, pinned, copying } = way;
    const random = new SimRandom(Number(process.env.SEED ?? 5), JSON.stringify(way));
    const outcomes = new Set<string>();
    let checked = 0;
    for (let round = 0; round < 10; round++) {
      const root = temporaryDirectory();
      const wal = (of: string): string => `${rangePath(of, 3)}-wal`;
      let image: string | undefined;
      let steps = 0;
      let syncedBytes = 0;
      const stopAt = round;
      const step = (): void => {
        if (steps++ === stopAt) image = crashed(root);
      };
      let letGo = (): void => {};
      const files: FileWork = {
        ...SYSTEM_FILES,
        copy: async (from, to) => {
          if (to.includes(".copy-")) await new Promise<void>((done) => (letGo = done));
          else step();
          await SYSTEM_FILES.copy(from, to);
          step();
        },
        copyPrefix: async (from, to, bytes) => {
          await SYSTEM_FILES.copyPrefix(from, to, bytes);
          step();
        },
        sync: async (path) => {
          await SYSTEM_FILES.sync(path);
          step();
        },
      };
      const store = openRange(root, 3, files);
      applySql(store, "create table t(id integer primary key, a)", "insert into t values (1, 1), (5, 5)");
      const first = store.appliedIndex;
      const pin = pinned ? new Database(store.path, { readonly: true }) : undefined;
      pin?.exec("begin; select count(*) from sqlite_schema");
      const copy = copying ? store.copy() : undefined;
      if (pinned) syncedBytes = statSync(wal(root)).size;
      const tail = [
        entry(2, [execute("insert into t values (6, 6)")]),
        entry(3, [split(encodeKey(1, [5n]), 8)]),
        entry(4, [execute("insert into t values (2, 'after')")]),
        entry(5, [trim(100)]),
      ];
      for (const one of tail) {
        step();
        store.apply([one], one.index);
        if (one.index === 3 && pinned && !copying) syncedBytes = statSync(wal(root)).size;
        if (random.below(2) === 0) await new Promise((done) => setImmediate(done));
      }
      await childOf(store);
      step();
      letGo();
      await copy;
      pin?.close();
      const expected = await openRange(root, 8).digest();
      const after = image ?? crashed(root);
      if (kind === "power" && existsSync(wal(after))) {
        const { size } = statSync(wal(after));
        truncateSync(wal(after), Math.min(size, syncedBytes + random.below(size)));
      }
      const noted = readdirSync(dirname(rangePath(after, 3))).some((name) => name.includes("split-"));
      const again = openRange(after);
      outcomes.add(`${again.appliedIndex} ${noted} ${existsSync(rangePath(after, 8))}`);
      // Only what was lost together with the very first entry cannot be applied again here.
      if (again.appliedIndex < first) continue;
      const missing = tail.filter((one) => one.index > again.appliedIndex);
      if (missing.length > 0) again.apply(missing, at(5));
      expect(await childOf(again)).toMatchObject({ descriptor: { range: 8 }, index: 3 });
      expect(await openRange(after, 8).digest()).toEqual(expected);
      expect(await again.digest()).toEqual(await store.digest());
      checked++;
      for (const one of [again, store]) await one.close();
    }
    expect(outcomes.size).toBeGreaterThan(2);
    expect(checked).toBeGreaterThan(5);
  });

  it("tells of a child again until two checkpoints have passed", async () => {
    const root = temporaryDirectory();
    const store = numbers(root);
    applyCommands(store, split(encodeKey(1, [5n]), 8));
    await childOf(store);
    await store.close();
    const again = openRange(root);
    expect(again.takeChildren()).toMatchObject([{ descriptor: { range: 8 } }]);
    await again.checkpoint();
    await again.close();
    const third = openRange(root);
    expect(third.takeChildren()).toMatchObject([{ descriptor: { range: 8 } }]);
    await third.checkpoint();
    await third.checkpoint();
    await third.close();
    expect(openRange(root).takeChildren()).toEqual([]);
    expect(readdirSync(dirname(rangePath(root, 3))).filter((name) => name.includes("split-"))).toEqual([]);
  });

  it("never makes a child again that has left", async () => {
    const root = temporaryDirectory();
    const store = numbers(root);
    applyCommands(store, split(encodeKey(1, [5n]), 8));
    await childOf(store);
    rmSync(dirname(rangePath(root, 8)), { recursive: true });
    await store.close();
    expect(openRange(root).takeChildren()).toEqual([]);
    expect(existsSync(rangePath(root, 8))).toBe(false);
  });

  it("never replaces a child that is there", async () => {
    const root = temporaryDirectory();
    const store = numbers(root);
    const before = crashed(root);
    const command = split(encodeKey(1, [5n]), 8);
    applyCommands(store, command);
    await childOf(store);
    const child = openRange(root, 8);
    applySql(child, "insert into t values (50, 'of the child')");
    const digest = await child.digest();
    await child.close();
    const replayed = openRange(before);
    mkdirSync(dirname(rangePath(before, 8)), { recursive: true });
    copyFileSync(rangePath(root, 8), rangePath(before, 8));
    applyCommands(replayed, command);
    expect(await childOf(replayed)).toMatchObject({ index: 2 });
    expect(await openRange(before, 8).digest()).toEqual(digest);
  });

  it("waits for room on a full disk, and makes the child then", async () => {
    const root = temporaryDirectory();
    let full = true;
    const store = openRange(root, 3, {
      ...SYSTEM_FILES,
      copy: async (from, to) => {
        if (full) throw Object.assign(new Error("no space"), { code: "ENOSPC" });
        await SYSTEM_FILES.copy(from, to);
      },
    });
    applySql(store, "create table t(id integer primary key, a)", "insert into t values (1, 1), (5, 5)");
    applyCommands(store, split(encodeKey(1, [5n]), 8));
    for (let i = 0; i < 5; i++) {
      applySql(store, `insert into t values (${-i}, 'on')`);
      store.maintain();
      await new Promise((done) => setImmediate(done));
    }
    expect(await store.checkpoint()).toBe(1);
    full = false;
    store.maintain();
    await childOf(store);
    expect(query(openRange(root, 8), "select id from t")).toEqual([[1n], [5n]]);
    expect(await store.checkpoint()).toBe(7);
  });
});

describe("a child that a full disk keeps from being made", () => {
  it("is made although the log could not be moved into the file at its split", async () => {
    const root = temporaryDirectory();
    const store = openRange(root);
    applySql(store, "create table t(id integer primary key, a)", "insert into t values (1, 1), (5, 5)");
    const pragma = vi.spyOn(Database.prototype, "pragma").mockImplementationOnce(() => {
      throw new Database.SqliteError("database or disk is full", "SQLITE_FULL");
    });
    expect(applyCommands(store, split(encodeKey(1, [5n]), 8))).toMatchObject([{ ok: true }]);
    expect(pragma).toHaveBeenCalledWith("wal_checkpoint(PASSIVE)");
    pragma.mockRestore();
    applySql(store, "insert into t values (2, 'after')");
    await childOf(store);
    expect(query(openRange(root, 8), "select id from t")).toEqual([[1n], [5n]]);
  });

  const full: FileWork = {
    ...SYSTEM_FILES,
    copy: async () => {
      throw Object.assign(new Error("no space"), { code: "ENOSPC" });
    },
  };

  it.each(["closed", "abandoned"])("is made when its parent is opened again that was %s", async (how) => {
    const root = temporaryDirectory();
    const store = openRange(root, 3, full);
    applySql(store, "create table t(id integer primary key, a)", "insert into t values (1, 1), (5, 5)");
    applyCommands(store, split(encodeKey(1, [5n]), 8));
    applySql(store, "insert into t values (2, 'after')");
    if (how === "closed") await store.close();
    else store.abandon();
    const again = openRange(root);
    expect(again.takeChildren()).toMatchObject([{ descriptor: { range: 8 } }]);
    expect(query(openRange(root, 8), "select id from t where id > 4")).toEqual([[5n]]);
  });

  it("is missed aloud where what it begins with is gone", async () => {
    const root = temporaryDirectory();
    const store = openRange(root, 3, full);
    applySql(store, "create table t(id integer primary key, a)", "insert into t values (1, 1), (5, 5)");
    applyCommands(store, split(encodeKey(1, [5n]), 8));
    applySql(store, "insert into t values (2, 'after')");
    store.abandon();
    // Whoever opens the file like any other has the log moved into it.
    const other = new Database(rangePath(root, 3));
    expect(other.pragma("wal_checkpoint(TRUNCATE)")).toMatchObject([{ busy: 0 }]);
    other.close();
    for (let i = 0; i < 2; i++)
      expect(() => openRange(root)).toThrow(
        expect.objectContaining({ code: "OSTRAKA_CORRUPT", message: expect.stringContaining("range 8") }),
      );
    rmSync(`${rangePath(root, 3)}.split-8`);
    expect(openRange(root).appliedIndex).toBe(3);
  });

  it("is not missed where the parent's state was replaced by a later one", async () => {
    const [root, whole] = [temporaryDirectory(), openRange(temporaryDirectory())];
    const log = [
      entry(1, [execute("create table t(id integer primary key, a)")]),
      entry(2, [split(encodeKey(1, [5n]), 8)]),
      entry(3, [execute("insert into t values (1, 1)")]),
    ];
    whole.apply(log, at(3));
    const received = await whole.copy();
    const store = openRange(root);
    store.apply(log.slice(0, 1), at(1));
    const commit = vi.spyOn(RangeState.prototype, "store").mockImplementationOnce(() => {
      // What is said of the split is on the disk by then, and nothing else is.
      writeNote(rangePath(root, 3), { ...told, walBytes: null });
      throw new FatalError("OSTRAKA_DISK_FULL", "no room");
    });
    const told = {
      descriptor: { range: groupId(8), start: encodeKey(1, [5n]), end: "", generation: 2 },
      rightNeighbour: undefined,
      parent: groupId(3),
      index: at(2),
      term: term(1),
      conf: CONF,
    };
    expect(() => store.apply(log.slice(1, 2), at(2))).toThrow("no room");
    commit.mockRestore();
    expect(await store.restore(received.path)).toBe(3);
    await store.close();
    expect(openRange(root).appliedIndex).toBe(3);
    expect(existsSync(rangePath(root, 8))).toBe(false);
  });

  it("has the log that it is made from kept, whoever closes the file first", () => {
    const path = join(temporaryDirectory(), "kept.db");
    const keeper = new LogKeeper();
    const writer = new Database(path);
    writer.pragma("journal_mode = WAL");
    writer.exec("create table t(a)");
    keeper.keep(path);
    writer.close();
    keeper.letGo();
    expect(statSync(`${path}-wal`).size).toBeGreaterThan(0);
  });
});

describe("trimming", () => {
  it("deletes the other half little by little, firing nothing", async () => {
    const root = temporaryDirectory();
    const store = openRange(root);
    applySql(
      store,
      "create table l(a)",
      "create table t(id integer primary key, a)",
      "create table c(t references t on delete cascade)",
      "create table k(a text, b integer, primary key(a, b)) without rowid",
      "create trigger x after delete on t begin insert into l values (old.id); end",
      "insert into t select value, 'v' from json_each('[1,2,3,4,5,6,7,8,9,10]')",
      "insert into c(rowid, t) select id + 1000, id from t",
      "insert into k select 'k', id from t",
      "insert into l(rowid) values (1), (1000)",
    );
    applyCommands(store, split(encodeKey(2, [7n]), 8));
    await childOf(store);
    const child = openRange(root, 8);
    const counts = (of: StoreCore) =>
      query(
        of,
        "select (select count(*) from l), (select count(*) from t), (select count(*) from c), (select count(*) from k)",
      );
    const trims = (of: StoreCore, maxRows: number): number[] => {
      const changes: number[] = [];
      for (let more = 1; more > 0; changes.push(more)) {
        const [result] = applyCommands(of, trim(maxRows));
        more = result?.ok ? result.outcomes[0]!.changes : -1;
      }
      return changes;
    };
    expect(trims(store, 9)).toEqual([9, 9, 6, 0]);
    expect(counts(store)).toEqual([[2n, 6n, 0n, 0n]]);
    expect(store.rangeState?.untrimmed).toBe(false);
    expect(trims(child, 100)).toEqual([8, 0]);
    expect(counts(child)).toEqual([[0n, 4n, 10n, 10n]]);
    // All is as it was but for the rows.
    expect(query(store, "select max(id) from t")).toEqual([[6n]]);
    applySql(store, "delete from t where id = 1");
    expect(query(store, "select a from l where a is not null")).toEqual([[1n]]);
  });

  it("cuts a table with a composite key exactly", async () => {
    const root = temporaryDirectory();
    const store = openRange(root);
    applySql(
      store,
      "create table k(a text, b integer, primary key(a, b)) without rowid",
      'insert into k select x.value, y.value from json_each(\'["a","b","c"]\') x, json_each(\'[1,2,3]\') y',
    );
    applyCommands(store, split(encodeKey(1, ["b", 2n]), 8));
    await childOf(store);
    applyCommands(store, split(encodeKey(1, ["b"]), 9, 2));
    await childOf(store);
    const rows = (range: number): unknown => {
      const of = range === 3 ? store : openRange(root, range);
      applyCommands(of, trim(2), trim(3), trim(100));
      return query(of, "select a || b from k").flat().join();
    };
    expect(rows(3)).toBe("a1,a2,a3");
    expect(rows(9)).toBe("b1");
    expect(rows(8)).toBe("b2,b3,c1,c2,c3");
  });

  it("empties what stays whole in the first range, virtual tables too", async () => {
    const root = temporaryDirectory();
    const store = openRange(root);
    applySql(
      store,
      "create table docs(id integer primary key, body)",
      "create virtual table f using fts5(body, content='docs', content_rowid='id')",
      "create trigger d after insert on docs begin insert into f(rowid, body) values (new.id, new.body); end",
      "create table nocase(a text collate nocase primary key) without rowid",
      "create table t(id integer primary key)",
      "insert into docs(body) values ('one two'), ('two three')",
      "insert into nocase values ('x'), ('Y')",
      "insert into t values (1), (2)",
    );
    const id = store.schema().tables.find(({ name }) => name === "t")!.id;
    applyCommands(store, split(encodeKey(id, [2n]), 8));
    await childOf(store);
    const child = openRange(root, 8);
    const version = child.schemaVersion;
    for (let i = 0; i < 12; i++) applyCommands(child, trim(2));
    expect(child.rangeState?.untrimmed).toBe(false);
    expect(child.schemaVersion).toBe(version);
    expect(query(child, "select rowid from f where f match 'two'")).toEqual([]);
    expect(
      query(
        child,
        "select (select count(*) from docs), (select count(*) from nocase), (select count(*) from t)",
      ),
    ).toEqual([[0n, 0n, 1n]]);
    applyCommands(store, trim(100), trim(100));
    expect(query(store, "select rowid from f where f match 'two' order by rowid")).toEqual([[1n], [2n]]);
    expect(query(store, "select count(*) from t")).toEqual([[1n]]);
    expect(store.rangeState?.untrimmed).toBe(false);
    expect(child.schema().tables).toEqual(store.schema().tables);
  });

  it("keeps tables from being fed into a virtual table with rows in another range", async () => {
    const root = temporaryDirectory();
    const store = openRange(root);
    applySql(
      store,
      "create table t(id integer primary key, a)",
      "create table first(a)",
      "create virtual table f using fts5(a)",
      "insert into t values (1, 'a'), (5, 'b')",
      "insert into first values ('c')",
    );
    const key = encodeKey(1, [5n]);
    applyCommands(store, split(key, 8));
    await childOf(store);
    const child = openRange(root, 8);
    const feed = (table: string): string =>
      `create trigger x${table} after insert on ${table} begin insert into f values (new.a); end`;
    const body = (sql: string) => ({
      kind: "schema" as const,
      statements: [statementOf(execute(sql))],
      changes: [],
    });
    const refused = {
      ok: false,
      error: ["user", "OSTRAKA_UNSUPPORTED", expect.stringMatching(/rows of t /), null],
    };
    // The first range could: all its rows stay. The other one cannot.
    expect(applyCommands(store, prepare(store, "p", body(feed("t"))))).toMatchObject([{ vote: "yes" }]);
    expect(applyCommands(child, prepare(child, "p", body(feed("t"))))).toMatchObject([refused]);
    applyCommands(store, resolve("p", "aborted"));
    applyCommands(child, resolve("p", "aborted"));
    // A table that is all in front of the split key's table may not be left behind either.
    const id = store.schema().tables.find(({ name }) => name === "first")!.id;
    expect(id).toBe(2);
    expect(applyCommands(child, prepare(child, "q", body(feed("first"))))).toMatchObject([
      { ok: false, error: ["user", "OSTRAKA_UNSUPPORTED", expect.stringMatching(/rows of first /), null] },
    ]);
    applySql(child, "delete from first");
    for (const one of [store, child])
      expect(
        applyCommands(one, prepare(one, "r", body(feed("first"))), resolve("r", "committed")),
      ).toMatchObject([{ vote: "yes" }, { ok: true }]);
    expect(child.schema().tables).toEqual(store.schema().tables);
    expect(store.schema().tables.find(({ name }) => name === "first")).toMatchObject({
      shard: "home",
      id: 0,
    });
  });

  it("comes first where what is left over is in the way of a unique constraint", async () => {
    const root = temporaryDirectory();
    const store = openRange(root);
    applySql(
      store,
      "create table t(id integer primary key, a unique)",
      "insert into t values (1, 'x'), (5, 'y'), (6, 'z')",
    );
    applyCommands(store, split(encodeKey(1, [5n]), 8));
    // The row of 'y' moves from the right range to the left one.
    const put = prepare(store, "p", { kind: "rows", changes: [{ table: "t", key: [2n], row: [2n, "y"] }] });
    expect(applyCommands(store, put, resolve("p", "committed"))).toMatchObject([
      { vote: "yes" },
      { ok: true },
    ]);
    expect(query(store, "select id, a from t")).toEqual([
      [1n, "x"],
      [2n, "y"],
    ]);
    const clash = prepare(store, "q", { kind: "rows", changes: [{ table: "t", key: [3n], row: [3n, "x"] }] });
    expect(applyCommands(store, clash)).toMatchObject([
      { ok: false, error: ["user", "SQLITE_CONSTRAINT_UNIQUE", expect.anything(), null] },
    ]);
    await childOf(store);
    // So does a schema change, which looks at all rows.
    const child = openRange(root, 8);
    applyCommands(
      child,
      prepare(child, "r", { kind: "rows", changes: [{ table: "t", key: [6n], row: undefined }] }),
      resolve("r", "committed"),
    );
    const index = prepare(child, "s", {
      kind: "schema",
      statements: [statementOf(execute("create unique index i on t(length(a))"))],
      changes: [],
    });
    expect(applyCommands(child, index, resolve("s", "committed"))).toMatchObject([
      { vote: "yes" },
      { ok: true },
    ]);
    expect(query(child, "select id from t")).toEqual([[5n]]);
  });
});

import { copyFileSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { describe, expect, it } from "vitest";
import { groupId, transactionId } from "../../../src/base/ids.js";
import { encodeKey } from "../../../src/base/keys.js";
import { decodeResults } from "../../../src/machines/range/command.js";
import type { StoreCore } from "../../../src/machines/range/store-core.js";
import type { Command, IdempotencyKey } from "../../../src/machines/range/types.js";
import {
  applyCommands,
  applySql,
  at,
  entry,
  execute,
  freshKey,
  openStore,
  prepare,
  query,
  resolve,
  temporaryDirectory,
  WALL_MS,
} from "./helpers.js";
import { childOf, openRange, rangePath, split, trim } from "./ranges.js";

const freeze = (generation: number, into: number): Command => ({
  kind: "freeze",
  key: freshKey(),
  wallMs: WALL_MS,
  generation,
  into: groupId(into),
});

function absorb(store: StoreCore, right: StoreCore): Command {
  const descriptor = { ...right.rangeState!.descriptor, replicas: [] };
  const generation = store.rangeState!.descriptor.generation;
  return { kind: "absorb", key: freshKey(), wallMs: WALL_MS, generation, right: descriptor };
}

const ROUTE = { ok: false, error: ["route", "OSTRAKA_ROUTE", expect.anything(), null] };

/** Ranges 3 and 8, split in the middle of table t, with everything that a merge has to bring together. */
async function halves(root: string): Promise<{ left: StoreCore; right: StoreCore; write: Command }> {
  const left = openRange(root);
  applySql(
    left,
    "create table l(a)",
    "create table t(id integer primary key autoincrement, a unique, g as (a || '!'))",
    "create table c(t references t on delete cascade)",
    "create table k(a text, b integer, primary key(a, b)) without rowid",
    "create trigger x after insert on t begin insert into l values (new.id); end",
    "insert into t(a) values ('one'), ('two'), ('three'), ('four'), ('five'), ('six')",
    "insert into c(rowid, t) select id + 100, id from t",
    "insert into k values ('k', 1), ('k', 2)",
    "insert into l(rowid) values (-7)",
  );
  applyCommands(left, split(encodeKey(2, [4n]), 8));
  await childOf(left);
  const right = openRange(root, 8);
  // Untrimmed on both sides: what was split off changes, so that the old rows would be in the way.
  const write: Command = {
    ...(execute("update t set a = 'four' || id where id >= 4 returning id") as Command & { kind: "execute" }),
    key: { client: "writer", sequence: 1, lowestUnanswered: 1, issuedMs: WALL_MS },
  };
  applyCommands(right, write, resolve("known", "aborted"));
  applySql(
    right,
    "insert into t(a) values ('seven')",
    "delete from c where t = 5",
    "insert into k values ('z', 3)",
  );
  const put = prepare(left, "put", { kind: "rows", changes: [{ table: "t", key: [1n], row: [1n, "five"] }] });
  expect(applyCommands(left, put, resolve("put", "committed"))).toMatchObject([
    { vote: "yes" },
    { ok: true },
  ]);
  return { left, right, write };
}

const everything = (store: StoreCore): unknown[] => [
  query(store, "select id, a, g from t order by id"),
  query(store, "select rowid, t from c order by rowid"),
  query(store, "select a, b from k order by a, b"),
  query(store, "select seq from sqlite_sequence where name = 't'"),
];

describe("a merge", () => {
  it("takes in the right neighbour's rows, sequences, answers and outcomes", async () => {
    const root = temporaryDirectory();
    const { left, right, write } = await halves(root);
    expect(applyCommands(right, freeze(2, 3))).toMatchObject([{ ok: true }]);
    expect(right.rangeState).toMatchObject({ frozenInto: 3, descriptor: { generation: 3 } });
    const logged = query(left, "select count(*) from l");
    expect(applyCommands(left, absorb(left, right))).toMatchObject([{ ok: true }]);
    expect(left.rangeState).toEqual({
      descriptor: { range: 3, start: "", end: "", generation: 4 },
      frozenInto: undefined,
      untrimmed: false,
      absorbed: [8],
      absorbedAt: left.appliedIndex,
      rightNeighbour: undefined,
    });
    const rows = ["five", "two", "three", "four4", "four5", "four6", "seven"];
    expect(everything(left)).toEqual([
      rows.map((a, i) => [BigInt(i + 1), a, `${a}!`]),
      [1n, 2n, 3n, 4n, 6n].map((id) => [id + 100n, id]),
      [
        ["k", 1n],
        ["k", 2n],
        ["z", 3n],
      ],
      [[7n]],
    ]);
    // No trigger fired, and all are there again.
    expect(query(left, "select count(*) from l")).toEqual(logged);
    applySql(left, "insert into t(a) values ('eight')");
    expect(query(left, "select count(*) - (select count(*) from t where id = 8) from l")).toEqual(logged);
    expect(applyCommands(left, write)).toMatchObject([
      { ok: true, repeated: true, outcomes: [{ changes: 3, rowCount: 3 }] },
    ]);
    expect(left.outcome(transactionId("known"))).toBe("aborted");
    expect(query(left, "pragma foreign_key_check")).toEqual([]);
    expect(query(left, "select integrity_check from pragma_integrity_check")).toEqual([["ok"]]);
  });

  it("is the same on every replica, whatever became of the frozen range since", async () => {
    const digests: unknown[] = [];
    const recorded: Command[][] = [];
    for (let replica = 0; replica < 2; replica++) {
      const root = temporaryDirectory();
      const left = openRange(root);
      const setup = [
        [
          execute("create table t(id integer primary key, a unique)"),
          execute("insert into t values (1, 'a'), (5, 'b')"),
        ],
        [split(encodeKey(1, [5n]), 8)],
      ];
      const ofRight = [[execute("insert into t values (6, 'c')")], [freeze(2, 3)]];
      if (replica === 0) recorded.push(...setup, ...ofRight);
      const log = recorded.map((commands, i) => entry(i + 1, commands));
      left.apply(log.slice(0, 2), at(2));
      await childOf(left);
      const right = openRange(root, 8);
      right.apply(log.slice(2, 4), at(4));
      if (replica === 1) {
        // Refused, and leaving no trace in what is taken in.
        const late = {
          ...execute("insert into t values (7, 'd')"),
          wallMs: WALL_MS + 10_000_000_000,
        } as Command;
        expect(
          applyCommands(
            right,
            late,
            trim(9),
            resolve("p", "aborted"),
            prepare(right, "q", { kind: "nothing" }),
          ),
        ).toMatchObject([ROUTE, ROUTE, ROUTE, ROUTE]);
        expect(applyCommands(right, split(encodeKey(1, [6n]), 9, 3))).toMatchObject([ROUTE]);
      }
      if (replica === 0) recorded.push([absorb(left, right)]);
      const merge = entry(3, recorded[4]!);
      const [answers] = left.apply([merge], at(3)).results;
      expect(decodeResults(answers!)).toMatchObject([{ ok: true }]);
      digests.push(await left.digest());
    }
    expect(digests[0]).toEqual(digests[1]);
  });

  it("is refused where it does not fit, and waits for this node's replica", async () => {
    const root = temporaryDirectory();
    const { left, right } = await halves(root);
    const before = await left.digest();
    const command = absorb(left, right);
    // Not frozen yet.
    expect(() => applyCommands(left, command)).toThrow(
      expect.objectContaining({ code: "OSTRAKA_TOO_EARLY" }),
    );
    expect(await left.digest()).toEqual(before);
    applyCommands(right, freeze(2, 3));
    // Not at the generation that it was frozen at.
    expect(() => applyCommands(left, command)).toThrow(
      expect.objectContaining({ code: "OSTRAKA_TOO_EARLY" }),
    );
    const fits = absorb(left, right) as Extract<Command, { kind: "absorb" }>;
    const wrong = { ...fits.right, range: groupId(9) };
    expect(applyCommands(left, { ...fits, generation: 7 }, trim(1))).toMatchObject([ROUTE, { ok: true }]);
    expect(applyCommands(left, { ...fits, right: wrong })).toMatchObject([ROUTE]);
    applyCommands(left, prepare(left, "p", { kind: "nothing" }));
    const retry = { ok: false, error: ["retry", "OSTRAKA_RETRY", expect.anything(), null] };
    expect(applyCommands(left, { ...fits, key: freshKey() })).toMatchObject([retry]);
    applyCommands(left, resolve("p", "aborted"));
    expect(applyCommands(left, { ...fits, key: freshKey() })).toMatchObject([{ ok: true }]);
  });

  it("waits for a replica whose file is only being made", async () => {
    const root = temporaryDirectory();
    const { left, right } = await halves(root);
    applyCommands(right, freeze(2, 3));
    const command = absorb(left, right);
    await right.close();
    renameSync(dirname(right.path), `${root}/aside`);
    mkdirSync(dirname(right.path));
    writeFileSync(right.path, "");
    const before = await left.digest();
    expect(() => applyCommands(left, command)).toThrow(
      expect.objectContaining({ code: "OSTRAKA_TOO_EARLY" }),
    );
    expect(await left.digest()).toEqual(before);
    rmSync(dirname(right.path), { recursive: true });
    renameSync(`${root}/aside`, dirname(right.path));
    expect(applyCommands(left, command)).toMatchObject([{ ok: true }]);
  });

  it("goes on at the next one when the range that the right one was frozen for has been split", async () => {
    const root = temporaryDirectory();
    const { left, right } = await halves(root);
    expect(applyCommands(right, freeze(2, 3))).toMatchObject([{ ok: true }]);
    applyCommands(left, split(encodeKey(2, [2n]), 9, 2));
    await childOf(left);
    const between = openRange(root, 9);
    expect([left, between, right].map(({ rangeState }) => rangeState?.rightNeighbour)).toEqual([
      9,
      8,
      undefined,
    ]);
    // A range is frozen once: what was told of its replicas stays so, for those that have yet to take it in.
    const frozen = right.rangeState;
    expect(applyCommands(right, freeze(3, 9))).toMatchObject([ROUTE]);
    expect(right.rangeState).toBe(frozen);
    expect(applyCommands(left, absorb(left, right))).toMatchObject([ROUTE]);
    expect(applyCommands(between, absorb(between, right))).toMatchObject([{ ok: true }]);
    expect(between.rangeState).toMatchObject({
      descriptor: { range: 9, end: "", generation: 4 },
      absorbed: [8],
      rightNeighbour: undefined,
    });
    expect(query(between, "select id from t where id >= 2 order by id").flat()).toEqual(
      [2, 3, 4, 5, 6, 7].map(BigInt),
    );
    // Both are one again when the left one takes in what has taken in the right one.
    applyCommands(between, freeze(4, 3));
    expect(applyCommands(left, absorb(left, between))).toMatchObject([{ ok: true }]);
    expect(left.rangeState).toMatchObject({ absorbed: [8, 9], rightNeighbour: undefined });
  });

  it("is not made again by a command that comes late, after a split at the same key", async () => {
    const root = temporaryDirectory();
    const { left, right } = await halves(root);
    applyCommands(right, freeze(2, 3));
    expect(applyCommands(left, absorb(left, right))).toMatchObject([{ ok: true }]);
    applyCommands(left, split(encodeKey(2, [2n]), 9, 4));
    await childOf(left);
    const child = openRange(root, 9);
    applyCommands(child, split(encodeKey(2, [4n]), 10, 5));
    await childOf(child);
    expect(child.rangeState).toMatchObject({ descriptor: { end: encodeKey(2, [4n]) }, rightNeighbour: 10 });
    const before = { state: child.rangeState, rows: everything(child) };
    expect(applyCommands(child, absorb(child, right))).toMatchObject([ROUTE]);
    expect({ state: child.rangeState, rows: everything(child) }).toEqual(before);
  });

  it("that cannot be (two rows for one unique value) changes nothing", async () => {
    const root = temporaryDirectory();
    const { left, right } = await halves(root);
    applySql(left, "update t set a = 'seven' where id = 2");
    applyCommands(right, freeze(2, 3));
    const before = { state: left.rangeState, rows: everything(left) };
    expect(applyCommands(left, absorb(left, right))).toMatchObject([
      { ok: false, error: ["user", "SQLITE_CONSTRAINT_UNIQUE", expect.anything(), null] },
    ]);
    expect({ state: left.rangeState, rows: everything(left) }).toEqual(before);
    applySql(left, "update t set a = 'ok' where id = 2");
    expect(applyCommands(left, absorb(left, right))).toMatchObject([{ ok: true }]);
  });

  it("survives being applied again", async () => {
    const root = temporaryDirectory();
    const { left, right } = await halves(root);
    applyCommands(right, freeze(2, 3));
    await left.checkpoint();
    const older = temporaryDirectory();
    for (const range of [3, 8]) {
      const store = range === 3 ? left : right;
      const copy = await store.copy();
      mkdirSync(dirname(rangePath(older, range)), { recursive: true });
      copyFileSync(copy.path, rangePath(older, range));
    }
    const index = left.appliedIndex + 1;
    const log = [
      entry(index, [absorb(left, right)]),
      entry(index + 1, [execute("insert into t(a) values ('n')")]),
    ];
    left.apply(log, at(index + 1));
    const again = openRange(older);
    for (const one of log) again.apply([one], one.index);
    expect(await again.digest()).toEqual(await left.digest());
    await again.close();
    expect(await openRange(older).digest()).toEqual(await left.digest());
  });

  it("can be split and merged again, and the answers of both stay known", async () => {
    const root = temporaryDirectory();
    const { left, right, write } = await halves(root);
    applyCommands(right, freeze(2, 3));
    applyCommands(left, absorb(left, right));
    applyCommands(left, split(encodeKey(2, [4n]), 10, 4));
    await childOf(left);
    const child = openRange(root, 10);
    expect(child.rangeState?.absorbed).toEqual([]);
    expect(applyCommands(child, write)).toMatchObject([{ ok: true, repeated: true }]);
    applySql(child, "update t set a = 'child' where id = 5");
    applyCommands(child, freeze(5, 3));
    expect(applyCommands(left, absorb(left, child))).toMatchObject([{ ok: true }]);
    expect(left.rangeState).toMatchObject({ absorbed: [8, 10], descriptor: { end: "", generation: 7 } });
    expect(query(left, "select id, a from t where id > 3")).toEqual([
      [4n, "four4"],
      [5n, "child"],
      [6n, "four6"],
      [7n, "seven"],
    ]);
    expect(applyCommands(left, write)).toMatchObject([{ ok: true, repeated: true }]);
    const plain = openStore();
    applySql(plain, "create table t(a)");
    expect(plain.rangeState?.absorbed).toEqual([]);
  });

  it("lets go of what both had answered once nobody can ask for it, as a process that begins anew does", async () => {
    const root = temporaryDirectory();
    const left = openRange(root);
    const write = (sequence: number): Command => ({
      ...execute(`insert into t values (${sequence})`),
      key: { client: "writer", sequence, lowestUnanswered: sequence, issuedMs: WALL_MS },
    });
    applySql(left, "create table t(id integer primary key)");
    applyCommands(left, write(1), split(encodeKey(1, [4n]), 8));
    await childOf(left);
    const right = openRange(root, 8);
    applyCommands(right, freeze(2, 3));
    applyCommands(left, absorb(left, right));
    await left.checkpoint();
    const elsewhere = temporaryDirectory();
    mkdirSync(dirname(rangePath(elsewhere, 3)), { recursive: true });
    copyFileSync((await left.copy()).path, rangePath(elsewhere, 3));
    applyCommands(left, write(2));
    applyCommands(left, write(3));
    const other = openRange(elsewhere);
    applyCommands(other, write(2));
    await other.close();
    const anew = openRange(elsewhere);
    applyCommands(anew, write(3));
    expect(await anew.digest()).toEqual(await left.digest());
    expect(query(left, "select count(*) from _ostraka_answers where instr(answers, 'writer') > 0")).toEqual([
      [1n],
    ]);
  });
});

describe("what became of a transaction, after a merge of ranges that were both asked", () => {
  const tombstone = (transaction: string, key: IdempotencyKey): Command => ({
    kind: "tombstone",
    key: { ...key, lowestUnanswered: 0 },
    wallMs: WALL_MS,
    transaction: transactionId(transaction),
  });

  it.each(["left", "right"] as const)(
    "is what the one that committed it says (the %s one)",
    async (where) => {
      const { left, right } = await halves(temporaryDirectory());
      const [committing, other] = where === "left" ? [left, right] : [right, left];
      const id = where === "left" ? 1 : 5;
      const asked: IdempotencyKey = {
        client: "outcome-x",
        sequence: 0,
        lowestUnanswered: 0,
        issuedMs: WALL_MS,
      };
      const written: Command = {
        ...(execute(`update t set a = 'z' where id = ${id}`) as Command & { kind: "execute" }),
        key: { client: "late", sequence: 1, lowestUnanswered: 1, issuedMs: WALL_MS },
      };
      const rows: Command = {
        kind: "rows",
        key: freshKey(),
        wallMs: WALL_MS,
        transaction: transactionId("x"),
        changes: [{ table: "c", key: [BigInt(id + 1000)], row: [BigInt(id)] }],
        outcomes: [],
      };
      expect(applyCommands(committing, written, rows)).toMatchObject([{ ok: true }, { ok: true }]);
      const askedFor = [tombstone("late:1@1", written.key), tombstone("x", asked)];
      expect(applyCommands(committing, ...askedFor)).toMatchObject([
        { ok: true, outcomes: [{ changes: 1 }] },
        { ok: true, decision: "committed" },
      ]);
      expect(applyCommands(other, ...askedFor)).toMatchObject([{ ok: false }, { decision: "aborted" }]);
      applyCommands(right, freeze(2, 3));
      expect(applyCommands(left, absorb(left, right))).toMatchObject([{ ok: true }]);
      expect(left.outcome(transactionId("x"))).toBe("committed");
      const repeated = { ok: true, repeated: true, outcomes: [{ changes: 1 }] };
      expect(applyCommands(left, ...askedFor, written)).toMatchObject([
        repeated,
        { ok: true, decision: "committed" },
        repeated,
      ]);
    },
  );
});

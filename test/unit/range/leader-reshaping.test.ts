/** Splits and merges as a range's leader carries them out, and what they mean for those who are under way. */
import { afterEach, describe, expect, it } from "vitest";
import { groupId, nodeId } from "../../../src/base/ids.js";
import { encodeKey, tableStart } from "../../../src/base/keys.js";
import { encodeResults } from "../../../src/machines/range/command.js";
import type { RangeDescriptor } from "../../../src/placement/descriptor.js";
import { settle } from "../../sim/manual-clock.js";
import { statement } from "./helpers.js";
import {
  closeWorlds,
  id,
  key,
  type LeaderWorld,
  newWorld,
  now,
  point,
  prepare,
  row,
  rows,
  run,
  whole,
  write,
} from "./leader-fixture.js";

afterEach(closeWorlds);

const CHILD = groupId(20);

async function world(limits: Parameters<typeof newWorld>[0] = {}): Promise<LeaderWorld> {
  const made = await newWorld(limits);
  await run(made, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
  for (let i = 1; i <= 10; i++) await run(made, `INSERT INTO t VALUES (${i}, ${i * 10})`);
  return made;
}

function keyAt(made: LeaderWorld, rowid: number): string {
  const table = made.schema.snapshot.tables.find(({ name }) => name === "t")!;
  return encodeKey(table.id, [BigInt(rowid)]);
}

function movedOf(error: unknown): RangeDescriptor[] {
  return JSON.parse((error as { readonly moved: string }).moved);
}

describe("a split", () => {
  it("leaves the range with one half and names the other", async () => {
    const made = await world();
    const at = keyAt(made, 6);
    const child = await made.leader.split(at, CHILD);
    expect(child).toEqual({ range: CHILD, start: at, end: "", generation: 2, replicas: [1] });
    expect((await made.leader.describe()).descriptor).toEqual({
      range: 3,
      start: "",
      end: at,
      generation: 2,
      replicas: [1],
    });
    expect(await write(made, "UPDATE t SET v = 0 WHERE id = 5")).toMatchObject({ ok: true });
    for (const sql of [
      "UPDATE t SET v = 0 WHERE id = 6",
      "UPDATE t SET v = 0",
      "INSERT INTO t(v) VALUES (1)",
    ]) {
      const error = await write(made, sql).catch((thrown: unknown) => thrown);
      expect(movedOf(error).map(({ range, generation }) => [range, generation])).toEqual([
        [3, 2],
        [20, 2],
      ]);
    }
    // Asked for again, it is the same one.
    expect(await made.leader.split(at, CHILD)).toEqual(child);
  });

  it("waits for what is prepared, and lets no PREPARE in meanwhile", async () => {
    const made = await world();
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    const split = made.leader.split(keyAt(made, 6), CHILD);
    expect(await now(split)).toBe("waits");
    const vote = prepare(made, { id: "b", changes: [row(2, 11)], generation: 1 });
    expect(await now(vote)).toBe("waits");
    expect(await write(made, "UPDATE t SET v = 0 WHERE id = 3")).toMatchObject({ ok: true });
    await expect(made.leader.split(keyAt(made, 7), groupId(21))).rejects.toMatchObject({
      code: "OSTRAKA_RETRY",
    });
    await made.leader.resolve(id("a"), "committed");
    expect(await split).toMatchObject({ range: CHILD });
    // It was divided over ranges by another descriptor.
    await expect(vote).rejects.toMatchObject({ code: "OSTRAKA_ROUTE", moved: expect.any(String) });
    expect(await prepare(made, { id: "c", changes: [row(2, 11)] })).toEqual({ vote: "yes" });
  });

  it("is given up when what is prepared does not come to its end", async () => {
    const made = await world({ reshapeWaitMs: 2000, inDoubtMs: 60_000 });
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    const split = now(made.leader.split(keyAt(made, 6), CHILD));
    await split;
    const again = made.leader.split(keyAt(made, 6), CHILD);
    await expect(again).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
    await made.clock.advance(2100);
    await settle();
    expect(await prepare(made, { id: "b", changes: [row(2, 11)] })).toEqual({ vote: "yes" });
    expect((await made.leader.describe()).descriptor.generation).toBe(1);
  });

  it("holds back writes while it is in flight; they go where their keys are then", async () => {
    const made = await world();
    made.log.held = true;
    const before = write(made, "UPDATE t SET v = 1 WHERE id = 8");
    const split = made.leader.split(keyAt(made, 6), CHILD);
    await now(split);
    const inside = write(made, "UPDATE t SET v = 1 WHERE id = 1");
    const outside = write(made, "UPDATE t SET v = 1 WHERE id = 9");
    const fence = made.leader.fence("f", [point(1)], 1, 1000);
    expect(await now(inside)).toBe("waits");
    made.log.held = false;
    made.log.deliver();
    expect(await before).toMatchObject({ ok: true });
    expect(await split).toMatchObject({ range: CHILD });
    expect(await inside).toMatchObject({ ok: true });
    await expect(outside).rejects.toMatchObject({ code: "OSTRAKA_ROUTE" });
    await expect(fence).rejects.toMatchObject({ code: "OSTRAKA_ROUTE" });
    expect(await rows(made, "SELECT v FROM t WHERE id IN (1, 8)")).toContainEqual([1n]);
  });

  it("ends transactions that have touched the other half, and lets others go on", async () => {
    const made = await world();
    const { leader } = made;
    const text = (sql: string) => ({ statement: { sql, params: [] }, flags: 0, lastInsertRowid: 0n });
    const read = (of: string, rowid: number) =>
      leader.run({ transaction: id(of), ordinal: 0, ...text(`SELECT v FROM t WHERE id = ${rowid}`) });
    await read("left", 1);
    await read("right", 9);
    const point = await leader.begin(id("copy"), { reserve: undefined, age: 0 });
    const { term: at } = await leader.fence("f", [whole()], 1, 1000);
    await leader.split(keyAt(made, 6), CHILD);
    expect(await leader.release("f", at)).toBe(false);
    const more = { ordinal: 1, ...text("UPDATE t SET v = 0 WHERE id = 2") };
    await expect(leader.run({ transaction: id("right"), ...more })).rejects.toMatchObject({
      code: "OSTRAKA_RETRY",
    });
    await leader.run({ transaction: id("left"), ...more });
    expect(await leader.commit(id("left"), key(made), [])).toMatchObject({ ok: true });
    const reads = [{ index: point.index, term: point.term, spans: [whole()] }];
    expect(await leader.commit(id("copy"), key(made), reads)).toMatchObject({ ok: false });
    await leader.begin(id("part"), { reserve: undefined, age: 0 });
    expect(await prepare(made, { id: "part", reads })).toMatchObject({ vote: "no" });
  });

  it("gives its child the members that the range has at that very entry", async () => {
    const made = await world();
    made.log.membershipChanging = true;
    const refused = { code: "OSTRAKA_UNAVAILABLE" };
    await expect(made.leader.split(keyAt(made, 6), CHILD)).rejects.toMatchObject(refused);
    made.log.membershipChanging = false;
    expect(await write(made, "UPDATE t SET v = 1 WHERE id = 8")).toMatchObject({ ok: true });
    made.log.held = true;
    const split = made.leader.split(keyAt(made, 6), CHILD);
    await now(split);
    expect(made.log.holds).toBe(1);
    made.log.held = false;
    made.log.deliver();
    await split;
    expect(made.log.holds).toBe(0);
  });

  it("is refused where it cannot be", async () => {
    const made = await world();
    const split = (at: string) => made.leader.split(at, CHILD);
    await expect(split(tableStart(0))).rejects.toMatchObject({ code: "OSTRAKA_UNSUPPORTED" });
    await made.leader.split(keyAt(made, 6), CHILD);
    await expect(made.leader.split(keyAt(made, 8), groupId(21))).rejects.toMatchObject({
      code: "OSTRAKA_ROUTE",
    });
  });

  it("goes on where it is not known what a trim has done", async () => {
    const made = await world({ trimRows: 2, trimPauseMs: 20 });
    const { store } = made;
    const apply = store.apply.bind(store);
    await made.leader.split(keyAt(made, 4), CHILD);
    store.apply = async (entries, upTo) => {
      store.apply = apply;
      await apply(entries, upTo);
      // As after a disk was full when the entry had been applied.
      return [encodeResults([{ ok: true, outcomes: [], repeated: true }])];
    };
    for (let i = 0; i < 10; i++) await made.clock.advance(20);
    expect(store.state().untrimmed).toBe(false);
    expect(await rows(made, "SELECT count(*) FROM t")).toEqual([[3n]]);
  });

  it("is followed by small deletions of what is the other's, until nothing is left", async () => {
    const made = await world({ trimRows: 2, trimPauseMs: 20 });
    await made.leader.split(keyAt(made, 6), CHILD);
    expect(await rows(made, "SELECT count(*) FROM t")).toEqual([[10n]]);
    for (let i = 0; i < 10; i++) {
      await made.clock.advance(20);
      await now(Promise.resolve());
    }
    expect(await rows(made, "SELECT max(id), count(*) FROM t")).toEqual([[5n, 5n]]);
    expect(made.store.state().untrimmed).toBe(false);
    const { entries } = made.log;
    await made.clock.advance(60_000);
    expect(made.log.entries).toBe(entries);
  });
});

describe("a slice", () => {
  it("takes no schema change of its own, and nothing of which it has only a part", async () => {
    const made = await world();
    await made.leader.split(keyAt(made, 6), CHILD);
    for (const sql of ["CREATE TABLE u(x)", "DELETE FROM t WHERE id > 3", "UPDATE t SET v = 1 WHERE id = 7"])
      await expect(write(made, sql)).rejects.toMatchObject({ code: "OSTRAKA_ROUTE" });
    const counting = { statement: statement("SELECT count(*) FROM t"), maxBytes: 100 };
    await expect(made.leader.read(counting)).rejects.toMatchObject({ code: "OSTRAKA_ROUTE" });
  });

  it("keeps the database's numbers where it is the first", async () => {
    const made = await world();
    await made.leader.split(keyAt(made, 6), CHILD);
    expect(await made.leader.setPragma("user_version", 3, key(made))).toMatchObject({ ok: true });
    const child = await made.child();
    await expect(child.leader.setPragma("user_version", 4, key(child))).rejects.toMatchObject({
      code: "OSTRAKA_ROUTE",
    });
  });

  it("takes new rows where the table ends, as long as it has one to follow", async () => {
    const made = await world();
    await made.leader.split(keyAt(made, 6), CHILD);
    const append = "INSERT INTO t(v) VALUES (0)";
    await expect(write(made, append)).rejects.toMatchObject({ code: "OSTRAKA_ROUTE" });
    const child = await made.child();
    expect((await child.leader.describe()).descriptor).toMatchObject({ range: CHILD, start: keyAt(made, 6) });
    expect(await write(child, append)).toMatchObject({ ok: true, outcomes: [{ lastInsertRowid: 11n }] });
    const inTransaction = (ordinal: number) =>
      child.leader.run({
        transaction: id("a"),
        ordinal,
        statement: { sql: append, params: [] },
        flags: 0,
        lastInsertRowid: 0n,
      });
    expect(await inTransaction(0)).toMatchObject({ kind: "ran", outcome: { lastInsertRowid: 12n } });
    expect(await child.leader.commit(id("a"), key(child), [])).toMatchObject({ ok: true });
    for (let i = 6; i <= 12; i++) await run(child, `DELETE FROM t WHERE id = ${i}`);
    // What is left of the other half does not count.
    expect(await rows(child, "SELECT max(id) FROM t")).toEqual([[5n]]);
    expect(await write(child, append)).toEqual({ ok: "move" });
    expect(await inTransaction(0)).toEqual({ kind: "move" });
    expect(await write(child, "INSERT INTO t VALUES (20, 0)")).toMatchObject({ ok: true });
    expect(await write(child, append)).toMatchObject({ ok: true, outcomes: [{ lastInsertRowid: 21n }] });
  });
});

describe("a range that is taken in by another", () => {
  it("refuses everything from then on, and says so again", async () => {
    const made = await world();
    await made.leader.split(keyAt(made, 6), CHILD);
    const frozen = await made.leader.freeze(groupId(9));
    expect(frozen).toMatchObject({ range: 3, generation: 3 });
    expect(await made.leader.freeze(groupId(9))).toEqual(frozen);
    const { entries } = made.log;
    expect(await made.leader.freeze(groupId(10))).toEqual(frozen);
    expect(made.log.entries).toBe(entries);
    await expect(write(made, "UPDATE t SET v = 0 WHERE id = 1")).rejects.toMatchObject({
      code: "OSTRAKA_ROUTE",
    });
    await expect(made.leader.readPoint()).rejects.toMatchObject({ code: "OSTRAKA_ROUTE" });
    await expect(prepare(made, { id: "a" })).rejects.toMatchObject({ code: "OSTRAKA_ROUTE" });
    await expect(made.leader.fence("f", [point(1)], 3, 1000)).rejects.toMatchObject({
      code: "OSTRAKA_ROUTE",
    });
    expect((await made.leader.describe()).descriptor).toEqual(frozen);
  });
});

describe("a range that takes in another", () => {
  it("takes in its right neighbour only, once, and says so again", async () => {
    const made = await world();
    const at = keyAt(made, 6);
    await made.leader.split(at, CHILD);
    const child = await made.child();
    // Whomever it is frozen for.
    const frozen = await child.leader.freeze(groupId(9));
    const ready = [nodeId(1)];
    const other = { ...frozen, range: groupId(21) };
    await expect(made.leader.absorb(other, ready)).rejects.toMatchObject({ code: "OSTRAKA_ROUTE" });
    await expect(made.leader.absorb(frozen, [nodeId(2)])).rejects.toMatchObject({
      code: "OSTRAKA_UNAVAILABLE",
    });
    const merged = await made.leader.absorb(frozen, ready);
    expect(merged).toMatchObject({ range: 3, end: "", generation: 4 });
    expect(await rows(made, "SELECT count(*) FROM t")).toEqual([[10n]]);
    // An answer that was lost is asked for again when the same keys are another range's.
    await made.leader.split(at, groupId(21));
    const { entries } = made.log;
    expect(await made.leader.absorb(frozen, ready)).toMatchObject({ range: 3, end: at, generation: 5 });
    expect(made.log.entries).toBe(entries);
  });
});

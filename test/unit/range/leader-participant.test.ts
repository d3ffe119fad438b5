/** A leader's part in commits across ranges: votes, holds, decisions, doubts. */
import { afterEach, describe, expect, it } from "vitest";
import { logIndex, term } from "../../../src/base/ids.js";
import type { IdempotencyKey } from "../../../src/machines/range/types.js";
import { settle } from "../../sim/manual-clock.js";
import {
  closeWorlds,
  id,
  key,
  type LeaderWorld,
  newWorld,
  now,
  point,
  prepare,
  request,
  row,
  rows,
  run,
  whole,
  write,
} from "./leader-fixture.js";

afterEach(closeWorlds);

const YES = { vote: "yes" };
const NO = { vote: "no", error: ["retry", "OSTRAKA_RETRY", expect.any(String), null] };

async function world(limits: Parameters<typeof newWorld>[0] = {}): Promise<LeaderWorld> {
  const made = await newWorld(limits);
  await run(
    made,
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
    "INSERT INTO t VALUES (1, 10), (2, 20), (3, 30)",
  );
  return made;
}

const all = (made: LeaderWorld) => rows(made, "SELECT id, v FROM t ORDER BY id");

describe("votes", () => {
  it("hold what is written until the decision, and apply it then", async () => {
    const made = await world();
    const { leader } = made;
    expect(await prepare(made, { id: "a", changes: [row(1, 11)] })).toEqual(YES);
    expect((await leader.readPoint()).held).toEqual([point(1)]);
    expect(await all(made)).toEqual([
      [1n, 10n],
      [2n, 20n],
      [3n, 30n],
    ]);
    const blocked = write(made, "UPDATE t SET v = v + 1 WHERE id = 1");
    const elsewhere = write(made, "UPDATE t SET v = v + 1 WHERE id = 2");
    const reader = leader.awaitHolds([point(1)]);
    expect(await now(blocked)).toBe("waits");
    expect(await now(reader)).toBe("waits");
    expect(await elsewhere).toMatchObject({ ok: true });
    expect(await now(leader.awaitHolds([point(2)]))).toBeUndefined();
    await leader.resolve(id("a"), "committed");
    expect(await blocked).toMatchObject({ ok: true });
    await reader;
    expect(await all(made)).toEqual([
      [1n, 12n],
      [2n, 21n],
      [3n, 30n],
    ]);
    expect((await leader.readPoint()).held).toBeUndefined();
    expect(await leader.describe()).toMatchObject({
      prepared: 0,
      leader: 1,
      rows: 3,
      descriptor: { range: 3 },
    });
  });

  it("are told to who reads while they are let go: the decision may be behind the point", async () => {
    const { leader, log } = await world().then(async (made) => {
      await prepare(made, { id: "a", changes: [row(1, 11)] });
      return made;
    });
    let confirm = (): void => undefined;
    log.confirming = new Promise((resolve) => {
      confirm = resolve;
    });
    const reading = leader.readPoint();
    const before = log.store.appliedIndex();
    await settle();
    await leader.resolve(id("a"), "committed");
    confirm();
    expect(await reading).toMatchObject({ index: before, held: [point(1)] });
    const after = await leader.readPoint();
    expect(after.index).toBeGreaterThan(before);
    expect(after.held).toBeUndefined();
  });

  it("hold it until the decision is applied, not only told", async () => {
    const made = await world();
    const { leader, log } = made;
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    log.held = true;
    const resolved = leader.resolve(id("a"), "committed");
    expect(await now(resolved)).toBe("waits");
    expect((await leader.readPoint()).held).toEqual([point(1)]);
    const reader = leader.awaitHolds([point(1)]);
    expect(await now(reader)).toBe("waits");
    log.held = false;
    log.deliver();
    await Promise.all([resolved, reader]);
    expect(await all(made)).toContainEqual([1n, 11n]);
  });

  it("keep writers of what was read waiting too, and let go at an abort", async () => {
    const made = await world();
    const { index, term: at } = await made.leader.begin(id("a"), { reserve: undefined, age: 0 });
    const reads = [{ index, term: at, spans: [point(2)] }];
    expect(await prepare(made, { id: "a", reads, changes: [row(1, 11)] })).toEqual(YES);
    const blocked = write(made, "UPDATE t SET v = 0 WHERE id = 2");
    expect(await now(blocked)).toBe("waits");
    expect(await now(made.leader.awaitHolds([point(2)]))).toBeUndefined();
    await made.leader.resolve(id("a"), "aborted");
    expect(await blocked).toMatchObject({ ok: true });
    expect(await all(made)).toContainEqual([1n, 10n]);
  });

  it("wait for a held transaction, and are then given by what it left", async () => {
    const made = await world();
    const { leader, clock } = made;
    const { term: at } = await leader.begin(id("c"), { reserve: undefined, age: 0 });
    made.log.held = true;
    const first = prepare(made, { id: "a", changes: [row(1, 11)] });
    expect(await now(first)).toBe("waits");
    // In flight already counts.
    const second = prepare(made, { id: "b", changes: [row(1, 12)] });
    expect(await now(second)).toBe("waits");
    made.log.held = false;
    made.log.deliver();
    expect(await first).toEqual(YES);
    expect(await now(second)).toBe("waits");
    expect(await prepare(made, { id: "d", changes: [row(2, 13)] })).toEqual(YES);
    // It has read what the first one changes: there is nothing to wait for.
    const reads = [{ index: made.store.appliedIndex(), term: at, spans: [point(1)] }];
    const before = [{ ...reads[0]!, index: logIndex(reads[0]!.index - 2) }];
    expect(await now(prepare(made, { id: "c", reads: before, changes: [row(3, 1)] }))).toEqual(NO);
    await leader.resolve(id("a"), "committed");
    expect(await second).toEqual(YES);
    const third = prepare(made, { id: "e", changes: [row(1, 14)] });
    expect(await now(third)).toBe("waits");
    clock.advance(200);
    expect(await now(third)).toEqual(NO);
  });

  it("are no after a wait for what wrote what was read", async () => {
    const made = await world();
    const { leader } = made;
    const { index, term: at } = await leader.begin(id("b"), { reserve: undefined, age: 0 });
    expect(await prepare(made, { id: "a", reads: [], changes: [row(2, 21)] })).toEqual(YES);
    // It waits because of what it writes, and its read of another row is spoiled meanwhile.
    const reads = [{ index, term: at, spans: [point(3)] }];
    const waiting = prepare(made, { id: "b", reads, changes: [row(2, 22)] });
    expect(await now(waiting)).toBe("waits");
    await run(made, "UPDATE t SET v = 0 WHERE id = 3");
    await leader.resolve(id("a"), "committed");
    expect(await waiting).toEqual(NO);
    expect(await all(made)).toContainEqual([2n, 21n]);
  });

  it("are no when what was read has changed, or cannot be judged", async () => {
    const made = await world();
    const { leader } = made;
    const { index, term: at } = await leader.begin(id("a"), { reserve: undefined, age: 0 });
    await run(made, "UPDATE t SET v = 0 WHERE id = 3");
    const read = (key: number) => [{ index, term: at, spans: [point(key)] }];
    expect(await prepare(made, { id: "a", reads: read(3) })).toEqual(NO);
    // Nobody has written since; yet this leader remembers what was written in its own term only.
    const { index: fresh } = await leader.begin(id("b"), { reserve: undefined, age: 0 });
    const stale = [{ index: fresh, term: term(7), spans: [point(1)] }];
    expect(await prepare(made, { id: "b", reads: stale })).toEqual(NO);
    expect(await prepare(made, { id: "c", reads: read(1) })).toEqual(NO);
    expect(await prepare(made, { id: "d", schemaVersion: made.schema.version + 1 })).toEqual(NO);
    const { index: later } = await leader.begin(id("e"), { reserve: undefined, age: 0 });
    const reads = [{ index: later, term: at, spans: [point(3)] }];
    expect(await prepare(made, { id: "e", reads })).toEqual(YES);
  });

  it("are not asked for where a copy of another schema is to be committed", async () => {
    const made = await world();
    const { leader, schema } = made;
    const commit = async (name: string, schemaVersion: number) => {
      const { index: readAt, term: readTerm } = await leader.begin(id(name), { reserve: undefined, age: 0 });
      return leader.commitCopy(
        {
          transaction: id(name),
          key: key(made),
          readAt,
          readTerm,
          reads: [],
          writes: [],
          schemaVersion,
          body: { kind: "rows", changes: [], outcomes: [] },
        },
        [],
      );
    };
    expect(await commit("a", schema.version + 1)).toMatchObject({ ok: false });
    expect(await commit("b", schema.version)).toMatchObject({ ok: true });
  });

  it("count what the transaction read at the leader itself", async () => {
    const made = await world();
    const read = { transaction: id("a"), ordinal: 0, flags: 0, lastInsertRowid: 0n };
    const statement = { sql: "SELECT v FROM t WHERE id = 3", params: [] };
    expect(await made.leader.run({ ...read, statement })).toMatchObject({ kind: "ran" });
    await run(made, "UPDATE t SET v = 0 WHERE id = 3");
    expect(await prepare(made, { id: "a", changes: [row(1, 11)] })).toEqual(NO);
  });

  it("come from the log when the change itself is refused", async () => {
    const made = await world();
    await run(made, "CREATE UNIQUE INDEX u ON t(v)");
    const vote = await prepare(made, { id: "a", changes: [row(1, 20)] });
    expect(vote).toMatchObject({
      vote: "no",
      error: ["user", "SQLITE_CONSTRAINT_UNIQUE", expect.any(String), null],
    });
    expect((await made.leader.readPoint()).held).toBeUndefined();
    expect(await prepare(made, { id: "a", changes: [row(1, 21)] })).toEqual(NO);
  });
});

describe("what ran at the leader", () => {
  const runs = (made: LeaderWorld, name: string, ordinal: number, sql: string) =>
    made.leader.run({
      transaction: id(name),
      ordinal,
      statement: { sql, params: [] },
      flags: 0,
      lastInsertRowid: 0n,
    });
  const own = { kind: "own" } as const;

  it("is lost where what it reads was prepared while it ran", async () => {
    const made = await world();
    const { leader, store } = made;
    await runs(made, "a", 0, "UPDATE t SET v = v + 1 WHERE id = 1");
    // Takes the writer, so that what the transaction has done is done again before the next statement.
    await write(made, "UPDATE t SET v = v + 1 WHERE id = 2");
    const speculate = store.speculate.bind(store);
    let preparing: Promise<unknown> | undefined;
    store.speculate = async (request) => {
      const answer = await speculate(request);
      preparing ??= prepare(made, { id: "b", changes: [row(3, 31)] });
      await preparing;
      return answer;
    };
    await expect(runs(made, "a", 1, "SELECT v FROM t WHERE id = 3")).rejects.toMatchObject({
      code: "OSTRAKA_RETRY",
    });
    expect(await preparing).toEqual(YES);
    await leader.resolve(id("b"), "committed");
    expect((await all(made)).at(-1)).toEqual([3n, 31n]);
  });

  it("is prepared as it was told, and done at the decision", async () => {
    const made = await world();
    await runs(made, "a", 0, "SELECT v FROM t WHERE id = 3");
    await runs(made, "a", 1, "UPDATE t SET v = v + 1 WHERE id = 1");
    await runs(made, "a", 2, "UPDATE t SET v = v * 2 WHERE id = 1");
    expect(await prepare(made, { id: "a", ran: 3, body: own })).toEqual(YES);
    expect((await made.leader.readPoint()).held).toEqual([point(1)]);
    const reader = write(made, "UPDATE t SET v = 0 WHERE id = 3");
    expect(await now(reader)).toBe("waits");
    expect(await all(made)).toContainEqual([1n, 10n]);
    await made.leader.resolve(id("a"), "committed");
    expect(await all(made)).toContainEqual([1n, 22n]);
    expect(await reader).toMatchObject({ ok: true });
  });

  it("is only validated and held where nothing was written", async () => {
    const made = await world();
    await runs(made, "a", 0, "SELECT v FROM t WHERE id = 3");
    expect(await prepare(made, { id: "a", ran: 1, body: own })).toEqual(YES);
    expect((await made.store.prepared())[0]).toMatchObject({ body: { kind: "nothing" }, writes: [] });
    const writer = write(made, "UPDATE t SET v = 0 WHERE id = 3");
    expect(await now(writer)).toBe("waits");
    await made.leader.resolve(id("a"), "aborted");
    expect(await writer).toMatchObject({ ok: true });
  });

  it("is refused when it has changed, or is not remembered whole", async () => {
    const made = await world();
    await runs(made, "a", 0, "SELECT v FROM t WHERE id = 3");
    await runs(made, "b", 0, "UPDATE t SET v = v + 1 WHERE id = 3");
    await made.leader.recheck(id("a"), 1);
    await expect(made.leader.recheck(id("b"), 2)).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
    expect(await prepare(made, { id: "b", ran: 1, body: own })).toEqual(YES);
    // Prepared is as good as written: it may be decided, and seen at another range.
    await expect(made.leader.recheck(id("a"), 1)).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
    await made.leader.resolve(id("b"), "committed");
    expect(await prepare(made, { id: "a", ran: 1, body: own })).toEqual(NO);
    await runs(made, "c", 0, "SELECT v FROM t WHERE id = 3");
    expect(await prepare(made, { id: "c", ran: 2, body: own })).toEqual(NO);
    expect(await prepare(made, { id: "d", body: own })).toEqual(NO);
    // Opened, as for a snapshot, where it ran at a leader before.
    await made.leader.begin(id("e"), { reserve: undefined, age: 0 });
    expect(await prepare(made, { id: "e", ran: 0, changes: [row(1, 1)] })).toEqual(NO);
  });

  it("is gone with its leader", async () => {
    const made = await world();
    await runs(made, "a", 0, "UPDATE t SET v = v + 1 WHERE id = 1");
    made.log.depose();
    made.log.lead();
    await settle();
    await expect(made.leader.recheck(id("a"), 1)).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
    expect(await prepare(made, { id: "a", ran: 1, body: own })).toEqual(NO);
    expect(await all(made)).toContainEqual([1n, 10n]);
  });
});

describe("repeated messages", () => {
  it("of a PREPARE get the first one's answer, whatever its state", async () => {
    const made = await world();
    made.log.held = true;
    const asked = request(made, { id: "a", changes: [row(1, 11)] });
    const first = made.leader.prepare(asked);
    const second = made.leader.prepare(asked);
    await now(first);
    expect(made.log.entries).toBe(3);
    made.log.held = false;
    made.log.deliver();
    expect([await first, await second, await made.leader.prepare(asked)]).toEqual([YES, YES, YES]);
    expect(made.log.entries).toBe(3);
  });

  it("of a PREPARE are none if another gateway runs the same write: only one run is voted for", async () => {
    const made = await world();
    const { leader, log } = made;
    const asked = (run: string, to: number) => ({
      ...request(made, { id: "a", changes: [row(1, to)] }),
      run,
    });
    log.held = true;
    const first = leader.prepare(asked("x", 11));
    await now(first);
    expect(await now(leader.prepare(asked("y", 12)))).toEqual(NO);
    log.held = false;
    log.deliver();
    expect(await first).toEqual(YES);
    expect(await leader.prepare(asked("y", 12))).toEqual(NO);
    expect(await leader.prepare(asked("x", 11))).toEqual(YES);
    log.depose();
    log.lead();
    await settle();
    // Nobody knows any more whose it is.
    expect(await leader.prepare(asked("y", 12))).toEqual(NO);
    await leader.resolve(id("a"), "committed");
    expect(await leader.prepare(asked("y", 12))).toMatchObject({
      vote: "known",
      result: { ok: true, repeated: true, outcomes: [], decision: "committed" },
    });
    expect(await all(made)).toContainEqual([1n, 11n]);
  });

  it("of one that was refused are refused for ever", async () => {
    const made = await world();
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    const asked = request(made, { id: "b", changes: [row(1, 12)] });
    const first = made.leader.prepare(asked);
    expect(await now(first)).toBe("waits");
    made.clock.advance(200);
    expect(await now(first)).toEqual(NO);
    await made.leader.resolve(id("a"), "aborted");
    expect(await made.leader.prepare(asked)).toEqual(NO);
  });

  it("of a decision are answered without another entry; an abort that comes first is final", async () => {
    const made = await world();
    const { leader, log } = made;
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    await Promise.all([leader.resolve(id("a"), "committed"), leader.resolve(id("a"), "committed")]);
    const { entries } = log;
    await leader.resolve(id("a"), "committed");
    expect(log.entries).toBe(entries);
    await leader.resolve(id("b"), "aborted");
    expect(await prepare(made, { id: "b", changes: [row(2, 11)] })).toEqual(NO);
    expect(await all(made)).toContainEqual([1n, 11n]);
  });

  it("of a write that was applied before say what it answered", async () => {
    const made = await world();
    const same = key(made);
    const statement = { sql: "UPDATE t SET v = 11 WHERE id = 1", params: [] };
    await made.leader.write({ key: same, statement, flags: 0, lastInsertRowid: 0n });
    const vote = await prepare(made, { id: "a", key: same, changes: [row(1, 12)] });
    expect(vote).toMatchObject({ vote: "known", result: { ok: true, repeated: true } });
    expect((await made.leader.readPoint()).held).toBeUndefined();
  });
});

describe("a refusal", () => {
  it("is told only once a quorum has confirmed the leader", async () => {
    const made = await world();
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    made.log.confirms = false;
    const told = prepare(made, { id: "b", changes: [row(1, 12)] });
    expect(await now(told)).toBe("waits");
    made.clock.advance(200);
    await expect(told).rejects.toMatchObject({ code: "OSTRAKA_ROUTE" });
  });
});

describe("a new leader", () => {
  it("knows what was prepared before it serves", async () => {
    const made = await world();
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    made.log.depose();
    await expect(made.leader.readPoint()).rejects.toMatchObject({ code: "OSTRAKA_ROUTE", leader: 2 });
    made.log.lead();
    await expect(made.leader.readPoint()).rejects.toMatchObject({ code: "OSTRAKA_ROUTE" });
    await settle();
    expect((await made.leader.readPoint()).held).toEqual([point(1)]);
    expect(await prepare(made, { id: "a", changes: [row(1, 11)] })).toEqual(YES);
    const met = prepare(made, { id: "b", changes: [row(1, 12)] });
    expect(await now(met)).toBe("waits");
    await made.leader.resolve(id("a"), "committed");
    expect(await met).toEqual(YES);
    expect(await all(made)).toContainEqual([1n, 11n]);
  });

  it("refuses those who waited at the old one, and what was read there", async () => {
    const made = await world();
    const { index, term: before } = await made.leader.begin(id("b"), { reserve: undefined, age: 0 });
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    const waiting = write(made, "UPDATE t SET v = 0 WHERE id = 1");
    await now(waiting);
    made.log.depose();
    await expect(waiting).rejects.toMatchObject({ code: "OSTRAKA_ROUTE" });
    made.log.lead();
    await settle();
    const reads = [{ index, term: before, spans: [point(2)] }];
    expect(await prepare(made, { id: "b", reads })).toEqual(NO);
  });

  it("appends nothing that was validated in an earlier term, though it leads again in the same turn", async () => {
    const made = await world();
    const { leader, log } = made;
    const statement = { sql: "UPDATE t SET v = 0 WHERE id = 1", params: [] };
    await leader.run({ transaction: id("b"), ordinal: 0, statement, flags: 0, lastInsertRowid: 0n });
    const committed = now(leader.commit(id("b"), key(made), []));
    log.depose();
    log.lead();
    expect(await committed).toMatchObject({ error: { code: "OSTRAKA_ROUTE" } });
    expect(await all(made)).toContainEqual([1n, 10n]);
  });

  it("asks what became of what it inherited, as long as it is in doubt", async () => {
    const made = await world({ inDoubtMs: 2000 });
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    await made.clock.advance(1500);
    expect(made.asked).toEqual([]);
    made.log.depose();
    made.log.lead();
    await settle();
    await made.clock.advance(600);
    expect(made.asked).toEqual(["a"]);
    made.decision = "committed";
    await made.clock.advance(2000);
    expect(made.asked).toEqual(["a", "a"]);
    for (let i = 0; i < 5; i++) await settle();
    expect(await all(made)).toContainEqual([1n, 11n]);
    await made.clock.advance(10_000);
    expect(made.asked).toHaveLength(2);
  });
});

describe("what is in doubt", () => {
  it("is not asked about before many others can have voted", async () => {
    const made = await world({ inDoubtMs: 2000 });
    await prepare(made, { id: "a", changes: [row(1, 11)], participants: 301 });
    await made.clock.advance(4900);
    expect(made.asked).toEqual([]);
    await made.clock.advance(200);
    expect(made.asked).toEqual(["a"]);
  });

  it("is aborted when its coordinator has forgotten it", async () => {
    const made = await world({ inDoubtMs: 1000 });
    made.decision = "unknown";
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    const blocked = write(made, "UPDATE t SET v = 5 WHERE id = 1");
    await made.clock.advance(1100);
    expect(await blocked).toMatchObject({ ok: true });
    expect(await all(made)).toContainEqual([1n, 5n]);
    expect(await made.leader.outcome(id("a"), 1)).toBe("aborted");
  });

  it("has no outcome of its own here", async () => {
    const made = await world();
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    expect(await made.leader.outcome(id("a"), 1)).toBe("unknown");
  });
});

describe("the outcome of an autocommit write", () => {
  const idOf = ({ client, sequence, issuedMs }: IdempotencyKey) =>
    id(`${client}:${sequence}@${issuedMs.toString(36)}`);

  it("is told also where its answer was too long to be kept", async () => {
    const made = await world();
    const written = key(made);
    const statement = { sql: "UPDATE t SET v = ? WHERE id = 1 RETURNING v", params: ["5".repeat(20_000)] };
    const request = { key: written, statement, flags: 0, lastInsertRowid: 0n };
    expect(await made.leader.write(request)).toMatchObject({ ok: true });
    expect(await made.leader.write(request)).toMatchObject({
      ok: false,
      error: ["ambiguous", "OSTRAKA_UNKNOWN_OUTCOME", expect.any(String), null],
    });
    expect(await made.leader.outcome(idOf(written), 1)).toBe("committed");
  });

  it("is not known where the name does not tell whether its answer may have been forgotten", async () => {
    const made = await world();
    const timeless = (): ReturnType<typeof id> => {
      const { client, sequence } = key(made);
      return id(`${client}:${sequence}`);
    };
    const write = async (): Promise<void> => {
      const statement = { sql: "UPDATE t SET v = 5 WHERE id = 1", params: [] };
      const written = made.leader.write({ key: key(made), statement, flags: 0, lastInsertRowid: 0n });
      expect(await written).toMatchObject({ ok: true });
    };
    await write();
    expect(await made.leader.outcome(timeless(), 1)).toBe("aborted");
    await made.clock.advance(2 * 3_600_000);
    await write();
    expect(await made.leader.outcome(timeless(), 1)).toBe("unknown");
  });

  it("is not known of one that is from the future, and may yet come", async () => {
    const made = await world();
    const late = { ...key(made), issuedMs: made.clock.wallMs() + 100_000 };
    expect(await made.leader.outcome(idOf(late), 1)).toBe("unknown");
    await made.clock.advance(60_000);
    const statement = { sql: "UPDATE t SET v = 5 WHERE id = 1", params: [] };
    const written = made.leader.write({ key: late, statement, flags: 0, lastInsertRowid: 0n });
    expect(await written).toMatchObject({ ok: true });
  });
});

describe("a commit on one range", () => {
  it("waits for what is held of what it read, and is refused if that was committed", async () => {
    const made = await world();
    const { leader } = made;
    const statement = { sql: "SELECT v FROM t WHERE id = 1", params: [] };
    const first = { ordinal: 0, statement, flags: 0, lastInsertRowid: 0n };
    await leader.run({ transaction: id("b"), ...first });
    await leader.run({ transaction: id("c"), ...first });
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    const committed = leader.commit(id("b"), key(made), []);
    expect(await now(committed)).toBe("waits");
    // A statement waits as well, and then reads what was decided.
    const reading = leader.run({ transaction: id("d"), ...first });
    expect(await now(reading)).toBe("waits");
    await leader.resolve(id("a"), "committed");
    expect(await committed).toMatchObject({
      ok: false,
      error: ["retry", "OSTRAKA_RETRY", expect.any(String), null],
    });
    await reading;
    expect(await leader.commit(id("d"), key(made), [])).toMatchObject({ ok: true });
    expect(await leader.commit(id("c"), key(made), [])).toMatchObject({ ok: false });
  });

  it("is refused if, while it waited, what it had read was written", async () => {
    const made = await world();
    const { leader } = made;
    const runs = (ordinal: number, sql: string) =>
      leader.run({
        transaction: id("b"),
        ordinal,
        statement: { sql, params: [] },
        flags: 0,
        lastInsertRowid: 0n,
      });
    const { index, term: at } = await leader.begin(id("a"), { reserve: undefined, age: 0 });
    const reads = [{ index, term: at, spans: [point(2)] }];
    await runs(0, "SELECT v FROM t WHERE id = 3");
    await runs(1, "UPDATE t SET v = 0 WHERE id = 2");
    expect(await prepare(made, { id: "a", reads, changes: [row(1, 11)] })).toEqual(YES);
    const committed = leader.commit(id("b"), key(made), []);
    expect(await now(committed)).toBe("waits");
    await run(made, "UPDATE t SET v = 0 WHERE id = 3");
    await leader.resolve(id("a"), "committed");
    expect(await committed).toMatchObject({
      ok: false,
      error: ["retry", "OSTRAKA_RETRY", expect.any(String), null],
    });
    expect(await all(made)).toEqual([
      [1n, 11n],
      [2n, 20n],
      [3n, 0n],
    ]);
  });

  it("is refused if what was read on a replica was written since", async () => {
    const made = await world();
    const { leader } = made;
    const { index, term: at } = await leader.begin(id("b"), { reserve: undefined, age: 0 });
    await leader.begin(id("c"), { reserve: undefined, age: 0 });
    await run(made, "UPDATE t SET v = 0 WHERE id = 3");
    const read = (rowid: number) => [{ index, term: at, spans: [point(rowid)] }];
    expect(await leader.commit(id("b"), key(made), read(3))).toMatchObject({
      ok: false,
      error: ["retry", "OSTRAKA_RETRY", expect.any(String), null],
    });
    expect(await leader.commit(id("c"), key(made), read(1))).toMatchObject({ ok: true });
  });

  it("passes when what was in its way is aborted", async () => {
    const made = await world();
    const { leader } = made;
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    const point1 = await leader.begin(id("b"), { reserve: undefined, age: 0 });
    const reads = [{ index: logIndex(point1.index), term: point1.term, spans: [point(1)] }];
    const committed = leader.commit(id("b"), key(made), reads);
    expect(await now(committed)).toBe("waits");
    await leader.resolve(id("a"), "aborted");
    expect(await committed).toMatchObject({ ok: true });
  });

  it("is refused if another one, called in the same turn, writes what it has read", async () => {
    const made = await world();
    const { leader } = made;
    const runs = (name: string, ordinal: number, sql: string) =>
      leader.run({
        transaction: id(name),
        ordinal,
        statement: { sql, params: [] },
        flags: 0,
        lastInsertRowid: 0n,
      });
    for (const name of ["b", "c"]) await runs(name, 0, "SELECT sum(v) FROM t WHERE id IN (1, 2)");
    await runs("b", 1, "UPDATE t SET v = 0 WHERE id = 1");
    await runs("c", 1, "UPDATE t SET v = 0 WHERE id = 2");
    const both = ["b", "c"].map((name) => leader.commit(id(name), key(made), []));
    expect(await Promise.all(both)).toMatchObject([{ ok: true }, { ok: false }]);
    expect(await all(made)).toEqual([
      [1n, 0n],
      [2n, 20n],
      [3n, 30n],
    ]);
  });

  it("joins one that is under way", async () => {
    const made = await world();
    const { leader, log } = made;
    const statement = { sql: "UPDATE t SET v = v + 1 WHERE id = 1", params: [] };
    await leader.run({ transaction: id("b"), ordinal: 0, statement, flags: 0, lastInsertRowid: 0n });
    log.held = true;
    const same = key(made);
    const first = leader.commit(id("b"), same, []);
    await now(first);
    const second = leader.commit(id("b"), same, []);
    await now(second);
    log.held = false;
    log.deliver();
    expect(await first).toMatchObject({ ok: true });
    expect(await second).toEqual(await first);
    expect(await all(made)).toContainEqual([1n, 11n]);
  });
});

describe("schema changes", () => {
  it("wait for everything that is held, and nothing passes one that is prepared", async () => {
    const made = await world();
    const { leader } = made;
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    const ddl = write(made, "CREATE TABLE u(x)");
    expect(await now(ddl)).toBe("waits");
    await leader.resolve(id("a"), "committed");
    expect(await ddl).toMatchObject({ ok: true });
    const body = {
      kind: "schema" as const,
      statements: [
        {
          sql: "ALTER TABLE t ADD COLUMN w",
          params: [],
          flags: 0,
          stamp: { wallMs: 0, seed: 1, lastInsertRowid: 0n },
          told: undefined,
        },
      ],
      changes: [],
    };
    expect(await prepare(made, { id: "b", writes: [whole("*")], body })).toEqual(YES);
    const blocked = write(made, "INSERT INTO t VALUES (9, 9)");
    expect(await now(blocked)).toBe("waits");
    await leader.resolve(id("b"), "committed");
    // It was analysed against the old schema, and is again.
    expect(await blocked.catch((error: Error) => error.message)).toMatch(/3 columns/);
  });
});

/** A leader's part in reads across ranges, and reads at the leader itself. */
import { afterEach, describe, expect, it } from "vitest";
import { term } from "../../../src/base/ids.js";
import { decodeRows } from "../../../src/base/values.js";
import { settle } from "../../sim/manual-clock.js";
import { statement } from "./helpers.js";
import {
  closeWorlds,
  id,
  type LeaderWorld,
  newWorld,
  now,
  point,
  prepare,
  row,
  run,
  whole,
  write,
} from "./leader-fixture.js";

afterEach(closeWorlds);

async function world(limits: Parameters<typeof newWorld>[0] = {}): Promise<LeaderWorld> {
  const made = await newWorld(limits);
  await run(
    made,
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
    "INSERT INTO t VALUES (1, 10), (2, 20), (3, 30)",
  );
  return made;
}

const NO = { vote: "no", error: ["retry", "OSTRAKA_RETRY", expect.any(String), null] };
const unavailable = { error: expect.objectContaining({ code: "OSTRAKA_UNAVAILABLE" }) };

describe("a fence", () => {
  it("lets in no write of its spans until it is released", async () => {
    const made = await world();
    const fenced = await made.leader.fence("f", [point(1)], 1, 1000);
    expect(fenced).toMatchObject({ index: 2, term: 1, schemaVersion: made.schema.version });
    const blocked = write(made, "UPDATE t SET v = 0 WHERE id = 1");
    expect(await now(blocked)).toBe("waits");
    expect(await write(made, "UPDATE t SET v = 0 WHERE id = 2")).toMatchObject({ ok: true });
    const shared = await made.leader.fence("g", [whole()], 1, 1000);
    expect(shared.index).toBe(3);
    expect(await made.leader.release("f", fenced.term)).toBe(true);
    expect(await now(blocked)).toBe("waits");
    expect(await made.leader.release("g", shared.term)).toBe(true);
    expect(await blocked).toMatchObject({ ok: true });
  });

  it("that ends lets large writes go in several entries, of a size that followers can be sent", async () => {
    const made = await world();
    const { term: at } = await made.leader.fence("f", [whole()], 1, 1000);
    const value = new Uint8Array(4 * 1024 * 1024);
    const blocked = Array.from({ length: 12 }, (_, i) =>
      write(made, "INSERT INTO t VALUES (?, ?)", [BigInt(100 + i), value]),
    );
    expect(await now(Promise.any(blocked))).toBe("waits");
    const before = made.log.entries;
    expect(await made.leader.release("f", at)).toBe(true);
    for (const result of await Promise.all(blocked)) expect(result).toMatchObject({ ok: true });
    expect(made.log.entries - before).toBe(4);
  });

  it("is answered once what is in flight on its spans is applied", async () => {
    const made = await world();
    made.log.held = true;
    const inFlight = write(made, "UPDATE t SET v = 0 WHERE id = 1");
    await now(inFlight);
    const fenced = made.leader.fence("f", [point(1)], 1, 1000);
    expect(await now(fenced)).toBe("waits");
    expect(await now(made.leader.fence("g", [point(2)], 1, 1000))).toMatchObject({ index: 2 });
    made.log.held = false;
    made.log.deliver();
    expect(await fenced).toMatchObject({ index: 3 });
    expect(await inFlight).toMatchObject({ ok: true });
  });

  it("waits for what is held on its spans, for so long", async () => {
    const made = await world({ fenceWaitMs: 500 });
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    const patient = made.leader.fence("f", [point(1)], 1, 1000);
    expect(await now(patient)).toBe("waits");
    await made.leader.resolve(id("a"), "committed");
    expect(await patient).toMatchObject({ index: 4 });
    await made.leader.release("f", (await patient).term);
    await prepare(made, { id: "b", changes: [row(1, 12)] });
    const given = made.leader.fence("g", [point(1)], 1, 1000);
    const outcome = now(given);
    await made.clock.advance(500);
    await outcome;
    expect(await now(given)).toEqual(unavailable);
    // It does not stand in anybody's way any more.
    await made.leader.resolve(id("b"), "aborted");
    expect(await write(made, "UPDATE t SET v = 0 WHERE id = 1")).toMatchObject({ ok: true });
  });

  it("expires, and then its release says so", async () => {
    const made = await world();
    const { term: at } = await made.leader.fence("f", [point(1)], 1, 1000);
    const blocked = write(made, "UPDATE t SET v = 0 WHERE id = 1");
    await made.clock.advance(900);
    expect(await now(blocked)).toBe("waits");
    await made.clock.advance(200);
    expect(await blocked).toMatchObject({ ok: true });
    expect(await made.leader.release("f", at)).toBe(false);
    expect(await now(made.leader.fence("f", [point(1)], 1, 1000))).toEqual(unavailable);
  });

  it("stands no longer than anybody may be kept waiting", async () => {
    const made = await world({ mostFenceMs: 2000 });
    await made.leader.fence("f", [point(1)], 1, 60_000);
    const blocked = write(made, "UPDATE t SET v = 0 WHERE id = 1");
    await made.clock.advance(1900);
    expect(await now(blocked)).toBe("waits");
    await made.clock.advance(200);
    expect(await blocked).toMatchObject({ ok: true });
  });

  it("is answered alike when it is asked for again, and never stands again once it ended", async () => {
    const made = await world();
    const first = await made.leader.fence("f", [point(1)], 1, 1000);
    await run(made, "UPDATE t SET v = 0 WHERE id = 2");
    expect(await made.leader.fence("f", [point(1)], 1, 1000)).toEqual(first);
    expect(await made.leader.release("f", first.term)).toBe(true);
    expect(await now(made.leader.fence("f", [point(1)], 1, 1000))).toEqual(unavailable);
    expect(await made.leader.release("f", first.term)).toBe(false);
    expect(await made.leader.release("unheard of", first.term)).toBe(false);
    expect(await now(made.leader.fence("unheard of", [point(1)], 1, 1000))).toEqual(unavailable);
  });

  it("has not stood if it is released before it was answered", async () => {
    const made = await world();
    made.log.held = true;
    const inFlight = write(made, "UPDATE t SET v = 0 WHERE id = 1");
    await now(inFlight);
    const fenced = made.leader.fence("f", [point(1)], 1, 1000);
    expect(await now(fenced)).toBe("waits");
    expect(await now(made.leader.release("f", term(1)))).toBe(false);
    const answered = now(fenced);
    made.log.held = false;
    made.log.deliver();
    await answered;
    expect(await now(fenced)).toEqual(unavailable);
    expect(await inFlight).toMatchObject({ ok: true });
  });

  it("does not outlive its leader's term, nor one that no quorum confirms", async () => {
    const made = await world();
    const { term: at } = await made.leader.fence("f", [point(1)], 1, 1000);
    expect(await made.leader.fence("g", [point(1)], 1, 1000)).toMatchObject({ term: 1 });
    expect(await made.leader.release("g", term(9))).toBe(false);
    made.log.confirms = false;
    await expect(made.leader.release("f", at)).rejects.toMatchObject({ code: "OSTRAKA_ROUTE" });
    made.log.confirms = true;
    await made.leader.fence("h", [point(1)], 1, 1000);
    made.log.depose();
    made.log.lead();
    await settle();
    expect(await made.leader.release("h", at)).toBe(false);
    expect(await write(made, "UPDATE t SET v = 0 WHERE id = 1")).toMatchObject({ ok: true });
  });

  it("is refused when the range is another one than was thought", async () => {
    const made = await world();
    await expect(made.leader.fence("f", [point(1)], 2, 1000)).rejects.toMatchObject({
      code: "OSTRAKA_ROUTE",
      moved: expect.stringContaining('"range":3'),
    });
    expect(await write(made, "UPDATE t SET v = 0 WHERE id = 1")).toMatchObject({ ok: true });
  });
});

describe("a PREPARE that meets a fence", () => {
  it("passes when the fence ends in time", async () => {
    const made = await world();
    const { term: at } = await made.leader.fence("f", [point(1)], 1, 1000);
    const vote = prepare(made, { id: "a", changes: [row(1, 11)] });
    expect(await now(vote)).toBe("waits");
    await made.leader.release("f", at);
    expect(await vote).toEqual({ vote: "yes" });
  });

  it("is refused after a bounded time; its next try goes before new fences", async () => {
    const made = await world({ prepareWaitMs: 150, claimMs: 100 });
    const { term: at } = await made.leader.fence("f", [point(1)], 1, 1000);
    const vote = prepare(made, { id: "a", changes: [row(1, 11)] });
    await made.clock.advance(160);
    expect(await now(vote)).toEqual(NO);
    const fresh = made.leader.fence("g", [point(1)], 1, 1000);
    expect(await now(fresh)).toBe("waits");
    await made.leader.release("f", at);
    expect(await now(fresh)).toBe("waits");
    expect(await prepare(made, { id: "b", changes: [row(1, 11)] })).toEqual({ vote: "yes" });
    expect(await now(fresh)).toBe("waits");
    await made.leader.resolve(id("b"), "committed");
    expect(await fresh).toMatchObject({ term: 1 });
  });

  it("is given up while it waits when its abort arrives", async () => {
    const made = await world();
    const { term: at } = await made.leader.fence("f", [point(1)], 1, 1000);
    const vote = prepare(made, { id: "a", changes: [row(1, 11)] });
    await now(vote);
    await made.leader.resolve(id("a"), "aborted");
    await made.leader.release("f", at);
    expect(await vote).toEqual(NO);
    expect((await made.leader.readPoint()).held).toBeUndefined();
  });
});

describe("a read of a replica", () => {
  it("is told what was held in the state that it read, wherever it was read", async () => {
    const made = await world();
    const read = (mayBeAhead: boolean) =>
      made.store.read({ statement: statement("SELECT v FROM t WHERE id = 1"), maxBytes: 100, mayBeAhead });
    expect((await read(true)).held).toBeUndefined();
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    for (const ahead of [true, false]) expect((await read(ahead)).held).toEqual([point(1)]);
    await made.leader.resolve(id("a"), "committed");
    for (const ahead of [true, false]) {
      const { outcome, held } = await read(ahead);
      expect([decodeRows(outcome.rows), held]).toEqual([[[11n]], undefined]);
    }
  });
});

describe("a read at the leader", () => {
  const read = (made: LeaderWorld, sql: string) =>
    made.leader.read({ statement: statement(sql), maxBytes: 1000 });

  it("answers from the leader's own state, after what is held of it is decided", async () => {
    const made = await world();
    const { outcome } = await read(made, "SELECT v FROM t WHERE id = 1");
    expect(decodeRows(outcome.rows)).toEqual([[10n]]);
    await prepare(made, { id: "a", changes: [row(1, 11)] });
    const waiting = read(made, "SELECT v FROM t WHERE id = 1");
    expect(await now(waiting)).toBe("waits");
    await made.leader.resolve(id("a"), "committed");
    expect(decodeRows((await waiting).outcome.rows)).toEqual([[11n]]);
  });

  it("is done again when what it read was prepared meanwhile", async () => {
    const made = await world();
    const { store } = made;
    const answer = store.read.bind(store);
    let voted: Promise<unknown> | undefined;
    let reads = 0;
    store.read = async (request) => {
      reads++;
      if (voted === undefined) {
        voted = prepare(made, { id: "a", changes: [row(1, 11)] });
        await voted;
      }
      return answer(request);
    };
    const waiting = read(made, "SELECT v FROM t WHERE id = 1");
    expect(await now(waiting)).toBe("waits");
    expect(await voted).toEqual({ vote: "yes" });
    await made.leader.resolve(id("a"), "committed");
    expect(decodeRows((await waiting).outcome.rows)).toEqual([[11n]]);
    expect(reads).toBe(2);
  });

  it("is linearizable, bounded, and for reads only", async () => {
    const made = await world();
    for (const sql of ["DELETE FROM t", "SELECT hex(zeroblob(3000)) FROM t WHERE id = 1"])
      await expect(read(made, sql)).rejects.toMatchObject({ code: "OSTRAKA_TOO_LARGE" });
    made.log.confirms = false;
    await expect(read(made, "SELECT 1")).rejects.toMatchObject({ code: "OSTRAKA_ROUTE" });
  });
});

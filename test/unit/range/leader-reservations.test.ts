/** Transactions that lost before, at their leader: what they touch waits for its turn, and is theirs until they end. */
import { afterEach, describe, expect, it } from "vitest";
import { isWireError } from "../../../src/base/errors.js";
import { decodeRows } from "../../../src/base/values.js";
import {
  closeWorlds,
  id,
  key,
  type LeaderWorld,
  newWorld,
  now,
  prepare,
  run,
  whole,
  write,
} from "./leader-fixture.js";

afterEach(closeWorlds);

async function world(): Promise<LeaderWorld> {
  const made = await newWorld();
  await run(
    made,
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
    "INSERT INTO t VALUES (1, 10), (2, 20), (3, 30)",
  );
  return made;
}

async function read(made: LeaderWorld, name: string, ordinal: number, row: number, reserveAgeMs?: number) {
  const statement = { sql: "SELECT v FROM t WHERE id = ?", params: [BigInt(row)] };
  const request = { transaction: id(name), ordinal, statement, flags: 0, lastInsertRowid: 0n, reserveAgeMs };
  const answer = await made.leader.run(request);
  if (answer.kind !== "ran" || isWireError(answer.outcome)) throw new Error("it did not run");
  return decodeRows(answer.outcome.rows)[0]?.[0];
}

describe("a transaction that lost before", () => {
  it("has to itself what it touches, until it ends", async () => {
    const made = await world();
    expect(await read(made, "lost", 0, 1, 500)).toBe(10n);
    const fresh = read(made, "fresh", 0, 1);
    expect(await now(fresh)).toBe("waits");
    expect(await read(made, "other", 0, 2)).toBe(20n);
    const writer = write(made, "UPDATE t SET v = v + 1 WHERE id = 1");
    expect(await now(writer)).toBe("waits");
    expect(await now(made.leader.commit(id("lost"), key(made), []))).toMatchObject({ ok: true });
    await writer;
    expect([10n, 11n]).toContain(await fresh);
  });

  it("waits for older ones, and no longer than others wait for it", async () => {
    const made = await world();
    await read(made, "older", 0, 1, 900);
    await read(made, "younger", 0, 2, 300);
    const younger = read(made, "younger", 1, 1, 300);
    const older = read(made, "older", 1, 2, 900);
    expect(await now(younger)).toBe("waits");
    expect(await now(older)).toBe("waits");
    made.clock.advance(150);
    expect([await younger, await older]).toEqual([10n, 20n]);
  });

  it("is let pass by a PREPARE only for a moment, which may be in its way elsewhere", async () => {
    const made = await world();
    expect(await read(made, "fresh", 0, 1)).toBe(10n);
    expect(await read(made, "lost", 0, 1, 500)).toBe(10n);
    const prepared = prepare(made, { id: "fresh", ran: 1, body: { kind: "own" } });
    expect(await now(prepared)).toBe("waits");
    made.clock.advance(30);
    expect(await prepared).toMatchObject({
      vote: "no",
      error: ["retry", "OSTRAKA_RETRY", expect.anything(), null],
    });
  });

  it("has its turn told to whoever asked for it, however often", async () => {
    const made = await world();
    const begin = (name: string) => made.leader.begin(id(name), { reserve: [whole("*")], age: 0 });
    await begin("first");
    const asked = [begin("second"), begin("second")];
    for (const one of asked) expect(await now(one)).toBe("waits");
    await made.leader.rollback(id("first"));
    for (const one of asked) expect(await now(one)).toMatchObject({ term: 1 });
    const late = [begin("third"), begin("third")].map((one) => expect(one).rejects.toThrow(/ended while/));
    await made.leader.rollback(id("third"));
    await Promise.all(late);
  });

  it("reserves nothing any more once it is prepared, rolled back or gone", async () => {
    const made = await world();
    await read(made, "a", 0, 1, 500);
    expect(await prepare(made, { id: "a", ran: 1, body: { kind: "own" } })).toEqual({ vote: "yes" });
    expect(await read(made, "b", 0, 1, 0)).toBe(10n);
    await made.leader.rollback(id("b"));
    expect(await read(made, "c", 0, 1, 0)).toBe(10n);
    const waiting = read(made, "d", 0, 1);
    expect(await now(waiting)).toBe("waits");
    made.log.depose();
    await expect(waiting).rejects.toMatchObject({ code: "OSTRAKA_ROUTE" });
  });
});

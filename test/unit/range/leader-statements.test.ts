/** Statements of open transactions at a leader whose schema changes under them. */
import { afterEach, expect, it } from "vitest";
import type { RangeStore } from "../../../src/machines/range/types.js";
import { statement } from "./helpers.js";
import { closeWorlds, id, key, newWorld, now, prepare, rows, run, whole, write } from "./leader-fixture.js";

afterEach(closeWorlds);

/** Before the worker comes to it, what the main thread does not know of yet. */
function before(store: RangeStore, call: "read" | "speculate", happens: () => Promise<void>): void {
  const original = store[call].bind(store) as (request: never) => Promise<never>;
  store[call] = (async (request: never) => {
    store[call] = original as never;
    await happens();
    return original(request);
  }) as never;
}

it.each([
  ["read", "select a from v"],
  ["speculate", "update t set a = 2 where id = 1"],
] as const)(
  "are given up where it changed before they ran and after they were looked at (%s)",
  async (call, sql) => {
    const world = await newWorld();
    const { leader, store } = world;
    await run(
      world,
      "create table t(id integer primary key, a)",
      "create table u(id integer primary key, a)",
      "create table l(a)",
      "create view v as select a from t",
      "insert into t values (1, 1)",
      "insert into u values (1, 1)",
    );
    const asked = { sql, params: [] };
    const first = { transaction: id("x"), ordinal: 0, statement: asked, flags: 0, lastInsertRowid: 0n };
    before(store, call, () =>
      run(
        world,
        "drop view v",
        "create view v as select a from u",
        "create trigger g after update on t begin insert into l select max(a) from u; end",
      ),
    );
    await expect(leader.run(first)).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
    // It is looked at anew when it comes again, and what it looks at counts.
    const again = id("y");
    expect(await leader.run({ ...first, transaction: again })).toMatchObject({ kind: "ran" });
    expect(await write(world, "update u set a = 7")).toMatchObject({ ok: true });
    if (call === "read")
      expect(await leader.commit(again, key(world), [])).toMatchObject({
        ok: false,
        error: expect.arrayContaining(["OSTRAKA_RETRY"]),
      });
    expect(await rows(world, "select a from l")).toEqual([]);
  },
);

it("of a batch are looked at by one schema", async () => {
  const world = await newWorld();
  const { leader, log } = world;
  await run(world, "create table t(id integer primary key)", "create table l(a)");
  const statements = [
    statement("create table n(a)"),
    statement("create trigger g after insert on t begin insert into l values (new.id); end"),
  ];
  const body = { kind: "schema" as const, statements, changes: [] };
  expect(await prepare(world, { id: "p", writes: [{ ...whole("*") }], body })).toMatchObject({ vote: "yes" });
  const texts = ["insert into t values (5)", "insert into n values (1)"];
  const batch = leader.batch({
    key: key(world),
    transaction: id("batch"),
    statements: texts.map((sql) => ({ statement: { sql, params: [] }, flags: 0, lastInsertRowid: 0n })),
  });
  expect(await now(batch)).toBe("waits");
  log.held = true;
  const resolved = leader.resolve(id("p"), "committed");
  expect(await now(resolved)).toBe("waits");
  log.deliver();
  await resolved;
  expect(await now(batch)).toBe("waits");
  const reader = id("reader");
  await leader.begin(reader, { reserve: undefined, age: 0 });
  const read = { sql: "select count(*) from l", params: [] };
  const first = { transaction: reader, ordinal: 0, statement: read, flags: 0, lastInsertRowid: 0n };
  // What it reads is about to be written.
  await expect(leader.run(first)).rejects.toMatchObject({ code: "OSTRAKA_RETRY" });
  log.deliver();
  expect(await batch).toMatchObject({ ok: true });
  expect(await rows(world, "select a from l")).toEqual([[5n]]);
});

/** Statements of open transactions at a leader whose schema changes under them. */
import { afterEach, expect, it } from "vitest";
import type { RangeStore } from "../../../src/machines/range/types.js";
import { closeWorlds, id, key, newWorld, rows, run, write } from "./leader-fixture.js";

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
    const statement = { sql, params: [] };
    const first = { transaction: id("x"), ordinal: 0, statement, flags: 0, lastInsertRowid: 0n };
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

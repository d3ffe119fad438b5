/** What followers may put off is what only changes rows, and little of them. */
import { describe, expect, it } from "vitest";
import { encodeCommands } from "../../../src/machines/range/command.js";
import { mayWait } from "../../../src/machines/range/patience.js";
import type { StoreCore } from "../../../src/machines/range/store-core.js";
import type { Command } from "../../../src/machines/range/types.js";
import { execute, freshKey, prepare, resolve, statement, transaction, WALL_MS } from "./helpers.js";

const waits = (...commands: Command[]): boolean => mayWait(encodeCommands(commands));
const INSERT = "insert into t values (1)";

describe("an entry", () => {
  it("may wait when it only changes rows", () => {
    for (const sql of [INSERT, " /* x */ UPDATE t SET a = 1", "delete from t", "replace into t values (1)"])
      expect(waits(execute(sql))).toBe(true);
    expect(waits(execute("with c as (select 1) insert into t select * from c"))).toBe(true);
    expect(waits(transaction("t1", [statement(INSERT), statement("delete from t")]))).toBe(true);
    expect(waits(execute(INSERT), execute("delete from t"))).toBe(true);
  });

  it("does not wait when it changes the schema or the range, or decides", () => {
    for (const sql of [
      "create table t(a)",
      "drop table t",
      "alter table t rename to u",
      "analyze",
      "reindex",
    ])
      expect(waits(execute(INSERT), execute(sql))).toBe(false);
    expect(waits(transaction("t1", [statement(INSERT), statement("create index i on t(a)")]))).toBe(false);
    expect(waits(resolve("t1", "committed"))).toBe(false);
    expect(waits({ kind: "pragma", key: freshKey(), wallMs: WALL_MS, name: "user_version", value: 1 })).toBe(
      false,
    );
  });

  it("waits with a vote, but not one on a schema", () => {
    const store = { schemaVersion: 1 } as StoreCore;
    expect(waits(prepare(store, "t1", { kind: "rows", changes: [] }))).toBe(true);
    expect(waits(prepare(store, "t1", { kind: "nothing" }))).toBe(true);
    const statements = [statement("create table u(a)")];
    expect(waits(prepare(store, "t1", { kind: "schema", statements, changes: [] }))).toBe(false);
  });

  it("does not wait when it is large: it is many already", () => {
    expect(waits(...Array.from({ length: 100 }, () => execute(INSERT)))).toBe(false);
  });
});

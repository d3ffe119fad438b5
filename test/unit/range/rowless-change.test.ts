/** Which changes of the schema are tried where, when they go through several ranges. */
import { describe, expect, it } from "vitest";
import { encodeKey } from "../../../src/base/keys.js";
import { isRowless } from "../../../src/machines/range/rowless-change.js";
import type { StoreCore } from "../../../src/machines/range/store-core.js";
import type { PreparedTransaction, RowChange } from "../../../src/machines/range/types.js";
import {
  applyCommands,
  applySql,
  prepare,
  query,
  resolve,
  statement,
  temporaryDirectory,
} from "./helpers.js";
import { childOf, openRange, split } from "./ranges.js";

describe("a change of the schema without a look at rows", () => {
  it.each([
    "create view v as select 1",
    "CREATE VIEW IF NOT EXISTS v AS SELECT a FROM t",
    "/* a */ create -- b\n view v as select 1",
    "create trigger r after insert on t begin select 1; end",
    "create table u(a, b as (a), c default (1 as x))",
    'create table main."as"(a primary key) without rowid',
    "drop table t",
    "drop view if exists v",
    "drop index i",
    "drop trigger r",
  ])("is %s", (sql) => expect(isRowless(sql)).toBe(true));

  it.each([
    "create table u as select 1",
    "create table u as select (1) as b",
    "create table main.u as values (1)",
    "create virtual table u using fts5(a)",
    "create index i on t(a)",
    "create unique index i on t(a)",
    "alter table t rename to u",
    "alter table t add column b not null",
    "reindex",
    "analyze",
    "create temp view v as select 1",
    "create temporary table u(a)",
    "create",
    "drop",
    "",
  ])("is not %s", (sql) => expect(isRowless(sql)).toBe(false));
});

/** The range where the keyspace begins, and one that does not know it. */
async function two(...setup: string[]): Promise<StoreCore[]> {
  const root = temporaryDirectory();
  const first = openRange(root);
  applySql(
    first,
    "create table t(id integer primary key, a)",
    "insert into t values (1, 'x'), (9, 'y')",
    ...setup,
  );
  applyCommands(first, split(encodeKey(1, [5n]), 8));
  await childOf(first);
  return [first, openRange(root, 8)];
}

/** How many ranges vote for it. */
function votes(
  stores: readonly StoreCore[],
  texts: readonly string[],
  changes: readonly RowChange[] = [],
): string[] {
  const body: PreparedTransaction["body"] = {
    kind: "schema",
    statements: texts.map((sql) => statement(sql)),
    changes,
  };
  return stores.map((store) => {
    const [vote] = applyCommands(store, prepare(store, "p", body));
    return vote!.ok ? "yes" : "no";
  });
}

describe("where the keyspace begins", () => {
  it("a change is tried for all ranges, and made in all of them", async () => {
    const stores = await two();
    const texts = [
      "create view v as select a from t",
      "drop view v",
      "create view v as select id from t",
      "create table u(a)",
    ];
    expect(votes(stores, texts)).toEqual(["yes", "yes"]);
    for (const store of stores) {
      const version = store.schemaVersion;
      expect(store.schema().tables).toMatchObject([{ name: "t", id: 1 }]);
      expect(applyCommands(store, resolve("p", "committed"))).toMatchObject([
        { ok: true, decision: "committed" },
      ]);
      expect(store.schemaVersion).toBe(version + texts.length);
      expect(store.schema().tables).toMatchObject([
        { name: "t", id: 1 },
        { name: "u", id: 2 },
      ]);
    }
    expect(stores.map((store) => query(store, "select * from v"))).toEqual([[[1n]], [[9n]]]);
  });

  it("one that cannot be made is refused for all, and leaves nothing anywhere", async () => {
    const stores = await two();
    const before = stores.map((store) => store.schema().tables);
    expect(votes(stores, ["create view v as select 1", "create table t(a)"])).toEqual(["no", "yes"]);
    for (const store of stores) applyCommands(store, resolve("p", "aborted"));
    expect(stores.map((store) => store.schema().tables)).toEqual(before);
  });

  it.each([
    ["it looks at rows", "create index t on t(a)", []],
    ["it brings rows", "create table t(a)", [{ table: "t", key: [1n], row: ["a"] }]],
  ] as const)("alone no change is tried where %s", async (_, sql, changes) => {
    expect(votes(await two(), [sql], changes)).toEqual(["no", "no"]);
  });

  it("alone no change is tried where tables are virtual, whose rows have a place", async () => {
    expect(votes(await two("create virtual table f using fts5(a)"), ["create table t(a)"])).toEqual([
      "no",
      "no",
    ]);
  });
});

import { describe, expect, it } from "vitest";
import type { StoreCore } from "../../../src/machines/range/store-core.js";
import { SessionFlag } from "../../../src/sql/types.js";
import {
  applyCommands,
  applySql,
  execute,
  openStore,
  query,
  statement,
  transaction,
  WALL_MS,
} from "./helpers.js";

/**
 * Two replicas that have applied the same, one of which has opened its file anew since: what follows must do the same on
 * both, whatever the other's connection remembers.
 */
function alike(before: (store: StoreCore) => void, after: (store: StoreCore) => unknown): unknown {
  const kept = openStore();
  before(kept);
  const anew = openStore();
  before(anew);
  expect(anew.rest()).toBe(true);
  const expected = after(anew);
  expect(after(kept)).toEqual(expected);
  return expected;
}

const UP_TO = (n: number): string =>
  `with recursive n(i) as (select 1 union all select i + 1 from n where i < ${n})`;
/** By statistics b, which is small, is scanned and a looked up: rows come in b's order, which is not a's. */
const SETUP = [
  "create table a(x, y)",
  "create table b(x, y)",
  "create table c(id integer primary key, y)",
  "create index ai on a(x)",
  "create index bi on b(x)",
  `${UP_TO(1000)} insert into a select i, i from n`,
  "insert into b select 11 - x, y from a where x <= 10",
];

describe("rows come in the same order where SQLite chooses it", () => {
  const joined = (store: StoreCore): unknown => {
    applySql(store, "insert into c(y) select b.y + 0 * a.y from a, b where a.x = b.x");
    return query(store, "select y from c order by id");
  };
  const scansA = [10n, 9n, 8n, 7n, 6n, 5n, 4n, 3n, 2n, 1n].map((y) => [y]);
  const scansB = scansA.toReversed();

  it("by statistics at all", () => {
    expect(alike((store) => applySql(store, ...SETUP), joined)).toEqual(scansA);
    expect(alike((store) => applySql(store, ...SETUP, "analyze"), joined)).toEqual(scansB);
  });

  it("after an ANALYZE that was undone with its transaction", () => {
    const undone = (store: StoreCore): void => {
      applySql(store, ...SETUP, "analyze");
      const [result] = applyCommands(
        store,
        transaction("t1", [
          statement("delete from a where x > 5"),
          statement(`${UP_TO(900)} insert into b select i, i from n`),
          statement("analyze"),
          statement("insert into nowhere values (1)"),
        ]),
      );
      expect(result).toMatchObject({ ok: false });
    };
    expect(alike(undone, joined)).toEqual(scansB);
  });

  it("after statistics were written by hand, or their tables dropped", () => {
    const written = [...SETUP, "analyze", "delete from sqlite_stat1", "drop table sqlite_stat4"];
    expect(alike((store) => applySql(store, ...written), joined)).toEqual(scansA);
    const dropped = [...SETUP, "analyze", "drop table sqlite_stat1", "drop table sqlite_stat4"];
    expect(alike((store) => applySql(store, ...dropped), joined)).toEqual(scansA);
  });

  it("after a trigger wrote statistics", () => {
    const written = [
      ...SETUP,
      "analyze",
      "drop table sqlite_stat4",
      "create table d(x)",
      "create trigger forget after insert on d begin delete from sqlite_stat1; end",
      "insert into d values (1)",
    ];
    expect(alike((store) => applySql(store, ...written), joined)).toEqual(scansA);
  });

  it("after a session had its own LIKE", () => {
    const before = (store: StoreCore): void => {
      applySql(
        store,
        "create table a(id integer primary key, x text collate nocase, y)",
        "create table c(id integer primary key, y)",
        "create index ai on a(x)",
        "insert into a(x, y) values ('ad', 1), ('ac', 2), ('ab', 3)",
      );
      const flags = SessionFlag.CaseSensitiveLike;
      applyCommands(store, execute("update a set y = y + 1 where id = 1", [], { flags }));
    };
    const matched = (store: StoreCore): unknown => {
      applySql(store, "insert into c(y) select y from a where x like 'A%'");
      return query(store, "select y from c order by id");
    };
    expect(alike(before, matched)).toEqual([[3n], [2n], [2n]]);
  });

  it("after an index came and went, which makes a small table count as larger", () => {
    const made = [
      ...SETUP,
      "delete from a where x > 100",
      "analyze",
      "create index b2 on b(y)",
      "drop index b2",
    ];
    expect(alike((store) => applySql(store, ...made), joined)).toEqual(scansB);
  });
});

it("a change of the schema that finds nothing to do tells the session's last rowid", () => {
  const stamp = { wallMs: WALL_MS, seed: 1, lastInsertRowid: 77n };
  const before = (store: StoreCore): void =>
    applySql(
      store,
      "create table a(x)",
      "create trigger t after insert on a begin select 1; end",
      "insert into a values (1)",
    );
  for (const sql of [
    "drop trigger if exists absent",
    "create trigger if not exists t after insert on a begin select 1; end",
    "drop table if exists absent",
    "create table if not exists a(x)",
  ])
    expect(alike(before, (store) => applyCommands(store, execute(sql, [], { stamp })))).toMatchObject([
      { ok: true, outcomes: [{ changes: 0, lastInsertRowid: 77n }] },
    ]);
});

it("a virtual table whose columns are another table's is what that is now", async () => {
  const made = (store: StoreCore): void =>
    applySql(
      store,
      "create table c(x, y)",
      "create virtual table f using fts4(content='c')",
      "create table t(a)",
      "create trigger t_i after insert on t begin insert into f(docid, x) values (new.a, 'q'); end",
      "insert into t values (1)",
    );
  const tried = (store: StoreCore): unknown => [
    applyCommands(
      store,
      execute("insert into t values (2)"),
      execute("insert into f(docid, z) values (3, 'z')"),
    ),
    store.schema().tables.map(({ name, id, shard }) => [name, id, shard]),
  ];
  const gone = (store: StoreCore): void => {
    made(store);
    applySql(store, "drop table c");
  };
  expect(alike(gone, tried)).toMatchObject([[{ ok: false }, { ok: false }], expect.anything()]);
  const wider = (store: StoreCore): void => {
    made(store);
    applySql(store, "alter table c add column z");
  };
  expect(alike(wider, tried)).toMatchObject([[{ ok: true }, { ok: true }], expect.anything()]);
  const store = openStore();
  gone(store);
  expect(await store.digest()).toEqual(await store.digest());
});

it("an answer of a date function is told for its own arguments only", () => {
  const asked = alike(
    (store) => applySql(store, "create table a(x)", "insert into a select date('2024-01-01', '+1 day')"),
    (store) => {
      applySql(store, "insert into a select date('2024-01-01' || char(0) || '+1 day')");
      return query(store, "select x from a");
    },
  );
  expect(asked).toEqual([["2024-01-02"], ["2024-01-01"]]);
});

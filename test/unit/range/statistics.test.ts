import { describe, expect, it } from "vitest";
import type { StoreCore } from "../../../src/machines/range/store-core.js";
import type { Command } from "../../../src/machines/range/types.js";
import { applySql, at, entry, execute, openStore, query } from "./helpers.js";

const statistics = (store: StoreCore) => query(store, "select rowid, * from sqlite_stat1 order by rowid");
const digestOf = async (store: StoreCore): Promise<string> => (await store.digest()).digest;

describe("what ANALYZE finds", () => {
  it("is of the user's tables, and does not depend on batches", async () => {
    const commands = (texts: readonly string[]): Command[] => texts.map((sql) => execute(sql));
    const entries = [
      entry(1, commands(["create table t(a unique on conflict rollback)", "create index i on t(a)"])),
      entry(2, commands(["insert into t values (1)", "analyze", "insert into t values (2)"])),
      entry(3, commands(["insert into t values (2)"])),
    ];
    const one = openStore();
    for (const each of entries) one.apply([each], each.index);
    const other = openStore();
    other.apply(entries, at(3));
    expect(statistics(one)).toEqual([
      [1n, "t", "i", "1 1"],
      [2n, "t", "sqlite_autoindex_t_1", "1 1"],
    ]);
    expect(statistics(other)).toEqual(statistics(one));
    expect(await digestOf(other)).toEqual(await digestOf(one));
  });

  it("does not depend on what the connection has seen of the schema", () => {
    const names = Array.from({ length: 40 }, (_, i) => `t${(i * 7919) % 101}`);
    const history = (store: StoreCore): void => {
      for (const name of names)
        applySql(
          store,
          `create table ${name}(a, b)`,
          `create index ${name}_a on ${name}(a)`,
          `create index ${name}_b on ${name}(b)`,
        );
      for (const name of names.slice(0, 25)) applySql(store, `drop table ${name}`);
      for (const name of names.slice(25)) applySql(store, `insert into ${name} values (1, 2), (1, 3)`);
      for (const name of names.slice(5, 15))
        applySql(store, `create table ${name}(a unique)`, `insert into ${name} values (1)`);
    };
    const kept = openStore();
    history(kept);
    const anew = openStore();
    history(anew);
    expect(anew.rest()).toBe(true);
    for (const store of [kept, anew]) applySql(store, "analyze");
    expect(statistics(anew)).toEqual(statistics(kept));
    const samples = (store: StoreCore) => query(store, "select rowid, * from sqlite_stat4 order by rowid");
    expect(samples(anew)).toEqual(samples(kept));
    expect(query(kept, "select count(*) from sqlite_stat1")).toEqual([[40n]]);
  });
});

import { describe, expect, it } from "vitest";
import type { StoreCore } from "../../../src/machines/range/store-core.js";
import { applyCommands, applySql, execute, openStore, statement, transaction } from "./helpers.js";

const keys = (store: StoreCore): Record<string, string> =>
  Object.fromEntries(
    store
      .schema()
      .tables.map(({ name, id, shard, keyColumns, autoincrement }) => [
        name,
        `${shard} ${id}${keyColumns.length > 0 ? ` ${keyColumns.join()}` : ""}${autoincrement ? " auto" : ""}`,
      ]),
  );

describe("ids of tables", () => {
  it("are given in the order in which tables are made, and never again", () => {
    const store = openStore();
    applySql(store, "create table b(x)", "create table a(x)", "drop table b", "create table c(x)");
    expect(keys(store)).toEqual({ a: "rowid 2 rowid", c: "rowid 3 rowid" });
    applySql(store, "drop table c", "create table C(x)");
    expect(keys(store)).toEqual({ a: "rowid 2 rowid", c: "rowid 4 rowid" });
  });

  it("are each range's own, though others have a schema of the same text", () => {
    const stores = Array.from({ length: 6 }, (_, made) => {
      const store = openStore();
      for (let i = 0; i < made; i++) applySql(store, "create table gone(x)", "drop table gone");
      return store;
    });
    const found = stores.map((store, made) => {
      applySql(store, "create table t(x)", `create table k${made % 5}(x text primary key) without rowid`);
      return keys(store);
    });
    for (const [made, of] of found.entries())
      expect(of).toEqual({ t: `rowid ${made + 1} rowid`, [`k${made % 5}`]: `key ${made + 2} x` });
  });

  it("stay with a table that is renamed", () => {
    const store = openStore();
    applySql(
      store,
      "create table t(x)",
      "create table u(x)",
      "alter table t rename to v",
      "create table t(x)",
    );
    expect(keys(store)).toEqual({ v: "rowid 1 rowid", u: "rowid 2 rowid", t: "rowid 3 rowid" });
    applySql(store, "alter table v rename to W2", "alter table u rename column x to rowid");
    expect(keys(store)).toEqual({ w2: "rowid 1 rowid", u: "rowid 2 _rowid_", t: "rowid 3 rowid" });
  });

  it("are not used up by what fails or is undone", () => {
    const store = openStore();
    applySql(store, "create table t(x)");
    const results = applyCommands(
      store,
      execute("create table t(x)"),
      transaction("x", [statement("create table u(x)"), statement("insert into nowhere values (1)")]),
      transaction("y", [
        statement("create table v(x)"),
        statement("alter table v rename to w"),
        statement("create table v(x)"),
      ]),
      execute("create table if not exists t(x)"),
      execute("create temp table z(x)"),
    );
    expect(results.map(({ ok }) => ok)).toEqual([false, false, true, true, true]);
    expect(keys(store)).toEqual({ t: "rowid 1 rowid", w: "rowid 2 rowid", v: "rowid 3 rowid" });
  });

  it("are part of the state, whatever the batches", async () => {
    const one = openStore();
    const other = openStore();
    const commands = [
      execute("create table t(x)"),
      execute("alter table t rename to u"),
      execute("create table t(id integer primary key autoincrement)"),
      execute("create virtual table f using fts5(x)"),
      execute("drop table u"),
    ];
    applyCommands(one, ...commands);
    for (const command of commands) applyCommands(other, command);
    expect(keys(one)).toEqual(keys(other));
    expect(keys(one).t).toBe("rowid 2 rowid auto");
    expect(await one.digest()).toMatchObject({ appliedIndex: 1 });
  });
});

describe("shard keys", () => {
  it("are rowids by a name that is not a column's", () => {
    const store = openStore();
    applySql(
      store,
      "create table a(rowid, x)",
      "create table b(rowid, oid, _rowid_)",
      "create table c(rowid, oid, _rowid_, id integer primary key)",
      "create table d(rowid, oid, _rowid_, id integer primary key desc)",
      "create table e(id integer primary key autoincrement, x default 'autoincrement')",
      "create table f(x default 'autoincrement')",
      "create table g(a text primary key)",
    );
    expect(keys(store)).toEqual({
      a: "rowid 1 _rowid_",
      b: "home 0",
      c: "rowid 3 id",
      d: "home 0",
      e: "rowid 5 rowid auto",
      f: "rowid 6 rowid",
      g: "rowid 7 rowid",
    });
  });

  it("are primary keys that are ordered bytewise", () => {
    const store = openStore();
    applySql(
      store,
      "create table a(x text, y integer, z blob, w, primary key(z, y, x)) without rowid",
      "create table b(x text collate nocase primary key) without rowid",
      "create table c(x text, primary key(x collate nocase)) without rowid",
      "create table d(x integer, primary key(x desc)) without rowid",
      "create table e(x real primary key) without rowid",
      "create table f(x primary key) without rowid",
      "create table g(x decimal(5, 2) primary key) without rowid",
      "create table h(x varchar(5) primary key) without rowid",
      "create table i(x collate nocase, primary key(x collate binary)) without rowid",
      "create table j(x bigint, primary key(x, x)) without rowid",
    );
    expect(keys(store)).toEqual({
      a: "key 1 z,y,x",
      b: "home 0",
      c: "home 0",
      d: "home 0",
      e: "home 0",
      f: "key 6 x",
      g: "home 0",
      h: "key 8 x",
      i: "key 9 x",
      j: "key 10 x",
    });
  });

  it("are told beside views of tables that are gone", () => {
    const store = openStore();
    applySql(
      store,
      "create table t(x)",
      "create table u(x)",
      "create virtual table f using fts5(x)",
      "create view v as select x from t",
      "create trigger v_i instead of insert on v begin insert into f values (new.x); end",
      "drop table t",
      "create table w(x)",
    );
    expect(keys(store)).toMatchObject({ u: "rowid 2 rowid", w: expect.stringMatching(/^rowid/) });
  });

  it("are none where rows feed a virtual table: by triggers, views, other tables, foreign keys", () => {
    const store = openStore();
    applySql(
      store,
      "create table plain(x)",
      "create table docs(id integer primary key, body)",
      "create virtual table f using fts5(body)",
      "create trigger d1 after update of body on docs begin update f set body = new.body where rowid = new.id; end",
      "create table feeder(x)",
      "create trigger d2 after insert on feeder begin update docs set body = new.x; end",
      "create view v as select x from feeder",
      "create trigger d3 instead of delete on v begin delete from f; end",
      "create table viaview(x)",
      "create trigger d4 after delete on viaview begin delete from v where x = old.x; end",
      "create table owner(id integer primary key)",
      "create table owned(o references owner on delete cascade)",
      "create trigger d5 after delete on owned begin delete from f; end",
      "create table distant(x)",
      "create trigger d6 after insert on distant begin delete from owner; end",
      "create table parent(id integer primary key)",
      "create table child(p references parent)",
      "create table logs(x)",
      "create trigger d7 after insert on plain begin insert into logs values (new.x); end",
      "create table reader(x)",
      "create trigger d8 after insert on reader begin insert into logs select body from f; end",
      "create table broken(x)",
      "create trigger d9 after insert on broken begin insert into nowhere values (1); end",
    );
    const home = Object.entries(keys(store))
      .filter(([, key]) => key === "home 0")
      .map(([name]) => name);
    expect(home.filter((name) => !name.startsWith("f_"))).toEqual([
      "distant",
      "docs",
      "f",
      "feeder",
      "owned",
      "owner",
      "viaview",
    ]);
    expect(home.filter((name) => name.startsWith("f_")).length).toBe(5);
    applySql(store, "drop trigger d1", "drop trigger d2");
    expect(keys(store).docs).toBe("rowid 2 rowid");
    applySql(store, "drop table f");
    expect(Object.values(keys(store)).filter((key) => key === "home 0")).toEqual([]);
  });
});

import Database from "better-sqlite3";
import { describe, expect, it } from "vitest";
import { UserError } from "../../../src/base/errors.js";
import { classify, singleStatement } from "../../../src/sql/classify.js";
import { KEYWORDS, RESERVED_WORDS } from "../../../src/sql/keywords.js";

const CASES: readonly [sql: string, expected: object][] = [
  ["", { kind: "empty" }],
  [" ; -- nothing", { kind: "empty" }],
  ["select 1", { kind: "select" }],
  ["/* x */ VALUES(1);;", { kind: "select" }],
  ["with a as (select 1) select * from a", { kind: "select" }],
  [
    "with replace(x) as not materialized (select ')') , b as (values(1)) insert into t select 1",
    { kind: "write" },
  ],
  ["with recursive r(i) as (select 1) delete from t", { kind: "write" }],
  ["with recursive as (select 1) update t set a=1", { kind: "write" }],
  ["replace into t values(1)", { kind: "write" }],
  ["begin", { kind: "begin", mode: "deferred" }],
  ["BEGIN immediate TRANSACTION x;", { kind: "begin", mode: "immediate" }],
  ["begin concurrent", { kind: "begin", mode: "concurrent" }],
  ["begin read only", { kind: "begin", mode: "read only" }],
  ["end transaction", { kind: "commit" }],
  ["commit", { kind: "commit" }],
  ["rollback transaction to savepoint Sp", { kind: "rollback to", name: "sp" }],
  ["rollback", { kind: "rollback" }],
  ["savepoint 'a b'", { kind: "savepoint", name: "a b" }],
  ["release savepoint savepoint", { kind: "release", name: "savepoint" }],
  [
    "pragma foreign_keys",
    { kind: "pragma", schema: undefined, name: "foreign_keys", argument: undefined, assigned: false },
  ],
  [
    "pragma MAIN.[table_info]('a''b')",
    { kind: "pragma", schema: "main", name: "table_info", argument: "a'b", assigned: false },
  ],
  [
    "pragma cache_size = -2000",
    { kind: "pragma", schema: undefined, name: "cache_size", argument: "-2000", assigned: true },
  ],
  ["pragma x=on", { kind: "pragma", schema: undefined, name: "x", argument: "on", assigned: true }],
  ["explain select 1", { kind: "explain", queryPlan: false }],
  ["explain query plan select 1", { kind: "explain", queryPlan: true }],
  ["vacuum", { kind: "vacuum", into: false }],
  ["vacuum main into 'x'", { kind: "vacuum", into: true }],
  ["attach 'x' as y", { kind: "attach" }],
  ["detach y", { kind: "detach" }],
  ["analyze t", { kind: "analyze" }],
  ["reindex", { kind: "reindex" }],
  ["create table temp(a)", { kind: "ddl", temp: false }],
  ["create temp table t(a)", { kind: "ddl", temp: true }],
  ["create table if not exists temp.t(a)", { kind: "ddl", temp: true }],
  ["create unique index 'temp'.i on t(a)", { kind: "ddl", temp: true }],
  ["drop table if exists temp . x", { kind: "ddl", temp: true }],
  ["alter table main.x rename to temp", { kind: "ddl", temp: false }],
  ["create trigger r after insert on t begin select 1; delete from t; end", { kind: "ddl", temp: false }],
];

describe("classify", () => {
  it.each(CASES)("%s", (sql, expected) => {
    expect(classify(sql)).toEqual(expected);
  });

  it.each([
    "select 1; select 2",
    "insert into t values(1); commit",
    "select 1;; x",
    "create trigger r after insert on t begin select 1; end; commit",
  ])("refuses more than one statement: %s", (sql) => {
    expect(() => classify(sql)).toThrow(UserError);
    expect(() => classify(sql)).toThrow(/more than one/);
  });

  it("takes the statement's own text out of what surrounds it", () => {
    expect(singleStatement(" ;/* a */ select 1 /* b */ ; -- c\n;").sql).toBe("select 1 /* b */");
    expect(singleStatement("select 1 -- b\n").sql).toBe("select 1 -- b");
    expect(singleStatement("select 1\0; commit").sql).toBe("select 1");
  });

  it("says what SQLite says about malformed transaction control and pragmas", () => {
    const db = new Database(":memory:");
    for (const sql of [
      "foo bar",
      "begin x",
      "begin transaction a b",
      "commit x",
      "savepoint",
      "savepoint select",
      "savepoint 1",
      "savepoint a b",
      "release",
      "rollback to",
      "rollback to savepoint",
      "pragma",
      "pragma x=table",
      "pragma x()",
      "pragma x=-abc",
      "pragma x=?",
      "pragma x y",
      "pragma x(1",
      "explain",
      "'abc",
      "'abc'",
      "!",
      "pragma a.b.c",
    ]) {
      const message = (run: () => unknown): string => {
        try {
          run();
          return "accepted";
        } catch (error) {
          return (error as Error).message;
        }
      };
      expect(
        message(() => classify(sql)),
        sql,
      ).toBe(message(() => db.prepare(sql)));
    }
  });

  it("knows which words SQLite reserves", () => {
    const db = new Database(":memory:");
    for (const word of KEYWORDS) {
      let reserved = false;
      try {
        db.prepare(`savepoint ${word}`);
      } catch {
        reserved = true;
      }
      expect(RESERVED_WORDS.has(word), word).toBe(reserved);
    }
  });
});

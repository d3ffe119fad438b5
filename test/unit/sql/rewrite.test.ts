import { describe, expect, it } from "vitest";
import { bindParameters, parameterLayout } from "../../../src/sql/parameters.js";
import { bindSession, hideOurTables } from "../../../src/sql/rewrite.js";
import { Tokenizer, TokenKind, tokenize } from "../../../src/sql/tokenizer.js";
import { OracleDouble } from "./oracle-double.js";

const VALUES = { changes: 7, totalChanges: 70, lastInsertRowid: -5n };
const bind = (sql: string): string => bindSession(sql, VALUES);
const TABLE_LIST = "(SELECT * FROM pragma_table_list WHERE substr(name, 1, 8) <> '_ostraka')";
const hide = (sql: string): string => hideOurTables(tokenize(sql));

describe("the lexer", () => {
  const kinds = (sql: string): string => {
    const names = Object.entries(TokenKind);
    const out: string[] = [];
    const tokenizer = new Tokenizer(sql);
    while (tokenizer.next()) {
      const [name] = names.find(([, kind]) => kind === tokenizer.kind)!;
      if (name !== "Space") out.push(`${name} ${sql.slice(tokenizer.start, tokenizer.end)}`);
    }
    return out.join(", ");
  };

  it.each([
    ["a$b é_1", "Word a$b, Word é_1"],
    [
      "'it''s' \"a\"\"b\" `c` [d]]",
      "String 'it''s', QuotedName \"a\"\"b\", QuotedName `c`, QuotedName [d], Illegal ]",
    ],
    ["x'0aF' x'0a' X'zz' x", "Illegal x'0aF', Blob x'0a', Illegal X'zz', Word x"],
    [
      "1_0 0xFf 1.5e-3 .5 1. 1e 0x 5a",
      "SeparatedNumber 1_0, Integer 0xFf, Float 1.5e-3, Float .5, Float 1., Illegal 1e, Illegal 0x, Illegal 5a",
    ],
    [
      "?1 ? :a @b $c : #d",
      "Variable ?1, Variable ?, Variable :a, Variable @b, Variable $c, Illegal :, Variable #d",
    ],
    [
      "a->>b->c<<=>>!=<>||!",
      "Word a, Operator ->>, Word b, Operator ->, Word c, Operator <<, Operator =, Operator >>, Operator !=, Operator <>, Operator ||, Illegal !",
    ],
    ["a--b\nc/*d*/e/*f", "Word a, Comment --b, Word c, Comment /*d*/, Word e, Comment /*f"],
    ["a/*", "Word a, Operator /, Operator *"],
    ["\ufeffselect\u000b1", "Word select, Illegal \u000b, Integer 1"],
    ["a\0b", "Word a"],
    ["'abc", "Illegal 'abc"],
  ])("%s", (sql, expected) => {
    expect(kinds(sql)).toBe(expected);
  });

  it("agrees with SQLite on which texts have an unrecognized token", () => {
    const oracle = new OracleDouble();
    for (const text of [
      "1e",
      "0x",
      "5a",
      "x'1'",
      "x'zz'",
      "!",
      ":",
      "$",
      "@",
      "#",
      "'a",
      '"a',
      "[a",
      "`a",
      "\\",
      "{",
      "1.e5",

      "0x_1",
      "1e5_0",
      "^",
      "\u007f",
    ]) {
      const tokenizer = new Tokenizer(`select ${text}`);
      let illegal: string | undefined;
      while (illegal === undefined && tokenizer.next())
        if (tokenizer.kind === TokenKind.Illegal)
          illegal = tokenizer.text.slice(tokenizer.start, tokenizer.end);
      let said = "";
      try {
        oracle.prepare(`select ${text}`);
      } catch (error) {
        said = (error as Error).message;
      }
      expect(/unrecognized token/.test(said), `${text}: ${said}`).toBe(illegal !== undefined);
      if (illegal !== undefined) expect(said).toBe(`unrecognized token: "${illegal}"`);
    }
  });
});

describe("session values", () => {
  it.each([
    ["select changes()", 'select 7 AS "changes()"'],
    ["select changes(*), total_changes ( all ) as t", 'select 7 AS "changes(*)", 70 as t'],
    [
      "insert into t values (last_insert_rowid(distinct), changes(1))",
      "insert into t values ((-5), changes(1))",
    ],
    ["select Changes ( ) + 1, total_changes() as t", 'select 7 + 1 AS "Changes ( ) + 1", 70 as t'],
    ["select last_insert_rowid() id", "select (-5) id"],
    ["select 1 from t where a=last_insert_rowid()", "select 1 from t where a=(-5)"],
    ["insert into t values(last_insert_rowid(), changes())", "insert into t values((-5), 7)"],
    ["select coalesce(changes(),1) from t", 'select coalesce(7,1) AS "coalesce(changes(),1)" from t'],
    [
      "select (select 1 where changes()>0), 2",
      'select (select 1 where 7>0) AS "(select 1 where changes()>0)", 2',
    ],
    ["select * from (select changes())", 'select * from (select 7 AS "changes()")'],
    ["update t set a=changes() returning changes() , a", 'update t set a=7 returning 7 AS "changes()" , a'],
    [
      "select case when changes() then 1 end",
      'select case when 7 then 1 end AS "case when changes() then 1 end"',
    ],
    ["select changes() union select 2", 'select 7 AS "changes()" union select 2'],
    ["select 'changes()', \"changes\"()", 'select \'changes()\', 7 AS """changes""()"'],
    ["create table x as select changes()", 'create table x as select 7 AS "changes()"'],
    [
      "create trigger r after insert on t begin select changes(); end",
      "create trigger r after insert on t begin select changes(); end",
    ],
    ["create view v as select changes()", "create view v as select changes()"],
    ["select changes from t", "select changes from t"],
    // Behind RETURNING it is the rowid of the row that was just inserted.
    [
      "insert into t values (last_insert_rowid()) returning last_insert_rowid(), changes()",
      'insert into t values ((-5)) returning last_insert_rowid(), 7 AS "changes()"',
    ],
    [
      "insert into t values (1) returning last_insert_rowid()",
      "insert into t values (1) returning last_insert_rowid()",
    ],
    // Each row sees the rowid of the one before; a row that is alone sees the session's.
    [
      "insert into t values (last_insert_rowid(), changes()), (last_insert_rowid(), (select 1))",
      "insert into t values (last_insert_rowid(), 7), (last_insert_rowid(), (select 1))",
    ],
    [
      "with c(a) as (values (1), (2)) insert into t(x) values (last_insert_rowid());",
      "with c(a) as (values (1), (2)) insert into t(x) values ((-5));",
    ],
    ["replace into t select last_insert_rowid() from u", "replace into t select last_insert_rowid() from u"],
    [
      "insert into t with c as (select 1) select last_insert_rowid() from c",
      "insert into t with c as (select 1) select last_insert_rowid() from c",
    ],
    [
      "insert into t values (last_insert_rowid()) union all select last_insert_rowid()",
      "insert into t values (last_insert_rowid()) union all select last_insert_rowid()",
    ],
    [
      "insert into t values (1) on conflict (a) do update set b = last_insert_rowid() where c in (1, 2)",
      "insert into t values (1) on conflict (a) do update set b = (-5) where c in (1, 2)",
    ],
    [
      "with c as (select replace('a', 'b', 'c')) select last_insert_rowid() from c",
      "with c as (select replace('a', 'b', 'c')) select (-5) AS \"last_insert_rowid()\" from c",
    ],
  ])("%s", (sql, expected) => {
    expect(bind(sql)).toBe(expected);
  });

  it("keeps the names of result columns", () => {
    const oracle = new OracleDouble();
    oracle.exec("create table t(a)");
    for (const sql of [
      "select changes()",
      "select -changes(), a from t",
      "select changes() || 'x' , (changes()) c from t",
      "select max(changes(), 1) from t group by changes()",
      "select distinct changes() from t order by changes()",
    ]) {
      expect(oracle.prepare(bind(sql)).columns, sql).toEqual(oracle.prepare(sql).columns);
    }
  });
});

describe("the schema table", () => {
  it.each([
    ["select name from sqlite_master", "select name from _ostraka_schema_view AS sqlite_master"],
    ["select name from main.sqlite_schema s where 1", "select name from _ostraka_schema_view s where 1"],
    [
      'select name from "SQLITE_MASTER" order by 1',
      'select name from _ostraka_schema_view AS "SQLITE_MASTER" order by 1',
    ],
    ["select * from t, sqlite_master as m", "select * from t, _ostraka_schema_view as m"],
    [
      "select * from t join sqlite_master on sqlite_master.name=t.a",
      "select * from t join _ostraka_schema_view AS sqlite_master on sqlite_master.name=t.a",
    ],
    [
      "select * from sqlite_master left join t",
      "select * from _ostraka_schema_view AS sqlite_master left join t",
    ],
    [
      "select main.sqlite_master.name from main.sqlite_master",
      "select sqlite_master.name from _ostraka_schema_view AS sqlite_master",
    ],
    ["select 1 where 'a' in sqlite_master", "select 1 where 'a' in _ostraka_schema_view"],
    ["select 1 where 'a' in 'sqlite_master'", "select 1 where 'a' in _ostraka_schema_view"],
    [
      "select 'sqlite_master'.name from t, main.'sqlite_master' where a = 'sqlite_master'",
      "select 'sqlite_master'.name from t, _ostraka_schema_view AS 'sqlite_master' where a = 'sqlite_master'",
    ],
    [
      "select 1 from t where a in (1, 'sqlite_master') and a is not distinct from 'sqlite_master'",
      "select 1 from t where a in (1, 'sqlite_master') and a is not distinct from 'sqlite_master'",
    ],
    ["select * from temp.sqlite_master", "select * from _ostraka_temp_schema_view AS sqlite_master"],
    [
      "select 'sqlite_master', sqlite_master.name from (sqlite_master)",
      "select 'sqlite_master', sqlite_master.name from (_ostraka_schema_view AS sqlite_master)",
    ],
    ["delete from sqlite_master", "delete from sqlite_master"],
    [
      "select name from pragma_table_list where schema = 'main'",
      `select name from ${TABLE_LIST} AS pragma_table_list where schema = 'main'`,
    ],
    ["select l.name from t, main.pragma_table_list() l", `select l.name from t, ${TABLE_LIST} l`],
    [
      "select 'Pragma_Table_List'.name from 'Pragma_Table_List'",
      `select 'Pragma_Table_List'.name from ${TABLE_LIST} AS 'Pragma_Table_List'`,
    ],
    ["select * from pragma_table_list('t')", "select * from pragma_table_list('t')"],
    ["select * from pragma_table_list where arg = 't'", "select * from pragma_table_list where arg = 't'"],
    ["select * from pragma_table_list('_ostraka_state')", "select * from pragma_table_list('')"],
    ["select * from pragma_table_info('_ostraka_state') i", "select * from pragma_table_info('') i"],
    ["select * from pragma_index_list('_OSTRAKA_x', 'main')", "select * from pragma_index_list('', 'main')"],
    [
      "select * from pragma_foreign_key_check('_ostraka_x')",
      "select * from pragma_foreign_key_check('_ostraka_x')",
    ],
    ["create view v as select * from pragma_table_list", "create view v as select * from pragma_table_list"],
    ["create view v as select * from sqlite_master", "create view v as select * from sqlite_master"],
  ])("%s", (sql, expected) => {
    expect(hide(sql)).toBe(expected);
    expect(hide(expected)).toBe(expected);
  });

  it("answers the same columns and rows", () => {
    const oracle = new OracleDouble();
    oracle.exec("create table t(a)");
    for (const sql of [
      "select * from sqlite_master",
      "select sqlite_master.name, m.sql from sqlite_master, sqlite_schema m",
      "select main.sqlite_master.name from main.sqlite_master",
      "select * from pragma_table_list() where schema = 'main' order by name",
      "select pragma_table_list.name, m.sql from pragma_table_list join sqlite_schema m using (name)",
    ]) {
      expect(oracle.db.prepare(hide(sql)).all(), sql).toEqual(oracle.db.prepare(sql).all());
      expect(oracle.prepare(hide(sql)).columns).toEqual(oracle.prepare(sql).columns);
    }
  });
});

describe("parameters", () => {
  const names = (sql: string): readonly (string | undefined)[] => parameterLayout(tokenize(sql)).names;

  it("are numbered as SQLite does", () => {
    expect(names("select ?, ?, :a, ?, :a, @a")).toEqual([undefined, undefined, ":a", undefined, "@a"]);
    expect(names("select ?3, ?, :x, ?1")).toEqual(["?1", undefined, "?3", undefined, ":x"]);
    expect(names("select '?', \"?\", [?] /* ? */ -- ?\n")).toEqual([]);
    expect(() => names("select ?0")).toThrow(/between \?1 and \?32766/);
    expect(() => names("select ?32767")).toThrow(/between \?1 and \?32766/);
  });

  it("bind by position or by name", () => {
    expect(bindParameters([undefined, ":a"], [1n, "x"])).toEqual([1n, "x"]);
    expect(
      bindParameters(
        [":a", "$b", "?3"],
        new Map<string, bigint | null>([
          ["a", 1n],
          ["$b", null],
          ["3", 3n],
        ]),
      ),
    ).toEqual([1n, null, 3n]);
    for (const [given, message] of [
      [[1n], /too few/],
      [[1n, 2n, 3n], /too many/],
      [new Map([["a", 1n]]), /plain "\?"/],
    ] as const)
      expect(() => bindParameters([undefined, ":a"], given)).toThrow(message);
    expect(() => bindParameters([":a"], new Map())).toThrow(/missing value for parameter ":a"/);
  });
});

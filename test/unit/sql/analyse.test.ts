import { beforeAll, describe, expect, it } from "vitest";
import type { SqlValue } from "../../../src/base/values.js";
import { AnalysisCache, analyse } from "../../../src/sql/analyse.js";
import { END_OF_TABLE, type Span, UNIQUE_KEYS } from "../../../src/sql/types.js";
import { OracleDouble } from "./oracle-double.js";

const oracle = new OracleDouble();

beforeAll(() => {
  oracle.exec(`
    create table t(id integer primary key, a text, b int);
    create index tb on t(b);
    create table u(id integer primary key, e text unique);
    create table k(k text primary key, v) without rowid;
    create table plain(x, y);
    create table p(id integer primary key);
    create table c(id integer primary key, pid references p(id) on delete cascade);
    create table ai(id integer primary key autoincrement, z);
    create table logged(id integer primary key, x);
    create table log(m, at default current_timestamp);
    create trigger tr after insert on logged begin insert into log(m) values (new.x); end;
    create view v as select t.id, u.e from t join u on u.id = t.b;
    create virtual table docs using fts5(body);
    create virtual table ext using fts5(a, content='t', content_rowid='id');
    create virtual table viewed using fts5(a, CONT = [v]);
    create virtual table bare using fts5(content, contentless_delete=1, content='');
    create virtual table box using rtree(id, low, high);
    create virtual table words using fts5vocab(docs, row);
  `);
});

/** Spans in short: t:5, t:5..9, t:.., t:end, t:unique; the schema left out. */
function short(spans: readonly Span[]): string {
  const key = (value: bigint | undefined): string =>
    value === undefined ? "" : value === END_OF_TABLE ? "end" : String(value);
  return spans
    .filter((span) => span.table !== "")
    .map(
      ({ table, low, high }) =>
        `${table}:${low === UNIQUE_KEYS.low ? "unique" : low === high && low !== undefined ? key(low) : `${key(low)}..${key(high)}`}`,
    )
    .sort()
    .join(" ");
}

function footprint(
  sql: string,
  params: readonly SqlValue[] = [],
  seen?: { rowCount: number; changes: number },
): string {
  const { reads, writes, checks } = analyse(sql, oracle).footprint(params, seen);
  return `${short(reads)} | ${short(writes)} | ${short(checks)}`;
}

const FOOTPRINTS: readonly [sql: string, params: readonly SqlValue[], expected: string][] = [
  ["select * from t where id=?", [5n], "t:5 t:end |  | "],
  ["select * from t where id=?", ["5"], "t:.. t:end |  | "],
  ["select * from t where id=?", [null], "t:end |  | "],
  ["select * from t where id=-7", [], "t:-7 t:end |  | "],
  ["select * from t where id=9223372036854775807", [], "t:9223372036854775807 t:end |  | "],
  ["select * from t where rowid=?2 and b=?1", [1n, 5n], "t:5 t:end |  | "],
  ["select * from t where id between ? and 10", [3n], "t:3..10 t:end |  | "],
  ["select * from t where id between ? and 10", [11n], "t:end |  | "],
  ["select * from t where id>?", [3n], "t:3..end |  | "],
  ["select * from t where id<5", [], "t:..5 t:end |  | "],
  ["select * from t where id<=5 and id>-3 order by id desc", [], "t:-3..5 t:end |  | "],
  ["select * from t where id in (1,?,3)", [2n], "t:1 t:2 t:3 t:end |  | "],
  ["select * from t where id=?+1", [5n], "t:.. |  | "],
  ["select * from t where b=?", [5n], "t:.. |  | "],
  ["select count(*) from t", [], "t:.. |  | "],
  ["select (select b from t where id=1), (select e from u where id=2)", [], "t:1 t:end u:2 u:end |  | "],
  ["select * from k where k='a'", [], "k:.. |  | "],
  ["select * from v where id=3", [], "t:3 t:end u:.. |  | "],
  ["select 1", [], " |  | "],
  ["update t set b=b+1 where id=?", [5n], "t:5 t:end | t:5 | "],
  ["update t set id=?1 where id=?2", [9n, 5n], "t:5 t:end | t:5 t:9 | t:9 t:end"],
  ["update u set e='x' where id=5", [], "u:5 u:end | u:5 u:unique | u:.."],
  ["delete from t where id=?", [5n], "t:5 t:end | t:5 | "],
  ["delete from t where id between 3 and 5", [], "t:3..5 t:end | t:3..5 | "],
  ["delete from t", [], "t:.. | t:.. | "],
  ["insert into t values(?,?,?)", [5n, "x", 1n], " | t:5 | t:5 t:end"],
  ["insert into t values(?,?,?)", [null, "x", 1n], "t:end | t:end | t:..end t:end t:end"],
  ["insert into t values(?,?,?)", ["5", "x", 1n], " | t:.. | t:.. t:end"],
  ["insert into t(a) values(?)", ["x"], "t:end | t:end | t:..end"],
  ["insert into t values(1,?,2)", [1n], " | t:1 | t:1 t:end"],
  ["insert into t values(1,2,3),(4,5,6)", [], " | t:1 t:4 | t:1 t:4 t:end"],
  ["insert into t values(1,2,3),(null,5,6)", [], "t:end | t:1 t:end | t:..end t:1 t:end"],
  ["insert into t values(?,2,3),(?,5,6)", [1n, 4n], " | t:1 t:4 | t:1 t:4 t:end"],
  ["insert into u(e) values('x')", [], "u:end | u:end u:unique | u:.."],
  ["insert into k values('a',1)", [], " | k:.. | k:.."],
  ["insert into plain values(1,2)", [], "plain:end | plain:end | plain:..end"],
  ["insert into plain select a,b from t where id=3", [], "plain:end t:3 t:end | plain:end | plain:..end"],
  ["insert into c values(1,2)", [], " | c:1 | c:1 c:end p:2 p:end"],
  ["insert into ai(z) values(1)", [], "ai:end | ai:end sqlite_sequence:.. | ai:..end"],
  ["insert into logged values(1,2)", [], "log:.. | log:end logged:1 | logged:1 logged:end"],
  ["insert or replace into t values(1,2,3)", [], "t:1 t:end | t:1 | "],
  ["insert into t values(1,2,3) on conflict(id) do update set b=b+1", [], "t:1 t:end | t:1 | "],
  ["insert into u values(1,'x') on conflict do nothing", [], "u:.. | u:1 u:unique | "],
  ["delete from sqlite_sequence", [], "sqlite_sequence:.. | sqlite_sequence:.. | "],
  ["select value from json_each('[1]')", [], " |  | "],
  ["select * from docs where docs match 'x'", [], "docs:.. |  | "],
  ["insert into docs(body) values ('x')", [], "docs:.. | docs:.. | "],
  ["select * from ext where ext match 'x'", [], "ext:.. t:.. |  | "],
  ["delete from ext where rowid = ?", [5n], "ext:.. t:.. | ext:.. | "],
  ["insert into viewed(rowid, a) values (1, 'x')", [], "t:.. u:.. viewed:.. | viewed:.. | "],
  ["insert into bare(content) values ('x')", [], "bare:.. | bare:.. | "],
  ["update box set low = 0 where id = 3", [], "box:.. | box:.. | "],
  ["select * from docs_data where id = 1", [], "docs:.. |  | "],
  ["select term from words", [], "*:.. |  | "],
];

describe("footprints", () => {
  it.each(FOOTPRINTS)("%s", (sql, params, expected) => {
    expect(footprint(sql, params)).toBe(expected);
  });

  it("narrows a key that was found", () => {
    const found = { rowCount: 1, changes: 0 };
    expect(footprint("select * from t where id=?", [5n], found)).toBe("t:5 |  | ");
    expect(footprint("select * from t where id=?", [5n], { rowCount: 0, changes: 0 })).toBe(
      "t:5 t:end |  | ",
    );
    expect(footprint("update t set b=1 where id=?", [5n], { rowCount: 0, changes: 1 })).toBe("t:5 | t:5 | ");
    // One row whatever the table holds proves nothing.
    expect(footprint("select count(*) from t where id=?", [5n], found)).toBe("t:5 t:end |  | ");
    expect(footprint("select (select b from t where id=5)", [], found)).toBe("t:5 t:end |  | ");
  });

  it("always reads the schema, and changes of the schema write it", () => {
    const schema = { table: "", low: undefined, high: undefined };
    expect(analyse("select 1", oracle).footprint([]).reads).toContainEqual(schema);
    expect(analyse("insert into t values(1,2,3)", oracle).footprint([]).reads).toContainEqual(schema);
    for (const sql of [
      "create table x(a)",
      "drop table t",
      "alter table t add column z",
      "create index i on t(a)",
      "analyze",
      "reindex",
      "insert into plain select 1,2",
    ])
      expect(
        analyse(sql, oracle)
          .footprint([])
          .writes.some((s) => s.table === ""),
        sql,
      ).toBe(!sql.startsWith("insert"));
  });

  it("deletes of a parent read and write whole children", () => {
    expect(footprint("delete from p where id=1")).toBe("c:.. p:1 p:end | c:.. p:1 | p:..");
  });
});

const COSTS: readonly [sql: string, cost: string][] = [
  ["select * from t where id=?", "bounded"],
  ["update t set b=b+1 where id=?", "bounded"],
  ["insert into t values(?,?,?)", "bounded"],
  ["insert into t values(1,2,3),(4,5,6)", "bounded"],
  ["insert into t values(?,?,?) on conflict(id) do update set b=b+1 returning *", "bounded"],
  ["insert into logged values(1,2)", "bounded"],
  ["insert into k values('a',1) on conflict(k) do update set v=v+1", "bounded"],
  ["select * from t where id in (1,2,3)", "bounded"],
  ["select t.a, u.e from t join u on u.id=t.b where t.id=?", "bounded"],
  ["delete from t where id=?", "bounded"],
  ["select lower(hex(randomblob(16)))", "bounded"],
  ["select e from u where e=?", "bounded"],
  ["insert into ai(z) values(1)", "bounded"],
  ["select * from t", "scan"],
  ["select count(*) from t", "scan"],
  ["select a, count(*) from t group by a order by 2", "scan"],
  ["select * from t where b=? order by a limit 2", "scan"],
  ["update t set b=b+1", "scan"],
  ["delete from t", "scan"],
  ["insert into plain select a,b from t", "scan"],
  ["select t.a, u.e from t join u on u.id=t.b", "scan"],
  ["create table z(a)", "scan"],
  ["create index i on t(a)", "scan"],
  ["drop table t", "scan"],
  ["select * from t a, t b", "unknown"],
  ["update t set b=(select count(*) from u where e>t.a)", "unknown"],
  ["with recursive c(i) as (select 1 union all select i+1 from c) select * from c", "unknown"],
  [
    "insert into plain with recursive c(i) as (select 1 union all select i+1 from c) select i,i from c",
    "unknown",
  ],
  ["select zeroblob(500000000)", "unknown"],
  ["insert into plain values(zeroblob(?),1)", "unknown"],
  ["select printf('%.*c', 500000000, 'x')", "unknown"],
  ["create table z as select * from t", "unknown"],
  [
    "select count(*) from (values(1),(2)) a, (values(1),(2)) b, (values(1),(2)) c, (values(1),(2)) d",
    "unknown",
  ],
];

describe("costs", () => {
  it.each(COSTS)("%s is %2$s", (sql, cost) => {
    expect(analyse(sql, oracle).cost).toBe(cost);
  });
});

describe("other facts", () => {
  it("sees stamps through defaults, triggers and views", () => {
    for (const [sql, expected] of [
      ["select random()", true],
      ["select date('now')", true],
      ["insert into log(m) values(1)", true],
      ["insert into logged values(1,2)", true],
      ["insert into t values(1,2,3)", false],
    ] as const)
      expect(analyse(sql, oracle).usesStamp, sql).toBe(expected);
  });

  it("replicates row changes where the text depends on the order of a scan", () => {
    for (const [sql, expected] of [
      ["update t set b=1 limit 2", true],
      ["delete from t where b>1 limit 1 offset 1", true],
      ["delete from t order by id limit 1", false],
      ["update or ignore t set id=1", true],
      ["update or ignore t set id=1 where id=2", false],
      ["insert or ignore into u select id,a from t", true],
      ["insert or ignore into u values(1,'a'),(2,'b')", false],
      ["update t set b=(select 1 limit 1)", false],
    ] as const)
      expect(analyse(sql, oracle).rowChangesOnly, sql).toBe(expected);
  });

  it("replicates rows where root pages are read", () => {
    oracle.db.exec(`create view roots as select * from sqlite_schema;
      create table pages(type text, name text, tbl_name text, page int, sql text);
      create trigger copied after insert on plain begin insert into pages select * from sqlite_schema; end`);
    for (const sql of [
      "insert into pages select * from sqlite_schema",
      "insert into pages(type, page) select 1, d from (with z(a,b,c,d,e) as (select * from sqlite_master) select * from z)",
      "insert into pages select * from roots",
      "insert into plain values (1, 2)",
    ])
      expect(analyse(sql, oracle).rowChangesOnly, sql).toBe(true);
    expect(analyse("insert into pages(name) select name from sqlite_schema", oracle).rowChangesOnly).toBe(
      false,
    );
    expect(analyse("create table named as select name from sqlite_schema", oracle).rowChangesOnly).toBe(
      false,
    );
    expect(() => analyse("create table x as select * from roots", oracle)).toThrow(/root pages/);
    oracle.db.exec("drop trigger copied; drop table pages; drop view roots");
  });

  it("tells TEMP and system tables", () => {
    expect(analyse("create temp table x(a)", oracle).touchesTemp).toBe(true);
    expect(analyse("select * from sqlite_temp_master", oracle).touchesTemp).toBe(true);
    expect(analyse("select * from ostraka_Nodes n join t", oracle).systemTables).toEqual(["ostraka_nodes"]);
    for (const sql of [
      "delete from ostraka_nodes",
      "with a as (select 1) update or ignore main.[ostraka_nodes] set node_id = 2",
      "insert or replace into OSTRAKA_NODES select * from t",
      "replace into ostraka_nodes values (1)",
    ])
      expect(() => analyse(sql, oracle)).toThrow(/^table ostraka_nodes may not be modified$/i);
    expect(analyse("insert into t select node_id from ostraka_nodes", oracle)).toMatchObject({
      systemTables: ["ostraka_nodes"],
      readonly: false,
    });
    expect(analyse("select * from t", oracle).touchesTemp).toBe(false);
    oracle.db.exec("create temp table tt(a)");
    expect(analyse("select * from tt", oracle).touchesTemp).toBe(true);
    expect(analyse("insert into tt select a from t", oracle).touchesTemp).toBe(true);
    oracle.db.exec("drop table tt");
    const session = Object.assign(new OracleDouble(), { temp: { names: new Set(["tt"]), triggers: true } });
    session.exec("create table t(a); create temp table tt(a)");
    for (const [sql, expected] of [
      ["analyze", false],
      ["analyze main", false],
      ["analyze t", false],
      ["analyze tt", true],
      ["analyze temp", true],
      ["analyze temp.tt", true],
    ] as const)
      expect(analyse(sql, session).touchesTemp, sql).toBe(expected);
  });

  it.each([
    ["attach 'x' as y", "OSTRAKA_UNSUPPORTED"],
    ["detach y", "OSTRAKA_UNSUPPORTED"],
    ["vacuum into 'x'", "OSTRAKA_UNSUPPORTED"],
    ["pragma writable_schema=1", "OSTRAKA_UNSUPPORTED"],
    ["select load_extension('x')", "OSTRAKA_UNSUPPORTED"],
    ["select * from pragma_optimize", "OSTRAKA_UNSUPPORTED"],
    ["insert into t select cid,name,1 from pragma_table_info('t')", "OSTRAKA_UNSUPPORTED"],
    ["insert into plain select rootpage, 1 from sqlite_schema", "OSTRAKA_UNSUPPORTED"],
    ["insert into plain select rootpage, 1 from 'sqlite_schema'", "OSTRAKA_UNSUPPORTED"],
    ["create table x as select * from sqlite_schema", "OSTRAKA_UNSUPPORTED"],
    ["select * from 'pragma_optimize'", "OSTRAKA_UNSUPPORTED"],
    ["insert into t select 1, 2, page_count from 'pragma_page_count'", "OSTRAKA_UNSUPPORTED"],
    ["insert into t select 1, 2, pageno from main.'dbstat'", "OSTRAKA_UNSUPPORTED"],
    ["delete from sqlite_master", "SQLITE_ERROR"],
    ["select * from _ostraka_meta", "SQLITE_ERROR"],
    ["delete from '_ostraka_prime'", "SQLITE_ERROR"],
    ["create table '_ostraka_x'(a)", "SQLITE_ERROR"],
    ["create trigger main.'_ostraka_x' after insert on t begin select 1; end", "SQLITE_ERROR"],
    ["create table ostraka_x(a)", "SQLITE_ERROR"],
    ["alter table t rename to ostraka_x", "SQLITE_ERROR"],
    ["create view v as select * from ostraka_nodes", "OSTRAKA_UNSUPPORTED"],
    ["create temp view v as select (select count(*) from ostraka_nodes)", "OSTRAKA_UNSUPPORTED"],
    ["create trigger r after insert on t begin select 1 from Ostraka_Nodes; end", "OSTRAKA_UNSUPPORTED"],
    ["select * from nowhere", "SQLITE_ERROR"],
    ["select 1; select 2", "SQLITE_MISUSE"],
  ])("refuses %s", (sql, code) => {
    expect(() => analyse(sql, oracle)).toThrow(expect.objectContaining({ code }));
  });

  it.each([
    ["create table _ostraka_x(a)", "object name reserved for internal use: _ostraka_x"],
    ["create table if not exists main.[_Ostraka_x](a)", "object name reserved for internal use: _Ostraka_x"],
    ["create temp view _ostraka_x as select 1", "object name reserved for internal use: _ostraka_x"],
    ["create unique index _ostraka_x on t(a)", "object name reserved for internal use: _ostraka_x"],
    [
      "create trigger '_ostraka_x' after insert on t begin select 1; end",
      "object name reserved for internal use: _ostraka_x",
    ],
    ["alter table t rename to _ostraka_x", "object name reserved for internal use: _ostraka_x"],
    ["alter table ostraka_nodes rename to x", "object name reserved for internal use: ostraka_nodes"],
    ["drop table ostraka_nodes", "object name reserved for internal use: ostraka_nodes"],
    ["drop table _ostraka_state", "no such table: _ostraka_state"],
    ["alter table _ostraka_state rename to x", "no such table: _ostraka_state"],
    ["alter table _ostraka_state add b", "no such table: _ostraka_state"],
    ["create view v as select * from _ostraka_state", "no such table: _ostraka_state"],
    ["create index i on _ostraka_state(a)", "no such table: _ostraka_state"],
  ])("says of %s what SQLite says of its own names", (sql, message) => {
    expect(() => analyse(sql, oracle)).toThrow(expect.objectContaining({ code: "SQLITE_ERROR", message }));
  });

  it("names what there is in place of VACUUM INTO", () => {
    expect(() => analyse("vacuum into 'x'", oracle)).toThrow(
      /^VACUUM INTO is not supported: use ostraka dump$/,
    );
  });

  it("caches by text and schema, boundedly, and answers key footprints fast", () => {
    const cache = new AnalysisCache(4);
    const before = oracle.explains;
    const first = cache.analyse("select * from t where id=?", oracle);
    expect(cache.analyse("select * from t where id=?", oracle)).toBe(first);
    expect(oracle.explains).toBe(before + 1);
    for (let i = 0; i < 10; i++) cache.analyse(`select ${i}`, oracle);
    expect(cache.size).toBe(4);
    oracle.version++;
    expect(cache.analyse("select 1", oracle)).toBeDefined();
    expect(cache.size).toBe(1);
  });
});

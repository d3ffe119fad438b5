import Sqlite from "better-sqlite3";
import { describe, expect, test } from "vitest";
import { dump, likePattern } from "../../../src/cli/dump.js";
import { splitScript } from "../../../src/sql/splitter.js";
import { SqliteSession } from "./sqlite-session.js";

async function dumpText(session: SqliteSession, includes?: (table: string) => boolean): Promise<string> {
  let text = "";
  await dump(
    session,
    (piece) => {
      text += piece;
    },
    { includes },
  );
  return text;
}

const SCHEMA = `
create table plain(a, b text, c real, d blob);
create table "odd ""name"" ; --"("a b", "select", [x;y] text);
create table auto(id integer primary key autoincrement, v);
create table gen(a, b generated always as (a * 2), c as (a + 1) stored, d);
create table wr(k text primary key, v) without rowid;
create table parent(id integer primary key, child references later(id));
create table later(id integer primary key, parent references parent(id));
create table strict_one(a integer, b any) strict;
create index i1 on plain(b) where b is not null;
create unique index "i 2" on "odd ""name"" ; --"("a b");
create view v2 as select * from plain;
create view v1 as select * from v2;
create trigger tr after insert on plain begin insert into auto(v) values(new.a); end;
create virtual table ft using fts5(title, body);
create virtual table ext using fts5(b, content='plain', content_rowid='rowid');
create virtual table area using rtree(id, x0, x1);
pragma user_version = 42;
`;

function fill(sqlite: Sqlite.Database): void {
  const insert = sqlite.prepare("insert into plain values (?,?,?,?)");
  const rows: unknown[][] = [
    [1n, "it's", 0.1, Buffer.from([0, 1, 255])],
    [null, "", 1e300, Buffer.alloc(0)],
    [9223372036854775807n, "line\nfeed\r\ntab\t esc \u001b nul \u0000 end", 5, null],
    [-9223372036854775808n, "日本", Number.POSITIVE_INFINITY, null],
    [2.5, "x", Number.NEGATIVE_INFINITY, null],
    [7.0, ".quit", 0.30000000000000004, null],
  ];
  for (const row of rows) insert.run(...row);
  sqlite.exec(`
    insert into "odd ""name"" ; --" values ('a','b','c');
    insert into auto values (100, 'high'); delete from auto where id = 100;
    insert into gen(a, d) values (1, 'one'), (2, null);
    insert into wr values ('k', 'v');
    pragma foreign_keys = off;
    insert into parent values (1, 2); insert into later values (2, 1);
    insert into strict_one values (1, 1.0), (2, 'text');
    insert into ft(rowid, title, body) values (10, 'hello', 'world of text'), (20, 'bye', null);
    insert into ext(ext) values ('rebuild');
    insert into area values (1, 0.5, 1.5);
  `);
}

function content(sqlite: Sqlite.Database): unknown {
  sqlite.defaultSafeIntegers(true);
  const tables = [
    "plain",
    '"odd ""name"" ; --"',
    "auto",
    "gen",
    "wr",
    "parent",
    "later",
    "strict_one",
    "v1",
    "area",
    "ft",
  ];
  return {
    schema: sqlite.prepare("select type, name, tbl_name, sql from sqlite_schema order by type, name").all(),
    rows: tables.map((table) => {
      const columns = sqlite
        .prepare(`select * from ${table}`)
        .columns()
        .map(({ name }) => `"${name.replaceAll('"', '""')}"`);
      const list = columns
        .flatMap((name) => [`typeof(${name})`, `hex(cast(${name} as blob))`, name])
        .join(",");
      return sqlite.prepare(`select ${list} from ${table}`).raw().all();
    }),
    sequence: sqlite.prepare("select * from sqlite_sequence").all(),
    found: sqlite.prepare("select rowid, * from ft where ft match 'world'").all(),
    external: sqlite.prepare("select rowid from ext where ext match 'feed'").all(),
    version: sqlite.pragma("user_version"),
  };
}

describe("dump", () => {
  test("loads back into SQLite as it was, every value to the bit", async () => {
    const session = new SqliteSession();
    session.sqlite.exec(SCHEMA);
    fill(session.sqlite);
    const text = await dumpText(session);
    const loaded = new Sqlite(":memory:");
    loaded.exec(text);
    expect(content(loaded)).toEqual(content(session.sqlite));
    expect(text.startsWith("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n")).toBe(true);
    // What comes behind it is what no transaction can set in a cluster.
    expect(text.endsWith("COMMIT;\nPRAGMA user_version=42;\n")).toBe(true);
  });

  test("the dump of what was loaded from a dump is that dump", async () => {
    const session = new SqliteSession();
    session.sqlite.exec(SCHEMA);
    fill(session.sqlite);
    const first = await dumpText(session);
    const second = new SqliteSession();
    second.sqlite.exec(first);
    expect(await dumpText(second)).toBe(first);
  });

  test("a comment at the end of a definition does not swallow its semicolon", async () => {
    const session = new SqliteSession();
    session.sqlite.exec("create table t(a);");
    session.sqlite.prepare("create view v as select 1 as x -- the end").run();
    session.sqlite.prepare("create index i on t(a) /* the end").run();
    session.sqlite.prepare("create index j on t(a) /* closed */ -- 'and not").run();
    const loaded = new SqliteSession();
    const text = await dumpText(session);
    for (const { text: statement } of splitScript(text)) await loaded.execute(statement);
    expect(await dumpText(loaded)).toBe(text);
    expect(loaded.sqlite.prepare("select group_concat(name) from sqlite_schema").pluck().get()).toBe(
      "t,v,i,j",
    );
  });

  test("no transaction holds more than can be loaded, and no row is lost between them", async () => {
    const session = new SqliteSession();
    session.sqlite.exec(`create table big(id integer primary key, b); create table many(id integer primary key);
      insert into big with n(i) as (values (1) union all select i + 1 from n where i < 9) select i, zeroblob(1000000) from n;
      insert into many with n(i) as (values (1) union all select i + 1 from n where i < 60000) select i from n`);
    const text = await dumpText(session);
    const transactions = text.split("BEGIN TRANSACTION;\n").slice(1);
    expect(transactions.map(({ length }) => length > 9_000_000)).toEqual([false, false, false, false]);
    expect(Math.max(...transactions.map((part) => part.split("\n").length))).toBeLessThan(51_000);
    const loaded = new Sqlite(":memory:");
    loaded.exec(text);
    const sums = "select (select count(*) || sum(length(b)) from big) || (select sum(id) from many)";
    expect(loaded.prepare(sums).pluck().get()).toBe("990000001800030000");
    const small = new SqliteSession();
    small.sqlite.exec("create table t(a); insert into t values (1)");
    expect((await dumpText(small)).match(/^COMMIT;$/gm)).toHaveLength(1);
  });

  test("one table, with what belongs to it", async () => {
    const session = new SqliteSession();
    session.sqlite.exec(SCHEMA);
    fill(session.sqlite);
    const text = await dumpText(session, (table) => table === "auto" || table === "plain");
    expect(text).toContain("CREATE TABLE plain");
    expect(text).toContain("CREATE INDEX i1");
    expect(text).toContain("CREATE TRIGGER tr");
    expect(text).toContain("INSERT INTO sqlite_sequence VALUES('auto',");
    expect(text).not.toContain("odd");
    new Sqlite(":memory:").exec(text);
  });

  test("a full-text table without content cannot be dumped, and says so", async () => {
    const session = new SqliteSession();
    session.sqlite.exec("create virtual table c using fts5(a, content='')");
    await expect(dumpText(session)).rejects.toThrow("c is a full-text table without content");
  });

  test("patterns", () => {
    expect(likePattern("a_c%")("ABCdef")).toBe(true);
    expect(likePattern("a.c")("abc")).toBe(false);
  });
});

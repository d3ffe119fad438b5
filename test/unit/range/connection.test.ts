import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { decodeRows, type SqlValue } from "../../../src/base/values.js";
import { openConnection, type RangeConnection } from "../../../src/machines/range/connection.js";
import { planParameters } from "../../../src/machines/range/parameters.js";
import type { StampedStatement } from "../../../src/machines/range/types.js";
import { SessionFlag } from "../../../src/sql/types.js";

const LIMITS = { maxBytes: 1 << 20 };

function stamped(
  sql: string,
  params: readonly SqlValue[] = [],
  more: Partial<StampedStatement> = {},
): StampedStatement {
  const stamp = { wallMs: 1_700_000_000_123, seed: 42, lastInsertRowid: 0n };
  return { sql, params, flags: 0, stamp, told: undefined, ...more };
}

function scratch(): RangeConnection {
  return openConnection(":memory:", { readonly: false, role: "scratch" });
}

function rows(connection: RangeConnection, sql: string, params: readonly SqlValue[] = []): SqlValue[][] {
  return decodeRows(connection.execute(stamped(sql, params), LIMITS).rows);
}

describe("parameters", () => {
  it("numbers them as SQLite does", () => {
    expect(planParameters("select ?, :a, ?5, ?, :a, @b -- ?\n, '?', \"?\", [?], x'00', a$b").names).toEqual([
      undefined,
      ":a",
      undefined,
      undefined,
      "?5",
      undefined,
      "@b",
    ]);
  });

  it.each<[string, SqlValue[], SqlValue[]]>([
    ["select ?, ?", [1n, 2n], [1n, 2n]],
    ["select ?2, ?1", [1n, 2n], [2n, 1n]],
    ["select ?, ?3, ?", [1n, 2n, 3n, 4n], [1n, 3n, 4n]],
    ["select ?, ?1, :x", [1n, 2n], [1n, 1n, 2n]],
    ["select :a, @a, $a, :a", [1n, 2n, 3n], [1n, 2n, 3n, 1n]],
    ["select ?002, ?2", [1n, 2n], [2n, 2n]],
    ["select #a, @a, #a", [1n, 2n], [1n, 2n, 1n]],
    ["select 1 as [a?], ?", [7n], [1n, 7n]],
    ["select /* ? */ ?", [7n], [7n]],
  ])("binds %s", (sql, params, expected) => {
    expect(rows(scratch(), sql, params)).toEqual([expected]);
  });

  it("refuses a vector of another length", () => {
    expect(() => rows(scratch(), "select ?", [])).toThrow(/1 parameters but 0/);
  });
});

describe("values", () => {
  it("keeps storage classes exact", () => {
    const values: SqlValue[] = [
      null,
      1n,
      -1n,
      2n ** 63n - 1n,
      -(2n ** 63n),
      1,
      -0,
      1.5,
      Infinity,
      "a\0b",
      "",
      "é🎈",
      new Uint8Array([1, 2]),
      new Uint8Array(0),
    ];
    const c = scratch();
    rows(c, "create table t(a)");
    for (const v of values) rows(c, "insert into t values (?)", [v]);
    const read = rows(c, "select a from t order by rowid").map((r) => r[0]);
    expect(read.length).toBe(values.length);
    values.forEach((v, i) => {
      expect(Object.is(read[i], v) || read[i] !== 0).toBe(true);
      expect(read[i]).toEqual(v);
    });
    expect(Object.is(rows(c, "select ?", [-0])[0]![0], -0)).toBe(true);
    expect(rows(c, "select ?, typeof(?)", [Number.NaN, Number.NaN])).toEqual([[null, "null"]]);
  });
});

describe("stamps", () => {
  it("decide what time it is for whatever the date functions take for 'now'", () => {
    const c = scratch();
    const now = "2023-11-14 22:13:20";
    const zones = "x'6c6f63616c74696d65', ?2, 'utc'";
    expect(
      rows(
        c,
        `select datetime(x'6e6f77'), datetime(?1), datetime(x'6e6f7700ff'), datetime(x'737562736563'), date('NOW', ${zones}),
           strftime('%Y', x'6e6f77'), timediff('subsec', ?1), timediff(x'6e6f77', 'subsecond')`,
        ["now\0 and then", "localtime\0"],
      ),
    ).toEqual([
      [
        now,
        now,
        now,
        `${now}.123`,
        "2023-11-14",
        "2023",
        "+0000-00-00 00:00:00.000",
        "+0000-00-00 00:00:00.000",
      ],
    ]);
    expect(
      rows(c, "select date('2020-01-01', ' localtime'), date('2020-01-01', 'utc '), date(' now')"),
    ).toEqual([[null, null, null]]);
  });

  it("decide what time it is, everywhere", () => {
    const c = scratch();
    rows(
      c,
      "create table t(id integer primary key, a default current_timestamp, b default (random()), c default (datetime('now', '+1 day')), d)",
    );
    rows(
      c,
      "create trigger x after insert on t begin update t set d = strftime('%s', 'now') || hex(randomblob(4)) where id = new.id; end",
    );
    rows(
      c,
      "create view v as select current_time, date(), time('now', 'localtime'), julianday('now'), unixepoch(), unixepoch('subsec'), strftime('%f'), timediff('now', '2023-11-14')",
    );
    rows(c, "insert into t(id) values (1)");
    rows(c, "insert into t(id) values (2)");
    const [one, two] = rows(c, "select a, b, c, d from t");
    expect(one![0]).toBe("2023-11-14 22:13:20");
    expect(one![2]).toBe("2023-11-15 22:13:20");
    expect(one).toEqual(two);
    expect(rows(c, "select * from v")).toEqual([
      [
        "22:13:20",
        "2023-11-14",
        "22:13:20",
        2460263.4259273494,
        1700000000n,
        1700000000.123,
        "20.123",
        "+0000-00-00 22:13:20.123",
      ],
    ]);
    const other = stamped("select random()", [], { stamp: { wallMs: 0, seed: 43, lastInsertRowid: 0n } });
    expect(decodeRows(c.execute(other, LIMITS).rows)).not.toEqual(rows(c, "select random()"));
    expect(new Set(rows(c, "select random() from (values (1), (2), (3))").flat()).size).toBe(3);
  });

  it("answers date functions as SQLite does", () => {
    const c = scratch();
    expect(
      rows(
        c,
        "select date(0, 'unixepoch'), datetime(2460263.5), time('12:00', '+1 hour'), strftime('%Y', '2020-02-30'), date(null), date('x'), strftime('%d', 'NOW')",
      ),
    ).toEqual([["1970-01-01", "2023-11-15 00:00:00", "13:00:00", "2020", null, null, "14"]]);
    expect(rows(c, "select strftime()")).toEqual([[null]]);
  });

  it("prime last_insert_rowid()", () => {
    const c = scratch();
    rows(c, "create table t(a integer primary key, b)");
    const stamp = { wallMs: 0, seed: 0, lastInsertRowid: 77n };
    const outcome = c.execute(
      stamped("insert into t(b) values (last_insert_rowid())", [], { stamp }),
      LIMITS,
    );
    expect(outcome.lastInsertRowid).toBe(1n);
    expect(rows(c, "select b from t")).toEqual([[77n]]);
    const update = c.execute(stamped("update t set b = 1", [], { stamp }), LIMITS);
    expect(update).toMatchObject({ changes: 1, totalChanges: 1, lastInsertRowid: 77n });
  });
});

describe("bounds", () => {
  it.each([
    "zeroblob(1000000000)",
    "randomblob(999999999)",
    "printf('%.*c', 900000000, 'x')",
    "format('%0400000000d', 1)",
  ])("refuses %s", (call) => {
    expect(() => rows(scratch(), `select length(${call})`)).toThrow(
      expect.objectContaining({ code: "SQLITE_TOOBIG", message: "string or blob too big" }),
    );
  });

  it("formats as SQLite does", () => {
    expect(
      rows(
        scratch(),
        "select printf('%05d|%-4s|%.2f|%%|%*d', 42, 'a', 1.005, 6, 7), format('%,d', 1234567), printf(null), length(zeroblob(3)), length(randomblob(0))",
      ),
    ).toEqual([["00042|a   |1.00|%|     7", "1,234,567", null, 3n, 1n]]);
  });

  it("refuses results beyond the limit and stays usable", () => {
    const c = scratch();
    const series = "with recursive s(x) as (select 1 union all select x + 1 from s) select x from s";
    expect(() => c.execute(stamped(series), { maxBytes: 1000 })).toThrow(
      expect.objectContaining({ code: "OSTRAKA_TOO_LARGE" }),
    );
    expect(rows(c, "select 1")).toEqual([[1n]]);
  });
});

describe("execution", () => {
  it("counts changes with and without triggers", () => {
    const c = scratch();
    rows(c, "create table t(a)");
    rows(c, "create table log(a)");
    expect(c.execute(stamped("insert into t values (1), (2)"), LIMITS)).toMatchObject({
      changes: 2,
      totalChanges: 2,
    });
    rows(c, "create trigger x after update on t begin insert into log values (new.a), (old.a); end");
    expect(c.execute(stamped("update t set a = 3"), LIMITS)).toMatchObject({ changes: 2, totalChanges: 6 });
    expect(c.execute(stamped("select * from t"), LIMITS)).toMatchObject({
      changes: 0,
      totalChanges: 0,
      rowCount: 2,
    });
    expect(c.execute(stamped("insert into t values (9) returning a, a + 1 as b"), LIMITS)).toMatchObject({
      columns: ["a", "b"],
      changes: 1,
      rowCount: 1,
    });
  });

  it("sees a changed schema through cached statements", () => {
    const c = scratch();
    rows(c, "create table t(a)");
    rows(c, "insert into t values (1)");
    expect(rows(c, "select * from t")).toEqual([[1n]]);
    rows(c, "alter table t add column b default 5");
    expect(c.execute(stamped("select * from t"), LIMITS).columns).toEqual(["a", "b"]);
    expect(rows(c, "select * from t")).toEqual([[1n, 5n]]);
  });

  it("keeps LIKE fit for partial indexes whatever case_sensitive_like was", () => {
    const c = scratch();
    const run = (sql: string, flags: number) => c.execute(stamped(sql, [], { flags }), LIMITS);
    run("create table l(a)", 0);
    const first = run("select 'A' like 'a', 'Ab' like 'A_' , 'a%' like 'a#%' escape '#'", 0);
    const sensitive = run(
      "select 'A' like 'a', 'Ab' like 'A_', 'a%' like 'a#%' escape '#'",
      SessionFlag.CaseSensitiveLike,
    );
    expect(decodeRows(first.rows)).toEqual([[1n, 1n, 1n]]);
    expect(decodeRows(sensitive.rows)).toEqual([[0n, 1n, 1n]]);
    expect(decodeRows(run("select 'A' like 'a'", 0).rows)).toEqual([[1n]]);
    run("create index li on l(a) where a like 'x%'", 0);
    run("insert into l values ('X1')", SessionFlag.CaseSensitiveLike);
  });

  it("lets nothing that is stored or judged by the schema ask for the time, as SQLite", () => {
    const c = scratch();
    const run = (sql: string) => c.execute(stamped(sql), LIMITS);
    run("create table d(a, b, g as (datetime(b)) stored, check (b is null or date(b) > '2000-01-01'))");
    run("create index di on d(time(a))");
    run("insert into d(a, b) values ('2020-01-02 03:04', '2020-01-02')");
    expect(() => run("insert into d(a) values ('now')")).toThrow(
      "non-deterministic use of time() in an index",
    );
    expect(() => run("insert into d(b) values ('now')")).toThrow(
      /non-deterministic use of (date|datetime)\(\) in a/,
    );
    run("insert into d(a, b) values (julianday('now'), strftime('%Y-%m-%d', 'now'))");
    run("create table e(a check (a < julianday('now')))");
    expect(() => run("insert into e values (1)")).toThrow(
      "non-deterministic use of julianday() in a CHECK constraint",
    );
    expect(() => run("insert into e values (julianday('now') - 1)")).toThrow(
      "non-deterministic use of julianday()",
    );
    run("create table g(a check (timediff('now', a) > '+'))");
    run("create table h(b check (\"date\"/**/(b) <> ''))");
    expect(() => run("insert into g(a) values ('2020-01-01')")).toThrow(
      "non-deterministic use of timediff() in a CHECK constraint",
    );
    expect(() => run("insert into h(b) values (x'6e6f77')")).toThrow(
      "non-deterministic use of date() in a CHECK constraint",
    );
    run("create table f(a, at default (datetime('now')))");
    run("insert into f(a) values (1)");
  });

  it("puts session flags in force and takes them back", () => {
    const c = scratch();
    rows(c, "create table p(a integer primary key)");
    rows(c, "create table k(a references p, check (a > 0))");
    const insert = stamped("insert into k values (-1)");
    expect(() => c.execute(insert, LIMITS)).toThrow(/CHECK/);
    expect(() => c.execute({ ...insert, flags: SessionFlag.IgnoreCheckConstraints }, LIMITS)).toThrow(
      /FOREIGN KEY/,
    );
    const flags = SessionFlag.IgnoreCheckConstraints | SessionFlag.ForeignKeysOff;
    expect(c.execute({ ...insert, flags }, LIMITS).changes).toBe(1);
    expect(() => c.execute(insert, LIMITS)).toThrow(/CHECK/);
    const like = stamped("select 'A' like 'a'", [], { flags: SessionFlag.CaseSensitiveLike });
    expect(decodeRows(c.execute(like, LIMITS).rows)).toEqual([[0n]]);
    expect(rows(c, "select 'A' like 'a'")).toEqual([[1n]]);
  });

  it("hides our tables from the schema view", () => {
    const c = scratch();
    c.database.exec("create table _ostraka_x(a primary key); create table t(a primary key)");
    expect(rows(c, "select type, name from _ostraka_schema_view")).toEqual([
      ["table", "t"],
      ["index", "sqlite_autoindex_t_1"],
    ]);
  });

  it("streams rows in chunks and answers a summary", () => {
    const c = scratch();
    const series =
      "with recursive s(x) as (select 1 union all select x + 1 from s limit 100000) select x, 'some text' from s";
    const cursor = c.iterate(stamped(series), { maxBytes: 1 << 30 });
    let count = 0;
    let chunks = 0;
    for (let chunk = cursor.next(); chunk !== undefined; chunk = cursor.next()) {
      expect(decodeRows(chunk.rows).length).toBe(chunk.count);
      count += chunk.count;
      chunks++;
    }
    expect(count).toBe(100000);
    expect(chunks).toBeGreaterThan(10);
    expect(cursor.summary().changes).toBe(0);
    const cut = c.iterate(stamped(series), { maxBytes: 1 << 30 });
    cut.next();
    cut.close();
    expect(rows(c, "select 2")).toEqual([[2n]]);
  });

  it("answers SQLite's codes and messages", () => {
    const c = scratch();
    rows(c, "create table t(a primary key)");
    rows(c, "insert into t values (1)");
    for (const [sql, code, message] of [
      ["insert into t values (1)", "SQLITE_CONSTRAINT_PRIMARYKEY", "UNIQUE constraint failed: t.a"],
      ["selec", "SQLITE_ERROR", 'near "selec": syntax error'],
      ["select * from nowhere", "SQLITE_ERROR", "no such table: nowhere"],
    ] as const)
      expect(() => rows(c, sql)).toThrow(expect.objectContaining({ code, message, family: "user" }));
  });
});

describe("where the log is applied", () => {
  it("leaves CHECK constraints in force while there are none, and ignores them once there are", () => {
    const directory = mkdtempSync(join(tmpdir(), "ostraka-connection-"));
    const c = openConnection(join(directory, "range.db"), { readonly: false, role: "apply" });
    try {
      const ignoring = (sql: string) =>
        c.execute(stamped(sql, [], { flags: SessionFlag.IgnoreCheckConstraints }), LIMITS);
      const inForce = () => c.database.pragma("ignore_check_constraints", { simple: true }) === 0n;
      ignoring("create table a(v)");
      ignoring("insert into a values (-1)");
      expect(inForce()).toBe(true);
      // It looks at the rows that are there.
      ignoring("alter table a add column w check (v > 0)");
      ignoring("insert into a(v) values (-2)");
      expect(inForce()).toBe(false);
      expect(() => rows(c, "insert into a(v) values (-3)")).toThrow(/CHECK constraint failed/);
      expect(inForce()).toBe(true);
      c.setFlags(SessionFlag.IgnoreCheckConstraints);
      expect(inForce()).toBe(false);
      ignoring("drop table a");
      ignoring("create table b(v)");
      ignoring("insert into b values (1)");
      expect(inForce()).toBe(true);
    } finally {
      c.close();
      rmSync(directory, { recursive: true });
    }
  });
});

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Sqlite from "better-sqlite3";
import { afterAll, describe, expect, test } from "vitest";
import {
  detectKind,
  type ImportOptions,
  importJsonLines,
  importSeparated,
  tableFromPath,
} from "../../../src/cli/import/import.js";
import { parseJsonObject } from "../../../src/cli/import/json.js";
import { importSqlScript } from "../../../src/cli/import/sql-script.js";
import { importSqliteFile } from "../../../src/cli/import/sqlite-file.js";
import { OstrakaError } from "../../../src/driver/errors.js";
import { databaseOf, SqliteSession } from "./sqlite-session.js";

const folder = mkdtempSync(join(tmpdir(), "ostraka-import-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

let warnings: string[] = [];
function options(more: Partial<ImportOptions> = {}): ImportOptions & { separator: string } {
  warnings = [];
  return {
    table: undefined,
    kind: undefined,
    header: "auto",
    skip: 0,
    warn: (text) => warnings.push(text),
    ...more,
    separator: more.separator ?? ",",
  };
}

function target(): {
  session: SqliteSession;
  target: { database: ReturnType<typeof databaseOf>; session: SqliteSession };
  all: (sql: string) => unknown[];
} {
  const session = new SqliteSession();
  return {
    session,
    target: { database: databaseOf(session), session },
    all: (sql) => session.sqlite.prepare(sql).raw().all(),
  };
}

describe("CSV", () => {
  test("makes the table as sqlite3 does, from the file's name and header", async () => {
    const t = target();
    const path = file("my people.csv", 'name,age,name\nMara,41,x\n"a\nb",,\n');
    expect(await importSeparated(t.target, path, options())).toEqual({ table: "my_people", rows: 2 });
    expect(t.all("select * from my_people")).toEqual([
      ["Mara", "41", "x"],
      ["a\nb", "", ""],
    ]);
    expect(t.all("select name, type from pragma_table_info('my_people')")).toEqual([
      ["name", "TEXT"],
      ["age", "TEXT"],
      ["name_2", "TEXT"],
    ]);
  });

  test("an existing table: a header that names its columns says their order, else every record is a row", async () => {
    const t = target();
    t.session.sqlite.exec("create table t(a integer, b)");
    await importSeparated(t.target, file("t.csv", "B,a\nx,1\n"), options());
    await importSeparated(t.target, file("t.csv", "2,y\n"), options());
    await importSeparated(t.target, file("t.csv", "a,b\n"), options({ header: "no" }));
    expect(t.all("select a, b from t")).toEqual([
      [1n, "x"],
      [2n, "y"],
      ["a", "b"],
    ]);
  });

  test("records that are too short or too long are told, with their line", async () => {
    const t = target();
    await importSeparated(t.target, file("u.csv", "a,b\n1\n1,2,3\n\n4,5\n"), options());
    expect(t.all("select * from u")).toEqual([
      ["1", null],
      ["1", "2"],
      ["4", "5"],
    ]);
    expect(warnings[0]).toMatch(/u\.csv:2: expected 2 columns but found 1 - filling the rest with NULL/);
    expect(warnings[1]).toMatch(/u\.csv:3: expected 2 columns but found 3 - extras ignored/);
  });

  test("an error names file and line, and says what was loaded", async () => {
    const t = target();
    t.session.sqlite.exec("create table k(a unique)");
    const rows = Array.from({ length: 2500 }, (_, i) => (i === 2400 ? "7" : String(i)));
    const path = file("k.csv", `a\n${rows.join("\n")}\n`);
    await expect(importSeparated(t.target, path, options())).rejects.toThrow(
      `${path}:2402: UNIQUE constraint failed: k.a (SQLITE_CONSTRAINT_UNIQUE)\n2000 rows were loaded, the last from line 2001; nothing after it was`,
    );
    expect(t.all("select count(*), max(a) from k where cast(a as integer) >= 2000")).toEqual([[0n, null]]);
    expect(t.all("select count(*) from k")).toEqual([[2000n]]);
    expect(t.session.state).toBe("idle");
  });

  test("an error may not leave later rows behind where it ends its transaction", async () => {
    const t = target();
    t.session.sqlite.exec("create table r(a unique on conflict rollback)");
    await expect(importSeparated(t.target, file("r.csv", "a\n1\n2\n1\n3\n4\n"), options())).rejects.toThrow(
      ":4: UNIQUE",
    );
    expect(t.all("select * from r")).toEqual([]);
  });

  test("text that is not UTF-8 is refused", async () => {
    await expect(
      importSeparated(target().target, file("latin1.csv", new Uint8Array([97, 10, 0xe9, 10])), options()),
    ).rejects.toThrow("not UTF-8");
  });
});

describe("a table that is made", () => {
  const tables = "select name from sqlite_schema where type = 'table'";

  test("is made by a header alone, not by an empty file", async () => {
    const t = target();
    const header = file("header.csv", "a,b\n");
    expect(await importSeparated(t.target, header, options())).toEqual({ table: "header", rows: 0 });
    for (const load of [importSeparated, importJsonLines])
      await expect(load(t.target, file("empty.csv", ""), options())).rejects.toThrow(
        "empty.csv: empty file, and there is no table named empty\nno row was loaded",
      );
    expect(t.all(tables)).toEqual([["header"]]);
    const existing = { table: "header" };
    for (const load of [importSeparated, importJsonLines])
      expect(await load(t.target, file("empty.csv", ""), options(existing))).toMatchObject({ rows: 0 });
  });

  test("goes again when no row came into it", async () => {
    const t = target();
    const long = Buffer.concat([Buffer.from(`a\n${"x".repeat(300_000)}`), Buffer.from([0xe9, 10])]);
    const path = file("long.csv", long);
    await expect(importSeparated(t.target, path, options())).rejects.toThrow(
      /not UTF-8.*\nno row was loaded$/s,
    );
    expect(t.all(tables)).toEqual([]);
    const execute = t.session.execute.bind(t.session);
    t.session.execute = (sql, ...rest) =>
      String(sql).startsWith("DROP") ? Promise.reject(new Error("gone")) : execute(sql, ...rest);
    await expect(importSeparated(t.target, path, options())).rejects.toThrow(
      "no row was loaded, but table long was made",
    );
  });

  test("is not judged while it is not known whether rows came into it", async () => {
    const t = target();
    const execute = t.session.execute.bind(t.session);
    t.session.execute = (sql, ...rest) => {
      if (sql !== "COMMIT") return execute(sql, ...rest);
      const doubt = new OstrakaError("OSTRAKA_UNKNOWN_OUTCOME", "lost", { transactionId: "x" });
      return execute("ROLLBACK").then(() => Promise.reject(doubt));
    };
    await expect(importSeparated(t.target, file("d.csv", "a\n1\n"), options())).rejects.toThrow(
      /it is not known whether they were loaded .*\nno row before those in doubt was loaded$/,
    );
    expect(t.all(tables)).toEqual([["d"]]);
  });
});

describe("JSON lines", () => {
  test("columns are the members of all objects, values keep their class", async () => {
    const t = target();
    const path = file(
      "j.jsonl",
      '{"a":1,"b":"x"}\n\n{"a":9007199254740993,"c":{"n":[1,9007199254740993]},"b":null}\n{"c":true,"a":1.5}\n',
    );
    expect(await importJsonLines(t.target, path, options())).toEqual({ table: "j", rows: 3 });
    expect(t.all("select a, b, c from j")).toEqual([
      [1n, "x", null],
      [9007199254740993n, null, '{"n":[1,9007199254740993]}'],
      [1.5, null, 1n],
    ]);
  });

  test("members that are left out take their defaults, unknown ones are errors", async () => {
    const t = target();
    t.session.sqlite.exec("create table d(a, b default 'dflt')");
    await importJsonLines(t.target, file("d.jsonl", '{"A":1}\n'), options());
    expect(t.all("select * from d")).toEqual([[1n, "dflt"]]);
    const path = file("d.jsonl", '{"a":1}\n{"nope":1}\n');
    await expect(importJsonLines(t.target, path, options())).rejects.toThrow(
      `${path}:2: table d has no column named nope`,
    );
    await expect(importJsonLines(t.target, file("d.jsonl", '{"a":1}\n{"a":\n'), options())).rejects.toThrow(
      "d.jsonl:2:",
    );
    await expect(importJsonLines(t.target, file("d.jsonl", "[1]\n"), options())).rejects.toThrow(
      "not a JSON object",
    );
  });

  test("what is written as a REAL is one, and numbers within stay as they were written", async () => {
    const t = target();
    const path = file(
      "r.jsonl",
      '{"a":1.0,"b":"1.0","c":{"n":[1.0,12345678901234567890,1e3]}}\n{"a":-1E3,"b":1e999,"c":0.5}\n',
    );
    await importJsonLines(t.target, path, options());
    expect(t.all("select a, typeof(a), b, typeof(b), c from r")).toEqual([
      [1, "real", "1.0", "text", '{"n":[1.0,12345678901234567890,1e3]}'],
      [-1000, "real", Number.POSITIVE_INFINITY, "real", 0.5],
    ]);
  });

  test("integers at the ends of their range", () => {
    const members = parseJsonObject(
      '{"max":9223372036854775807,"min":-9223372036854775808,"over":9223372036854775808,"text":"9007199254740993"}',
    );
    expect(Object.fromEntries(members)).toEqual({
      max: 2n ** 63n - 1n,
      min: -(2n ** 63n),
      over: 2 ** 63,
      text: "9007199254740993",
    });
  });
});

describe("SQLite files", () => {
  test("schema and rows, whatever refers to what, with every storage class", async () => {
    const path = join(folder, "source.db");
    const source = new Sqlite(path);
    source.exec(`
      pragma foreign_keys = off;
      create table child(id integer primary key, parent integer references parent(id), v);
      create table parent(id integer primary key, favourite references child(id), boss references parent(id));
      create table wr(k text primary key, v any) without rowid, strict;
      create virtual table ft using fts5(t);
      create index i on child(v); create view vw as select * from child;
      create trigger tr after insert on child begin select raise(abort, 'fired'); end;
      insert into parent values (1, 10, 2), (2, 11, 1);
      insert into wr values ('real', 5.0), ('int', 5), ('blob', x'00ff');
      insert into ft(rowid, t) values (7, 'some words');
    `);
    source.exec(
      "drop trigger tr; insert into child values (10, 1, 1.0), (11, 2, 'x'); create trigger tr after insert on child begin select raise(abort, 'fired'); end;",
    );
    source.close();
    const t = target();
    expect(await importSqliteFile(t.target, path, options())).toEqual({ tables: 4, rows: 8 });
    expect(t.all("select k, typeof(v), v from wr order by k")).toEqual([
      ["blob", "blob", Buffer.from([0, 255])],
      ["int", "integer", 5n],
      ["real", "real", 5],
    ]);
    expect(t.all("select id, typeof(v) from child")).toEqual([
      [10n, "real"],
      [11n, "text"],
    ]);
    expect(t.all("select rowid from ft where ft match 'words'")).toEqual([[7n]]);
    expect(
      t.all(
        "select type, name from sqlite_schema where type <> 'table' and name not like 'sqlite%' order by 1",
      ),
    ).toEqual([
      ["index", "i"],
      ["trigger", "tr"],
      ["view", "vw"],
    ]);
    await expect(importSqliteFile(t.target, path, options())).rejects.toThrow("exists already");
  });

  test("AUTOINCREMENT goes on where it was; version, application id and statistics come along", async () => {
    const path = join(folder, "kept.db");
    const source = new Sqlite(path);
    source.exec(`
      create table a(id integer primary key autoincrement, v); create table gone(id integer primary key autoincrement);
      insert into a values (1, 'x'), (50, 'y'); delete from a where id = 50;
      insert into gone values (70); delete from gone; create index i on a(v);
      pragma user_version = 12; pragma application_id = -3; analyze;
    `);
    source.close();
    const t = target();
    await importSqliteFile(t.target, path, options());
    expect(warnings).toEqual([]);
    expect(t.all("select name, seq from sqlite_sequence order by name")).toEqual([
      ["a", 50n],
      ["gone", 70n],
    ]);
    expect([t.all("pragma user_version"), t.all("pragma application_id")]).toEqual([[[12n]], [[-3n]]]);
    expect(t.all("select tbl, idx, stat from sqlite_stat1")).toEqual([["a", "i", "1 1"]]);
    const only = target();
    await importSqliteFile(only.target, path, options({ table: "gone" }));
    expect(only.all("select name, seq from sqlite_sequence")).toEqual([["gone", 70n]]);
    expect(only.all("pragma user_version")).toEqual([[0n]]);
  });

  test("what a file is", () => {
    expect(detectKind(join(folder, "source.db"))).toBe("sqlite");
    expect(detectKind(file("x.csv", "a,b"))).toBe("csv");
    expect(detectKind(file("x.tsv", "a\tb"))).toBe("tsv");
    expect(detectKind(file("x.sql", ""))).toBe("sql");
    expect(detectKind(file("noname1", '{"a":1}\n'))).toBe("jsonl");
    expect(detectKind(file("noname2", "PRAGMA foreign_keys=OFF;\n"))).toBe("sql");
    expect(detectKind(file("noname3", "a,b\n"))).toBe("csv");
    expect(() => detectKind(file("fake.db", "not one"))).toThrow("is not a SQLite database");
    expect(() => detectKind(join(folder, "missing.csv"))).toThrow("cannot read");
    expect(tableFromPath("/a/b/some-file.v2.csv")).toBe("some_file_v2");
  });
});

describe("SQL", () => {
  test("runs a script, and tells where it stopped", async () => {
    const t = target();
    const good = file(
      "good.sql",
      "create table s(a unique);\nbegin;\ninsert into s values(1);\ninsert into s values(2);\ncommit;",
    );
    expect(await importSqlScript(t.session, good)).toEqual({ statements: 5 });
    const bad = file(
      "bad.sql",
      "begin;\ninsert into s values(3);\ninsert into s values(4);\ninsert into s values(4);\ncommit;",
    );
    await expect(importSqlScript(t.session, bad)).rejects.toThrow(
      `${bad}:4: UNIQUE constraint failed: s.a (SQLITE_CONSTRAINT_UNIQUE)`,
    );
  });

  test("a script that ends within a transaction is an error", async () => {
    const t = target();
    await expect(importSqlScript(t.session, file("open.sql", "begin;\nselect 1;"))).rejects.toThrow(
      "ends within a transaction",
    );
  });
});

import { describe, expect, test, vi } from "vitest";
import { dropEverything, isEmpty } from "../../../src/cli/slt/empty-database.js";
import { parseSlt } from "../../../src/cli/slt/parser.js";
import { hashValues, renderResult, renderValue } from "../../../src/cli/slt/render.js";
import { type FileResult, runSlt } from "../../../src/cli/slt/runner.js";
import { SqliteSession } from "./sqlite-session.js";

function run(text: string, excluded: readonly number[] = []): Promise<FileResult> {
  return runSlt(new SqliteSession(), parseSlt(text), {
    excludes: (line) => excluded.includes(line),
    timeoutMs: 1000,
  });
}

async function counts(text: string): Promise<[passed: number, failed: number, skipped: number]> {
  const { passed, failed, skipped } = await run(text);
  return [passed, failed, skipped];
}

const TABLE =
  "statement ok\ncreate table t(a, b)\n\nstatement ok\ninsert into t values (2,'y'),(1,'x'),(10,null)\n\n";

describe("records", () => {
  test("blank lines of white space end a record, comments are dropped wherever they stand", async () => {
    expect(
      await counts(
        "# one\nstatement ok\ncreate table\n# within\nt(a)\n \t\nquery I nosort\nselect 1\n----\n# here too\n1\n",
      ),
    ).toEqual([2, 0, 0]);
  });

  test("lines ended by CR LF", async () => {
    expect(await counts("query I\r\nselect 1\r\n----\r\n1\r\n")).toEqual([1, 0, 0]);
  });

  test("skipif and onlyif, also several, also with a comment behind", async () => {
    expect(
      await counts(
        "skipif sqlite\nstatement ok\nnot sql\n\nonlyif mysql # they differ\nstatement ok\nnot sql\n\n" +
          "skipif mysql\nonlyif sqlite\nstatement ok\nselect 1\n\nonlyif sqlite\nskipif sqlite\nstatement ok\nnot sql\n",
      ),
    ).toEqual([1, 0, 3]);
  });

  test("halt ends the file, but not for another engine", async () => {
    expect(
      await counts("onlyif mssql\nhalt\n\nstatement ok\nselect 1\n\nhalt\n\nstatement ok\nnot sql\n"),
    ).toEqual([1, 0, 0]);
  });

  test("a statement that fails, and one that should have", async () => {
    expect(
      await counts(
        "statement ok\nselect nope\n\nstatement error\nselect nope\n\nstatement error\nselect 1\n",
      ),
    ).toEqual([1, 2, 0]);
  });

  test("several statements in one record", async () => {
    expect(
      await counts(
        "statement ok\ncreate table t(a);\ninsert into t values(1);\n\nquery I\nselect count(*) from t\n----\n1\n",
      ),
    ).toEqual([2, 0, 0]);
    expect(
      await counts(
        "statement error\ncreate table t(a);\ninsert into nope values(1);\n\nquery I\nselect count(*) from t\n----\n0\n",
      ),
    ).toEqual([2, 0, 0]);
  });

  test("sort modes compare as strings", async () => {
    const sorted = "query IT rowsort\nselect a, b from t\n----\n1\nx\n10\nNULL\n2\ny\n\n";
    const values = "query IT valuesort\nselect a, b from t\n----\n1\n10\n2\nNULL\nx\ny\n\n";
    const none = "query IT nosort\nselect a, b from t order by a\n----\n1\nx\n2\ny\n10\nNULL\n\n";
    expect(await counts(TABLE + sorted + values + none)).toEqual([5, 0, 0]);
    expect(await counts(`${TABLE}query I nosort\nselect a from t order by a\n----\n1\n10\n2\n`)).toEqual([
      2, 1, 0,
    ]);
  });

  test("too few, too many, and different values fail", async () => {
    for (const expected of ["1\n2", "1\n2\n10\n11", "1\n2\n11"]) {
      const { failed, failures } = await run(
        `${TABLE}query I\nselect a from t order by a\n----\n${expected}\n`,
      );
      expect(failed).toBe(1);
      expect(failures[0]).toMatchObject({ line: 7, reason: "wrong result", actual: ["1", "2", "10"] });
    }
  });

  test("the wrong number of columns fails", async () => {
    expect(await counts("query II\nselect 1\n----\n1\n")).toEqual([0, 1, 0]);
  });

  test("hashed expectations compare count and MD5", async () => {
    const hash = hashValues(["1", "2", "10"]);
    const query = (text: string): string =>
      `${TABLE}hash-threshold 2\n\nquery I\nselect a from t order by a\n----\n${text}\n`;
    expect(await counts(query(`3 values hashing to ${hash}`))).toEqual([3, 0, 0]);
    expect(await counts(query(`4 values hashing to ${hash}`))).toEqual([2, 1, 0]);
    expect(
      await counts(query(`3 values hashing to ${hash.replace(/^./, (c) => (c === "0" ? "1" : "0"))}`)),
    ).toEqual([2, 1, 0]);
    expect(hashValues(["1", "2"])).toBe("6ddb4095eb719e2a9f0a3f95677d24e0");
  });

  test("queries of one label must agree", async () => {
    const two = (second: string): string =>
      `query I rowsort same\nselect 1\n----\n1\n\nquery I rowsort same\nselect ${second}\n----\n${second}\n`;
    expect(await counts(two("1"))).toEqual([2, 0, 0]);
    expect(await counts(two("2"))).toEqual([1, 1, 0]);
  });

  test("an excluded record is not run", async () => {
    const { passed, failed, skipped } = await run("statement ok\nnot sql\n\nstatement ok\nselect 1\n", [1]);
    expect([passed, failed, skipped]).toEqual([1, 0, 1]);
  });

  test("an error that is not SQL's does not meet `statement error`", async () => {
    const session = new SqliteSession();
    session.execute = () => Promise.reject(Object.assign(new Error("gone"), { code: "OSTRAKA_UNAVAILABLE" }));
    const result = await runSlt(session, parseSlt("statement error\nselect 1\n"), {
      excludes: () => false,
      timeoutMs: 1,
    });
    expect(result).toMatchObject({ passed: 0, failed: 1 });
  });

  test("a record's time begins when the one before it has ended", async () => {
    vi.useFakeTimers();
    try {
      const session = new SqliteSession();
      let before: Promise<unknown> = Promise.resolve();
      session.execute = (statement, _, options) => {
        const ms = Number(String(statement).split(" ")[1]);
        const ran = before.then(() => new Promise((resolve) => setTimeout(resolve, ms)));
        before = ran;
        return new Promise((resolve, reject) => {
          ran.then(() => resolve({ columns: [], rows: [] } as never));
          options?.signal?.addEventListener("abort", () => reject(options.signal?.reason));
        });
      };
      const text = ["select 600", "select 700", "select 1100", "select 800"]
        .map((sql) => `statement ok\n${sql}\n\n`)
        .join("");
      const running = runSlt(session, parseSlt(text), { excludes: () => false, timeoutMs: 1000 });
      await vi.runAllTimersAsync();
      const { passed, failures } = await running;
      expect(passed).toBe(3);
      expect(failures).toMatchObject([
        { line: 7, reason: expect.stringContaining("took more than 1000 ms") },
      ]);
    } finally {
      vi.useRealTimers();
    }
  });

  test("what is no record names its line", () => {
    expect(() => parseSlt("statement ok\nselect 1\n\nwhatever\n")).toThrow("line 4");
    expect(() => parseSlt("query X\nselect 1\n----\n1\n")).toThrow("line 1");
    expect(() => parseSlt("query I anysort\nselect 1\n----\n1\n")).toThrow("sort mode");
  });
});

describe("values", () => {
  test.each([
    [null, "I", "NULL"],
    [5n, "I", "5"],
    [4294967296n, "I", "0"],
    [2147483648n, "I", "-2147483648"],
    [-1.9, "I", "-1"],
    ["12abc", "I", "12"],
    ["abc", "I", "0"],
    [1n, "R", "1.000"],
    [0.0005, "R", "0.001"],
    [-2.5, "R", "-2.500"],
    ["1.5x", "R", "1.500"],
    [null, "R", "NULL"],
    [null, "T", "NULL"],
    ["", "T", "(empty)"],
    ["a\nb\u007fé", "T", "a@b@@@"],
    [12n, "T", "12"],
    [1.5, "T", "1.5"],
    [new Uint8Array([65, 200]), "T", "A@"],
  ] as const)("%s as %s is %s", (value, type, expected) => {
    expect(renderValue(value, type)).toBe(expected);
  });

  test("a real is SQLite's printf('%.3f'), also where it has more digits than a double", () => {
    const printf = new SqliteSession().sqlite.prepare("select printf('%.3f', ?)").pluck();
    const reals = [
      -(2 ** 63),
      2 ** 64,
      2 ** 57 + 16,
      1234567890123456.8,
      12345678901234.568,
      1e12,
      999999999999.9994,
    ];
    for (const value of [...reals, 0, 0.0625, -0.0625, -0.0001, 1 / 3, 1e22, 1e300, -1e16]) {
      expect(renderValue(value, "R")).toBe(printf.get(value));
    }
  });

  test("rows sort column by column", () => {
    expect(
      renderResult(
        [
          ["b", 1n],
          ["a", 2n],
          ["a", 10n],
        ],
        "TI",
        "rowsort",
      ),
    ).toEqual(["a", "10", "a", "2", "b", "1"]);
  });
});

test("everything can be dropped again", async () => {
  const session = new SqliteSession();
  expect(await isEmpty(session)).toBe(true);
  session.sqlite.exec(
    "create table a(id integer primary key autoincrement); create table b(a references a); insert into a values(1); insert into b values(1);" +
      'create view v as select * from a; create view w as select * from v; create index i on b(a); create table "x ""y"(z);' +
      "create trigger tr after insert on a begin select 1; end; create virtual table f using fts5(t); begin;",
  );
  expect(await isEmpty(session)).toBe(false);
  await dropEverything(session, 60_000);
  expect(await isEmpty(session)).toBe(true);
});

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { Quit } from "../../../src/cli/shell/shell.js";
import { createShell } from "./shell-fixture.js";

const folder = mkdtempSync(join(tmpdir(), "ostraka-shell-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("scripts", () => {
  test("statements, results, and commands of both kinds", async () => {
    const { run, takeErrors } = createShell();
    const out = await run(
      ".mode csv\ncreate table t(a, b);\ninsert into t values (1,'x'),\n (2,null);\n\\echo two rows\nselect * from t;\n.headers off\nselect 'last' -- no semicolon",
    );
    expect(takeErrors()).toBe("");
    expect(out).toBe("two rows\na,b\n1,x\n2,\nlast\n");
  });

  test("an error names its line, and stops the script", async () => {
    const { shell, takeErrors, takeOutput } = createShell();
    const done = await shell.runScript(
      [
        "-- comment\ncreate table t(a unique);\n\ninsert into t values (1);\n",
        "/* two\nlines */ insert into t\nvalues (1);\nselect 'not reached';",
      ],
      "stdin",
    );
    expect(done).toBe(false);
    expect(takeErrors()).toBe("Error: stdin:6: UNIQUE constraint failed: t.a (SQLITE_CONSTRAINT_UNIQUE)\n");
    expect(takeOutput()).toBe("");
  });

  test("without stop-on-error it goes on, and every error has its own line", async () => {
    const { shell, takeErrors, run } = createShell();
    shell.settings.stopOnError = false;
    shell.settings.format = "csv";
    const out = await run(
      "select 1/0 as a;\nselect nope;\n.nope\ninsert into nope values(1);\ninsert into nope values(2);\ninsert into nope values(3);\nselect 'end' as b;\n",
    );
    expect(out).toBe("a\n\nb\nend\n");
    expect(
      takeErrors()
        .trimEnd()
        .split("\n")
        .map((line) => line.slice(0, 14)),
    ).toEqual(["Error: stdin:2", "Error: stdin:3", "Error: stdin:4", "Error: stdin:5", "Error: stdin:6"]);
  });

  test("a dump as sqlite3 writes it", async () => {
    const { run, takeErrors, session } = createShell();
    await run(
      "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE t(a);\nINSERT INTO t VALUES('.tables\n.quit');\nINSERT INTO t VALUES('a;b');\nCOMMIT;\n",
    );
    expect(takeErrors()).toBe("");
    expect(session.sqlite.prepare("select a from t").pluck().all()).toEqual([".tables\n.quit", "a;b"]);
  });

  test("a trigger's body is one statement", async () => {
    const { run, takeErrors, session } = createShell();
    await run(
      "create table t(a);\ncreate trigger r after insert on t begin\n  delete from t where a = 1;\n  select 1;\nend;\ninsert into t values(1),(2);",
    );
    expect(takeErrors()).toBe("");
    expect(session.sqlite.prepare("select a from t").pluck().all()).toEqual([2n]);
  });

  test(".quit leaves with its code", async () => {
    const { run } = createShell();
    await expect(run("select 1;\n.exit 7\nselect 2;")).rejects.toEqual(new Quit(7));
  });

  test(".read runs a script, errors name its file, and stop the reader too", async () => {
    const { run, takeErrors } = createShell();
    const inner = join(folder, "inner.sql");
    writeFileSync(inner, "select 'inner';\n\nselect nope;\n");
    const out = await run(`.headers off\n.mode csv\n.read ${inner}\nselect 'not reached';\n`);
    expect(out).toBe("inner\n");
    expect(takeErrors()).toBe(`Error: ${inner}:3: no such column: nope (SQLITE_ERROR)\n`);
  });

  test(".output and .once send results to files", async () => {
    const { run } = createShell();
    const file = join(folder, "out.csv");
    const once = join(folder, "once.csv");
    const out = await run(
      `.mode csv\n.output ${file}\nselect 1 as a;\nselect 2 as a;\n.output\n.once ${once}\nselect 3 as b;\nselect 4 as c;\n`,
    );
    expect(out).toBe("c\n4\n");
    expect(readFileSync(file, "utf8")).toBe("a\n1\na\n2\n");
    expect(readFileSync(once, "utf8")).toBe("b\n3\n");
  });

  test.each(["select 1;\n", "insert into t values (1);\n"])(
    "an interrupt stops the script and not only the statement: %s",
    async (statement) => {
      const { shell, session, takeErrors } = createShell();
      shell.settings.stopOnError = false;
      await session.execute("create table t(a)");
      const running = shell.runScript([statement.repeat(2000)], "stdin");
      await expect.poll(() => session.received.length, { interval: 1 }).toBeGreaterThan(1);
      shell.interrupt();
      expect(await running).toBe(false);
      expect(session.received.length).toBeLessThan(2000);
      expect(takeErrors()).toBe("");
    },
  );

  test("a byte order mark may stand before a command", async () => {
    const { run, takeErrors } = createShell();
    expect(await run("\ufeff.mode csv\nselect 1 as a;\n")).toBe("a\n1\n");
    expect(takeErrors()).toBe("");
  });

  test("a semicolon in quotes is an argument, one behind is forgiven", async () => {
    const { run, takeErrors } = createShell();
    const out = await run(
      ".mode csv\n.separator \";\"\nselect 1 as a, 2 as b;\n.print \"x;\" 'y;'\n.print z;\n.print z ;\n.separator ',';\nselect 1, 2;",
    );
    expect(takeErrors()).toBe("");
    expect(out).toBe("a;b\n1;2\nx; y;\nz\nz\n1,2\n1,2\n");
    expect(await run(".headers off\n.separator ;\n.nullvalue ;\nselect 1, null;")).toBe("1;;\n");
  });

  test("pieces may be cut anywhere", async () => {
    const script = ".mode csv\nselect 'a\n.b' as x;\n.print one\n# a comment\nselect 2 as y;\n";
    for (const length of [1, 2, 3, 7]) {
      const { shell, takeOutput, takeErrors } = createShell();
      const pieces = script.match(new RegExp(`[^]{1,${length}}`, "g"))!;
      expect(await shell.runScript(pieces, "stdin")).toBe(true);
      expect(takeErrors()).toBe("");
      expect(takeOutput()).toBe('x\n"a\n.b"\none\ny\n2\n');
    }
  });
});

describe("sending ahead", () => {
  const inserts = (count: number): string =>
    Array.from({ length: count }, (_, i) => `insert into t values (${i});\n`).join("");

  test("plain writes in a transaction do not wait for one another", async () => {
    const { run, session, takeErrors } = createShell();
    await run(`create table t(a unique);\nbegin;\n${inserts(1000)}commit;\n`);
    expect(takeErrors()).toBe("");
    expect(session.mostOutstanding).toBeGreaterThan(100);
    expect(session.mostOutstanding).toBeLessThanOrEqual(256);
    expect(session.sqlite.prepare("select count(*) from t").pluck().get()).toBe(1000n);
  });

  test("an error there names its line, and nothing after it is kept", async () => {
    const { shell, session, takeErrors } = createShell();
    const script = `create table t(a unique);\nbegin;\n${inserts(300)}insert into t values (7);\n${inserts(5)}commit;\n`;
    expect(await shell.runScript([script], "stdin")).toBe(false);
    expect(takeErrors()).toBe("Error: stdin:303: UNIQUE constraint failed: t.a (SQLITE_CONSTRAINT_UNIQUE)\n");
    expect(session.received).not.toContain("commit;");
    expect(session.state).toBe("open");
  });

  test("outside a transaction each waits, as an error must stop the next", async () => {
    const { shell, session, takeErrors } = createShell();
    const script = `create table t(a unique);\n${inserts(10)}insert into t values (7);\ninsert into t values (100);\n`;
    expect(await shell.runScript([script], "stdin")).toBe(false);
    expect(session.mostOutstanding).toBe(1);
    expect(takeErrors()).toContain("stdin:12:");
    expect(session.sqlite.prepare("select count(*) from t where a = 100").pluck().get()).toBe(0n);
  });

  test.each([
    ["a table's conflict clause", "create table t(a unique on conflict rollback);"],
    [
      "a trigger",
      "create table t(a);create trigger r before insert on t when new.a = 3 begin select raise(rollback, 'no'); end;",
    ],
  ])("nothing is sent ahead where an error may end the transaction: %s", async (_, schema) => {
    const { shell, session } = createShell();
    const script = `${schema}\nbegin;\n${inserts(10)}insert into t values (3);\n${inserts(300)}commit;\n`;
    expect(await shell.runScript([script], "stdin")).toBe(false);
    expect(session.mostOutstanding).toBe(1);
    expect(session.sqlite.prepare("select count(*) from t").pluck().get()).toBe(0n);
  });

  test("what a script that is read changes is known to the one that reads it", async () => {
    const { shell, session } = createShell();
    const inner = join(folder, "trigger.sql");
    writeFileSync(
      inner,
      "create trigger r before insert on t when new.a = 3 begin select raise(rollback, 'no'); end;",
    );
    const script = `create table t(a);\nbegin;\n${inserts(2)}.read ${inner}\n${inserts(300)}commit;\n`;
    expect(await shell.runScript([script], "stdin")).toBe(false);
    expect(session.received.at(-1)).toBe("insert into t values (3);");
    expect(session.sqlite.prepare("select count(*) from sqlite_schema").pluck().get()).toBe(1n);
  });

  test("rows of RETURNING come out in order", async () => {
    const { run } = createShell();
    const out = await run(
      ".mode csv\n.headers off\ncreate table t(a);\nbegin;\ninsert into t values(1);\ninsert into t values(2) returning a;\ninsert into t values(3);\nselect count(*) from t;\ncommit;\n",
    );
    expect(out).toBe("2\n3\n");
  });
});

describe("commands", () => {
  test("schema commands", async () => {
    const { run, takeErrors } = createShell();
    await run(
      "create table book(id integer primary key, title text not null, author references author);\ncreate table author(id primary key);\ncreate index by_title on book(title);\ncreate view v as select 1;\ncreate trigger tr after insert on book begin select 1; end;",
    );
    expect(await run(".tables")).toBe("author  book    v\n");
    expect(await run(".tables b%")).toBe("book\n");
    expect(await run(".indexes book")).toBe("by_title\n");
    expect(await run(".schema author")).toBe("CREATE TABLE author(id primary key);\n");
    const described = await run("\\d book");
    expect(described).toContain("| title  | TEXT");
    expect(described).toContain("by_title (title)");
    expect(described).toContain("(author) references author");
    expect(described).toContain("Triggers:\n    tr");
    expect(await run("\\dt")).toContain("| author | table |");
    expect(await run("\\dv")).toContain("| v    | view |");
    expect(await run("\\di")).toContain("| by_title");
    expect(takeErrors()).toBe("");
    await run("\\d nope");
    expect(takeErrors()).toBe("Error: stdin:1: there is nothing named nope\n");
  });

  test("settings", async () => {
    const { run, shell } = createShell();
    expect(await run(".mode line\n.nullvalue NIL\nselect null as a;")).toBe("    a = NIL\n");
    expect(await run("\\x on\n.mode table\nselect 1 as a;")).toBe("-[ RECORD 1 ]-\na | 1\n");
    await run('\\x off\n.separator "\\t"\n.width 5 -6\n.bail off');
    expect(shell.settings).toMatchObject({
      separator: "\t",
      widths: [5, -6],
      expanded: false,
      stopOnError: false,
    });
    await run("\\set ON_ERROR_STOP on");
    expect(shell.settings.stopOnError).toBe(true);
    expect(await run(".show")).toContain("mode: table");
    expect(await run(".changes on\ncreate table t(a);\ninsert into t values (1),(2);")).toContain(
      "changes: 2   total_changes: 2\n",
    );
    expect(await run(".timer on\nselect 1;")).toMatch(/\(1 row\) Time: \d+\.\d+ ms/);
  });

  test("sqlite3's switches want an argument, psql's turn over without one", async () => {
    const { run, shell, takeErrors } = createShell();
    const before = { ...shell.settings };
    for (const name of [".headers", ".header", ".timer", ".changes", ".echo", ".bail"]) {
      await run(name);
      expect(takeErrors()).toMatch(/^Error: stdin:1: usage: \.[a-z]+ on\|off\n$/);
    }
    expect(shell.settings).toEqual(before);
    for (const expected of [true, false]) {
      await run("\\timing\n\\x");
      expect(shell.settings).toMatchObject({ timing: expected, expanded: expected });
    }
    expect(takeErrors()).toBe("");
  });

  test("every command is in the help, by its name", async () => {
    const { run } = createShell();
    const dots = await run(".help");
    for (const name of [
      ".tables",
      ".schema",
      ".indexes",
      ".mode",
      ".headers",
      ".nullvalue",
      ".dump",
      ".import",
      ".read",
      ".output",
      ".once",
      ".timer",
      ".show",
      ".help",
      ".exit",
      ".quit",
      ".databases",
      ".changes",
      ".echo",
      ".width",
      ".separator",
    ])
      expect(dots).toContain(`${name}`);
    const slashes = await run("\\?");
    for (const name of [
      "\\d",
      "\\dt",
      "\\dv",
      "\\di",
      "\\l",
      "\\timing",
      "\\watch",
      "\\x",
      "\\i",
      "\\o",
      "\\q",
      "\\c",
      "\\conninfo",
      "\\echo",
      "\\set",
    ])
      expect(slashes).toContain(name);
  });

  test(".import makes the table, and loads the header as a row into one that exists", async () => {
    const { run, session, takeErrors } = createShell();
    const file = join(folder, "people.csv");
    writeFileSync(file, 'name,age\n"Novak, Mara",41\nBen,\n');
    await run(`.import --csv ${file} people`);
    expect(takeErrors()).toBe("");
    expect(session.sqlite.prepare("select * from people").raw().all()).toEqual([
      ["Novak, Mara", "41"],
      ["Ben", ""],
    ]);
    await run(`.import --csv --skip 1 ${file} people`);
    expect(session.sqlite.prepare("select count(*) from people").pluck().get()).toBe(4n);
    await run(`.import --csv ${file} people`);
    expect(session.sqlite.prepare("select count(*) from people where name = 'name'").pluck().get()).toBe(1n);
  });

  test("results on a terminal cannot drive it", async () => {
    const { run, shell } = createShell({ terminal: true });
    expect(await run("select char(27) || '[2J' as x;")).toContain("\\x1b[2J");
    shell.settings.format = "csv";
    expect(await run("select char(27) || '[2J' as x;")).toBe("x\n\\x1b[2J\n");
  });
});

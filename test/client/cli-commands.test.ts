/** The command as another process, against a server over the real wire. */
import { execFile } from "node:child_process";
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import Sqlite from "better-sqlite3";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { RetryError } from "../../src/base/errors.js";
import { assertBuilt, MAIN, ostraka } from "./cli-run.js";
import { type LocalServer, startLocalServer } from "./local-gateway.js";

const folder = mkdtempSync(join(tmpdir(), "ostraka-cli-"));
beforeAll(assertBuilt);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let server: LocalServer;
beforeEach(async () => {
  server = await startLocalServer();
});
afterEach(() => server.close());

function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

const sql = (args: readonly string[], stdin?: string | readonly string[]) =>
  ostraka(["sql", server.url, ...args], stdin === undefined ? {} : { stdin });

describe("sql", () => {
  test("several -c and -f share a session, in order", async () => {
    const script = file("s.sql", "insert into temp.t values (2);\n");
    const { exitCode, stdout, stderr } = await sql([
      ...["-c", "create temp table t(a)", "-c", "insert into t values (1); select 'one'"],
      ...["-f", script, "-c", "select count(*) as n from t", "--format", "csv"],
    ]);
    expect(stderr).toBe("");
    expect(exitCode).toBe(0);
    expect(stdout).toBe("'one'\none\nn\n2\n");
  });

  test("piped input, the default format, and -f -", async () => {
    const piped = await sql([], "create table t(a, b);\ninsert into t values (1, null);\nselect * from t;");
    expect(piped.stdout).toBe("+---+---+\n| a | b |\n+---+---+\n| 1 |   |\n+---+---+\n");
    expect(piped.exitCode).toBe(0);
    const dash = await sql(["-f", "-", "--format", "jsonl"], "select 1 as a;");
    expect(dash.stdout).toBe('{"a":1}\n');
  });

  test("exit codes are psql's", async () => {
    expect((await sql(["-c", "select 1"])).exitCode).toBe(0);
    const failed = await sql(["-c", "select nope; select 'not reached'"]);
    expect(failed).toMatchObject({ exitCode: 3, stdout: "" });
    expect(failed.stderr).toBe("Error: -c:1: no such column: nope (SQLITE_ERROR)\n");
    const wentOn = await sql(["--no-stop-on-error", "--format", "csv", "-c", "select nope; select 1 as a"]);
    expect(wentOn).toMatchObject({ exitCode: 0, stdout: "a\n1\n" });
    expect((await sql(["-f", join(folder, "missing.sql")])).exitCode).toBe(1);
    expect((await sql(["--format", "nonsense", "-c", "select 1"])).exitCode).toBe(1);
    expect((await ostraka(["sql", "http://127.0.0.1:1", "-c", "select 1"])).exitCode).toBe(1);
    const gone = server.url;
    await server.close();
    const refused = await ostraka(["sql", gone, "-c", "select 1", "--connect-timeout-ms", "2000"]);
    expect(refused.exitCode).toBe(2);
    expect(refused.stderr).toMatch(/^Error: .*\(OSTRAKA_UNAVAILABLE\)\n$/s);
  });

  test("a script that loses its connection ends with 2, one whose statement is not served with 3", async () => {
    const limits = ["--timeout-ms", "1500", "--connect-timeout-ms", "1000"];
    server.gateway.interference = {
      before: async ({ sql: text }) => {
        if (text.includes("unserved")) throw new RetryError("OSTRAKA_UNAVAILABLE", "no quorum");
        if (text.includes("cut")) await server.cut();
      },
    };
    const unserved = await sql([...limits, "-c", "select 'unserved'"]);
    expect(unserved).toMatchObject({ exitCode: 3, stderr: expect.stringContaining("no quorum") });
    const script = file("inner.sql", "select 1;\nselect 'cut';\n");
    const lost = await sql([...limits, "-c", `.read ${script}`, "-c", "select 'not reached'"]);
    expect(lost).toMatchObject({ exitCode: 2, stderr: expect.stringContaining(`${script}:2: `) });
    expect(lost.stdout).not.toContain("not reached");
  });

  test("a transaction lost with the only node ends a script with 2", async () => {
    server.gateway.interference = {
      before: async ({ sql: text }) => {
        if (text.includes("cut")) await server.cut();
      },
    };
    const lost = await sql(["--connect-timeout-ms", "1000", "-c", "begin; select 'cut'; commit"]);
    expect(lost).toMatchObject({ exitCode: 2, stderr: expect.stringContaining("OSTRAKA_RETRY") });
  });

  test("the URL comes from the argument, --url, or the environment", async () => {
    for (const [args, env] of [
      [["sql", "-c", "select 1 as a"], { OSTRAKA_URL: server.url }],
      [["sql", "--url", server.url, "-c", "select 1 as a"], {}],
    ] as const) {
      expect((await ostraka(args, { env })).stdout).toContain("| 1 |");
    }
    expect((await ostraka(["sql", server.url, "--url", "ostraka://127.0.0.1:9"])).exitCode).toBe(1);
  });

  test("a reader that goes away is no error", async () => {
    const query =
      "with recursive n(i) as (select 1 union all select i + 1 from n where i < 200000) select i from n";
    const command = `"$0" "$1" sql "$2" --format csv -c "${query}" | head -2`;
    const { stdout: out, stderr } = await promisify(execFile)("sh", [
      "-c",
      command,
      process.execPath,
      MAIN,
      server.url,
    ]);
    expect(stderr).toBe("");
    expect(out).toBe("i\n1\n");
  });

  test("wrong flags end it, before and after it is connected", async () => {
    const wrong = await sql(["--timeout-ms", "soon", "-c", "select 1"]);
    expect(wrong).toMatchObject({
      exitCode: 1,
      stdout: "",
      stderr: "Error: --timeout-ms: not a number of milliseconds\n",
    });
  });

  test.skipIf(process.platform !== "linux")("output that cannot be written is an error", async () => {
    const { stdout, stderr } = await promisify(execFile)("sh", [
      "-c",
      '"$0" "$1" sql "$2" -c "select 1" > /dev/full; echo $?',
      ...[process.execPath, MAIN, server.url],
    ]);
    expect(stdout).toBe("1\n");
    expect(stderr).toMatch(/^Error: .*ENOSPC.*\n$/);
  });

  test("input that is not UTF-8 is refused wherever it comes from", async () => {
    const latin1 = Buffer.from("create table t(a); insert into t values ('caf\xe9');", "latin1");
    const piped = await promisify(execFile)("sh", [
      "-c",
      '"$0" "$1" sql "$2" < "$3"; echo $?',
      ...[process.execPath, MAIN, server.url, file("latin1.sql", latin1)],
    ]);
    expect(piped).toEqual({
      stdout: "1\n",
      stderr: `Error: stdin: not UTF-8 text (within bytes 0 to ${latin1.length})\n`,
    });
  });

  test("\\c takes all of what follows to the other cluster", async () => {
    const other = await startLocalServer();
    const script = `\\c ${other.url}\ncreate table p(a);\ninsert into p values(1);\ninsert into p values(2);\ninsert into p values(3);\nselect count(*) from p;`;
    const { stdout, stderr } = await sql(["--no-stop-on-error", "--format", "csv", "--no-header"], script);
    await other.close();
    expect(stderr).toBe("");
    expect(stdout.split("\n").slice(1)).toEqual(["3", ""]);
  });

  test("what is sent ahead has the time of what is before it, too", async () => {
    server.gateway.interference = {
      before: async ({ sql: text }) => {
        if (text.startsWith("insert")) await new Promise((resolve) => setTimeout(resolve, 100));
      },
    };
    const inserts = Array.from({ length: 20 }, (_, i) => `insert into t values (${i});`).join("\n");
    const script = `create table t(a);\nbegin;\n${inserts}\ncommit;\nselect count(*) from t;`;
    const { stdout, stderr } = await sql(["--timeout-ms", "800", "--format", "csv", "--no-header"], script);
    expect(stderr).toBe("");
    expect(stdout).toBe("20\n");
  });

  test("a large result comes whole, a row a line", async () => {
    const query =
      "with recursive n(i) as (select 1 union all select i + 1 from n where i < 50000) select i, hex(zeroblob(20)) h from n";
    const { stdout, exitCode } = await sql(["--format", "csv", "-c", query]);
    expect(exitCode).toBe(0);
    expect(stdout.split("\n")).toHaveLength(50_002);
    expect(stdout.endsWith(`50000,${"00".repeat(20)}\n`)).toBe(true);
  });

  test("a script of 20,000 writes in a transaction is sent ahead, not a round trip each", async () => {
    const lines = function* (): Generator<string> {
      yield "create table t(a integer primary key, b);\nbegin;\n";
      for (let i = 0; i < 20_000; i += 100) {
        yield Array.from(
          { length: 100 },
          (_, j) => `insert into t values (${i + j}, 'row ${i + j}');\n`,
        ).join("");
      }
      yield "commit;\nselect count(*) as n, sum(a) as s from t;\n";
    };
    const { stdout, exitCode, stderr } = await sql(["--format", "csv"], [...lines()]);
    expect(stderr).toBe("");
    expect(exitCode).toBe(0);
    expect(stdout).toBe("n,s\n20000,199990000\n");
  });
});

test("a dump goes through sqlite3's library and back, by pipe and by import", async () => {
  const schema = file(
    "schema.sql",
    "create table a(id integer primary key autoincrement, t text, r real, b blob);\n" +
      'create table "odd name"("x y"); create view v as select * from a; create index i on a(t);\n' +
      "create trigger tr after insert on \"odd name\" begin insert into a(t) values ('fired'); end;\n" +
      "insert into a values (7,'it''s'||char(10)||char(13)||char(27),0.1,x'00ff'),(9,null,1e999,null);\n" +
      'insert into "odd name" values (1.0);\n',
  );
  expect((await ostraka(["import", schema, "--url", server.url])).exitCode).toBe(0);
  const first = await ostraka(["dump", "--url", server.url]);
  expect(first.exitCode).toBe(0);
  const local = new Sqlite(":memory:");
  local.exec(first.stdout);
  expect(local.prepare("select id, hex(t), r, hex(b) from a").raw().all()).toEqual([
    [7, "697427730A0D1B", 0.1, "00FF"],
    [9, "", Number.POSITIVE_INFINITY, ""],
    [10, "6669726564", null, ""],
  ]);
  const other = await startLocalServer();
  try {
    expect(await ostraka(["sql", other.url], { stdin: first.stdout })).toMatchObject({
      exitCode: 0,
      stderr: "",
    });
    expect((await ostraka(["dump", "--url", other.url])).stdout).toBe(first.stdout);
    expect((await ostraka(["dump", "--url", other.url, "--table", "ODD NAME"])).stdout).not.toContain(
      "TABLE a(",
    );
    expect((await ostraka(["dump", "--url", other.url, "--table", "none"])).exitCode).toBe(1);
  } finally {
    await other.close();
  }
});

describe("import", () => {
  test("CSV, JSON lines and SQLite files", async () => {
    const db = join(folder, "in.db");
    const source = new Sqlite(db);
    source.exec(
      "create table s(k text primary key, v) without rowid; insert into s values ('a', 1.0), ('b', x'01')",
    );
    source.close();
    const inputs = [file("c.csv", 'a,b\n1,"x\ny"\n'), file("l.jsonl", '{"a":1}\n{"b":2}\n'), db];
    for (const path of inputs) {
      expect(await ostraka(["import", path, "--url", server.url])).toMatchObject({ exitCode: 0 });
    }
    const { stdout } = await sql([
      "--format",
      "jsonl",
      "-c",
      "select a, b from c union all select a, b from l; select k, typeof(v) t from s",
    ]);
    expect(stdout).toBe(
      '{"a":"1","b":"x\\ny"}\n{"a":1,"b":null}\n{"a":null,"b":2}\n{"k":"a","t":"real"}\n{"k":"b","t":"blob"}\n',
    );
  });

  test("an error names file and line and ends with 1", async () => {
    const path = file("bad.csv", "a\n1\n1\n");
    await sql(["-c", "create table bad(a unique)"]);
    const { exitCode, stderr } = await ostraka(["import", path, "--url", server.url]);
    expect(exitCode).toBe(1);
    expect(stderr).toBe(
      `Error: ${path}:3: UNIQUE constraint failed: bad.a (SQLITE_CONSTRAINT_UNIQUE)\nno row was loaded\n`,
    );
  });
});

test("a node that is named twice, and not alike, is refused before anything is asked", async () => {
  for (const verb of ["status", "drain", "remove"]) {
    const { exitCode, stderr } = await ostraka(["node", verb, "2", "--node", "3", "--url", server.url]);
    expect(exitCode).toBe(1);
    expect(stderr).toBe("Error: the node is given twice, as an argument and as --node\n");
  }
});

test("a dump that nobody reads any more ends", async () => {
  await sql([
    "-c",
    "create table t(a, b); insert into t with recursive n(i) as (select 1 union all select i + 1 from n where i < 400000) select i, hex(zeroblob(50)) from n",
  ]);
  for (const command of ["dump --url", "sql -c .dump"]) {
    server.gateway.streamedRows = 0;
    const { stdout } = await promisify(execFile)("sh", [
      "-c",
      `"$0" "$1" ${command} "$2" | head -1`,
      ...[process.execPath, MAIN, server.url],
    ]);
    expect(stdout).toBe("PRAGMA foreign_keys=OFF;\n");
    expect(server.gateway.streamedRows).toBeLessThan(200_000);
  }
});

test("slt: files, gzip, folders, a report, and an empty database after each", async () => {
  const tests = join(folder, "slt");
  mkdirSync(join(tests, "deeper"), { recursive: true });
  const good = "statement ok\ncreate table t(a)\n\nquery I\nselect count(*) from t\n----\n0\n";
  writeFileSync(join(tests, "a.test"), good);
  writeFileSync(join(tests, "deeper", "b.test.gz"), gzipSync(good));
  writeFileSync(join(tests, "deeper", "c.slt"), `${good}\nquery I\nselect 1\n----\n2\n`);
  const report = join(folder, "report.json");
  const failed = await ostraka(["slt", "--url", server.url, "--report", report, tests]);
  expect(failed.exitCode).toBe(1);
  expect(failed.stdout.trimEnd().split("\n").at(-1)).toBe("6 passed, 1 failed");
  expect(failed.stdout.match(/^(ok|FAIL) /gm)).toEqual(["ok ", "ok ", "FAIL "]);
  expect(JSON.parse(readFileSync(report, "utf8"))).toMatchObject({
    passed: 6,
    failed: 1,
    files: [{}, {}, { failures: [{ line: 9 }] }],
  });
  const excluded = await ostraka(["slt", "--url", server.url, "--exclude", "deeper/c.slt:9", tests]);
  expect(excluded).toMatchObject({ exitCode: 0 });
  expect(excluded.stdout).toContain("6 passed, 0 failed\n");
  await sql(["-c", "create table mine(a)"]);
  const refused = await ostraka(["slt", "--url", server.url, tests]);
  expect(refused.exitCode).toBe(1);
  expect(refused.stderr).toContain("not empty");
});

test("slt: what cannot be read or parsed fails as a file, and the others are run", async () => {
  const tests = join(folder, "slt-broken");
  mkdirSync(tests);
  const good = "statement ok\ncreate table t(a)\n";
  writeFileSync(join(tests, "a.slt"), `${good}\nwhatever\n`);
  writeFileSync(join(tests, "b.slt.gz"), gzipSync(good).subarray(0, 20));
  writeFileSync(join(tests, "c.slt"), good);
  const report = join(folder, "broken.json");
  const { exitCode, stdout } = await ostraka(["slt", "--url", server.url, "--report", report, tests]);
  expect(exitCode).toBe(1);
  expect(stdout.match(/^(ok|FAIL) /gm)).toEqual(["FAIL ", "FAIL ", "ok "]);
  expect(stdout).toContain(`     ${join(tests, "a.slt")}: line 4: unknown record "whatever"`);
  expect(stdout.trimEnd().split("\n").at(-1)).toBe("1 passed, 2 failed");
  expect(JSON.parse(readFileSync(report, "utf8"))).toMatchObject({
    passed: 1,
    failed: 2,
    files: [
      { passed: 0, failed: 1, failures: [{ reason: expect.stringContaining("line 4") }] },
      { passed: 0, failed: 1, failures: [{ reason: expect.stringContaining("unexpected end of file") }] },
      { passed: 1, failed: 0 },
    ],
  });
});

test("slt: a connection lost in a file fails that file, and all that happened is told", async () => {
  const tests = join(folder, "slt-lost");
  mkdirSync(tests);
  const good = "statement ok\ncreate table t(a)\n\n";
  writeFileSync(join(tests, "a.slt"), good);
  writeFileSync(join(tests, "b.slt"), `${good}${"statement ok\ninsert into t values ('cut')\n\n".repeat(3)}`);
  writeFileSync(join(tests, "c.slt"), good);
  server.gateway.interference = {
    before: async ({ sql: text }) => {
      if (text.includes("cut")) await server.cut();
    },
  };
  const report = join(folder, "lost.json");
  const limits = ["--timeout-ms", "1500", "--connect-timeout-ms", "1000"];
  const args = ["slt", "--url", server.url, ...limits, "--report", report, tests];
  const { exitCode, stdout } = await ostraka(args);
  expect(exitCode).toBe(1);
  expect(stdout.match(/^(ok|FAIL) /gm)).toEqual(["ok ", "FAIL ", "FAIL "]);
  expect(stdout.trimEnd().split("\n").at(-1)).toBe("2 passed, 2 failed");
  expect(JSON.parse(readFileSync(report, "utf8"))).toMatchObject({
    files: [
      { passed: 1, failed: 0 },
      { passed: 1, failed: 1, connectionLost: true, failures: [{ line: 4 }] },
      { passed: 0, failed: 1, failures: [{ reason: "not run: no node answers" }] },
    ],
  });
});

test("slt: a limit on ranges is for a cluster of its own", async () => {
  const path = file("one.slt", "statement ok\nselect 1\n");
  const args = ["slt", "--url", server.url, "--range-max-rows", "5", path];
  expect(await ostraka(args)).toMatchObject({
    exitCode: 1,
    stderr: "Error: --range-max-rows is for a cluster of --nodes\n",
  });
});

test("dump --output leaves what was there until the new dump is whole", async () => {
  await sql(["-c", "create table t(a); insert into t values (1)"]);
  const out = join(mkdtempSync(join(folder, "out-")), "db.sql");
  const dumped = (...more: string[]) => ostraka(["dump", "--url", server.url, "--output", out, ...more]);
  writeFileSync(out, "before", { mode: 0o600 });
  expect((await dumped("--table", "none")).exitCode).toBe(1);
  expect(readFileSync(out, "utf8")).toBe("before");
  server.gateway.interference = {
    before: async ({ sql: text }) => {
      if (/ from "?t"?$/i.test(text)) throw new RetryError("OSTRAKA_RETRY", "in the middle");
    },
  };
  expect(await dumped()).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("in the middle") });
  expect(readFileSync(out, "utf8")).toBe("before");
  expect(readdirSync(dirname(out))).toEqual(["db.sql"]);
  server.gateway.interference = {};
  const link = join(dirname(out), "link.sql");
  symlinkSync(out, link);
  expect(await ostraka(["dump", "--url", server.url, "--output", link])).toMatchObject({ exitCode: 0 });
  expect(readFileSync(out, "utf8")).toContain("INSERT INTO t VALUES(1)");
  expect(lstatSync(out).mode & 0o777).toBe(0o600);
  expect(lstatSync(link).isSymbolicLink()).toBe(true);
  expect(readdirSync(dirname(out))).toEqual(["db.sql", "link.sql"]);
  const { stdout } = await promisify(execFile)("sh", [
    "-c",
    '"$0" "$1" dump --url "$2" --output /dev/stdout | cat',
    ...[process.execPath, MAIN, server.url],
  ]);
  expect(stdout).toBe(readFileSync(out, "utf8"));
});

test("a range is split at a value that is given", async () => {
  const { exitCode, stderr } = await ostraka(["range", "split", "--url", server.url, "--table", "t"]);
  expect(exitCode).toBe(1);
  expect(stderr).toContain("required option '--at <value,…>' not specified");
});

test("what later versions have says so, and exits 1", async () => {
  for (const args of [
    ["backup", "x"],
    ["restore", "x"],
  ]) {
    const { exitCode, stderr } = await ostraka(args);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/not in this version \(OSTRAKA_UNSUPPORTED\)/);
  }
});

test("a token is read from a file", async () => {
  const guarded = await startLocalServer({ authToken: "a-token-of-some-length" });
  try {
    const token = file("token", "a-token-of-some-length\n");
    expect((await ostraka(["sql", guarded.url, "--auth-token-file", token, "-c", "select 1"])).exitCode).toBe(
      0,
    );
    expect(
      (await ostraka(["sql", guarded.url, "-c", "select 1", "--connect-timeout-ms", "3000"])).exitCode,
    ).toBe(2);
  } finally {
    await guarded.close();
  }
});

test("a server with a certificate for its IP address is talked to without remarks", async () => {
  const pem = (name: string): Buffer => readFileSync(new URL(`../unit/rpc/tls/${name}`, import.meta.url));
  const secure = await startLocalServer({
    tls: { cert: pem("node.pem"), key: pem("node.key"), ca: pem("ca.pem") },
  });
  try {
    const ca = file("ca.pem", pem("ca.pem"));
    const query = ["--format", "csv", "--no-header", "-c", "select 1"];
    const trusting = await ostraka(["sql", secure.url, "--tls-ca", ca, ...query]);
    expect(trusting).toEqual({ exitCode: 0, stdout: "1\n", stderr: "" });
    const other = await ostraka(["sql", secure.url, "--connect-timeout-ms", "2000", ...query]);
    expect(other).toMatchObject({ exitCode: 2, stdout: "" });
    expect(other.stderr).toMatch(/^Error: .*self-signed certificate.*\n$/);
  } finally {
    await secure.close();
  }
});

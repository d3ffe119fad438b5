/** Runners as real processes: what they run can be killed, spools at full speed, and leaves nothing behind. */
import { spawn } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "better-sqlite3";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { OstrakaError } from "../../src/base/errors.js";
import type { Clock } from "../../src/base/io.js";
import { decodeRows, type SqlValue } from "../../src/base/values.js";
import { createRunnerPool, type RunnerPoolOptions } from "../../src/machines/range/runner/pool.js";
import type {
  RowChange,
  RowStream,
  Runner,
  RunnerPool,
  RunOptions,
  StampedStatement,
} from "../../src/machines/range/types.js";
import { SessionFlag } from "../../src/sql/types.js";
import { type BuiltRunner, buildRunner } from "./runner-build.js";

const MB = 1024 * 1024;
const clock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => 0,
  setTimer: (delayMs, fire) => {
    const timer = setTimeout(fire, delayMs);
    return { cancel: () => clearTimeout(timer) };
  },
};
const OPTIONS: RunOptions = {
  systemTables: [],
  timeoutMs: undefined,
  maxResultBytes: 1024 * MB,
  maxMemoryBytes: 400 * MB,
  signal: undefined,
};
const ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)";

let built: BuiltRunner;
let folder: string;
let pools: RunnerPool[] = [];
let files = 0;

beforeAll(() => {
  built = buildRunner();
  folder = mkdtempSync(join(tmpdir(), "ostraka-runner-"));
});
afterEach(async () => {
  for (const pool of pools) await pool.close();
  pools = [];
});
afterAll(() => {
  built.remove();
  rmSync(folder, { recursive: true, force: true });
});

function poolOf(options: Partial<RunnerPoolOptions> = {}): RunnerPool {
  const pool = createRunnerPool({ clock, entry: built.entry, ...options });
  pools.push(pool);
  return pool;
}

/** A replica's file as the storage worker leaves it: WAL mode, an applied index, and what `sql` makes. */
function replica(
  sql: string,
  appliedIndex = 1,
): { readonly path: string; readonly writer: Database.Database } {
  const path = join(folder, `replica-${files++}.db`);
  const writer = new Database(path);
  writer.pragma("journal_mode = WAL");
  writer.exec(
    `CREATE TABLE _ostraka_state(applied_index INTEGER); INSERT INTO _ostraka_state VALUES (${appliedIndex});`,
  );
  writer.exec(sql);
  return { path, writer };
}

function copyOf(sql: string): string {
  const { path, writer } = replica(sql);
  writer.pragma("journal_mode = DELETE");
  writer.close();
  return path;
}

function statement(sql: string, params: readonly SqlValue[] = [], flags = 0): StampedStatement {
  return {
    sql,
    params,
    flags,
    stamp: { wallMs: 1_700_000_000_000, seed: 42, lastInsertRowid: 0n },
    told: undefined,
  };
}

async function all(stream: RowStream): Promise<SqlValue[][]> {
  const rows: SqlValue[][] = [];
  for (let chunk = await stream.next(); chunk !== undefined; chunk = await stream.next())
    rows.push(...decodeRows(chunk.rows));
  return rows;
}

async function rowsOf(
  runner: Runner,
  sql: string,
  params: readonly SqlValue[] = [],
  more: Partial<RunOptions> = {},
) {
  return all(await runner.run(statement(sql, params), { ...OPTIONS, ...more }));
}

async function summaryOf(runner: Runner, sql: string, flags = 0) {
  const stream = await runner.run(statement(sql, [], flags), OPTIONS);
  await all(stream);
  return stream.summary();
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof OstrakaError) return error.code;
    throw error;
  }
  throw new Error("nothing was thrown");
}

function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1]) * 1024;
}

/** Processes that this one has started and that still run. */
function children(): number[] {
  const list = readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, "latin1").trim();
  return list === "" ? [] : list.split(" ").map(Number);
}

function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));
  } catch {
    return false;
  }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

describe("pins", () => {
  it("sees one state until pinned anew, and answers its applied index", async () => {
    const { path, writer } = replica("CREATE TABLE t(a); INSERT INTO t VALUES (1)", 7);
    const pool = poolOf();
    const runner = await pool.acquire();
    expect(await runner.pin(path)).toBe(7);
    expect(pool.pinned(path)).toEqual([runner]);
    writer.exec("BEGIN; INSERT INTO t VALUES (2); UPDATE _ostraka_state SET applied_index = 8; COMMIT");
    expect(await rowsOf(runner, "SELECT a FROM t WHERE a < ?", [10n])).toEqual([[1n]]);
    expect(await runner.pin(path)).toBe(8);
    expect(await rowsOf(runner, "SELECT a FROM t")).toEqual([[1n], [2n]]);
    await runner.unpin();
    expect(pool.pinned(path)).toEqual([]);
    expect(writer.pragma("wal_checkpoint(TRUNCATE)")).toEqual([{ busy: 0, log: 0, checkpointed: 0 }]);
    writer.close();
  });

  it("notices a schema that changed between pins, and a file that was replaced", async () => {
    const { path, writer } = replica("CREATE TABLE t(a); INSERT INTO t VALUES (1)", 1);
    const runner = await poolOf().acquire();
    await runner.pin(path);
    expect(await rowsOf(runner, "SELECT * FROM t")).toEqual([[1n]]);
    writer.exec("ALTER TABLE t ADD COLUMN b DEFAULT 'x'");
    await runner.pin(path);
    const stream = await runner.run(statement("SELECT * FROM t"), OPTIONS);
    expect(stream.columns).toEqual(["a", "b"]);
    expect(await all(stream)).toEqual([[1n, "x"]]);
    await rowsOf(runner, "CREATE TEMP TABLE kept(a)");
    await rowsOf(runner, "INSERT INTO kept SELECT b FROM t");
    writer.close();
    const other = replica("CREATE TABLE t(z); INSERT INTO t VALUES ('new')", 99);
    other.writer.pragma("journal_mode = DELETE");
    other.writer.close();
    for (const suffix of ["-wal", "-shm"]) rmSync(path + suffix, { force: true });
    renameSync(other.path, path);
    expect(await runner.pin(path)).toBe(99);
    expect(await rowsOf(runner, "SELECT t.z, kept.a FROM t, kept")).toEqual([["new", "x"]]);
  });

  it("reports errors as SQLite does, refuses transaction control, and goes on", async () => {
    const { path } = replica("CREATE TABLE t(a)");
    const runner = await poolOf().acquire();
    expect(await codeOf(runner.pin(join(folder, "missing.db")))).toBe("OSTRAKA_UNAVAILABLE");
    await runner.pin(path);
    expect(await codeOf(rowsOf(runner, "SELECT nope"))).toBe("SQLITE_ERROR");
    expect(await codeOf(rowsOf(runner, "INSERT INTO t VALUES (1)"))).toMatch(/^SQLITE_READONLY/);
    for (const sql of ["COMMIT", "/* */ BEGIN", "ROLLBACK", "END", "ATTACH 'x' AS x"])
      expect(await codeOf(rowsOf(runner, sql))).toBe("OSTRAKA_UNSUPPORTED");
    for (const sql of [
      "PRAGMA query_only = 1",
      "/* */ explain pragma temp_store = 1",
      "PRAGMA user_version = 3",
    ])
      expect(await codeOf(rowsOf(runner, sql))).toBe("OSTRAKA_UNSUPPORTED");
    expect(await rowsOf(runner, "PRAGMA integrity_check")).toEqual([["ok"]]);
    expect(await rowsOf(runner, "PRAGMA user_version")).toEqual([[0n]]);
    expect(await codeOf(rowsOf(runner, "SELECT ?", []))).toBe("SQLITE_RANGE");
    expect(await rowsOf(runner, "SELECT ?2, :n, typeof(?2)", [null, 2.5, "n"])).toEqual([[2.5, "n", "real"]]);
    expect(runner.dead).toBe(false);
  });

  it("places system tables for one statement only", async () => {
    const { path } = replica("CREATE TABLE t(a)");
    const pool = poolOf();
    const runner = await pool.acquire();
    await runner.pin(path);
    const systemTables = [
      {
        name: "ostraka_nodes",
        columns: ["node_id", "address"],
        rows: [
          [1n, "here"],
          [2n, null],
        ],
      },
    ];
    const sql = "SELECT * FROM ostraka_nodes ORDER BY node_id DESC";
    expect(await rowsOf(runner, sql, [], { systemTables })).toEqual([
      [2n, null],
      [1n, "here"],
    ]);
    expect(await codeOf(rowsOf(runner, sql))).toBe("SQLITE_ERROR");
    expect(await codeOf(rowsOf(runner, "SELECT nope FROM ostraka_nodes", [], { systemTables }))).toBe(
      "SQLITE_ERROR",
    );
    expect(await rowsOf(runner, sql, [], { systemTables })).toHaveLength(2);
    await runner.unpin();
    pool.release(runner);
    expect(runner.dead).toBe(false);
  });
});

describe("streams", () => {
  it("streams a million rows to a slow reader in bounded memory, without holding the pin", async () => {
    const { path, writer } = replica("CREATE TABLE t(a)");
    const others = new Set(children());
    const runner = await poolOf({ size: 1 }).acquire();
    const pid = children().find((child) => !others.has(child)) as number;
    await runner.pin(path);
    const stream = await runner.run(
      statement(`${ENDLESS} SELECT x, 'row number ' || x || printf('%50s', '') FROM c LIMIT 1000000`),
      OPTIONS,
    );
    // Answered when the query is finished; by then next to nothing has been fetched.
    await runner.unpin();
    const spooled = residentBytes(pid);
    writer.exec("INSERT INTO t VALUES (1)");
    expect(writer.pragma("wal_checkpoint(TRUNCATE)")).toEqual([{ busy: 0, log: 0, checkpointed: 0 }]);
    let count = 0;
    let bytes = 0;
    let most = spooled;
    let chunks = 0;
    for (let chunk = await stream.next(); chunk !== undefined; chunk = await stream.next()) {
      if (count === 0) expect(decodeRows(chunk.rows)[0]?.[0]).toBe(1n);
      count += chunk.count;
      bytes += chunk.rows.length;
      expect(chunk.rows.length).toBeLessThan(256 * 1024);
      if (++chunks % 16 === 0) most = Math.max(most, residentBytes(pid));
    }
    expect(count).toBe(1_000_000);
    expect(bytes).toBeGreaterThan(60 * MB);
    expect(most).toBeLessThan(200 * MB);
    expect(stream.summary().changes).toBe(0);
    expect(await stream.next()).toBeUndefined();
  }, 120_000);

  it("sorts what does not fit into memory on disk", async () => {
    const { path } = replica("CREATE TABLE t(a)");
    const runner = await poolOf().acquire();
    await runner.pin(path);
    const sql = `SELECT count(s), max(r) FROM (
      SELECT x * 7919 % 1000003 AS r, x || ?1 AS s FROM (${ENDLESS} SELECT x FROM c LIMIT 150000) ORDER BY r LIMIT 149999)`;
    const options = { maxMemoryBytes: 150 * MB };
    expect((await rowsOf(runner, sql, ["x".repeat(900)], options))[0]?.[0]).toBe(149_999n);
  }, 120_000);

  it("lets several readers take turns, and frees what is closed", async () => {
    const { path } = replica("CREATE TABLE t(a)");
    const pool = poolOf();
    const runner = await pool.acquire();
    await runner.pin(path);
    const query = (n: number) => runner.run(statement(`${ENDLESS} SELECT x FROM c LIMIT ${n}`), OPTIONS);
    const [one, two, three] = await Promise.all([query(100_000), query(50_000), query(200_000)]);
    await three.close();
    expect(await three.next()).toBeUndefined();
    expect((await all(two)).length).toBe(50_000);
    const rows = await all(one);
    expect(rows.length).toBe(100_000);
    expect(rows.at(-1)).toEqual([100_000n]);
    await runner.unpin();
    pool.release(runner);
    expect(runner.dead).toBe(false);
  });

  it("ends with OSTRAKA_TOO_LARGE beyond the result's limit", async () => {
    const { path } = replica("CREATE TABLE t(a)");
    const runner = await poolOf().acquire();
    await runner.pin(path);
    expect(await codeOf(rowsOf(runner, `${ENDLESS} SELECT x FROM c`, [], { maxResultBytes: 2 * MB }))).toBe(
      "OSTRAKA_TOO_LARGE",
    );
    expect(await codeOf(rowsOf(runner, "SELECT 'abcdefgh'", [], { maxResultBytes: 5 }))).toBe(
      "OSTRAKA_TOO_LARGE",
    );
    expect(await rowsOf(runner, "SELECT 1")).toEqual([[1n]]);
  });
});

describe("stopping", () => {
  it("kills an endless step on timeout and on a signal, and the pool replaces the process", async () => {
    const { path } = replica("CREATE TABLE t(a)");
    const pool = poolOf({ size: 1 });
    for (const how of ["timeout", "signal"] as const) {
      const runner = await pool.acquire();
      await runner.pin(path);
      const abort = new AbortController();
      const running = rowsOf(runner, `${ENDLESS} SELECT count(*) FROM c`, [], {
        timeoutMs: how === "timeout" ? 100 : undefined,
        signal: abort.signal,
      });
      if (how === "signal") setTimeout(() => abort.abort(), 50);
      expect(await codeOf(running)).toBe(how === "timeout" ? "OSTRAKA_TIMEOUT" : "SQLITE_INTERRUPT");
      expect(runner.dead).toBe(true);
      expect(await codeOf(runner.unpin())).toBe("OSTRAKA_UNAVAILABLE");
      expect(pool.pinned(path)).toEqual([]);
      pool.release(runner);
    }
    const fresh = await pool.acquire();
    await fresh.pin(path);
    expect(await rowsOf(fresh, "SELECT 1")).toEqual([[1n]]);
  });

  it("stops a statement that yields rows without losing the session", async () => {
    const { path } = replica("CREATE TABLE t(a)");
    const runner = await poolOf({ graceMs: 60_000 }).acquire();
    await runner.pin(path);
    await rowsOf(runner, "CREATE TEMP TABLE kept AS SELECT 5 AS five");
    const abort = new AbortController();
    const stream = await runner.run(statement(`${ENDLESS} SELECT x FROM c`), {
      ...OPTIONS,
      signal: abort.signal,
    });
    const reading = (async () => {
      for (let chunks = 0; ; chunks++) {
        if ((await stream.next()) === undefined) return;
        if (chunks === 3) abort.abort();
      }
    })();
    expect(await codeOf(reading)).toBe("SQLITE_INTERRUPT");
    expect(runner.dead).toBe(false);
    expect(await rowsOf(runner, "SELECT five FROM kept")).toEqual([[5n]]);
    const given = await runner.run(statement(`${ENDLESS} SELECT x FROM c`), OPTIONS);
    await given.next();
    await given.close();
    expect(await rowsOf(runner, "SELECT five FROM kept")).toEqual([[5n]]);
    expect(await codeOf(rowsOf(runner, "SELECT 1", [], { signal: AbortSignal.abort() }))).toBe(
      "SQLITE_INTERRUPT",
    );
  });

  it("kills what needs too much memory", async () => {
    const { path } = replica("CREATE TABLE t(a)");
    const pool = poolOf({ size: 1 });
    const bombed = await pool.acquire();
    await bombed.pin(path);
    const bomb = `${ENDLESS} SELECT length(group_concat(hex(zeroblob(100)))) FROM c`;
    expect(await codeOf(rowsOf(bombed, bomb, [], { maxMemoryBytes: 200 * MB }))).toBe("OSTRAKA_TOO_LARGE");
    expect(bombed.dead).toBe(true);
    pool.release(bombed);
    const runner = await pool.acquire();
    await runner.pin(path);
    expect(await codeOf(rowsOf(runner, "SELECT zeroblob(500000000)"))).toMatch(
      /SQLITE_TOOBIG|OSTRAKA_TOO_LARGE/,
    );
  }, 120_000);

  it("dies with its parent, even in the middle of an endless step", async () => {
    const { path } = replica("CREATE TABLE t(a)");
    const script = join(folder, "parent.mjs");
    writeFileSync(
      script,
      `import { createRunnerPool } from ${JSON.stringify(built.module("machines/range/runner/pool.ts"))};
       import { readFileSync } from "node:fs";
       const clock = { monotonicMs: () => performance.now(), wallMs: () => 0,
         setTimer: (ms, f) => { const t = setTimeout(f, ms); return { cancel: () => clearTimeout(t) }; } };
       const pool = createRunnerPool({ clock, size: 1 });
       const runner = await pool.acquire();
       await runner.pin(${JSON.stringify(path)});
       const stamp = { wallMs: 0, seed: 0, lastInsertRowid: 0n };
       runner.run({ sql: ${JSON.stringify(`${ENDLESS} SELECT count(*) FROM c`)}, params: [], flags: 0, stamp, told: undefined },
         { systemTables: [], timeoutMs: undefined, maxResultBytes: 1e9, maxMemoryBytes: 1e9, signal: undefined });
       setTimeout(() => console.log(readFileSync("/proc/" + process.pid + "/task/" + process.pid + "/children", "latin1").trim()), 100);`,
    );
    const parent = spawn(process.execPath, [script], { stdio: ["ignore", "pipe", "inherit"] });
    const child = await new Promise<number>((resolve) =>
      parent.stdout.on("data", (line: Buffer) => resolve(Number(line))),
    );
    expect(isRunning(child)).toBe(true);
    parent.kill("SIGKILL");
    await until(() => !isRunning(child));
    expect(isRunning(child)).toBe(false);
  }, 120_000);
});

describe("TEMP objects", () => {
  it("survive pins, copies and replaced files, in all their kinds", async () => {
    const schema = "CREATE TABLE t(a INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)";
    const { path, writer } = replica(schema, 3);
    const pool = poolOf();
    const runner = await pool.acquire();
    await runner.pin(path);
    for (const sql of [
      "CREATE TEMP TABLE s(k, v TEXT DEFAULT 'd', g AS (k * 2))",
      "INSERT INTO s(rowid, k) VALUES (10, 1), (20, 2), (5, 3)",
      "CREATE UNIQUE INDEX temp.s_k ON s(k)",
      "CREATE TEMP TABLE w(a, b, PRIMARY KEY(a, b)) WITHOUT ROWID",
      "INSERT INTO w VALUES ('x', 2), ('x', 1)",
      "CREATE TEMP TABLE q(id INTEGER PRIMARY KEY AUTOINCREMENT)",
      "INSERT INTO q VALUES (100)",
      "DELETE FROM q",
      "CREATE TEMP VIEW sv AS SELECT k FROM s WHERE k > 1",
      "CREATE TEMP TRIGGER tr AFTER INSERT ON s BEGIN INSERT INTO w VALUES ('fired', new.k); END",
      "CREATE VIRTUAL TABLE temp.f USING fts5(body)",
      "INSERT INTO f VALUES ('hello world'), ('another one')",
    ])
      await rowsOf(runner, sql);
    const check = async () => {
      expect(await rowsOf(runner, "SELECT rowid, k, v, g FROM s ORDER BY rowid")).toEqual([
        [5n, 3n, "d", 6n],
        [10n, 1n, "d", 2n],
        [20n, 2n, "d", 4n],
      ]);
      expect(await rowsOf(runner, "SELECT * FROM w")).toEqual([
        ["x", 1n],
        ["x", 2n],
      ]);
      expect(await rowsOf(runner, "SELECT k FROM sv ORDER BY k")).toEqual([[2n], [3n]]);
      expect(await rowsOf(runner, "SELECT rowid FROM f WHERE f MATCH 'hello'")).toEqual([[1n]]);
      expect(await rowsOf(runner, "SELECT seq FROM temp.sqlite_sequence")).toEqual([[100n]]);
      expect(await codeOf(rowsOf(runner, "INSERT INTO s(k) VALUES (1)"))).toBe("SQLITE_CONSTRAINT_UNIQUE");
    };
    await check();
    await runner.unpin();
    await runner.pin(path);
    await check();
    await runner.unpin();
    const copy = copyOf(schema);
    await runner.openCopy(copy);
    await check();
    await rowsOf(runner, "INSERT INTO s(k) VALUES (9)");
    expect(await rowsOf(runner, "SELECT b FROM w WHERE a = 'fired'")).toEqual([[9n]]);
    await runner.closeCopy("rollback");
    rmSync(copy);
    await runner.pin(path);
    await check();
    await runner.unpin();
    pool.release(runner);
    expect(runner.dead).toBe(true);
    writer.close();
  });

  it("undoes writes to them when the pin is rolled back", async () => {
    const { path } = replica("CREATE TABLE t(a)");
    const runner = await poolOf().acquire();
    await runner.pin(path);
    await rowsOf(runner, "CREATE TEMP TABLE s(a UNIQUE)");
    await runner.unpin();
    await runner.pin(path);
    await rowsOf(runner, "INSERT INTO s VALUES (1)");
    await runner.unpin("rollback");
    await runner.pin(path);
    expect(await rowsOf(runner, "SELECT count(*) FROM s")).toEqual([[0n]]);
    await rowsOf(runner, "INSERT INTO s VALUES (1)");
    expect(runner.rolledBack).toBe(false);
    expect(await codeOf(rowsOf(runner, "INSERT OR ROLLBACK INTO s VALUES (1)"))).toBe(
      "SQLITE_CONSTRAINT_UNIQUE",
    );
    expect(runner.rolledBack).toBe(true);
    expect(await codeOf(rowsOf(runner, "SELECT 1"))).toBe("SQLITE_ERROR");
    await runner.unpin();
    await runner.pin(path);
    expect(runner.rolledBack).toBe(false);
    expect(await rowsOf(runner, "SELECT count(*) FROM s")).toEqual([[0n]]);
  });
});

describe("private copies", () => {
  it("runs writes, errors, RETURNING and savepoints; what fails leaves the transaction open", async () => {
    const path = copyOf("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE CHECK (b <> 'bad'))");
    const runner = await poolOf().acquire();
    await runner.openCopy(path);
    expect(await summaryOf(runner, "INSERT INTO t(b) VALUES (1), (2)")).toEqual({
      changes: 2,
      totalChanges: 2,
      lastInsertRowid: 2n,
    });
    expect(await rowsOf(runner, "INSERT INTO t(b) VALUES ('x') RETURNING a, b")).toEqual([[3n, "x"]]);
    expect(await codeOf(rowsOf(runner, "INSERT INTO t(b) VALUES ('y'), (1)"))).toBe(
      "SQLITE_CONSTRAINT_UNIQUE",
    );
    expect(runner.rolledBack).toBe(false);
    await rowsOf(runner, "SAVEPOINT one");
    await rowsOf(runner, "DELETE FROM t");
    expect(await rowsOf(runner, "SELECT count(*) FROM t")).toEqual([[0n]]);
    await rowsOf(runner, "ROLLBACK TO one");
    await rowsOf(runner, "RELEASE one");
    const many = `${ENDLESS} INSERT INTO t(b) SELECT 'r' || x FROM c LIMIT 5000 RETURNING b`;
    expect(await codeOf(rowsOf(runner, many, [], { maxResultBytes: 1000 }))).toBe("OSTRAKA_TOO_LARGE");
    expect(await rowsOf(runner, "SELECT a, b FROM t")).toEqual([
      [1n, 1n],
      [2n, 2n],
      [3n, "x"],
    ]);
    expect(await codeOf(rowsOf(runner, "INSERT OR ROLLBACK INTO t(b) VALUES (1)"))).toBe(
      "SQLITE_CONSTRAINT_UNIQUE",
    );
    expect(runner.rolledBack).toBe(true);
    await runner.closeCopy("rollback");
    await runner.openCopy(path);
    expect(await rowsOf(runner, "SELECT count(*) FROM t")).toEqual([[0n]]);
  });

  it("fails a commit on deferred foreign keys and leaves the transaction open", async () => {
    const path = copyOf(
      "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
    );
    const runner = await poolOf().acquire();
    await runner.openCopy(path);
    await rowsOf(runner, "INSERT INTO c VALUES (1)");
    expect(await codeOf(runner.closeCopy("commit"))).toBe("SQLITE_CONSTRAINT_FOREIGNKEY");
    await rowsOf(runner, "INSERT INTO p VALUES (1)");
    await runner.closeCopy("commit");
    const file = new Database(path, { readonly: true });
    expect(file.prepare("SELECT count(*) FROM c").pluck().get()).toBe(1);
    file.close();
    await runner.openCopy(path);
    expect(await summaryOf(runner, "INSERT INTO c VALUES (77)", SessionFlag.ForeignKeysOff)).toMatchObject({
      changes: 1,
    });
    await runner.closeCopy("commit");
  });
});

describe("row changes of a private copy", () => {
  async function capturedFrom(
    schema: string,
    statements: readonly string[],
    flags = 0,
  ): Promise<readonly RowChange[]> {
    const runner = await poolOf({ size: 1 }).acquire();
    await runner.openCopy(copyOf(schema));
    await runner.capture();
    for (const sql of statements) await summaryOf(runner, sql, flags).catch(() => {});
    return runner.captured();
  }
  const sorted = (changes: readonly RowChange[]) =>
    changes.map(({ table, key, row }) => [table, ...key, "→", ...(row ?? ["gone"])].join(" ")).sort();

  it("holds the last state of every row written, by whatever wrote it", async () => {
    const schema = `
      CREATE TABLE t(id INTEGER PRIMARY KEY, a, g AS (a || '!') STORED);
      CREATE TABLE log(m);
      CREATE TABLE child(id INTEGER PRIMARY KEY, t REFERENCES t ON DELETE CASCADE);
      CREATE TABLE wr(k TEXT, n INT, v, PRIMARY KEY(n, k)) WITHOUT ROWID;
      CREATE TRIGGER note AFTER UPDATE ON t BEGIN INSERT INTO log VALUES (old.a || '>' || new.a); END;
      INSERT INTO t(id, a) VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, 'four');
      INSERT INTO child VALUES (70, 3), (71, 4);
      INSERT INTO wr VALUES ('k', 1, 'v'), ('l', 1, 'w');`;
    expect(
      sorted(
        await capturedFrom(schema, [
          "UPDATE t SET a = 'uno' WHERE id = 1",
          "UPDATE t SET id = 9 WHERE id = 2",
          "DELETE FROM t WHERE id = 3",
          "INSERT INTO t(id, a) VALUES (5, 'five')",
          "DELETE FROM t WHERE id = 5",
          "INSERT INTO t(id, a) VALUES (1, 'x') ON CONFLICT(id) DO UPDATE SET a = 'upsert'",
          "UPDATE wr SET k = 'moved' WHERE k = 'k'",
          "DELETE FROM wr WHERE k = 'l'",
          "INSERT INTO t(id, a) VALUES (6, 'six'), (4, 'fails')",
        ]),
      ),
    ).toEqual([
      "child 70 → gone",
      "log 1 → one>uno",
      "log 2 → two>two",
      "log 3 → uno>upsert",
      "t 1 → 1 upsert",
      "t 2 → gone",
      "t 3 → gone",
      "t 5 → gone",
      "t 6 → gone",
      "t 9 → 9 two",
      "wr 1 k → gone",
      "wr 1 l → gone",
      "wr 1 moved → moved 1 v",
    ]);
  });

  it("sees the rows that REPLACE deletes, without firing the user's triggers", async () => {
    const schema = `
      CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT COLLATE NOCASE UNIQUE, a, b, UNIQUE(a, b));
      CREATE TABLE gone(id);
      CREATE TRIGGER del AFTER DELETE ON t BEGIN INSERT INTO gone VALUES (old.id); END;
      INSERT INTO t VALUES (1, 'one', 1, 1), (2, 'two', 2, 2), (3, 'three', 3, 3), (4, 'four', 4, 4)`;
    expect(
      sorted(
        await capturedFrom(schema, [
          "INSERT OR REPLACE INTO t VALUES (9, 'ONE', 2, 2)",
          "UPDATE OR REPLACE t SET a = 3, b = 3 WHERE id = 4",
          "INSERT OR IGNORE INTO t VALUES (10, 'four', 0, 0)",
        ]),
      ),
    ).toEqual(["t 1 → gone", "t 2 → gone", "t 3 → gone", "t 4 → 4 four 3 3", "t 9 → 9 ONE 2 2"]);
    const recursive = await capturedFrom(
      schema,
      ["REPLACE INTO t VALUES (9, 'one', 9, 9)"],
      SessionFlag.RecursiveTriggers,
    );
    expect(sorted(recursive)).toEqual(["gone 1 → 1", "t 1 → gone", "t 9 → 9 one 9 9"]);
  });

  it("does not disturb what statements answer", async () => {
    const runner = await poolOf().acquire();
    await runner.openCopy(copyOf("CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE); CREATE TABLE l(x)"));
    await runner.capture();
    expect(await summaryOf(runner, "INSERT INTO t VALUES (5, 1), (6, 2)")).toEqual({
      changes: 2,
      totalChanges: 2,
      lastInsertRowid: 6n,
    });
    await rowsOf(runner, "CREATE TEMP TABLE mine(a)");
    await runner.closeCopy("rollback");
  });

  it("says what cannot be captured", async () => {
    const fts = "CREATE VIRTUAL TABLE f USING fts5(b); CREATE TABLE t(a)";
    expect(await codeOf(capturedFrom(fts, ["INSERT INTO f VALUES ('x')"]))).toBe("OSTRAKA_UNSUPPORTED");
    expect(sorted(await capturedFrom(fts, ["INSERT INTO t VALUES ('x')"]))).toEqual(["t 1 → x"]);
    const partial = "CREATE TABLE t(a, b); CREATE UNIQUE INDEX i ON t(a) WHERE b > 0";
    expect(await codeOf(capturedFrom(partial, ["REPLACE INTO t VALUES (1, 1)"]))).toBe("OSTRAKA_UNSUPPORTED");
    expect(sorted(await capturedFrom(partial, ["INSERT INTO t VALUES (1, 1)"]))).toEqual(["t 1 → 1 1"]);
    const statistics = "CREATE TABLE t(a); ANALYZE";
    expect(await codeOf(capturedFrom(statistics, ["DELETE FROM sqlite_stat1"]))).toBe("OSTRAKA_UNSUPPORTED");
  });

  it("goes beside changes of the schema", async () => {
    expect(
      sorted(
        await capturedFrom("CREATE TABLE t(a)", [
          "INSERT INTO t VALUES (1)",
          "CREATE TABLE u(a)",
          "INSERT INTO u VALUES (1)",
          "ALTER TABLE t RENAME TO v",
        ]),
      ),
    ).toEqual(["u 1 → 1", "v 1 → 1"]);
  });
});

describe("the pool", () => {
  it("bounds processes, makes callers wait in line, and refuses beyond the line", async () => {
    const others = new Set(children());
    const own = () => children().filter((pid) => !others.has(pid) && isRunning(pid));
    const pool = poolOf({ size: 2, maxWaiting: 1, maxWaitMs: 5000 });
    const one = await pool.acquire();
    const two = await pool.acquire();
    const abort = new AbortController();
    const third = pool.acquire(abort.signal);
    expect(await codeOf(pool.acquire())).toBe("OSTRAKA_UNAVAILABLE");
    abort.abort();
    expect(await codeOf(third)).toBe("SQLITE_INTERRUPT");
    const fourth = pool.acquire();
    pool.release(two);
    expect(await fourth).toBe(two);
    const fifth = pool.acquire();
    one.kill();
    const fresh = await fifth;
    expect(fresh.dead).toBe(false);
    expect(fresh).not.toBe(one);
    await until(() => own().length <= 2);
    expect(own().length).toBe(2);
    await pool.close();
    await until(() => own().length === 0);
    expect(await codeOf(pool.acquire())).toBe("OSTRAKA_UNAVAILABLE");
  });

  it("gives up waiting after a while", async () => {
    const pool = poolOf({ size: 1, maxWaitMs: 20 });
    await pool.acquire();
    expect(await codeOf(pool.acquire())).toBe("OSTRAKA_UNAVAILABLE");
  });

  it("leaves no files behind", async () => {
    const source = copyOf("CREATE TABLE t(a)");
    const copy = join(folder, "left.db");
    copyFileSync(source, copy);
    const pool = poolOf({ size: 1 });
    const runner = await pool.acquire();
    await runner.openCopy(copy);
    await rowsOf(runner, "INSERT INTO t VALUES (1)");
    await runner.closeCopy("rollback");
    pool.release(runner);
    expect(runner.dead).toBe(false);
    for (const suffix of ["-journal", "-wal", "-shm"]) expect(existsSync(copy + suffix)).toBe(false);
  });
});

/** Scratch databases in real processes: from hundreds of ranges, beyond memory, killed in the middle. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "better-sqlite3";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { OstrakaError } from "../../src/base/errors.js";
import { logIndex } from "../../src/base/ids.js";
import type { Clock } from "../../src/base/io.js";
import { decodeRows, type SqlValue } from "../../src/base/values.js";
import { createRunnerPool } from "../../src/machines/range/runner/pool.js";
import type {
  RowStream,
  Runner,
  RunnerPool,
  RunOptions,
  SchemaSnapshot,
  StampedStatement,
} from "../../src/machines/range/types.js";
import { loadsOf } from "../unit/range/source-loads.js";
import { type BuiltRunner, buildRunner } from "./runner-build.js";

const MB = 1024 * 1024;
const WHOLE = { low: undefined, high: undefined };
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

let built: BuiltRunner;
let folder: string;
let spill: string;
let pools: RunnerPool[] = [];
let files = 0;

beforeAll(() => {
  built = buildRunner();
  folder = mkdtempSync(join(tmpdir(), "ostraka-scratch-"));
  spill = mkdtempSync(join(tmpdir(), "ostraka-spill-"));
});
afterEach(async () => {
  for (const pool of pools) await pool.close();
  pools = [];
});
afterAll(() => {
  built.remove();
  rmSync(folder, { recursive: true, force: true });
  rmSync(spill, { recursive: true, force: true });
});

async function newRunner(): Promise<{ readonly pool: RunnerPool; readonly runner: Runner }> {
  const pool = createRunnerPool({ clock, entry: built.entry, size: 1, temporaryDirectory: spill });
  pools.push(pool);
  return { pool, runner: await pool.acquire() };
}

const TABLES = ["CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)", "CREATE INDEX by_a ON t(a)"];

function schema(statements: readonly string[]): SchemaSnapshot {
  return { version: 1, statements, appliedIndex: logIndex(1), tables: [] };
}

function rangeFile(appliedIndex: number, sql: string): string {
  const path = join(folder, `range-${files++}.db`);
  const database = new Database(path);
  database.pragma("journal_mode = WAL");
  database.pragma("synchronous = OFF");
  database.exec(
    `CREATE TABLE _ostraka_state(applied_index INTEGER); INSERT INTO _ostraka_state VALUES (${appliedIndex});
     ${TABLES.join(";")}; ${sql}`,
  );
  database.close();
  return path;
}

function rows(from: number, count: number, value = "'v' || i"): string {
  return `WITH RECURSIVE n(i) AS (SELECT ${from} UNION ALL SELECT i + 1 FROM n WHERE i < ${from + count - 1})
    INSERT INTO t SELECT i, i % 10, ${value} FROM n`;
}

function statement(sql: string): StampedStatement {
  return { sql, params: [], flags: 0, stamp: { wallMs: 0, seed: 1, lastInsertRowid: 0n }, told: undefined };
}

async function all(stream: RowStream): Promise<SqlValue[][]> {
  const found: SqlValue[][] = [];
  for (let chunk = await stream.next(); chunk !== undefined; chunk = await stream.next())
    found.push(...decodeRows(chunk.rows));
  return found;
}

async function run(runner: Runner, sql: string, options: Partial<RunOptions> = {}): Promise<SqlValue[][]> {
  return all(await runner.run(statement(sql), { ...OPTIONS, ...options }));
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof OstrakaError) return error.code;
  throw new Error(`expected an OstrakaError, not ${String(error)}`);
}

describe("a scratch database in a process", () => {
  it("answers from 300 ranges, with requests sent ahead", async () => {
    const paths = Array.from({ length: 300 }, (_, i) => rangeFile(i, rows(i * 10, 10)));
    const { pool, runner } = await newRunner();
    for (let round = 0; round < 2; round++) {
      const opened = runner.openScratch(schema(TABLES));
      const sources = paths.map((path) => runner.addSource(path));
      const loads = paths.map((_, i) =>
        runner.load(
          loadsOf(i, { table: "t", slice: { low: [BigInt(i * 10)], high: [BigInt(i * 10 + 5)] } }),
          64 * MB,
        ),
      );
      const answer = run(runner, "SELECT count(*), min(id), max(id), sum(a) FROM t");
      await opened;
      expect((await Promise.all(sources)).map(({ source, appliedIndex }) => [source, appliedIndex])).toEqual(
        paths.map((_, i) => [i, i]),
      );
      expect((await Promise.all(loads)).every(({ rows: loaded }) => loaded === 5)).toBe(true);
      expect(await answer).toEqual([[1500n, 0n, 2994n, 3000n]]);
      expect(pool.pinned(paths[299]!)).toEqual([runner]);
      await runner.closeCopy("rollback");
      await runner.dropSources();
      expect(pool.pinned(paths[299]!)).toEqual([]);
    }
    pool.release(runner);
    expect(runner.dead).toBe(false);
  });

  it("takes rows from another process, writes, and says what it changed", async () => {
    const here = rangeFile(3, rows(1, 1000));
    const there = rangeFile(4, rows(1001, 100_000));
    const { runner } = await newRunner();
    const { runner: other } = await newRunner();
    await runner.openScratch(schema(TABLES));
    await runner.addSource(here);
    await runner.load(loadsOf(0, { table: "t", slice: WHOLE }), 64 * MB);
    expect(await other.addSource(there)).toEqual({ source: 0, appliedIndex: 4 });
    const where = { sql: "a > ?", params: [4n] };
    const stream = await other.scan(loadsOf(0, { table: "t", slice: WHOLE, where }), OPTIONS);
    let filled = 0;
    for (let chunk = await stream.next(); chunk !== undefined; chunk = await stream.next())
      filled += (await runner.fill("t", chunk.rows, 64 * MB)).rows;
    await stream.close();
    expect(filled).toBe(50_000);
    await other.dropSources();
    await run(runner, "UPDATE t SET b = 'found' WHERE id IN (7, 50005, 50006, 50001)");
    expect((await runner.captured()).map(({ key, row }) => [...key, ...(row ?? [])])).toEqual([
      [7n, 7n, 7n, "found"],
      [50_005n, 50_005n, 5n, "found"],
      [50_006n, 50_006n, 6n, "found"],
    ]);
    await runner.closeCopy("commit");
    await runner.dropSources();
  });

  it("goes to the disk when memory is short, and leaves nothing there", async () => {
    const path = rangeFile(1, rows(1, 150_000, "hex(randomblob(500))"));
    const { runner } = await newRunner();
    await runner.openScratch(schema(TABLES));
    await runner.addSource(path);
    expect(await codeOf(runner.load(loadsOf(0, { table: "t", slice: WHOLE }), 50 * MB))).toBe(
      "OSTRAKA_TOO_LARGE",
    );
    expect(await codeOf(run(runner, "SELECT 1"))).toBe("OSTRAKA_TOO_LARGE");
    await runner.closeCopy("rollback");
    await runner.openScratch(schema(TABLES));
    await runner.load(loadsOf(0, { table: "t", slice: WHOLE }), 1000 * MB);
    // Watched while they run: rows, journal and sorter of some 150 MB each must not be in memory.
    const options = { maxMemoryBytes: 180 * MB };
    await run(runner, "UPDATE t SET b = b || 'x'", options);
    expect(
      await run(runner, "SELECT count(*), sum(length(b)) FROM (SELECT * FROM t ORDER BY b)", options),
    ).toEqual([[150_000n, 150_150_000n]]);
    expect(readdirSync(spill)).toEqual([]);
    await runner.closeCopy("rollback");
    await runner.dropSources();
  });

  it("is gone with its process, whatever it was doing", async () => {
    const path = rangeFile(1, rows(1, 200_000));
    for (const middle of ["load", "statement", "scan"]) {
      const { pool, runner } = await newRunner();
      await runner.openScratch(schema(TABLES));
      await runner.addSource(path);
      const load = { table: "t", slice: WHOLE };
      const doing =
        middle === "load"
          ? runner.load(loadsOf(0, load), 1000 * MB)
          : middle === "scan"
            ? runner.scan(loadsOf(0, load), OPTIONS).then(all)
            : runner.load(loadsOf(0, load), 1000 * MB).then(() =>
                run(runner, "UPDATE t SET a = (SELECT count(*) FROM t AS o WHERE o.b > t.b)", {
                  timeoutMs: 50,
                }),
              );
      if (middle !== "statement") setTimeout(() => runner.kill(), 20);
      expect(await codeOf(doing)).toBe(middle === "statement" ? "OSTRAKA_TIMEOUT" : "OSTRAKA_UNAVAILABLE");
      expect(runner.dead).toBe(true);
      expect(pool.pinned(path)).toEqual([]);
      expect(await codeOf(runner.load(loadsOf(0, load), MB))).toBe("OSTRAKA_UNAVAILABLE");
      const next = await pool.acquire();
      await next.openScratch(schema(TABLES));
      expect(await run(next, "SELECT count(*) FROM t")).toEqual([[0n]]);
    }
    expect(readdirSync(spill)).toEqual([]);
  });

  it("is no longer handed out while it or a source is open", async () => {
    const path = rangeFile(1, "");
    const { pool, runner } = await newRunner();
    await runner.addSource(path);
    pool.release(runner);
    expect(runner.dead).toBe(true);
    const second = await pool.acquire();
    await second.openScratch(schema(TABLES));
    pool.release(second);
    expect(second.dead).toBe(true);
    const third = await pool.acquire();
    expect(await codeOf(third.openScratch(schema(["CREATE TABLE broken("])))).toBe("SQLITE_ERROR");
    expect(await codeOf(third.addSource(join(folder, "missing.db")))).toBe("OSTRAKA_UNAVAILABLE");
    await third.dropSources();
    pool.release(third);
    expect(third.dead).toBe(false);
  });
});

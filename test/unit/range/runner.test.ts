/** Runners without processes: the client's rules under a clock that the test turns, the spool, the frames, the pool. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "better-sqlite3";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { OstrakaError, toWireError, UserError } from "../../../src/base/errors.js";
import { logIndex } from "../../../src/base/ids.js";
import type { Clock, Timer } from "../../../src/base/io.js";
import { decodeRows, encodeVector, type SqlValue } from "../../../src/base/values.js";
import { decodeChanges, encodeChanges } from "../../../src/machines/range/row-changes.js";
import { type LinkEvents, RunnerClient, type RunnerLink } from "../../../src/machines/range/runner/client.js";
import { createInProcessRunnerPool } from "../../../src/machines/range/runner/pool.js";
import {
  type Answer,
  encodeFrame,
  FrameReader,
  fromWireLoad,
  Kind,
  Op,
  type Request,
  toWireLoad,
} from "../../../src/machines/range/runner/protocol.js";
import { Spool } from "../../../src/machines/range/runner/spool.js";
import type {
  RowChange,
  RunOptions,
  ScratchLoad,
  StampedStatement,
} from "../../../src/machines/range/types.js";
import { loadsOf } from "./source-loads.js";

const OPTIONS: RunOptions = {
  systemTables: [],
  timeoutMs: undefined,
  maxResultBytes: 1 << 30,
  maxMemoryBytes: 1000,
  signal: undefined,
};

/** Time that passes only when told to; promises settle between timers. */
class TurnedClock implements Clock {
  #nowMs = 0;
  #order = 0;
  #timers: { readonly atMs: number; readonly order: number; readonly fire: () => void }[] = [];

  monotonicMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return 0;
  }

  setTimer(delayMs: number, fire: () => void): Timer {
    const timer = { atMs: this.#nowMs + delayMs, order: this.#order++, fire };
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
      },
    };
  }

  async turn(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve));
      this.#timers.sort((a, b) => a.atMs - b.atMs || a.order - b.order);
      const next = this.#timers[0];
      if (next === undefined || next.atMs > untilMs) break;
      this.#timers.shift();
      this.#nowMs = next.atMs;
      next.fire();
    }
    this.#nowMs = untilMs;
  }

  /** Turns until a promise has settled. */
  async settle<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const mark = (): void => {
      settled = true;
    };
    promise.then(mark, mark);
    for (let i = 0; i < 10_000 && !settled; i++) await this.turn(1);
    return promise;
  }
}

function statement(sql: string, params: readonly SqlValue[] = []): StampedStatement {
  return { sql, params, flags: 0, stamp: { wallMs: 0, seed: 1, lastInsertRowid: 0n }, told: undefined };
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof OstrakaError) return error.code;
  throw new Error(`expected an OstrakaError, not ${String(error)}`);
}

/** A runner whose other end is the test. */
class ScriptedLink implements RunnerLink {
  readonly requests: Request[] = [];
  killed = false;
  memory: number | undefined = 0;
  events!: LinkEvents;

  send(request: Request): void {
    this.requests.push(request);
  }

  kill(): void {
    this.killed = true;
  }

  memoryBytes(): number | undefined {
    return this.memory;
  }

  get last(): Request {
    return this.requests.at(-1) as Request;
  }
}

function scripted() {
  const clock = new TurnedClock();
  const link = new ScriptedLink();
  const runner = new RunnerClient(
    (events) => {
      link.events = events;
      return link;
    },
    clock,
    30,
    () => {},
  );
  const answer = (...message: Answer): void => link.events.onAnswer(message);
  return { clock, link, runner, answer };
}

describe("a runner's client", () => {
  it("answers a small query with one frame each way", async () => {
    const { link, runner, answer } = scripted();
    const running = runner.run(statement("SELECT 1"), OPTIONS);
    const [id, op] = link.last;
    expect(op).toBe(Op.Run);
    answer(id, Kind.Started, 0, ["1"], [null], encodeVector([1n]), 1, [0, 0, 0n]);
    const stream = await running;
    expect(runner.clean).toBe(true);
    expect(await stream.next()).toMatchObject({ count: 1 });
    expect(await stream.next()).toBeUndefined();
    expect(stream.summary()).toEqual({ changes: 0, totalChanges: 0, lastInsertRowid: 0n });
    await stream.close();
    expect(link.requests.length).toBe(1);
  });

  it("asks a statement to stop when its time is up, and kills what does not", async () => {
    for (const stops of [true, false]) {
      const { clock, link, runner, answer } = scripted();
      const code = codeOf(runner.run(statement("SELECT"), { ...OPTIONS, timeoutMs: 500 }));
      await clock.turn(499);
      expect(link.requests.length).toBe(1);
      await clock.turn(1);
      expect(link.last[1]).toBe(Op.Close);
      expect(link.killed).toBe(false);
      if (stops) answer(link.last[0], Kind.Ok, 0, null);
      await clock.turn(30);
      expect(await code).toBe("OSTRAKA_TIMEOUT");
      expect(link.killed).toBe(!stops);
      expect(runner.dead).toBe(!stops);
      await clock.turn(1000);
      expect(link.killed).toBe(!stops);
    }
  });

  it("rejects whatever the reader waits for when a signal stops the statement", async () => {
    const { clock, link, runner, answer } = scripted();
    const abort = new AbortController();
    const running = runner.run(statement("SELECT"), { ...OPTIONS, signal: abort.signal });
    const run = link.last;
    answer(run[0], Kind.Started, 0, ["a"], [null], encodeVector([1n]), 1, null);
    const stream = await running;
    await stream.next();
    const pull = link.last;
    expect(pull).toEqual([pull[0], Op.Pull, run[0]]);
    const waiting = codeOf(stream.next());
    abort.abort();
    expect(link.last).toEqual([link.last[0], Op.Close, run[0]]);
    answer(pull[0], Kind.Error, 0, toWireError(new UserError("SQLITE_INTERRUPT", "interrupted")));
    answer(link.last[0], Kind.Ok, 0, null);
    expect(await waiting).toBe("SQLITE_INTERRUPT");
    expect(await codeOf(stream.next())).toBe("SQLITE_INTERRUPT");
    await clock.turn(1000);
    expect(runner.dead).toBe(false);
    expect(runner.clean).toBe(true);
  });

  it("watches memory only while the statement runs, and only long ones", async () => {
    const { clock, link, runner, answer } = scripted();
    link.memory = 2000;
    const stream = await (async () => {
      const running = runner.run(statement("SELECT"), OPTIONS);
      await clock.turn(49);
      answer(link.last[0], Kind.Started, 0, ["a"], [null], encodeVector([1n]), 1, null);
      return running;
    })();
    answer(link.last[0], Kind.Finished, 0);
    await clock.turn(10_000);
    expect(link.killed).toBe(false);
    await codeOf(Promise.race([stream.close(), Promise.reject(new UserError("done", ""))]));
    const code = codeOf(runner.run(statement("SELECT"), OPTIONS));
    link.memory = 1000;
    await clock.turn(500);
    expect(link.killed).toBe(false);
    link.memory = 1001;
    await clock.turn(10);
    expect(link.killed).toBe(true);
    expect(await code).toBe("OSTRAKA_TOO_LARGE");
    expect(runner.dead).toBe(true);
  });

  it("settles everything when the runner dies", async () => {
    const { link, runner } = scripted();
    const codes = [runner.run(statement("SELECT"), OPTIONS), runner.unpin(), runner.captured()].map(codeOf);
    link.events.onDeath();
    codes.push(codeOf(runner.pin("x")), codeOf(runner.run(statement("SELECT"), OPTIONS)));
    expect(await Promise.all(codes)).toEqual(new Array(5).fill("OSTRAKA_UNAVAILABLE"));
  });
});

describe("frames", () => {
  it("are cut from a stream however it arrives", () => {
    const messages: Request[] = [
      [1, Op.Pin, "/tmp/ä"],
      [2, Op.Run, ["SELECT ?", encodeVector([1n, 2.5]), 0, 1.5e12, 2 ** 52, -1n, 1e9, []]],
      [3, Op.Pull, 2],
    ];
    const bytes = Buffer.concat(messages.map((message) => encodeFrame(message)));
    for (const size of [1, 3, 7, 64, bytes.length]) {
      const got: Request[] = [];
      const reader = new FrameReader<Request>((message) => got.push(message));
      for (let at = 0; at < bytes.length; at += size) reader.push(Buffer.from(bytes.subarray(at, at + size)));
      expect(
        got.map((message) => JSON.stringify(message, (_, v) => (typeof v === "bigint" ? `${v}n` : v))),
      ).toHaveLength(3);
      expect(got[0]).toEqual(messages[0]);
      expect(got[2]).toEqual(messages[2]);
      const run = got[1]?.[2] as unknown as unknown[];
      expect([...(run[1] as Uint8Array)]).toEqual([...encodeVector([1n, 2.5])]);
      expect(run.slice(2, 7).map(Number)).toEqual([0, 1.5e12, 2 ** 52, -1, 1e9]);
    }
  });

  it("carry row changes exactly, up to a bound", () => {
    const changes: RowChange[] = [
      { table: "t", key: [1n], row: undefined },
      { table: "ü", key: ["a", null], row: [1n, 1, "x", new Uint8Array([1]), null] },
      { table: "empty", key: [2n], row: [] },
    ];
    const tooLarge = (): Error => new Error("too large");
    expect(decodeChanges(encodeChanges(changes, 1000, tooLarge))).toEqual(changes);
    expect(() => encodeChanges(changes, 10, tooLarge)).toThrow("too large");
  });
});

describe("what is to be loaded", () => {
  it("travels exactly", () => {
    const loads: ScratchLoad[] = [
      {
        table: "t",
        slice: { low: undefined, high: undefined, lowAfter: false, highAfter: false },
        where: undefined,
        last: true,
      },
      {
        table: "ü",
        slice: { low: [1n, "a"], high: [-9223372036854775808n], lowAfter: true, highAfter: false },
        last: false,
        where: {
          sql: "a = ?",
          params: [1, null, new Uint8Array([0])],
          alias: "x",
          flags: 8,
          stamp: { wallMs: 1.5e12, seed: 2 ** 52, lastInsertRowid: -1n },
        },
      },
      {
        table: "v",
        slice: { low: [""], high: undefined, lowAfter: false, highAfter: true },
        last: false,
        where: { sql: "1", params: [], alias: undefined, flags: 0, stamp: undefined },
      },
    ];
    const seen: Request[] = [];
    const reader = new FrameReader<Request>((request) => seen.push(request));
    reader.push(encodeFrame([1, Op.Load, loadsOf(3, ...loads).map(toWireLoad), 1000]));
    expect((seen[0]![2] as Parameters<typeof fromWireLoad>[0][]).map(fromWireLoad)).toEqual(
      loadsOf(3, ...loads),
    );
  });
});

describe("the spool", () => {
  it("keeps the order of rows through memory and file, and empties both", () => {
    const spool = new Spool(100);
    const chunk = (n: number, bytes: number) => ({ rows: new Uint8Array(bytes).fill(n), count: n });
    let together = 0;
    let seed = 12345;
    const random = (below: number): number => {
      seed = (seed * 1103515245 + 12345) % 2147483648;
      return seed % below;
    };
    let pushed = 0;
    let taken = 0;
    for (let i = 0; i < 5000; i++) {
      if (random(100) < (i < 2500 ? 60 : 40)) spool.push(chunk(++pushed % 251, 1 + random(60)));
      else {
        const got = spool.shift();
        if (taken === pushed) expect(got).toBeUndefined();
        else {
          const found = [...new Set(got!.rows)];
          expect(found).toEqual(found.map(() => ++taken % 251));
          expect(got!.count).toBe(found.reduce((sum, n) => sum + n));
          if (found.length > 1) together++;
        }
      }
      expect(spool.empty).toBe(taken === pushed);
    }
    expect(pushed).toBeGreaterThan(1000);
    expect(together).toBeGreaterThan(10);
    spool.close();
    expect(spool.shift()).toBeUndefined();
  });

  it("answers small chunks together, and large ones each", () => {
    const spool = new Spool(1 << 20);
    const sizes = [10, 20, 65_000, 30_000, 30_000, 5_000, 100_000, 1];
    for (const bytes of sizes) spool.push({ rows: new Uint8Array(bytes), count: 1 });
    const got: [number, number][] = [];
    for (let chunk = spool.shift(); chunk !== undefined; chunk = spool.shift())
      got.push([chunk.rows.length, chunk.count]);
    expect(got).toEqual([
      [65_030, 3],
      [65_000, 3],
      [100_000, 1],
      [1, 1],
    ]);
    spool.close();
  });
});

describe("in-process runners", () => {
  let folder: string;
  let path: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "ostraka-in-process-"));
    path = join(folder, "replica.db");
    const writer = new Database(path);
    writer.pragma("journal_mode = WAL");
    writer.exec(
      "CREATE TABLE _ostraka_state(applied_index INTEGER); INSERT INTO _ostraka_state VALUES (5); CREATE TABLE t(a); INSERT INTO t VALUES (1)",
    );
    writer.close();
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("run the same code under the world's clock, in the same order every time", async () => {
    const trace = async (): Promise<string[]> => {
      const clock = new TurnedClock();
      const pool = createInProcessRunnerPool({ clock, size: 1 });
      const seen: string[] = [];
      const runner = await pool.acquire();
      seen.push(`pinned ${await clock.settle(runner.pin(path))} at ${clock.monotonicMs()}`);
      const endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c";
      const stream = await clock.settle(runner.run(statement(`${endless} LIMIT 30000`), OPTIONS));
      let rows = 0;
      for (
        let c = await clock.settle(stream.next());
        c !== undefined;
        c = await clock.settle(stream.next())
      ) {
        expect(decodeRows(c.rows).length).toBe(c.count);
        rows += c.count;
        seen.push(`${rows} at ${clock.monotonicMs()}`);
      }
      const forever = await clock.settle(runner.run(statement(endless), { ...OPTIONS, timeoutMs: 20 }));
      await clock.settle(forever.next());
      await clock.turn(20);
      seen.push(await codeOf(clock.settle(forever.next())), String(runner.dead));
      const waiting = pool.acquire();
      await clock.settle(runner.unpin());
      pool.release(runner);
      expect(await waiting).toBe(runner);
      runner.kill();
      seen.push(await codeOf(runner.pin(path)), String(pool.pinned(path).length));
      await pool.close();
      return seen;
    };
    const first = await trace();
    expect(first[0]).toContain("pinned 5");
    expect(first).toContain("OSTRAKA_TIMEOUT");
    expect(first.slice(-2)).toEqual(["OSTRAKA_UNAVAILABLE", "0"]);
    expect(await trace()).toEqual(first);
  }, 60_000);

  it("end when nobody has needed them for a minute or two, but for one and those in use", async () => {
    const clock = new TurnedClock();
    const pool = createInProcessRunnerPool({ clock, size: 8 });
    const runners = await Promise.all(Array.from({ length: 5 }, () => pool.acquire()));
    const alive = (): number => runners.filter(({ dead }) => !dead).length;
    for (const runner of runners) pool.release(runner);
    await clock.turn(30_000);
    const needed = await Promise.all([pool.acquire(), pool.acquire()]);
    for (const runner of needed) pool.release(runner);
    await clock.turn(29_000);
    expect(alive()).toBe(5);
    await clock.turn(2_000);
    expect(alive()).toBe(3);
    expect(needed.filter(({ dead }) => dead)).toEqual([]);
    const used = await pool.acquire();
    await clock.turn(120_000);
    expect(alive()).toBe(2);
    pool.release(used);
    await clock.turn(120_000);
    expect(alive()).toBe(1);
    expect(used.dead).toBe(false);
    await pool.close();
  });

  it("assemble a scratch database", async () => {
    const clock = new TurnedClock();
    const pool = createInProcessRunnerPool({ clock, size: 1 });
    const runner = await pool.acquire();
    const schema = { version: 1, statements: ["CREATE TABLE t(a)"], appliedIndex: logIndex(5), tables: [] };
    const slice = { low: undefined, high: undefined };
    const rows = async (
      sql: string,
      systemTables: RunOptions["systemTables"] = [],
    ): Promise<SqlValue[][]> => {
      const stream = await clock.settle(runner.run(statement(sql), { ...OPTIONS, systemTables }));
      const chunk = await clock.settle(stream.next());
      await clock.settle(stream.close());
      return chunk === undefined ? [] : decodeRows(chunk.rows);
    };
    // Sent without waiting: answered in order.
    const opened = runner.openScratch(schema);
    const added = runner.addSource(path);
    const loaded = runner.load(loadsOf(0, { table: "t", slice }), 1 << 20);
    expect(await clock.settle(loaded)).toEqual({ rows: 1 });
    await opened;
    expect(await added).toEqual({ source: 0, appliedIndex: 5 });
    expect(pool.pinned(path)).toEqual([runner]);
    const told = [{ name: "ostraka_ranges", columns: ["range"], rows: [[3n]] }];
    expect(await rows("INSERT INTO t SELECT range FROM ostraka_ranges RETURNING a", told)).toEqual([[3n]]);
    expect(await rows("SELECT a FROM t ORDER BY rowid")).toEqual([[1n], [3n]]);
    expect(await clock.settle(runner.captured())).toEqual([{ table: "t", key: [2n], row: [3n] }]);
    const stream = await clock.settle(runner.scan(loadsOf(0, { table: "t", slice }), OPTIONS));
    const chunk = (await clock.settle(stream.next()))!;
    expect(decodeRows(chunk.rows)).toEqual([[1n, 1n]]);
    expect(await clock.settle(runner.fill("t", chunk.rows, 1 << 20))).toEqual({ rows: 0 });
    await clock.settle(runner.closeCopy("commit"));
    await clock.settle(runner.dropSources());
    expect(pool.pinned(path)).toEqual([]);
    pool.release(runner);
    expect(runner.dead).toBe(false);
    await pool.close();
  }, 60_000);
});

/** How streams, turns and transactions end when something else ends them, over the real wire, against plain SQLite. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { RetryError } from "../../src/base/errors.js";
import { connect, type Database, type Session } from "../../src/driver/index.js";
import { type LocalServer, startLocalServer } from "./local-gateway.js";

let server: LocalServer;
let db: Database;

beforeEach(async () => {
  server = await startLocalServer();
  db = await connect(server.url, { timeoutMs: 10_000 });
});

afterEach(async () => {
  await db.close();
  await server.close();
});

const MANY =
  "with recursive c(n) as (select 1 union all select n + 1 from c limit 100000) select n, hex(zeroblob(500)) from c";

async function count(rows: AsyncIterable<unknown>, each: (n: number) => Promise<void>): Promise<number> {
  let n = 0;
  for await (const _ of rows) await each(++n);
  return n;
}

/** Statements wait at the server until the answer is called. */
function holdStatements(): () => void {
  let release!: () => void;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  server.gateway.interference = { before: () => held };
  return () => {
    server.gateway.interference = {};
    release();
  };
}

describe("a stream that others end", () => {
  let session: Session;

  beforeEach(async () => {
    session = await db.session();
  });

  it("is an error and not the end of the rows when its session closes", async () => {
    const counted = count(session.iterate(MANY), async (n) => {
      if (n === 100) await session.close();
    });
    await expect(counted).rejects.toMatchObject({ code: "OSTRAKA_CLOSED" });
    const tx = await db.begin();
    const inside = count(tx.iterate(MANY), async (n) => {
      if (n === 100) await tx.rollback();
    });
    await expect(inside).rejects.toMatchObject({ code: "OSTRAKA_CLOSED" });
    await expect.poll(() => server.gateway.openStreams).toBe(0);
  });

  it("answers whoever waits for its next row when it is returned or its session closes", async () => {
    /** The last of more calls than there are rows here yet; in an array, as a promise of a promise is one. */
    const waitForMore = async (rows: AsyncIterableIterator<unknown>): Promise<[Promise<unknown>]> => {
      const waiting = Array.from({ length: 20_000 }, () => rows.next().catch((error: unknown) => error));
      await waiting[0];
      // What has arrived is taken; the next row has to come from the node.
      await new Promise((resolve) => setImmediate(resolve));
      return [waiting.at(-1)!];
    };
    const returned = session.iterate(MANY);
    const [last] = await waitForMore(returned);
    await returned.return();
    expect(await last).toEqual({ done: true, value: undefined });
    const [closed] = await waitForMore(session.iterate(MANY));
    await session.close();
    expect(await closed).toMatchObject({ done: true });
  });
});

describe("rows that nobody wants before they have begun to come", () => {
  it.each(["the pool", "a session"])("are stopped at the node: of %s", async (where) => {
    const session = await db.session();
    let stopped = 0;
    server.gateway.interference = {
      before: ({ signal }) =>
        new Promise<void>((resolve) =>
          signal?.addEventListener("abort", () => {
            stopped++;
            resolve();
          }),
        ),
    };
    const rows = (where === "the pool" ? db : session).iterate(MANY);
    const next = rows.next();
    await expect.poll(() => server.gateway.sessions.size).toBe(1);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await rows.return();
    expect(await next).toEqual({ done: true, value: undefined });
    await expect.poll(() => stopped).toBe(1);
    server.gateway.interference = {};
    expect((await session.execute("select 1 as a")).rows[0]!.a).toBe(1);
    expect((await rows.next()).done).toBe(true);
    await session.close();
  });
});

describe("a call that runs when its session closes", () => {
  it("is stopped at the node", async () => {
    const session = await db.session();
    let arrived = false;
    server.gateway.interference = {
      before: ({ signal }) => {
        arrived = true;
        return new Promise<void>((resolve) => signal?.addEventListener("abort", () => resolve()));
      },
    };
    const slow = session.execute("insert into nowhere values (1)");
    await expect.poll(() => arrived).toBe(true);
    await session.close();
    await expect(slow).rejects.toMatchObject({ code: "OSTRAKA_CLOSED" });
  });
});

describe("a call that waits for its session", () => {
  it("ends at its deadline, and is not run afterwards", async () => {
    await db.exec("create table t (n)");
    const session = await db.session();
    const release = holdStatements();
    const slow = session.execute("insert into t values (1)");
    const started = performance.now();
    const late = session.execute("insert into t values (2)", [], { timeoutMs: 100 });
    await expect(late).rejects.toMatchObject({ code: "OSTRAKA_TIMEOUT" });
    expect(performance.now() - started).toBeLessThan(3000);
    release();
    await slow;
    await session.execute("insert into t values (3)");
    const { rows } = await db.execute("select group_concat(n) from t");
    expect(rows[0]![0]).toBe("1,3");
    await session.close();
  });
});

describe("a transaction in which a statement is stopped", () => {
  beforeEach(() => db.exec("create table t (n)"));

  it.each(["a session", "db.begin()"])("goes on when it was one of many rows: in %s", async (where) => {
    const session = await db.session();
    if (where === "a session") await session.execute("begin");
    const tx = where === "a session" ? session : await db.begin();
    await tx.execute("insert into t values (1)");
    const stop = new AbortController();
    const many = tx.execute(MANY, [], { signal: stop.signal });
    await expect.poll(() => server.gateway.streamedRows).toBeGreaterThan(0);
    stop.abort(new Error("enough"));
    await expect(many).rejects.toThrow("enough");
    await tx.execute("insert into t values (2)");
    if ("commit" in tx) await tx.commit();
    else await session.execute("commit");
    expect((await db.execute("select group_concat(n) from t")).rows[0]![0]).toBe("1,2");
    await session.close();
  });

  it("is lost, and nothing follows outside of it, when the node ended it with an error", async () => {
    const session = await db.session();
    await session.execute("create temp table mine (n)");
    await session.execute("begin");
    await session.execute("insert into t values (1)");
    server.gateway.interference = {
      before: () => {
        for (const open of server.gateway.sessions) open.rollBack();
        throw new RetryError("OSTRAKA_TIMEOUT", "interrupted");
      },
    };
    await expect(session.execute("update t set n = 0")).rejects.toMatchObject({ code: "OSTRAKA_TIMEOUT" });
    server.gateway.interference = {};
    const retry = { code: "OSTRAKA_RETRY" };
    expect(session.state).toBe("failed");
    await expect(session.execute("insert into t values (2)")).rejects.toMatchObject(retry);
    await expect(session.execute("commit")).rejects.toMatchObject(retry);
    await session.execute("rollback");
    // Its session there went with it, and that is told once.
    const lost = { code: "OSTRAKA_UNAVAILABLE" };
    await expect(session.execute("insert into t values (3)")).rejects.toMatchObject(lost);
    await session.execute("insert into t values (4)");
    expect((await db.execute("select group_concat(n) from t")).rows[0]![0]).toBe("4");
    await session.close();
  });
});

describe("a transaction that a statement ended", () => {
  beforeEach(() => db.exec("create table t (n unique); insert into t values (1)"));

  it("takes nothing more: what follows would be kept", async () => {
    const tx = await db.begin();
    await tx.execute("insert into t values (2)");
    const failing = tx.execute("insert or rollback into t values (1)");
    const behind = tx.execute("insert into t values (3)");
    await expect(failing).rejects.toMatchObject({ code: "SQLITE_CONSTRAINT_UNIQUE" });
    await expect(behind).rejects.toMatchObject({ code: "OSTRAKA_CLOSED" });
    expect(tx.closed).toBe(true);
    await expect(tx.execute("insert into t values (4)")).rejects.toMatchObject({ code: "OSTRAKA_CLOSED" });
    await expect(tx.batch(["insert into t values (5)"])).rejects.toMatchObject({ code: "OSTRAKA_CLOSED" });
    await expect(tx.commit()).rejects.toMatchObject({ code: "OSTRAKA_CLOSED" });
    await tx.rollback();
    expect((await db.execute("select n from t")).rows.map((row) => row.n)).toEqual([1]);
  });

  it("is no success of db.transaction", async () => {
    const run = db.transaction(async (tx) => {
      await tx.execute("insert or rollback into t values (1)").catch(() => undefined);
    });
    await expect(run).rejects.toMatchObject({ code: "OSTRAKA_CLOSED" });
  });
});

it("knows ROLLBACK TO from ROLLBACK behind comments and quoted names", async () => {
  const tx = await db.begin();
  await tx.execute("savepoint a");
  await tx.execute("-- back\n rollback /* only */ to a");
  await tx.execute('rollback transaction "some name" to savepoint a');
  await expect(tx.execute("/* all */ rollback")).rejects.toMatchObject({ code: "OSTRAKA_UNSUPPORTED" });
  await tx.commit();
});

it("waits for a session where a connection has as many as it may", async () => {
  const small = await startLocalServer({ limits: { maxSessions: 2 } });
  const other = await connect(small.url, { timeoutMs: 5000 });
  const sessions = [await other.session(), await other.session(), await other.session()];
  await Promise.all(sessions.slice(0, 2).map((session) => session.execute("select 1")));
  const full = { code: "OSTRAKA_UNAVAILABLE" };
  const third = sessions[2]!;
  await expect(third.execute("select 1", [], { timeoutMs: 100 })).rejects.toMatchObject(full);
  await expect(third.execute("create temp table mine (n)")).rejects.toMatchObject(full);
  const waiting = other.begin();
  await new Promise((resolve) => setTimeout(resolve, 50));
  await sessions[0]!.close();
  await (await waiting).rollback();
  await third.execute("create temp table mine (n)");
  for (const session of sessions) await session.close();
  await other.close();
  await small.close();
});

describe("sizes", () => {
  it("counts bytes, and those of a batch together, before anything is sent", async () => {
    const sent = server.gateway.keys.length;
    const long = "日".repeat(6_000_000);
    await expect(db.execute(`select '${long}'`)).rejects.toMatchObject({ code: "OSTRAKA_TOO_LARGE" });
    const item = { sql: "select length(?)", args: ["x".repeat(15_000_000)] };
    await expect(db.batch([item, item, item])).rejects.toMatchObject({ code: "OSTRAKA_TOO_LARGE" });
    const named = { sql: "select length(:a)", args: { a: "x".repeat(15_000_000) } };
    const session = await db.session();
    await expect(session.batch([named, named, named])).rejects.toMatchObject({ code: "OSTRAKA_TOO_LARGE" });
    expect((await db.batch([item, item]))[1]!.rows[0]![0]).toBe(15_000_000);
    expect(server.gateway.keys.length).toBe(sent);
    await session.close();
  });
});

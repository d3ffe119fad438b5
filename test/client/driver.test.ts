/** The driver's promises, over the real wire, against a gateway on plain SQLite. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { connect, type Database, OstrakaError } from "../../src/driver/index.js";
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

async function codeOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(OstrakaError);
  return (error as OstrakaError).code;
}

describe("execute", () => {
  it("answers rows by position and by name", async () => {
    await db.exec("create table t (id integer primary key, name text, n)");
    const inserted = await db.execute("insert into t (name, n) values (?, ?)", ["a", 1.5]);
    expect(inserted.rowsAffected).toBe(1);
    expect(inserted.lastInsertRowid).toBe(1n);
    const rs = await db.execute("select id, name, n + 1 as m from t");
    expect(rs.columns).toEqual(["id", "name", "m"]);
    expect(rs.columnTypes).toEqual(["INTEGER", "TEXT", null]);
    const row = rs.rows[0]!;
    expect([row[0], row[1], row[2], row.length]).toEqual([1, "a", 2.5, 3]);
    expect({ ...row }).toEqual({ id: 1, name: "a", m: 2.5 });
    expect([...row]).toEqual([1, "a", 2.5]);
    expect(Array.from(row)).toEqual([1, "a", 2.5]);
    expect(JSON.stringify(row)).toBe('{"id":1,"name":"a","m":2.5}');
    expect(rs.rowsAffected).toBe(0);
    expect(rs.lastInsertRowid).toBeUndefined();
  });

  it("keeps positions where names collide", async () => {
    const row = (await db.execute("select 1, 2, 2, 5 as length, 6 as a, 7 as a")).rows[0]!;
    expect([...row]).toEqual([1, 2, 2, 5, 6, 7]);
    expect(row[1]).toBe(2);
    expect(row.length).toBe(6);
    expect(row.a).toBe(6);
  });

  it("binds by position and by name, with and without prefix", async () => {
    expect([...(await db.execute("select ?, ?", [1, "x"])).rows[0]!]).toEqual([1, "x"]);
    expect([
      ...(await db.execute({ sql: "select :a, @b, $c", args: { a: 1, "@b": 2, $c: 3 } })).rows[0]!,
    ]).toEqual([1, 2, 3]);
  });

  it("keeps every storage class", async () => {
    const values = [null, 1, 1.5, "text", new Uint8Array([1, 2]), 1n, true, false, new Date(0), -0.5];
    const types = values.map(() => "typeof(?)").join(", ");
    expect([...(await db.execute(`select ${types}`, values)).rows[0]!]).toEqual([
      "null",
      "integer",
      "real",
      "text",
      "blob",
      "integer",
      "integer",
      "integer",
      "text",
      "real",
    ]);
    const back = (await db.execute("select ?, ?, ?", [new Date(0), true, new Uint8Array([7]).buffer]))
      .rows[0]!;
    expect(back[0]).toBe("1970-01-01T00:00:00.000Z");
    expect(back[1]).toBe(1);
    expect(back[2]).toEqual(new Uint8Array([7]));
  });

  it.each([[undefined], [Symbol("s")], [() => 1], [{}], [new Map()], [[1]]])(
    "refuses to bind %o",
    async (value) => {
      await expect(db.execute("select ?, ?", [1, value as never])).rejects.toThrow(/^parameter 2: /);
      await expect(db.execute("select :who", { who: value as never })).rejects.toThrow(TypeError);
    },
  );

  it("refuses integers that a number cannot hold, unless told otherwise", async () => {
    const sql = "select 9007199254740993 as big";
    await expect(db.execute(sql)).rejects.toThrow(/column "big"/);
    for (const [intMode, expected] of [
      ["bigint", 9007199254740993n],
      ["string", "9007199254740993"],
    ] as const) {
      const other = await connect(server.url, { intMode });
      expect((await other.execute(sql)).rows[0]!.big).toBe(expected);
      await other.close();
    }
  });

  it("carries SQLite's own codes and messages", async () => {
    await db.exec("create table t (id integer primary key)");
    await db.execute("insert into t values (1)");
    const error = await db.execute("insert into t values (1)").catch((e: unknown) => e);
    expect(error).toMatchObject({
      name: "OstrakaError",
      code: "SQLITE_CONSTRAINT_PRIMARYKEY",
      message: "UNIQUE constraint failed: t.id",
    });
    expect(await codeOf(db.execute("selec"))).toBe("SQLITE_ERROR");
    expect(await codeOf(db.execute("select 1; select 2"))).toBe("SQLITE_ERROR");
  });

  it.each(["BEGIN", "commit", "/* x */ Savepoint a", "-- c\nrollback"])(
    "refuses %s on the pool",
    async (sql) => {
      await expect(db.execute(sql)).rejects.toThrow(/db\.begin\(\)/);
    },
  );

  it("refuses statements that are too large before sending them", async () => {
    expect(await codeOf(db.execute("select ?", [new Uint8Array(17 * 1024 * 1024)]))).toBe(
      "OSTRAKA_TOO_LARGE",
    );
    const back = await db.execute("select length(?) as n", [new Uint8Array(15 * 1024 * 1024)]);
    expect(back.rows[0]!.n).toBe(15 * 1024 * 1024);
  });

  it("gathers results of many chunks", async () => {
    const sql =
      "with recursive c(n) as (select 1 union all select n + 1 from c where n < 50000) select n, 'x' || n from c";
    const { rows } = await db.execute(sql);
    expect(rows.length).toBe(50_000);
    expect([...rows[49_999]!]).toEqual([50_000, "x50000"]);
  });
});

describe("batch, exec, prepare", () => {
  it("applies a batch all or nothing", async () => {
    await db.exec("create table t (id integer primary key); create table u (x)");
    const results = await db.batch([
      "insert into t values (1)",
      { sql: "insert into t values (?)", args: [2] },
      "select count(*) as n from t",
    ]);
    expect(results.map((r) => r.rowsAffected)).toEqual([1, 1, 0]);
    expect(results[2]!.rows[0]!.n).toBe(2);
    expect(await codeOf(db.batch(["insert into t values (3)", "insert into t values (1)"]))).toMatch(
      /^SQLITE_CONS/,
    );
    expect((await db.execute("select count(*) from t")).rows[0]![0]).toBe(2);
    expect(await db.batch([])).toEqual([]);
  });

  it("runs scripts, triggers and transactions included", async () => {
    const { statements } = await db.exec(`
      create table t (a); create table log (a);
      create trigger tr after insert on t begin insert into log values (new.a); select 1; end;
      begin; insert into t values (1); insert into t values (2); commit;
    `);
    expect(statements).toBe(7);
    expect((await db.execute("select count(*) from log")).rows[0]![0]).toBe(2);
    await expect(db.exec("insert into t values (3); nonsense; insert into t values (4)")).rejects.toThrow();
    expect((await db.execute("select max(a) from t")).rows[0]![0]).toBe(3);
  });

  it("refuses a script that leaves its transaction open, and rolls it back", async () => {
    await db.exec("create table t (a)");
    for (const begin of ["begin", "begin immediate", "savepoint s"]) {
      const left = db.exec(`${begin}; insert into t values (1)`);
      await expect(left).rejects.toMatchObject({
        code: "OSTRAKA_UNSUPPORTED",
        message: expect.stringMatching(/COMMIT.*db\.begin\(\).*db\.transaction\(\).*db\.session\(\)/),
      });
    }
    expect(await codeOf(db.exec("begin; insert into t values (1); savepoint s; rollback to s"))).toBe(
      "OSTRAKA_UNSUPPORTED",
    );
    await expect.poll(() => server.gateway.sessions.size).toBe(1);
    await db.exec(
      "savepoint s; insert into t values (2); release s; begin; insert into t values (3); commit",
    );
    await db.exec("begin; insert into t values (4); rollback");
    expect((await db.execute("select group_concat(a) as a from t")).rows[0]!.a).toBe("2,3");
    const s = await db.session();
    await s.exec("begin; insert into t values (5)");
    await s.exec("commit");
    await s.close();
    expect((await db.execute("select max(a) from t")).rows[0]![0]).toBe(5);
  });

  it("says what batch and transaction take", async () => {
    const [text, none] = ["select 1", undefined] as unknown as [never[], never[]];
    const s = await db.session();
    for (const executor of [db, s]) {
      await expect(executor.batch(text)).rejects.toThrow(TypeError);
      await expect(executor.batch(none)).rejects.toThrow("batch takes an array of statements");
    }
    await s.close();
    const work = db.transaction("select 1" as unknown as () => Promise<void>);
    await expect(work).rejects.toThrow(TypeError);
    await expect(work).rejects.toThrow("transaction takes a function");
    expect(server.gateway.transactions).toBe(0);
  });

  it("prepares statements", async () => {
    await db.exec("create table t (id integer primary key, name text)");
    const insert = db.prepare("insert into t (name) values (?)");
    expect(await insert.run("a")).toEqual({ changes: 1, lastInsertRowid: 1n });
    expect(await insert.run(["b"])).toEqual({ changes: 1, lastInsertRowid: 2n });
    const get = db.prepare("select name from t where id = :id");
    expect((await get.get({ id: 2 }))?.name).toBe("b");
    expect(await get.get({ id: 9 })).toBeUndefined();
    expect((await db.prepare("select * from t order by id").all()).map((r) => r.name)).toEqual(["a", "b"]);
    const names: unknown[] = [];
    for await (const row of db.prepare("select name from t where id >= ?").iterate(1)) names.push(row.name);
    expect(names).toEqual(["a", "b"]);
  });
});

describe("iterate", () => {
  const endless =
    "with recursive c(n) as (select 1 union all select n + 1 from c) select n, hex(zeroblob(500)) from c";

  it("streams in bounded memory and frees the query on break", async () => {
    let seen = 0;
    for await (const row of db.iterate(endless)) {
      seen = row[0] as number;
      if (seen === 1000) break;
    }
    expect(seen).toBe(1000);
    // About 65 rows a chunk: nothing beyond the credits was produced.
    expect(server.gateway.streamedRows).toBeLessThan(2000);
    await expect.poll(() => server.gateway.openStreams).toBe(0);
  });

  it("reports head and errors", async () => {
    const rows = db.iterate("select 1 as a, 'x' as b");
    expect(await rows.head()).toEqual({ columns: ["a", "b"], columnTypes: [null, null] });
    expect([...(await rows.next()).value]).toEqual([1, "x"]);
    expect((await rows.next()).done).toBe(true);
    await expect(db.iterate("select * from missing").next()).rejects.toThrow(/no such table/);
    const late = db.iterate(
      "with recursive c(n) as (select 1 union all select n + 1 from c limit 40000) select case n when 30000 then abs(-9223372036854775807 - (n - 29999)) else n end from c",
    );
    await expect(
      (async () => {
        for await (const _ of late);
      })(),
    ).rejects.toThrow(/overflow/);
  });

  it("stops on abort, on timeouts of the server, and when the database closes", async () => {
    const abort = new AbortController();
    const rows = db.iterate(endless, [], { signal: abort.signal });
    await rows.next();
    abort.abort(new Error("enough"));
    await expect(
      (async () => {
        for await (const _ of rows);
      })(),
    ).rejects.toThrow("enough");
    await expect.poll(() => server.gateway.openStreams).toBe(0);
    const other = await connect(server.url);
    const open = other.iterate(endless);
    await open.next();
    await other.close();
    await expect(
      (async () => {
        for await (const _ of open);
      })(),
    ).rejects.toMatchObject({ code: "OSTRAKA_CLOSED" });
    await expect.poll(() => server.gateway.openStreams).toBe(0);
  });

  it("refuses timeouts that are no positive numbers", async () => {
    for (const timeoutMs of [0, -1, Number.NaN, "5" as unknown as number])
      await expect(db.execute("select 1", [], { timeoutMs })).rejects.toThrow(TypeError);
  });

  it("lets a session run a statement inside its own loop", async () => {
    await db.exec("create table t (n); create table u (n)");
    await db.execute(
      "insert into t with recursive c(n) as (select 1 union all select n + 1 from c where n < 20000) select n from c",
    );
    const tx = await db.begin();
    let count = 0;
    for await (const row of tx.iterate("select n from t order by n")) {
      count++;
      if ((row.n as number) % 5000 === 0) await tx.execute("insert into u values (?)", [row.n!]);
    }
    await tx.commit();
    expect(count).toBe(20_000);
    expect((await db.execute("select count(*) from u")).rows[0]![0]).toBe(4);
  });
});

describe("transactions and sessions", () => {
  beforeEach(() =>
    db.exec("create table t (id integer primary key, n integer); insert into t values (1, 0)"),
  );

  it("commits, rolls back, and says when it is over", async () => {
    const tx = await db.begin("write");
    expect(tx.id).toBe("local-1");
    await tx.execute("update t set n = 5");
    expect((await db.execute("select n from t")).rows[0]!.n).toBe(0);
    await tx.commit();
    expect((await db.execute("select n from t")).rows[0]!.n).toBe(5);
    expect(tx.closed).toBe(true);
    expect(await codeOf(tx.execute("select 1"))).toBe("OSTRAKA_CLOSED");
    await tx.rollback();
    expect(await db.outcome("local-1")).toBe("committed");
    const second = await db.begin();
    await second.execute("update t set n = 6");
    await second.rollback();
    expect((await db.execute("select n from t")).rows[0]!.n).toBe(5);
    const read = await db.begin("read");
    expect(read.id).toBeUndefined();
    expect(await codeOf(read.execute("update t set n = 7"))).toBe("SQLITE_READONLY");
    await read.rollback();
    await expect.poll(() => server.gateway.sessions.size).toBe(1);
  });

  it("commits nothing after the deadline that a transaction was given", async () => {
    const late = db.transaction(
      async (tx) => {
        await tx.execute("update t set n = 8");
        await new Promise((resolve) => setTimeout(resolve, 300));
      },
      { timeoutMs: 200 },
    );
    expect(await codeOf(late)).toBe("OSTRAKA_TIMEOUT");
    expect((await db.execute("select n from t")).rows[0]!.n).toBe(0);
  });

  it("names what ends a transaction", async () => {
    const tx = await db.begin();
    await expect(tx.execute("commit")).rejects.toThrow(/tx\.commit/);
    await expect(tx.execute("begin")).rejects.toThrow(/SAVEPOINT/);
    await tx.execute("savepoint a");
    await tx.execute("rollback to a");
    await tx.rollback();
  });

  it("runs a lost transaction again, telling its age", async () => {
    await Promise.all(
      Array.from({ length: 8 }, () =>
        db.transaction(async (tx) => {
          const n = (await tx.execute("select n from t where id = 1")).rows[0]!.n as number;
          await tx.execute("update t set n = ? where id = 1", [n + 1]);
        }),
      ),
    );
    expect((await db.execute("select n from t")).rows[0]!.n).toBe(8);
    expect(server.gateway.retries.length).toBeGreaterThan(0);
    expect(server.gateway.retries[0]).toMatchObject({
      attempt: expect.any(Number),
      ageMs: expect.any(Number),
    });
  });

  it("rolls back when the function throws, once", async () => {
    let runs = 0;
    await expect(
      db.transaction(async (tx) => {
        runs++;
        await tx.execute("update t set n = 99");
        throw new Error("mine");
      }),
    ).rejects.toThrow("mine");
    expect(runs).toBe(1);
    expect((await db.execute("select n from t")).rows[0]!.n).toBe(0);
  });

  it("keeps a session's order and state", async () => {
    const s = await db.session();
    const together = [
      s.execute("create temp table x (a)"),
      s.execute("insert into x values (1)"),
      s.execute("select changes() as c"),
    ];
    expect((await Promise.all(together))[2]!.rows[0]!.c).toBe(1);
    await s.execute("BEGIN");
    expect(s.state).toBe("open");
    await s.execute("update t set n = 3");
    await expect(s.execute("nonsense")).rejects.toThrow();
    expect(s.state).toBe("open");
    await s.execute("COMMIT");
    expect(s.state).toBe("idle");
    await s.close();
    await s.close();
    expect(await codeOf(s.execute("select 1"))).toBe("OSTRAKA_CLOSED");
  });

  it("stays failed after OSTRAKA_RETRY until ROLLBACK", async () => {
    const [a, b] = [await db.session(), await db.session()];
    await a.execute("begin");
    await a.execute("select n from t");
    await b.execute("update t set n = 1");
    expect(await codeOf(a.execute("update t set n = 2"))).toBe("OSTRAKA_RETRY");
    expect(a.state).toBe("failed");
    expect(await codeOf(a.execute("select 1"))).toBe("OSTRAKA_RETRY");
    await a.execute("rollback");
    expect(a.state).toBe("idle");
    await a.close();
    await b.close();
  });
});

describe("connecting and closing", () => {
  it.each([
    "http://x",
    "ostraka://",
    "ostraka://a:b:c",
    "ostraka://user@h",
    "ostraka://h?intMode=x",
    "ostraka://h:0",
  ])("refuses the URL %s", async (url) => {
    await expect(connect(url)).rejects.toThrow(TypeError);
  });

  it("says when no host answers", async () => {
    const { port } = server;
    await server.close();
    const error = await connect(`ostraka://127.0.0.1:${port}`, { timeoutMs: 300 }).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
  });

  it("wants the token, and says so at once", async () => {
    const logged: string[] = [];
    const log = (details: object, message: string) => logged.push(JSON.stringify(details) + message);
    const guarded = await startLocalServer({ authToken: "open sesame", logger: { info: log, warn: log } });
    for (const authToken of [undefined, "wrong", "open sesamE"]) {
      const error = await connect(guarded.url, authToken === undefined ? {} : { authToken }).catch(
        (e: unknown) => e,
      );
      expect(error).toMatchObject({ code: "OSTRAKA_UNAUTHENTICATED" });
      expect(String(error)).not.toContain("sesame");
    }
    const allowed = await connect(guarded.url, { authToken: "open sesame" });
    expect((await allowed.execute("select 1")).rows.length).toBe(1);
    await allowed.close();
    await guarded.close();
    expect(logged.some((line) => line.includes("client refused"))).toBe(true);
    expect(logged.join()).not.toContain("sesam");
  });

  it("tells who answers, and runs operations", async () => {
    expect(db.server).toMatchObject({
      clusterId: "local",
      nodeId: 1,
      sqliteVersion: expect.stringMatching(/^3\./),
    });
    expect(await db.admin("echo", { a: [1, "x", null] })).toEqual({ a: [1, "x", null] });
    expect(await codeOf(db.admin("dance"))).toBe("OSTRAKA_UNSUPPORTED");
    await expect(db.admin("echo", { a: 2n ** 80n })).rejects.toThrow(TypeError);
  });

  it("rejects what is outstanding when it closes, and everything afterwards", async () => {
    const waiting = db.admin("never");
    const rejected = codeOf(waiting);
    await new Promise((resolve) => setTimeout(resolve, 20));
    await db.close();
    await db.close();
    expect(await rejected).toBe("OSTRAKA_CLOSED");
    expect(await codeOf(db.execute("select 1"))).toBe("OSTRAKA_CLOSED");
    expect(await codeOf(db.session())).toBe("OSTRAKA_CLOSED");
    expect(await codeOf(db.begin())).toBe("OSTRAKA_CLOSED");
  });

  it("says of an open transaction and a session too that they are closed", async () => {
    const tx = await db.begin();
    await tx.execute("create table t (a)");
    const session = await db.session();
    await session.execute("begin");
    await db.close();
    expect(await codeOf(tx.execute("select 1"))).toBe("OSTRAKA_CLOSED");
    expect(await codeOf(tx.commit())).toBe("OSTRAKA_CLOSED");
    expect(await codeOf(session.execute("select 1"))).toBe("OSTRAKA_CLOSED");
    await tx.rollback();
    await session.close();
  });

  it.each([5, "line\nfeed", "naïve"])("refuses the token %o without repeating it", async (authToken) => {
    const error = await connect(server.url, { authToken: authToken as string }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(TypeError);
    expect((error as TypeError).message).toBe("authToken must be a text of printable ASCII characters");
  });

  it("takes options second beside a statement that has its arguments", async () => {
    const signal = AbortSignal.abort(new Error("no"));
    await expect(db.execute({ sql: "select ?", args: [1] }, { signal })).rejects.toThrow("no");
    await expect(db.iterate({ sql: "select 1" }, { signal }).next()).rejects.toThrow("no");
    await expect(db.transaction((tx) => tx.execute({ sql: "select 1" }, { signal }))).rejects.toThrow("no");
    const rs = await db.execute({ sql: "select :a as a", args: { a: 1 } }, { timeoutMs: 5_000 });
    expect(rs.rows[0]!.a).toBe(1);
    await expect(db.execute({ sql: "select 1" }, { timeoutMs: -1 })).rejects.toThrow(/^timeoutMs must be/);
    expect((await db.execute({ sql: "select :a as a" }, { a: 2 })).rows[0]!.a).toBe(2);
    expect((await db.execute("select :timeoutMs as a", { timeoutMs: 3 })).rows[0]!.a).toBe(3);
  });

  it("refuses a signal that is none", async () => {
    const options = { signal: 5 as unknown as AbortSignal };
    await expect(db.execute("select 1", [], options)).rejects.toThrow(/^signal must be an AbortSignal$/);
    expect(() => db.iterate("select 1", [], options)).toThrow(/^signal must be an AbortSignal$/);
  });

  it("honours signals before and while a call runs", async () => {
    await expect(db.execute("select 1", [], { signal: AbortSignal.abort(new Error("no")) })).rejects.toThrow(
      "no",
    );
    const abort = new AbortController();
    const never = db.admin("never", {}, { signal: abort.signal });
    setTimeout(() => abort.abort(), 10);
    await expect(never).rejects.toThrow(/abort/i);
  });
});

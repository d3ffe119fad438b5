/** What the driver does when nodes go away, answers are lost, or servers say "not now". */
import { type AddressInfo, createServer, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { RetryError } from "../../src/base/errors.js";
import { connect, type Database, OstrakaError } from "../../src/driver/index.js";
import { ambiguous, LocalGateway, type LocalServer, startLocalServer } from "./local-gateway.js";

let gateway: LocalGateway;
let first: LocalServer;
let second: LocalServer;
let db: Database;

/** Two nodes over one database, as two gateways of a cluster are. */
beforeEach(async () => {
  gateway = new LocalGateway();
  first = await startLocalServer({ gateway, nodeId: 1 });
  second = await startLocalServer({ gateway, nodeId: 2 });
  db = await connect(`${first.url},127.0.0.1:${second.port}`, { timeoutMs: 5000 });
  await db.exec("create table t (id integer primary key, n); insert into t values (1, 0)");
});

afterEach(async () => {
  await db.close();
  await first.close();
  await second.close();
  gateway.dispose();
});

const current = (): LocalServer => (db.server.nodeId === 1 ? first : second);
const n = async (): Promise<unknown> => (await db.execute("select n from t where id = 1")).rows[0]!.n;

async function failure(promise: Promise<unknown>): Promise<OstrakaError> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(OstrakaError);
  return error as OstrakaError;
}

/** Cuts the node in use just after the first statement that matches was applied, before its answer leaves. */
function cutAfter(pattern: RegExp): { cut: boolean } {
  const done = { cut: false };
  gateway.interference = {
    after: async ({ sql }) => {
      if (done.cut || !pattern.test(sql)) return;
      done.cut = true;
      await current().cut();
    },
  };
  return done;
}

describe("a node goes away", () => {
  it("hands what its session has counted to the next one", async () => {
    const session = await db.session();
    await session.execute("insert into t values (9007199254740999, 1)");
    await session.execute("update t set n = 5");
    await session.execute("select n from t");
    await current().cut();
    await session.execute("select 1");
    const counts = { changes: 2, totalChanges: 3, lastInsertRowid: 9007199254740999n };
    expect(gateway.countsGiven.slice(-2)).toEqual([undefined, counts]);
    await session.close();
  });

  it("goes on at another, reads and writes alike", async () => {
    const before = db.server.nodeId;
    await current().cut();
    await db.execute("update t set n = n + 1 where id = 1");
    expect(await n()).toBe(1);
    expect(db.server.nodeId).not.toBe(before);
  });

  it("applies a write once whose answer was lost", async () => {
    const done = cutAfter(/update/);
    const rs = await db.execute("update t set n = n + 1 where id = 1");
    expect(done.cut).toBe(true);
    expect(rs.rowsAffected).toBe(1);
    expect(await n()).toBe(1);
    const [sent, again] = gateway.keys.slice(-2);
    expect(again).toEqual(sent);
  });

  it.each(["the database", "a session"])(
    "says which schema was known when it first sent a write of %s that it sends again",
    async (whose) => {
      const session = await db.session();
      const writer = whose === "a session" ? session : db;
      gateway.schema = 7;
      // The answer brings the news.
      await writer.execute("select 1");
      const done = cutAfter(/update/);
      const { after } = gateway.interference;
      gateway.interference = {
        after: async (request) => {
          gateway.schema++;
          await after?.(request);
        },
      };
      await writer.execute("update t set n = n + 1 where id = 1");
      expect(done.cut).toBe(true);
      expect(gateway.sentUnder.slice(-2)).toEqual([undefined, 7]);
      expect(await n()).toBe(1);
      await session.close();
    },
  );

  it("applies a batch once whose answer was lost", async () => {
    const batch = db.batch(Array.from({ length: 3 }, () => "update t set n = n + 1 where id = 1"));
    const cutting = current().cut();
    await batch;
    await cutting;
    expect(await n()).toBe(3);
  });

  it("says UNKNOWN_OUTCOME with an id when nobody is left to ask", async () => {
    gateway.interference = { after: () => Promise.all([first.cut(), second.cut()]).then(() => undefined) };
    const error = await failure(db.execute("update t set n = 9", [], { timeoutMs: 400 }));
    expect(error.code).toBe("OSTRAKA_UNKNOWN_OUTCOME");
    expect(error.transactionId).toMatch(/^[\w-]+:\d+@[0-9a-z]+$/);
    expect(await gateway.outcome(error.transactionId!)).toBe("committed");
    const read = await failure(db.execute("select 1", [], { timeoutMs: 200 }));
    expect(read.code).toBe("OSTRAKA_UNAVAILABLE");
    const write = await failure(db.execute("delete from t", [], { timeoutMs: 200 }));
    expect(write.code).toBe("OSTRAKA_UNAVAILABLE");
  });

  it("runs transaction() again from the start", async () => {
    let runs = 0;
    await db.transaction(async (tx) => {
      runs++;
      const row = (await tx.execute("select n from t where id = 1")).rows[0]!;
      if (runs === 1) await current().cut();
      await tx.execute("update t set n = ? where id = 1", [(row.n as number) + 1]);
    });
    expect(runs).toBe(2);
    expect(await n()).toBe(1);
  });

  it("asks what became of a COMMIT whose answer was lost", async () => {
    const done = cutAfter(/^commit/i);
    const tx = await db.begin();
    await tx.execute("update t set n = 7 where id = 1");
    await tx.commit();
    expect(done.cut).toBe(true);
    expect(await n()).toBe(7);
  });

  it.each([
    ["savepoint a", true],
    ["begin; savepoint a", false],
  ])("asks what became of a RELEASE, which may be a COMMIT: %s", async (begin, commits) => {
    const done = cutAfter(/^release/i);
    const s = await db.session();
    await s.exec(begin);
    await s.execute("update t set n = n + 1 where id = 1");
    if (commits) await s.execute("release a");
    else expect((await failure(s.execute("release a"))).code).toBe("OSTRAKA_RETRY");
    expect(done.cut).toBe(true);
    expect(s.state).toBe(commits ? "idle" : "failed");
    await s.close();
    expect(await n()).toBe(commits ? 1 : 0);
  });

  it("says OSTRAKA_RETRY for a COMMIT that never happened", async () => {
    let cut = false;
    gateway.interference = {
      before: async ({ sql }) => {
        if (cut || !/^commit/i.test(sql)) return;
        cut = true;
        await current().cut();
        throw new RetryError("OSTRAKA_UNAVAILABLE", "gone");
      },
    };
    const tx = await db.begin();
    await tx.execute("update t set n = 8 where id = 1");
    expect((await failure(tx.commit())).code).toBe("OSTRAKA_RETRY");
    await tx.rollback();
    expect(await n()).toBe(0);
  });

  it("says OSTRAKA_RETRY once a node has ended the transaction by itself, and runs nothing outside it", async () => {
    gateway.interference = {
      after: ({ sql }) => {
        if (/n = 5/.test(sql)) for (const session of gateway.sessions) session.rollBack();
      },
    };
    const tx = await db.begin();
    await tx.execute("update t set n = 5 where id = 1");
    expect((await failure(tx.execute("update t set n = 6 where id = 1"))).code).toBe("OSTRAKA_RETRY");
    expect((await failure(tx.commit())).code).toBe("OSTRAKA_RETRY");
    await tx.rollback();
    const session = await db.session();
    await session.exec("begin; update t set n = 5 where id = 1");
    expect((await failure(session.execute("update t set n = 6 where id = 1"))).code).toBe("OSTRAKA_RETRY");
    await session.execute("rollback");
    await session.close();
    gateway.interference = {};
    expect(await n()).toBe(0);
  });

  it("keeps a session that had nothing to lose, and says what one lost", async () => {
    const s = await db.session();
    await s.execute("update t set n = 1");
    await current().cut();
    expect((await s.execute("select n from t")).rows[0]!.n).toBe(1);
    await s.execute("begin");
    await s.execute("update t set n = 2");
    const other = db.server.nodeId === 1 ? first : second;
    await other.cut();
    const error = await failure(s.execute("select 1", [], { timeoutMs: 300 }));
    expect(error.code).toBe("OSTRAKA_RETRY");
    expect(s.state).toBe("failed");
    expect((await failure(s.execute("commit"))).code).toBe("OSTRAKA_RETRY");
    await s.execute("rollback");
    expect(s.state).toBe("idle");
    await s.close();
  });

  it("says that TEMP objects were lost", async () => {
    const s = await db.session();
    await s.execute("create temp table x (a)");
    await current().cut();
    expect((await failure(s.execute("select * from x"))).message).toMatch(/TEMP objects/);
    expect((await failure(s.execute("select * from x"))).message).toMatch(/no such table/);
    await s.close();
  });

  it("fails a stream whose rows were under way", async () => {
    const rows = db.iterate(
      "with recursive c(n) as (select 1 union all select n + 1 from c) select n, hex(zeroblob(500)) from c",
    );
    await rows.next();
    await current().cut();
    const error = await failure(
      (async () => {
        for await (const _ of rows);
      })(),
    );
    expect(error.code).toBe("OSTRAKA_UNAVAILABLE");
  });
});

describe("a host that takes connections and says nothing", () => {
  it("does not keep the driver from another one", async () => {
    const sockets: Socket[] = [];
    const mute = createServer((socket) => sockets.push(socket.on("error", () => undefined)));
    await new Promise<void>((resolve) => mute.listen(0, "127.0.0.1", resolve));
    const { port } = mute.address() as AddressInfo;
    for (let i = 0; i < 4; i++) {
      const both = await connect(`ostraka://127.0.0.1:${port},127.0.0.1:${first.port}`, { timeoutMs: 4000 });
      expect((await both.execute("select 1 as one")).rows[0]!.one).toBe(1);
      await both.close();
    }
    const alone = connect(`ostraka://127.0.0.1:${port}`, { timeoutMs: 200 });
    expect((await failure(alone)).code).toBe("OSTRAKA_UNAVAILABLE");
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => mute.close(resolve));
  });
});

describe("a node says not now", () => {
  it.each(["OSTRAKA_RETRY", "OSTRAKA_UNAVAILABLE"] as const)("sends again after %s", async (code) => {
    let left = 3;
    const sequences: (number | undefined)[] = [];
    gateway.interference = {
      before: ({ sql, key }) => {
        if (!/update/.test(sql)) return;
        sequences.push(key?.sequence);
        if (left-- > 0) throw new RetryError(code, "not now");
      },
    };
    await db.execute("update t set n = n + 1 where id = 1");
    expect(left).toBe(-1);
    expect(await n()).toBe(1);
    const s = await db.session();
    left = 1;
    await s.execute("update t set n = n + 1 where id = 1");
    await s.close();
    expect(await n()).toBe(2);
    // Nothing was applied: the names that attempts had under a key may be used up.
    expect(sequences).toHaveLength(6);
    expect(new Set(sequences).size).toBe(6);
  });

  it("sends again after UNKNOWN_OUTCOME, under the same key", async () => {
    let left = 2;
    gateway.interference = {
      after: ({ sql }) => {
        if (/update/.test(sql) && left-- > 0) throw ambiguous();
      },
    };
    await db.execute("update t set n = n + 1 where id = 1");
    expect(await n()).toBe(1);
    const s = await db.session();
    left = 1;
    await s.execute("update t set n = n + 1 where id = 1");
    await s.close();
    expect(await n()).toBe(2);
  });

  it("gives up at the deadline with the code that is true", async () => {
    gateway.interference = {
      before: () => {
        throw new RetryError("OSTRAKA_UNAVAILABLE", "no quorum");
      },
    };
    const error = await failure(db.execute("update t set n = 1", [], { timeoutMs: 300 }));
    expect([error.code, error.message]).toEqual([
      "OSTRAKA_UNAVAILABLE",
      expect.stringContaining("no quorum"),
    ]);
    gateway.interference = { before: () => new Promise(() => undefined) };
    expect((await failure(db.execute("select 1", [], { timeoutMs: 2_000 }))).code).toBe("OSTRAKA_TIMEOUT");
    const write = await failure(db.execute("update t set n = 1", [], { timeoutMs: 2_000 }));
    expect(write.code).toBe("OSTRAKA_UNKNOWN_OUTCOME");
  });
});

describe("idempotency keys", () => {
  it("grow by one and tell the lowest unanswered", async () => {
    gateway.keys.length = 0;
    let release = (): void => undefined;
    gateway.interference = {
      before: ({ sql }) => {
        if (!sql.includes("slow")) return;
        return new Promise<void>((resolve) => {
          release = resolve;
        });
      },
    };
    const slow = db.execute("insert into t (n) values ('slow')");
    await db.execute("insert into t (n) values (2)");
    await db.execute("insert into t (n) values (3)");
    release();
    await slow;
    await db.execute("insert into t (n) values (4)");
    const keys = gateway.keys;
    const base = Math.min(...keys.map((key) => key.sequence));
    const told = keys.map((key) => [key.sequence - base, key.lowestUnanswered - base]);
    expect(told.sort((a, b) => a[0]! - b[0]!)).toEqual([
      [0, 0],
      [1, 0],
      [2, 0],
      [3, 3],
    ]);
    expect(new Set(keys.map((key) => key.client)).size).toBe(1);
  });

  it.each(["the database", "a session"])(
    "are new ones for a write of %s that has surely lost a race, and stay where that is not sure",
    async (whose) => {
      const session = await db.session();
      const writer = whose === "a session" ? session : db;
      const sent = async (...failures: Error[]): Promise<number[]> => {
        gateway.keys.length = 0;
        gateway.interference = {
          after: ({ sql }) => {
            const failure = /update/.test(sql) ? failures.shift() : undefined;
            if (failure !== undefined) throw failure;
          },
        };
        await writer.execute("update t set n = n where id = 1");
        return gateway.keys.map(({ sequence }) => sequence);
      };
      const lost = new RetryError("OSTRAKA_RETRY", "another was first");
      const [first, second, third] = await sent(lost, lost);
      expect([second, third]).toEqual([first! + 1, first! + 2]);
      expect(new Set(await sent(ambiguous("lost"), lost)).size).toBe(1);
      expect(await db.execute("select 1 as c")).toMatchObject({ rows: [{ c: 1 }] });
      const { lowestUnanswered, sequence } = gateway.keys.at(-1)!;
      expect(lowestUnanswered).toBe(sequence);
      await session.close();
    },
  );

  it("keep a write whose outcome is unknown from being forgotten until it was asked for", async () => {
    const lowest = async (): Promise<number> => {
      await db.execute("insert into t (n) values (1)");
      return gateway.keys.at(-1)!.lowestUnanswered;
    };
    const before = await lowest();
    gateway.interference = {
      after: ({ sql }) => {
        if (/doubt/.test(sql)) throw ambiguous();
      },
    };
    const error = await failure(db.execute("insert into t (n) values ('doubt')", [], { timeoutMs: 100 }));
    expect(error.code).toBe("OSTRAKA_UNKNOWN_OUTCOME");
    expect(await lowest()).toBe(before + 1);
    expect(await lowest()).toBe(before + 1);
    expect(await db.outcome(error.transactionId!)).toBe("committed");
    expect(await lowest()).toBe(before + 4);
  });
});

/**
 * Statements that never end, or want more than there is: nobody loses leadership, others are answered meanwhile, the
 * statement ends at its deadline or when its caller aborts it, and nothing of it is left, also after a restart.
 */
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, expect, it } from "vitest";
import { type Database, OstrakaError } from "../../src/driver/index.js";
import { Cluster, until } from "./harness.js";

const ENDLESS = "with recursive c(n) as (select 1 union all select n + 1 from c)";
const RUNAWAYS: readonly (readonly [sql: string, codes: RegExp])[] = [
  [`${ENDLESS} select count(*) from c`, /^OSTRAKA_TIMEOUT$/],
  [`insert into t (v) ${ENDLESS} select n from c`, /^OSTRAKA_(TIMEOUT|TOO_LARGE)$/],
  ["update big set v = (select sum(a.v * b.v * c.v) from big a, big b, big c)", /^OSTRAKA_TIMEOUT$/],
  [
    "delete from big where id in (select a.id from big a, big b, big c where a.v + b.v + c.v < 0)",
    /^OSTRAKA_TIMEOUT$/,
  ],
  ["insert into t (v) values (zeroblob(500000000))", /^(OSTRAKA_TOO_LARGE|OSTRAKA_TIMEOUT|SQLITE_TOOBIG)$/],
  ["select zeroblob(500000000)", /^(OSTRAKA_TOO_LARGE|OSTRAKA_TIMEOUT|SQLITE_TOOBIG)$/],
  [
    "insert into t (v) values (1) returning zeroblob(500000000)",
    /^(OSTRAKA_TOO_LARGE|OSTRAKA_TIMEOUT|SQLITE_TOOBIG)$/,
  ],
];
const TIMEOUT_MS = 1000;

let cluster: Cluster;
afterEach(() => cluster?.dispose());

async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => expect.fail("it ended well"),
    (error: unknown) => error,
  );
}

/** Clock ticks that the processes below a node's have used. */
function childTicks(pid: number): number {
  let ticks = 0;
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    const children = readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").trim();
    for (const child of children === "" ? [] : children.split(" ")) {
      try {
        const fields = readFileSync(`/proc/${child}/stat`, "utf8")
          .replace(/^.*\) /, "")
          .split(" ");
        ticks += Number(fields[11]) + Number(fields[12]);
      } catch {
        // It has ended.
      }
    }
  }
  return ticks;
}

/** No process that ran statements uses the processor any more. */
async function quiet(): Promise<void> {
  if (process.platform !== "linux") return;
  await until("no runner is busy", async () => {
    const before = cluster.nodes.map(({ pid }) => childTicks(pid));
    await delay(500);
    // A tick is 10 ms; a busy process uses 50 of them in that time, or a good part on a machine with others.
    return cluster.nodes.every(({ pid }, i) => childTicks(pid) - before[i]! <= 3);
  });
}

const terms = (): Promise<number[]> => Promise.all([1, 3].map((group) => cluster.term(group)));

/** Reads and writes on every node until stopped; remembers the slowest. */
class Others {
  served = 0;
  slowestMs = 0;
  #stopped = false;
  readonly #clients: Promise<void>[];

  constructor(databases: readonly Database[]) {
    this.#clients = databases.map((database) => this.#run(database));
    for (const client of this.#clients) client.catch(() => undefined);
  }

  async #run(database: Database): Promise<void> {
    while (!this.#stopped) {
      const startMs = performance.now();
      await database.execute("update counter set n = n + 1 where id = 1");
      await database.execute("select n from counter where id = 1");
      this.slowestMs = Math.max(this.slowestMs, performance.now() - startMs);
      this.served++;
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#clients);
  }
}

it("ends runaways without harm to anybody", { timeout: 240_000 }, async () => {
  cluster = await Cluster.create({ electionTimeoutMs: 500 });
  const databases = await Promise.all(cluster.nodes.map((node) => cluster.connect([node])));
  const database = databases[0]!;
  await database.exec(`
    create table t (id integer primary key, v);
    create table counter (id integer primary key, n integer);
    insert into counter values (1, 0);
    create table big (id integer primary key, v integer);
    insert into big (v) ${ENDLESS} select n from c limit 3000`);
  const before = await terms();
  const others = new Others(databases);
  for (const [i, [sql, codes]] of RUNAWAYS.entries()) {
    const served = others.served;
    const error = await failure(databases[i % 3]!.execute(sql, [], { timeoutMs: TIMEOUT_MS }));
    expect(error, sql).toBeInstanceOf(OstrakaError);
    expect((error as OstrakaError).code, `${sql}: ${(error as OstrakaError).message}`).toMatch(codes);
    expect(others.served, `others during: ${sql}`).toBeGreaterThan(served);
  }
  for (const [i, [sql]] of RUNAWAYS.slice(0, 3).entries()) {
    const controller = new AbortController();
    const running = databases[i]!.execute(sql, [], { signal: controller.signal });
    setTimeout(() => controller.abort(new Error("enough")), 300);
    expect(await failure(running), sql).toMatchObject({ message: "enough" });
  }
  // In a session: the statement ends, the transaction goes on.
  const session = await databases[1]!.session();
  await session.execute("begin");
  await session.execute("insert into t (v) values ('kept')");
  const stuck = (await failure(
    session.execute(`${ENDLESS} select count(*) from c, t`, [], { timeoutMs: TIMEOUT_MS }),
  )) as OstrakaError;
  expect(stuck.code, stuck.message).toBe("OSTRAKA_TIMEOUT");
  await session.execute("savepoint s");
  await session.execute("insert into t (v) values ('dropped')");
  const again = failure(session.execute(RUNAWAYS[2]![0], [], { timeoutMs: TIMEOUT_MS }));
  expect(await again).toMatchObject({ code: "OSTRAKA_TIMEOUT" });
  await session.execute("rollback to s");
  await session.execute("commit");
  await session.close();

  await quiet();
  await others.stop();
  expect(await terms()).toEqual(before);
  expect((await database.execute("select v from t")).rows.map((row) => row.v)).toEqual(["kept"]);
  expect((await database.execute("select count(*) as n, sum(v) as s from big")).rows[0]).toMatchObject({
    n: 3000,
    s: 4501500,
  });
  await cluster.checkDigests(database);
  process.stderr.write(
    `runaways: others were served ${others.served} times meanwhile, the slowest in ${others.slowestMs.toFixed(0)} ms\n`,
  );

  // Nothing of it is in the log.
  for (const node of cluster.nodes) await node.kill();
  for (const node of cluster.nodes) node.spawn();
  await Promise.all(cluster.nodes.map((node) => node.ready()));
  const later = await cluster.connect();
  expect((await later.execute("select count(*) as n from t")).rows[0]!.n).toBe(1);
  await quiet();
  await cluster.checkDigests(later);
});

/**
 * A database of many ranges on real processes: nodes are killed again and again, stopped for longer than an election,
 * while ranges split by themselves and transactions cross them. Nothing acknowledged is missing, nothing is applied
 * twice, every read of everything shows one moment, and nothing stays in doubt.
 *
 * OSTRAKA_TEST_KILLS makes it longer.
 */
import { afterEach, expect, it } from "vitest";
import type { Database } from "../../src/driver/index.js";
import { SeededRandom } from "../sim/seeded-random.js";
import { Cluster } from "./harness.js";
import { judgeWide, severalRanges } from "./wide-verdict.js";
import { WideWorkload } from "./wide-workload.js";
import { Workload } from "./workload.js";

const KILLS = Number(process.env.OSTRAKA_TEST_KILLS ?? 4);
const PAUSES = Number(process.env.OSTRAKA_TEST_PAUSES ?? 2);
const SEED = Number(process.env.SEED ?? Date.now() & 0xffffff);
const WRITER_PAUSE_MS = 50;

let cluster: Cluster;
afterEach(() => cluster?.dispose());

interface Running {
  readonly database: Database;
  readonly narrow: Workload;
  readonly wide: WideWorkload;
}

async function run(random: SeededRandom): Promise<Running> {
  const clients = await Promise.all(
    cluster.nodes.map((node) => cluster.connect([node, ...cluster.others(node)])),
  );
  const database = clients[0]!;
  await Workload.prepare(database);
  await WideWorkload.prepare(database);
  await severalRanges(database, 3);
  const narrow = new Workload({ pauseMs: WRITER_PAUSE_MS });
  const wide = new WideWorkload(random, { pauseMs: WRITER_PAUSE_MS });
  for (const [i, client] of clients.entries()) {
    narrow.start(client, 1);
    wide.start(client, `client ${i}`);
  }
  return { database, narrow, wide };
}

async function judge({ database, narrow, wide }: Running): Promise<void> {
  const told = await judgeWide(cluster, database, narrow, wide);
  process.stderr.write(`ranges (seed ${SEED}): ${told}\n`);
}

it(`loses and repeats nothing through ${KILLS} kills`, { timeout: 180_000 + KILLS * 40_000 }, async () => {
  const random = new SeededRandom(SEED);
  cluster = await Cluster.create({ electionTimeoutMs: 500, flags: ["--range-max-rows", "16"] });
  const running = await run(random);
  for (let round = 0; round < KILLS; round++) {
    await Promise.all([running.narrow.progress(5), running.wide.progress()]);
    const victim = cluster.nodes[random.uint32() % cluster.nodes.length]!;
    await victim.kill();
    await Promise.all([running.narrow.progress(5), running.wide.progress()]);
    await victim.start();
  }
  await Promise.all([running.narrow.progress(5), running.wide.progress()]);
  await judge(running);
});

it("is not misled by nodes that stop and go on", { timeout: 180_000 + PAUSES * 40_000 }, async () => {
  const random = new SeededRandom(SEED);
  cluster = await Cluster.create({ electionTimeoutMs: 500, flags: ["--range-max-rows", "16"] });
  const running = await run(random);
  for (let round = 0; round < PAUSES; round++) {
    const leader = await cluster.leader();
    const others = await cluster.connect(cluster.others(leader));
    leader.signal("SIGSTOP");
    try {
      // Answered, so every range is led by another node by now.
      await others.execute(
        "select count(*) from (select 1 from account union all select 1 from safe union all select 1 from list union all select 1 from tokens)",
        [],
        {
          timeoutMs: 60_000,
        },
      );
      await others.execute("update counter set n = n where id = 1");
    } finally {
      leader.signal("SIGCONT");
    }
    await Promise.all([running.narrow.progress(5), running.wide.progress()]);
  }
  await judge(running);
});

it("splits by size while rows are loaded, and no client is told", async () => {
  cluster = await Cluster.create({ flags: ["--range-max-bytes", "64KiB"] });
  const database = await cluster.connect();
  await database.exec("create table t (id integer primary key, v text not null)");
  const rows = 1500;
  let next = 0;
  const load = async (): Promise<void> => {
    for (let id = ++next; id <= rows; id = ++next)
      await database.execute("insert into t values (?, ?)", [id, "x".repeat(200)]);
  };
  await Promise.all(Array.from({ length: 16 }, load));
  await severalRanges(database, 3);
  const [row] = (await database.execute("select count(*), sum(id), sum(length(v)) from t")).rows;
  expect([...row!]).toEqual([rows, (rows * (rows + 1)) / 2, rows * 200]);
  await cluster.checkDigests(database);
});

it("goes by the schema of now on every node, also where it comes late", async () => {
  cluster = await Cluster.create();
  const databases = await Promise.all(cluster.nodes.map((node) => cluster.connect([node])));
  const [one] = databases as [Database];
  await one.exec(`
    create table a (id integer primary key, n integer not null); create table b (id integer primary key, n integer not null);
    insert into a values (1, 1), (2, 2), (3, 3); insert into b values (1, 10), (2, 20), (3, 30)`);
  await one.admin("range.split", { table: "a", at: ["2"] });
  await one.admin("range.split", { table: "b", at: ["2"] });
  for (let round = 0; round < 6; round++) {
    const [changes, ...others] = [...databases.slice(round % 3), ...databases.slice(0, round % 3)];
    const [table, other] = round % 2 === 0 ? ["a", "b"] : ["b", "a"];
    await changes!.exec(`drop view if exists v; create view v as select sum(n) as n from ${table} where id > 1;
      drop trigger if exists tr;
      create trigger tr after update on ${table} begin update ${other} set n = new.n where id = 4 - new.id; end`);
    // In a trigger's table and in a range of its own that the statement does not name.
    await Promise.all(
      others.map((database, i) =>
        database.execute(`update ${table} set n = ? where id = ?`, [100 * round + i, 1 + 2 * i], {
          timeoutMs: 15_000,
        }),
      ),
    );
    const sums = await Promise.all(databases.map((database) => database.execute("select n from v")));
    const rows = await one.execute(
      `select (select sum(n) from ${table} where id > 1), (select group_concat(n) from ${other} where id <> 2)`,
    );
    for (const sum of sums) expect(sum.rows[0]![0]).toBe(rows.rows[0]![0]);
    expect(rows.rows[0]![1]).toBe(`${100 * round + 1},${100 * round}`);
  }
  await cluster.checkDigests(one);
});

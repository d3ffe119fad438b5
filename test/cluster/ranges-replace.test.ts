/**
 * Four nodes and three replicas of everything: a node answers also of ranges that it has no replica of, and when one is
 * lost for good its replicas are made anew on those that are left, with clients writing all the time.
 */
import { afterEach, expect, it } from "vitest";
import type { Database } from "../../src/driver/index.js";
import { SeededRandom } from "../sim/seeded-random.js";
import { Cluster, until } from "./harness.js";
import { WIDE_FINE, WideWorkload } from "./wide-workload.js";
import { FINE, verdict, Workload } from "./workload.js";

const SEED = Number(process.env.SEED ?? Date.now() & 0xffffff);
const REPLICAS = 3;

let cluster: Cluster;
afterEach(() => cluster?.dispose());

async function replicas(database: Database): Promise<number[][]> {
  const { rows } = await database.execute("select replicas from ostraka_ranges");
  return rows.map((row) => String(row.replicas).split(",").map(Number));
}

/** Resolves once there are so many ranges, each on three of these nodes. */
function untilPlaced(database: Database, nodes: readonly number[], count: number): Promise<true> {
  return until(
    `${count} ranges are on three of the nodes ${nodes.join(", ")} each`,
    async () => {
      const placed = await replicas(database);
      const right = (on: readonly number[]): boolean =>
        on.length === REPLICAS && on.every((node) => nodes.includes(node));
      if (placed.length < count || !placed.every(right)) throw new Error(JSON.stringify(placed));
      return true;
    },
    180_000,
  );
}

it("answers everywhere, and makes the replicas of a lost node anew", { timeout: 600_000 }, async () => {
  cluster = await Cluster.create({
    nodes: 4,
    electionTimeoutMs: 500,
    flags: ["--range-max-rows", "40", "--replicas", String(REPLICAS), "--node-dead-ms", "3000"],
  });
  const database = await cluster.connect();
  await Workload.prepare(database);
  await WideWorkload.prepare(database);
  await untilPlaced(database, [1, 2, 3, 4], 2);

  const narrow = new Workload({ pauseMs: 50 });
  const wide = new WideWorkload(new SeededRandom(SEED), { pauseMs: 50 });
  const victim = cluster.node(1 + (SEED % 4));
  const others = cluster.others(victim);
  // Every node is some client's only one: it has to answer of ranges that are elsewhere.
  for (const node of others) {
    const client = await cluster.connect([node]);
    narrow.start(client, 1);
    wide.start(client, `client of node ${node.id}`);
  }
  await Promise.all([narrow.progress(5), wide.progress()]);
  await victim.kill();
  await Promise.all([narrow.progress(5), wide.progress()]);
  const survivors = await cluster.connect(others);
  await untilPlaced(
    survivors,
    others.map(({ id }) => id),
    3,
  );
  await Promise.all([narrow.progress(5), wide.progress()]);
  await Promise.all([narrow.stop(), wide.stop()]);
  await narrow.settle(survivors);
  expect(await wide.verdict(survivors)).toEqual(WIDE_FINE);
  expect(await verdict(survivors, [narrow])).toEqual(FINE);
  await survivors.admin("node.remove", { node: victim.id }).catch(() => undefined);
  await cluster.checkDigests(survivors);
});

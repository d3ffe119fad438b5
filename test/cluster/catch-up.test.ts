/**
 * A follower that was down while the log was cut gets the state as a snapshot, while writes go on; and what a node
 * keeps on disk to start from does not grow with the number of writes ever made.
 */
import { afterEach, expect, it } from "vitest";
import type { Database } from "../../src/driver/index.js";
import { Cluster, type ClusterNode, until } from "./harness.js";
import { FINE, verdict, Workload } from "./workload.js";

const MEGABYTE = 1024 * 1024;
/** Beyond what a log may hold before it is cut (options.ts: 32 MiB), with the tail that a cut leaves. */
const LOG_FULL_MEGABYTES = 44;
/** More segments than a node lets pile up (options.ts: 8), by what is on its way. */
const MAX_SEGMENTS = 10;

let cluster: Cluster;
afterEach(() => cluster?.dispose());

/** Writes so many megabytes to the log; the database stays as it is. */
async function fillLog(database: Database, megabytes: number): Promise<void> {
  const data = new Uint8Array(MEGABYTE).fill(7);
  for (let i = 0; i < megabytes; i++)
    await database.execute("update filler set data = ?, round = ? where id = 1", [data, i]);
}

const cuts = async (node: ClusterNode): Promise<number> =>
  (await node.metric("ostraka_host_checkpoints")) ?? 0;

it("catches up by snapshot while writes go on, and keeps a short log", { timeout: 240_000 }, async () => {
  cluster = await Cluster.create({ electionTimeoutMs: 1000 });
  const leader = await cluster.leader();
  const [follower, third] = cluster.others(leader) as [ClusterNode, ClusterNode];
  const database = await cluster.connect([leader, third]);
  await Workload.prepare(database);
  await database.exec(
    "create table filler (id integer primary key, data, round); insert into filler (id) values (1)",
  );
  await follower.kill();
  const before = await cuts(leader);
  await fillLog(database, LOG_FULL_MEGABYTES);
  await until("the leader has cut its log", async () => (await cuts(leader)) > before);

  const workload = new Workload();
  workload.start(database, 3);
  await workload.progress();
  await follower.start();
  expect(await follower.metric("ostraka_host_snapshots_installed")).toBeGreaterThan(0);
  await workload.progress();
  await workload.stop();
  await workload.settle(database);
  expect(await verdict(database, [workload])).toEqual(FINE);
  await cluster.checkDigests(database);

  // As much again, twice: the logs are no longer for it, and a restart has no more to read.
  for (let round = 0; round < 2; round++) {
    await fillLog(database, LOG_FULL_MEGABYTES);
    await until("no node keeps more of the log than it may", async () => {
      const segments = await Promise.all(cluster.nodes.map((node) => node.metric("ostraka_log_segments")));
      return segments.every((count) => count !== undefined && count <= MAX_SEGMENTS);
    });
    await third.kill();
    await third.start();
    expect(await third.metric("ostraka_log_segments")).toBeLessThanOrEqual(MAX_SEGMENTS);
  }
  await cluster.checkDigests(database);
});

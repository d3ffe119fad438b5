/**
 * Nodes under concurrent writers, one killed again and again: nothing acknowledged is missing, nothing is
 * applied twice, money is neither made nor lost, nothing that failed is there, and what was unknown can be asked about.
 *
 * OSTRAKA_TEST_KILLS makes it longer, OSTRAKA_TEST_NODES wider. How long writes pause after a leader's death is
 * reported, not asserted: it is the machine's as much as ours.
 */
import { expect, it } from "vitest";
import { SeededRandom } from "../sim/seeded-random.js";
import { Bank } from "./bank.js";
import { Cluster, type ClusterNode } from "./harness.js";
import { FINE, verdict, Workload } from "./workload.js";

const KILLS = Number(process.env.OSTRAKA_TEST_KILLS ?? 7);
const SEED = Number(process.env.SEED ?? Date.now() & 0xffffff);

const NODES = Number(process.env.OSTRAKA_TEST_NODES ?? 3);

it(`loses and repeats nothing through ${KILLS} kills`, { timeout: 120_000 + KILLS * 30_000 }, async () => {
  const random = new SeededRandom(SEED);
  const cluster = await Cluster.create({ nodes: NODES, electionTimeoutMs: 500 });
  try {
    const workload = new Workload();
    const clients = await Promise.all([1, 2, 3].map(() => cluster.connect()));
    await Workload.prepare(clients[0]!);
    // One client's writes are given up early, so that some outcomes are unknown.
    const hasty = new Workload({ timeoutMs: 100, name: "hasty" });
    for (const client of clients) workload.start(client, 2);
    hasty.start(await cluster.connect(), 2);
    // The others go where the leader is; these stay, and their writes are passed on to it.
    const passed = new Workload({ name: "passed" });
    for (const node of cluster.nodes) passed.start(await cluster.connect([node]), 1);
    const bank = new Bank(random);
    await Bank.prepare(clients[0]!);
    for (const client of clients) bank.start(client);
    const pauses: number[] = [];
    for (let round = 0; round < KILLS; round++) {
      await workload.progress();
      const leader = await cluster.leader();
      const victim: ClusterNode = random.float() < 0.7 ? leader : cluster.nodes[random.uint32() % NODES]!;
      const momentMs = performance.now();
      await victim.kill();
      await workload.progress();
      if (victim === leader) pauses.push(workload.pauseMsAfter(momentMs) / cluster.electionTimeoutMs);
      await victim.start();
    }
    await workload.progress();
    await Promise.all([workload, hasty, passed].map((each) => each.stop()));
    const database = clients[0]!;
    expect(await bank.verdict(database)).toEqual({ verdict: "valid", problems: [] });
    expect(bank.transfers).toBeGreaterThan(0);
    const unknown = workload.unknownCount + hasty.unknownCount + passed.unknownCount;
    await workload.settle(database);
    await hasty.settle(database);
    await passed.settle(database);

    expect(await verdict(database, [workload, hasty, passed])).toEqual(FINE);
    await cluster.checkDigests(database);
    report(pauses, workload.tokens.size + hasty.tokens.size, bank.transfers, unknown);
  } finally {
    await cluster.dispose();
  }
});

function report(pauses: readonly number[], tokens: number, transfers: number, unknown: number): void {
  const sorted = [...pauses].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
  const told = sorted.map((pause) => pause.toFixed(2)).join(" ");
  process.stderr.write(
    `kills (seed ${SEED}): ${tokens} tokens, ${transfers} transfers, ${unknown} outcomes were unknown; pauses after a leader's death, in election timeouts: ${told} (median ${median.toFixed(2)})\n`,
  );
}

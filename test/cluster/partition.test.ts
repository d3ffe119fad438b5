/**
 * Links between real nodes are cut, in both directions or in one, while clients write on both sides: nothing that was
 * acknowledged is missing, nothing happens twice, no side shows what is old, and the sides that may go on do.
 *
 * OSTRAKA_TEST_CUTS makes it longer; SEED draws the same cuts again.
 */
import { afterEach, describe, expect, it } from "vitest";
import { SeededRandom } from "../sim/seeded-random.js";
import { Appends } from "./appends.js";
import { Bank } from "./bank.js";
import { Cluster, type ClusterNode, until } from "./harness.js";
import { CAN_CUT } from "./links.js";
import { FINE, verdict, Workload } from "./workload.js";

const ROUNDS = Number(process.env.OSTRAKA_TEST_CUTS ?? 3);
const SEED = Number(process.env.SEED ?? Date.now() & 0xffffff);
const VALID = { verdict: "valid", problems: [] };
/** What is asked of a side that cannot answer is given up after so long. */
const IMPATIENT_MS = 1_500;

let cluster: Cluster;
afterEach(() => cluster?.dispose());

/** Clients of every kind, and what they were told. */
class Clients {
  readonly random = new SeededRandom(SEED);
  readonly workloads: Workload[] = [];
  readonly bank = new Bank(this.random);
  readonly appends = new Appends(this.random);

  async start(): Promise<void> {
    const first = await cluster.connect();
    await Workload.prepare(first);
    await Bank.prepare(first);
    await Appends.prepare(first);
    this.bank.start(await cluster.connect());
    this.appends.start(await cluster.connect(), "everywhere");
    // Each node has clients that know no other: whatever side it is on, they write there.
    for (const node of cluster.nodes) {
      const database = await cluster.connect([node], { timeoutMs: IMPATIENT_MS });
      const workload = new Workload({ timeoutMs: IMPATIENT_MS, pauseMs: 5, name: `n${node.id}-` });
      this.workloads.push(workload);
      workload.start(database, 2);
      this.bank.start(database);
      this.appends.start(database, `on node ${node.id}`);
    }
  }

  on(node: ClusterNode): Workload {
    return this.workloads[node.id - 1]!;
  }

  async judge(): Promise<void> {
    const database = await cluster.connect();
    await Promise.all(this.workloads.map((workload) => workload.stop()));
    for (const workload of this.workloads) await workload.settle(database);
    expect(await this.bank.verdict(database)).toEqual(VALID);
    expect(await this.appends.verdict(database)).toEqual(VALID);
    expect(await verdict(database, this.workloads)).toEqual(FINE);
    expect(this.appends.committed).toBeGreaterThan(0);
    await cluster.checkDigests(database);
  }
}

describe.skipIf(!CAN_CUT)(`cut links (seed ${SEED})`, () => {
  it("leave the larger side going, and a leader on the smaller one is believed by nobody", async () => {
    cluster = await Cluster.create({ links: true });
    const clients = new Clients();
    await clients.start();
    for (let round = 0; round < ROUNDS; round++) {
      const leader = await cluster.leader();
      const others = cluster.others(leader);
      await clients.on(leader).progress();
      for (const other of others) cluster.links!.sever(leader.id, other.id);
      await Promise.all(others.map((other) => clients.on(other).progress()));
      const alone = clients.on(leader).acknowledgements.length;
      await Promise.all(others.map((other) => clients.on(other).progress()));
      // What it had proposed may still have been committed by the others; it learns of nothing while it is alone.
      expect(clients.on(leader).acknowledgements.length).toBe(alone);
      cluster.links!.heal();
      await clients.on(leader).progress();
    }
    await clients.judge();
  });

  it("that cut one direction stop nobody for long", async () => {
    cluster = await Cluster.create({ links: true });
    const clients = new Clients();
    await clients.start();
    for (let round = 0; round < ROUNDS; round++) {
      const leader = await cluster.leader();
      const [one, two] = cluster.others(leader) as [ClusterNode, ClusterNode];
      const pairs: readonly (readonly [ClusterNode, ClusterNode])[][] = [
        // It cannot speak to anybody; it cannot hear anybody; it and one other cannot hear one another's answers.
        [
          [leader, one],
          [leader, two],
        ],
        [
          [one, leader],
          [two, leader],
        ],
        [[one, leader]],
        [[leader, one]],
      ];
      for (const [from, to] of pairs[(round + clients.random.uint32()) % pairs.length]!)
        cluster.links!.cut(from.id, to.id);
      await until("somebody's writes go on", async () => {
        const before = clients.workloads.map(({ acknowledgements }) => acknowledgements.length);
        await Promise.any(cluster.nodes.map((node) => clients.on(node).progress(50)));
        return before.length > 0;
      });
      cluster.links!.heal();
      await Promise.all(cluster.nodes.map((node) => clients.on(node).progress()));
    }
    await clients.judge();
  });
});

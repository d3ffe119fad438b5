/** `ostraka recover --quorum-lost` in simulated worlds: what is left of a cluster is one, whatever its last node lacks. */
import { expect, it } from "vitest";
import { COORDINATOR_GROUP, FIRST_RANGE_GROUP } from "../../src/base/ids.js";
import { recover } from "../../src/node/recover.js";
import { Accounts, INITIAL } from "./world/accounts.js";
import { type SimClient, scriptedClient, type WriteEnd } from "./world/client.js";
import { Invariants } from "./world/invariants.js";
import type { Machine } from "./world/process.js";
import { World } from "./world/world.js";

const SEEDS = process.env.SEED === undefined ? [1, 2, 3] : [Number(process.env.SEED)];
const UNIT_MS = 200;
const MOST_TRIES = 20;
/** Longer than a decision takes to be delivered and applied; shorter than who waits for one is patient. */
const DELIVERED_MS = 60;
/** Longer than anything stays undecided. */
const DECIDED_MS = 30_000;

type Change = (accounts: Accounts, client: SimClient) => Promise<WriteEnd>;

/** All nodes are lost but this one, which is made a cluster of its own. */
async function recoverAlone(world: World, survivor: Machine): Promise<void> {
  for (const machine of world.machines) {
    machine.wanted = false;
    machine.crash("process");
  }
  await recover({
    clock: survivor.clock.mount(() => false),
    random: world.random.stream("recovery"),
    disk: survivor.disk.mount(),
    directory: survivor.dataDirectory,
  });
  // What was so in the cluster that is lost binds nobody.
  (world as { invariants: Invariants }).invariants = new Invariants((what) => world.note(what));
  world.wires.heal();
  survivor.start();
}

/** The survivor's coordinator has heard of the change, and of no decision; one of its ranges was told of that. */
async function untilDecidedElsewhere(
  world: World,
  accounts: Accounts,
  [coordinator, gateway, survivor]: readonly [Machine, Machine, Machine],
  change: Change,
): Promise<void> {
  const log = (): number => survivor.process!.host!.group(COORDINATOR_GROUP).status().lastIndex;
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    await world.sleep(2 * UNIT_MS);
    const before = log();
    let over = false;
    const ended = change(accounts, accounts.client(gateway)).finally(() => {
      over = true;
    });
    let heard = false;
    await world.when(() => {
      heard ||= log() > before && accounts.undelivered === 0;
      return heard || over;
    }, "the coordinator's follower hears of it");
    if (heard) {
      world.wires.lag(coordinator.id, survivor.id, 10 * UNIT_MS);
      world.wires.clog(coordinator.id, survivor.id, 10 * UNIT_MS);
    }
    const { outcome } = await ended;
    await world.sleep(DELIVERED_MS);
    if (heard && outcome === "committed" && log() === before + 1) return;
    world.wires.heal();
  }
  throw new Error("the moment never came");
}

async function play(seed: number, change: Change): Promise<void> {
  const world = new World({
    seed,
    manyRanges: true,
    fixed: { founders: 3, replicas: 3, most: 3, unitMs: UNIT_MS, tuning: {}, rangeMaxRows: 0 },
  });
  await world.play(async () => {
    const accounts = new Accounts(world);
    await accounts.create();
    const [a, b, c] = world.machines as [Machine, Machine, Machine];
    await accounts.admin("range.transfer", { range: COORDINATOR_GROUP, to: a.id });
    await accounts.admin("range.transfer", { range: FIRST_RANGE_GROUP, to: b.id });
    await accounts.admin("range.transfer", { range: accounts.second, to: c.id });
    await untilDecidedElsewhere(world, accounts, [a, b, c], change);
    await recoverAlone(world, c);
    await world.when(() => c.serving, "it serves again");
    await world.sleep(DECIDED_MS);
    const rows = await scriptedClient(world, 300, c).read("SELECT id, v FROM t ORDER BY id");
    const [first, , , last] = rows!.map(([, v]) => Number(v) - INITIAL);
    // Both ranges were told the same.
    expect(Math.abs(first!)).toBe(Math.abs(last!));
    expect(first).not.toBe(0);
    expect(c.process!.hosting!.coordinator.leader!.gauges()).toMatchObject({ inDoubt: 0, undelivered: 0 });
  });
}

const CHANGES: readonly (readonly [string, Change])[] = [
  ["a transaction", (accounts, client) => accounts.transfer(client)],
  ["an autocommit write", (_, client) => client.write("UPDATE t SET v = v + 1", [])],
];

for (const [what, change] of CHANGES)
  it(`${what} is committed everywhere that one range was told of, though the coordinator has lost it`, async () => {
    for (const seed of SEEDS) {
      try {
        await play(seed, change);
      } catch (error) {
        throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
      }
    }
  });

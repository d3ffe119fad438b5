/**
 * How many rounds of agreement a client waits for, counted on wires that take the same time each way, beside which all
 * else takes next to none: one for what is written to one range, two for what is committed across ranges.
 */
import { expect, it } from "vitest";
import { COORDINATOR_GROUP, FIRST_RANGE_GROUP } from "../../src/base/ids.js";
import { Accounts } from "./world/accounts.js";
import type { SimClient } from "./world/client.js";
import type { Machine } from "./world/process.js";
import { World } from "./world/world.js";

const WIRE_MS = 100;
const ROUND_MS = 2 * WIRE_MS;
/** Election timeouts are far beyond a round. */
const UNIT_MS = 5_000;
/** Disks, and what of a round's time is not wires. */
const SLACK = 0.25;

type Script = (
  accounts: Accounts,
  client: SimClient,
  rounds: (work: () => Promise<unknown>) => Promise<number>,
) => Promise<void>;

/** Everything is led by node 1, and the client is connected to it: rounds alone cross the wires, but for its requests. */
async function onSlowWires(script: Script): Promise<void> {
  const world = new World({
    seed: 1,
    manyRanges: true,
    fixed: { founders: 3, replicas: 3, most: 3, unitMs: UNIT_MS, tuning: {}, rangeMaxRows: 0 },
  });
  await world.play(async () => {
    const accounts = new Accounts(world);
    await accounts.create();
    const node = world.machines[0] as Machine;
    for (const group of [COORDINATOR_GROUP, FIRST_RANGE_GROUP, accounts.second])
      await accounts.lead(group, node);
    const client = accounts.client(node);
    // Nobody sleeps, and nothing is on its way.
    for (const id of [1, 4]) await client.write("UPDATE t SET v = v WHERE id = ?", [BigInt(id)]);
    await client.pause(UNIT_MS / 10);
    world.wires.weather = { ...world.wires.weather, minDelayMs: WIRE_MS, maxDelayMs: WIRE_MS };
    await script(accounts, client, async (work) => {
      const beganMs = world.clock.monotonicMs();
      await work();
      // The request and its answer are on the wire as long as a round is.
      return (world.clock.monotonicMs() - beganMs) / ROUND_MS - 1;
    });
    world.heal();
  });
}

function expectRounds(measured: number, rounds: number): void {
  expect(measured).toBeGreaterThan(rounds - 0.01);
  expect(measured).toBeLessThan(rounds + SLACK);
}

it("a write to one range takes one round", async () => {
  await onSlowWires(async (_, client, rounds) => {
    expectRounds(await rounds(() => client.write("UPDATE t SET v = v + 1 WHERE id = 1", [])), 1);
  });
});

it("a read at its leader takes one round", async () => {
  await onSlowWires(async (_, client, rounds) => {
    expectRounds(await rounds(() => client.read("SELECT v FROM t WHERE id = 1")), 1);
  });
});

it("a commit on one range takes one round, and one across ranges two", async () => {
  await onSlowWires(async (_, client, rounds) => {
    for (const [ids, wanted] of [
      [[1, 2], 1],
      [[1, 4], 2],
    ] as const) {
      const session = await client.open();
      await client.run(session, "BEGIN");
      for (const id of ids) await client.run(session, "UPDATE t SET v = v + 1 WHERE id = ?", [BigInt(id)]);
      expectRounds(await rounds(() => client.run(session, "COMMIT")), wanted);
      await client.close(session);
    }
  });
});

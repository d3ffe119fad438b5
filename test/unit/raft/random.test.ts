/**
 * Randomized runs of the agreement engine, each from one seed. RAFT_SEED=n repeats one, RAFT_SEEDS=n runs more,
 * RAFT_STEPS=n makes them longer.
 */
import { expect, test } from "vitest";
import { World } from "./world.js";

const STEPS = Number(process.env.RAFT_STEPS ?? 10_000);
const SEEDS = Number(process.env.RAFT_SEEDS ?? 200);

function run(seed: number): World {
  const world = new World(seed);
  try {
    for (let step = 0; step < STEPS; step++) world.step();
    // Six or so election timeouts.
    world.recover(60);
  } catch (error) {
    throw new Error(`seed ${seed} (repeat with RAFT_SEED=${seed})\n${world.describe()}`, { cause: error });
  }
  return world;
}

if (process.env.RAFT_SEED !== undefined) {
  test(`seed ${process.env.RAFT_SEED}`, () => {
    run(Number(process.env.RAFT_SEED));
  });
} else {
  test(`${SEEDS} random worlds keep every invariant and recover`, { timeout: 600_000 }, () => {
    const total = new Map<string, number>();
    for (let seed = 1; seed <= SEEDS; seed++)
      for (const [what, count] of run(seed).sometimes) total.set(what, (total.get(what) ?? 0) + count);
    // A rare path that is never reached is not being tested.
    const expected = [
      "leader elected",
      "leader deposed",
      "leader stepped down by itself",
      "tail replaced",
      "snapshot installed",
      "joint snapshot installed",
      "joint configuration left",
      "change refused: change-pending",
      "change refused: invalid-change",
      "refused: too-much-uncommitted",
      "refused: transferring",
      "refused: removed",
      "timeout now",
      "read confirmed",
      "read dropped",
      "crashed with unsynced appends",
      "snapshot cut short",
      "made anew",
    ];
    if (process.env.RAFT_VERBOSE !== undefined)
      process.stdout.write(`${JSON.stringify([...total], null, 1)}\n`);
    expect(expected.filter((what) => (total.get(what) ?? 0) === 0)).toEqual([]);
  });
}

test("a seed leads to the same world every time", () => {
  const ends = (): string[] =>
    [11, 12, 13].map((seed) => `${run(seed).describe()} ${JSON.stringify([...run(seed).sometimes])}`);
  expect(ends()).toEqual(ends());
});

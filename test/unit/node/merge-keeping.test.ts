import { describe, expect, it } from "vitest";
import { MergeWorld } from "./merge-world.js";

const doings = ({ log }: MergeWorld): string[] => log.map((line) => line.replace(/^\d+ /, ""));

describe("a merge that was begun", () => {
  it("goes on without a member that answers but does not apply the freeze", async () => {
    const world = new MergeWorld(2);
    world.frozen.add(4);
    world.stuck.add(3);
    await world.run(60_000, () => world.frozen.size === 0);
    expect(doings(world)).toEqual(["replace 3 3 -> null", "replace 4 3 -> null", "absorbed 4"]);
    expect(world.clock.monotonicMs()).toBeLessThan(25_000);
  });

  it("waits as long as most members have not applied the freeze", async () => {
    const world = new MergeWorld(2);
    world.frozen.add(4);
    world.stuck.add(2).add(3);
    await world.run(60_000);
    expect(doings(world)).toEqual([]);
  });
});

describe("a merge by itself", () => {
  it.each([
    ["has no disk space", (world: MergeWorld) => world.full.add(3)],
    ["has yet to apply much", (world: MergeWorld) => (world.behind = 300)],
    ["is down", (world: MergeWorld) => world.down.add(3)],
  ])("does not begin where a member %s", async (_, make) => {
    const world = new MergeWorld(2);
    make(world);
    await world.run(30_000);
    expect(doings(world)).toEqual([]);
  });

  it("begins where all is well", async () => {
    const world = new MergeWorld(2);
    world.behind = 100;
    await world.run(30_000);
    expect(doings(world)).toEqual(["frozen 4", "absorbed 4"]);
  });
});

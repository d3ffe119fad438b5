import { describe, expect, it } from "vitest";
import { RetryError } from "../../../src/base/errors.js";
import { groupId, nodeId } from "../../../src/base/ids.js";
import { pause } from "../../../src/base/waits.js";
import { MergeWorld } from "./merge-world.js";

const doings = ({ log }: MergeWorld): string[] => log.map((line) => line.replace(/^\d+ /, ""));

/** Until the range has been tried in vain for a minute, nobody else's turn would come. */
it("ranges that were frozen one for the other are taken in from the left", async () => {
  const world = new MergeWorld(4);
  for (const range of [4, 5, 6]) world.frozen.add(range);
  world.absorbs = (left) => {
    if (world.frozen.has(left)) throw new RetryError("OSTRAKA_UNAVAILABLE", "it is being taken in");
  };
  await world.run(60_000, () => world.frozen.size === 0);
  expect(doings(world)).toEqual(["absorbed 4", "absorbed 5", "absorbed 6"]);
  expect(world.clock.monotonicMs()).toBeLessThan(20_000);
});

describe("a merge that was begun", () => {
  it("goes on without a member that answers but does not apply the freeze", async () => {
    const world = new MergeWorld(2);
    world.frozen.add(4);
    world.stuck.add(3);
    await world.run(60_000, () => world.frozen.size === 0);
    expect(doings(world)).toEqual(["replace 3 3 -> null", "replace 4 3 -> null", "absorbed 4"]);
    expect(world.clock.monotonicMs()).toBeLessThan(25_000);
  });

  it("goes on without a member that answers but does not get the replica that it lacks", async () => {
    const world = new MergeWorld(2);
    world.frozen.add(4);
    world.voters.set(4, [1, 2].map(nodeId));
    const { replace } = world;
    world.replace = async (group, from, to, withinMs) => {
      if (to === null) return replace(group, from, to, withinMs);
      world.did("waits for a replica");
      await pause(world.clock, withinMs);
      throw new RetryError("OSTRAKA_TIMEOUT", "it has not caught up");
    };
    await world.run(60_000, () => world.frozen.size === 0);
    expect(doings(world)).toEqual(["waits for a replica", "replace 3 3 -> null", "absorbed 4"]);
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

it("merges that were begun wait for a dead node at the same time", async () => {
  const world = new MergeWorld(16);
  for (let right = 4; right <= 18; right += 2) world.frozen.add(right);
  world.down.add(3);
  await world.run(300_000, () => world.frozen.size === 0);
  expect(world.frozen).toEqual(new Set());
  expect(world.clock.monotonicMs()).toBeLessThan(30_000);
});

it("merges of neighbours that were begun come one after the other", async () => {
  const world = new MergeWorld(3);
  world.frozen.add(4).add(5);
  await world.run(20_000, () => world.frozen.size === 0);
  expect(doings(world)).toEqual(["absorbed 4", "absorbed 5"]);
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

  it("leaves a child alone that was split off by hand while nodes were asked", async () => {
    const world = new MergeWorld(2);
    world.onReport = async () => {
      world.onReport = async () => undefined;
      const child = { range: groupId(77), start: "aa", end: "b", generation: 3, replicas: [nodeId(1)] };
      const wish = { range: child.range, leader: undefined, placed: false, apart: true };
      await world.command({ kind: "wish", wish });
      world.learn([{ ...world.directory.ranges[0]!, end: "aa", generation: 3 }, child]);
    };
    await world.run(8_000);
    expect(doings(world)).toEqual([]);
    expect(world.meta.wish(groupId(77))?.apart).toBe(true);
  });

  it("leaves a range alone that is placed by hand while replicas are brought together", async () => {
    const world = new MergeWorld(2);
    world.voters.set(4, [nodeId(1), nodeId(2)]);
    const { replace } = world;
    world.replace = async (...move) => {
      await replace(...move);
      await world.command({ kind: "wish", wish: { ...world.meta.wish(groupId(4))!, placed: true } });
    };
    await world.run(30_000);
    expect(doings(world)).toEqual(["replace 4 null -> 3"]);
  });

  it("tries the next pair of small ranges where the first cannot be merged", async () => {
    const world = new MergeWorld(4);
    world.vacant = false;
    world.freeze = async (range) => {
      if (range === 4) throw new RetryError("OSTRAKA_RETRY", "a transaction does not come to its end");
    };
    await world.run(70_000);
    expect(doings(world)).toEqual(["frozen 5", "absorbed 5"]);
  });

  it("of small ranges does not begin where a member is down", async () => {
    const world = new MergeWorld(4);
    world.vacant = false;
    world.down.add(3);
    const marked: boolean[] = [];
    world.meta.onChange(({ wishes }) => marked.push(wishes.length > 0));
    await world.run(70_000);
    expect(marked).not.toContain(true);
  });

  it("is not decided by an old schema", async () => {
    const world = new MergeWorld(2);
    world.refreshSchema = async () => {
      world.vacant = false;
    };
    await world.run(8_000);
    expect(doings(world)).toEqual([]);
  });

  it.each([
    ["cannot be read", async () => Promise.reject(new RetryError("OSTRAKA_UNAVAILABLE", "nobody leads"))],
    ["is not answered", () => new Promise<void>(() => undefined)],
  ])("waits where the schema %s, and those that were begun do not", async (_, refresh) => {
    const world = new MergeWorld(4);
    world.refreshSchema = async () => {
      world.frozen.add(6);
      return refresh();
    };
    await world.run(30_000, () => doings(world).includes("absorbed 6"));
    expect(doings(world)).toEqual(["absorbed 6"]);
  });

  it("begins where all is well", async () => {
    const world = new MergeWorld(2);
    world.behind = 100;
    await world.run(30_000);
    expect(doings(world)).toEqual(["frozen 4", "absorbed 4"]);
  });
});

describe("merges that somebody else has begun", () => {
  it("come before those of the vacant ranges that are left", async () => {
    const world = new MergeWorld(24);
    world.onReport = async () => {
      if (world.meta.wish(groupId(26))?.merging !== true) world.frozen.add(26);
    };
    await world.run(40_000, () => doings(world).includes("absorbed 26"));
    const absorbed = doings(world).filter((what) => what.startsWith("absorbed"));
    expect(absorbed.indexOf("absorbed 26")).toBe(8);
  });

  it("do not wait for a pair whose replicas take long to be brought together", async () => {
    const world = new MergeWorld(4);
    world.voters.set(4, [nodeId(1), nodeId(2)]);
    const { replace } = world;
    world.replace = async (...[, , , withinMs]) => {
      world.did(`replaces within ${withinMs}`);
      world.frozen.add(6);
      world.replace = replace;
      await pause(world.clock, withinMs);
      throw new RetryError("OSTRAKA_TIMEOUT", "it has not caught up");
    };
    await world.run(90_000, () => doings(world).includes("absorbed 6"));
    expect(world.log[0]).toMatch(/replaces within (60000|5\d{4})$/);
    expect(doings(world)).toContain("absorbed 6");
  });
});

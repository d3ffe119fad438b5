import { afterEach, describe, expect, it } from "vitest";
import { groupId } from "../../../src/base/ids.js";
import {
  CounterMachine,
  decodeCounterResult,
  encodeCounterCommand,
} from "../../../src/machines/samples/counter.js";
import { GROUP, type SimNode, World } from "../../sim/multiraft-world.js";

let world: World;
afterEach(() => world.stop());

const increment = (node: SimNode, group = GROUP): Promise<bigint> =>
  node
    .group(group)
    .propose(encodeCounterCommand(["INCR", "n", 1n]))
    .then(({ result }) => decodeCounterResult(result));
const awake = (): number => world.live().reduce((sum, node) => sum + node.host.stats().awake, 0);
const asleep = (): Promise<void> => world.until(() => awake() === 0, "all groups sleep");

describe("idle groups", () => {
  it("fall asleep on all nodes, stay asleep, and wake for a proposal", async () => {
    world = await World.start({ machine: () => new CounterMachine() });
    const leader = await world.leader();
    await world.during(increment(leader));
    await asleep();
    const { term } = leader.group().status();
    await world.run(60_000);
    expect(awake()).toBe(0);
    expect(await world.during(increment(leader))).toBe(2n);
    await world.converge();
    expect(leader.group().status().term).toBe(term);
    await asleep();
  });

  it("stay asleep although answers to the last heartbeats come late", async () => {
    world = await World.start({
      machine: () => new CounterMachine(),
      network: { minDelayMs: 130, maxDelayMs: 170 },
    });
    await world.leader();
    await asleep();
    for (let i = 0; i < 20; i++) {
      await world.run(100);
      expect(awake()).toBe(0);
    }
  });

  it("elect a new leader when the node that led them dies", async () => {
    world = await World.start({ machine: () => new CounterMachine() });
    const leader = await world.leader();
    await asleep();
    world.crash(leader);
    const began = world.clock.monotonicMs();
    const next = await world.leader(GROUP, leader);
    expect(world.clock.monotonicMs() - began).toBeLessThan(5_000);
    expect(await world.during(increment(next))).toBe(1n);
  });

  it("elect a new leader when the node that led them restarts faster than its silence is noticed", async () => {
    world = await World.start({ machine: () => new CounterMachine() });
    const leader = await world.leader();
    await asleep();
    await world.restart(leader);
    const next = await world.leader();
    expect(await world.during(increment(next))).toBe(1n);
    await asleep();
  });

  it("wake when a sleeping leader was cut off, and the old leader finds out", async () => {
    world = await World.start({ machine: () => new CounterMachine() });
    const leader = await world.leader();
    await asleep();
    world.network.isolate(
      leader.id,
      world.nodes.map(({ id }) => id),
    );
    const next = await world.leader(GROUP, leader);
    const lost = increment(leader).catch((error: unknown) => error);
    expect(await world.during(increment(next))).toBe(1n);
    world.network.heal();
    expect(await world.during(lost)).toBeInstanceOf(Error);
    await world.converge();
    await asleep();
  });

  it("do not fall asleep while a proposal waits, and survive losing the word that says sleep", async () => {
    world = await World.start({
      seed: 5,
      machine: () => new CounterMachine(),
      network: { loss: 0.3, maxDelayMs: 30 },
    });
    const leader = await world.leader();
    await world.run(20_000);
    world.network.options = { ...world.network.options, loss: 0 };
    const current = await world.leader();
    await world.during(increment(current));
    await asleep();
    expect(leader.fatal).toBeUndefined();
  });

  it("cost nothing a tick: five hundred on three nodes", async () => {
    const groups = Array.from({ length: 500 }, (_, i) => groupId(i + 1));
    world = await World.start({ machine: () => new CounterMachine(), groups, segmentBytes: 4 << 20 });
    await world.until(() => groups.every((group) => world.leaderOf(group) !== undefined), "all have leaders");
    await asleep();
    const before = world.nodes.map((node) => node.host.stats());
    await world.run(10_000);
    world.nodes.forEach((node, i) => {
      const now = node.host.stats();
      const then = before[i] as typeof now;
      expect(now.groups).toBe(500);
      expect(now.ticks - then.ticks).toBe(100);
      expect(now.groupTicks - then.groupTicks).toBe(0);
      expect(now.turns - then.turns).toBe(0);
      expect(now.appends - then.appends).toBe(0);
      // One small frame a peer a tick, where the last tick before did not send a real one.
      expect(now.framesSent - then.framesSent).toBeLessThanOrEqual(200);
      expect(now.framesSent - then.framesSent).toBeGreaterThanOrEqual(196);
    });
    const group = groups[123] as (typeof groups)[0];
    const leader = await world.leader(group);
    expect(await world.during(increment(leader, group))).toBe(1n);
  }, 60_000);
});

describe("awake groups", () => {
  it("share one frame a peer for their heartbeats", async () => {
    const groups = Array.from({ length: 100 }, (_, i) => groupId(i + 1));
    world = await World.start({ machine: () => new CounterMachine(), groups, host: { quiesceTicks: 0 } });
    await world.until(() => groups.every((group) => world.leaderOf(group) !== undefined), "all have leaders");
    await world.run(2_000);
    const before = world.nodes.map((node) => node.host.stats().framesSent);
    await world.run(10_000);
    world.nodes.forEach((node, i) => {
      const frames = node.host.stats().framesSent - (before[i] as number);
      // A tick: heartbeats to two peers, and answers to two peers.
      expect(frames).toBeLessThanOrEqual(100 * 4 + 8);
    });
  }, 60_000);
});

describe("a stalled node", () => {
  it("reads what its sockets hold before it ticks, and ticks once", async () => {
    world = await World.start({ machine: () => new CounterMachine(), host: { quiesceTicks: 0 } });
    const leader = await world.leader();
    await world.run(1_000);
    const { term } = leader.group().status();
    const follower = world.nodes.find((node) => node !== leader) as SimNode;
    for (let i = 0; i < 3; i++) {
      const { ticks, stalls } = follower.host.stats();
      follower.clock.pause(5_000);
      await world.run(5_050);
      expect(follower.host.stats().stalls - stalls).toBe(1);
      expect(follower.host.stats().ticks - ticks).toBeLessThanOrEqual(3);
    }
    await world.run(5_000);
    expect(leader.group().status()).toMatchObject({ role: "leader", term });
    expect(await world.during(increment(leader))).toBe(1n);
  });

  it("does not depose its followers' choice when it led before it stalled", async () => {
    world = await World.start({ machine: () => new CounterMachine(), host: { quiesceTicks: 0 } });
    const leader = await world.leader();
    leader.clock.pause(10_000);
    const read = leader
      .group()
      .readIndex()
      .catch((error: unknown) => error);
    const next = await world.leader(GROUP, leader);
    await world.during(increment(next));
    await world.run(10_000);
    expect(await world.during(read)).toBeInstanceOf(Error);
    await world.converge();
    expect(await world.during(increment(await world.leader()))).toBe(2n);
  });
});

/** Followers put off what may wait, and are in a hurry as soon as somebody there waits for it. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type LogIndex, logIndex } from "../../../src/base/ids.js";
import { CounterMachine, encodeCounterCommand } from "../../../src/machines/samples/counter.js";
import type { GroupMachine } from "../../../src/multiraft/types.js";
import { type SimNode, World } from "../../sim/multiraft-world.js";

const PATIENT = encodeCounterCommand(["INCR", "n", 1n]);
const URGENT = encodeCounterCommand(["RESET", "n"]);

/** Counts calls that carry something. */
const calls = new Map<number, number>();

function patient(machine: GroupMachine, node: number): GroupMachine {
  const { apply } = machine;
  machine.apply = (entries, upTo) => {
    if (entries.length > 0) calls.set(node, (calls.get(node) ?? 0) + 1);
    return apply.call(machine, entries, upTo);
  };
  machine.mayWait = (data) => data.length === PATIENT.length;
  return machine;
}

describe("a follower", () => {
  let world: World;
  let leader: SimNode;
  let followers: SimNode[];

  beforeEach(async () => {
    calls.clear();
    world = await World.start({
      machine: () => new CounterMachine(),
      wrap: (machine, _, node) => patient(machine, node),
    });
    leader = await world.leader();
    followers = world.nodes.filter((node) => node !== leader);
    await world.run(200);
  });
  afterEach(() => world.stop());

  const applied = (node: SimNode): LogIndex => node.group().status().applied;
  const write = async (data: Uint8Array): Promise<LogIndex> =>
    (await world.during(leader.group().propose(data))).index;

  it("applies many small entries in a few calls, and everything within a second or so", async () => {
    let last = logIndex(0);
    for (let i = 0; i < 24; i++) {
      last = await write(PATIENT);
      await world.run(40);
    }
    expect(applied(leader)).toBe(last);
    expect(calls.get(leader.id)).toBe(24);
    for (const node of followers) expect(calls.get(node.id) ?? 0).toBeLessThanOrEqual(3);
    await world.run(1500);
    for (const node of followers) {
      expect(applied(node)).toBe(last);
      expect(calls.get(node.id)).toBeLessThanOrEqual(4);
    }
  });

  it("applies at once what somebody there waits for, known to be committed or not", async () => {
    const last = await write(PATIENT);
    const [follower, other] = followers as [SimNode, SimNode];
    expect(applied(follower)).toBeLessThan(last);
    const began = world.clock.monotonicMs();
    await world.during(follower.group().waitApplied(last));
    expect(applied(follower)).toBe(last);
    // A round trip to the leader, and not until the next heartbeat.
    expect(world.clock.monotonicMs() - began).toBeLessThan(100);
    expect(applied(other)).toBeLessThan(last);
  });

  it("applies at once what may not wait, with what could", async () => {
    await write(PATIENT);
    const last = await write(URGENT);
    await world.run(50);
    for (const node of followers) expect(applied(node)).toBe(last);
  });

  it("has applied everything when it leads", async () => {
    let last = logIndex(0);
    for (let i = 0; i < 5; i++) last = await write(PATIENT);
    world.crash(leader);
    const next = await world.leader(undefined, leader);
    await world.until(() => next.group().status().leaderReady, "the new leader is ready");
    expect(applied(next)).toBeGreaterThan(last);
    const { result } = await world.during(next.group().propose(PATIENT));
    expect(result.length).toBeGreaterThan(0);
  });

  it("falls asleep with all that it has applied", async () => {
    const last = await write(PATIENT);
    await world.until(() => world.nodes.every((node) => node.host.stats().awake === 0), "all sleep", 10_000);
    for (const node of followers) expect(applied(node)).toBe(last);
  });
});

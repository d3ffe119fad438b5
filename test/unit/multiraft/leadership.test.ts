import { afterEach, describe, expect, it } from "vitest";
import { AmbiguousError, RetryError, RouteError } from "../../../src/base/errors.js";
import { type NodeId, nodeId, term } from "../../../src/base/ids.js";
import { decodeKvResult, encodeKvCommand, KvMachine } from "../../../src/machines/samples/kv.js";
import type { GroupMachine, GroupStatus } from "../../../src/multiraft/types.js";
import { GROUP, type SimNode, World } from "../../sim/multiraft-world.js";

let world: World;
afterEach(() => world.stop());

const start = async (): Promise<void> => {
  world = await World.start({ machine: () => new KvMachine() });
};
const put = (node: SimNode, key: string, value: string): Promise<unknown> =>
  node.group().propose(encodeKvCommand(["PUT", key, value]));
const valueAt = (node: SimNode, key: string): string | null =>
  (node.machines.get(GROUP) as KvMachine).get(key);
const others = (node: SimNode): SimNode[] => world.nodes.filter((other) => other !== node);
const ids = () => world.nodes.map(({ id }) => id);
const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  );

describe("leadership", () => {
  it("moves on when the leader dies, and what was acknowledged stays", async () => {
    await start();
    const first = await world.leader();
    await world.during(put(first, "a", "1"));
    world.crash(first);
    const second = await world.leader(GROUP, first);
    expect(second).not.toBe(first);
    await world.during(put(second, "b", "2"));
    await world.restart(first);
    await world.converge();
    expect([valueAt(first, "a"), valueAt(first, "b")]).toEqual(["1", "2"]);
  });

  it("survives a restart of all nodes at once", async () => {
    await start();
    const leader = await world.leader();
    for (let i = 0; i < 50; i++) await world.during(put(leader, `k${i}`, `${i}`));
    for (const node of world.nodes) world.crash(node);
    for (const node of world.nodes) await world.restart(node);
    await world.leader();
    await world.converge();
    for (const node of world.nodes) expect(valueAt(node, "k49")).toBe("49");
  });

  it("is transferred on request, without an ambiguous proposal", async () => {
    await start();
    const first = await world.leader();
    const target = others(first)[0] as SimNode;
    const before = put(first, "a", "1");
    await world.during(first.group().transferLeadership(target.id));
    await world.during(before);
    expect(await world.leader(GROUP, first)).toBe(target);
    await world.during(put(target, "a", "2"));
    await world.converge();
  });

  it("says so when a transfer does not work out", async () => {
    await start();
    const leader = await world.leader();
    const target = others(leader)[0] as SimNode;
    world.network.isolate(target.id, ids());
    const failed = world.during(failure(leader.group().transferLeadership(target.id)));
    expect(await world.during(failure(put(leader, "a", "1")))).toBeInstanceOf(RetryError);
    expect(await failed).toBeInstanceOf(RetryError);
    expect(await failure(leader.group().transferLeadership(nodeId(9)))).toBeInstanceOf(RetryError);
    await world.during(put(leader, "a", "2"));
  });

  it("tells listeners of each change once, and that a new leader may serve only after its empty entry", async () => {
    await start();
    const heard: GroupStatus[] = [];
    for (const node of world.nodes) node.group().onChange((status) => heard.push(status));
    const leader = await world.leader();
    await world.run(1000);
    const atLeader = heard.filter(({ role }) => role === "leader");
    expect(atLeader.map(({ leaderReady }) => leaderReady)).toEqual([false, true]);
    expect(atLeader[1]?.applied).toBeGreaterThan(atLeader[0]?.applied as number);
    // Each follower hears of the leader once, the leader of itself twice.
    expect(heard.filter(({ leader: known }) => known === leader.id)).toHaveLength(4);
  });
});

describe("proposals", () => {
  it("are refused with the leader's name by followers", async () => {
    await start();
    const leader = await world.leader();
    await world.run(300);
    for (const follower of others(leader)) {
      for (const request of [put(follower, "a", "1"), follower.group().readIndex()]) {
        const error = await failure(request);
        expect(error).toBeInstanceOf(RouteError);
        expect((error as RouteError).leader).toBe(leader.id);
      }
    }
  });

  it("are refused in another term than the one asked for", async () => {
    await start();
    const leader = await world.leader();
    const now = leader.group().status().term;
    const data = encodeKvCommand(["PUT", "a", "1"]);
    const wrong = leader.group().propose(data, { onlyInTerm: term(now - 1) });
    expect(await world.during(failure(wrong))).toBeInstanceOf(RouteError);
    const { term: at, result } = await world.during(leader.group().propose(data, { onlyInTerm: now }));
    expect(at).toBe(now);
    expect(decodeKvResult(result).done).toBe(true);
  });

  it("of a leader that is cut off for good are ambiguous after it has stepped down", async () => {
    await start();
    const leader = await world.leader();
    world.network.isolate(leader.id, ids());
    const lost = failure(put(leader, "a", "lost"));
    expect(await world.during(lost)).toBeInstanceOf(AmbiguousError);
    expect(leader.group().status().role).not.toBe("leader");
  });

  it("that a new leader has overwritten are known to have failed", async () => {
    await start();
    const leader = await world.leader();
    world.network.isolate(leader.id, ids());
    const lost = failure(put(leader, "a", "lost"));
    const next = await world.leader(GROUP, leader);
    await world.during(put(next, "a", "kept"));
    world.network.heal();
    const error = await world.during(lost);
    expect(error).toBeInstanceOf(RouteError);
    expect((error as RouteError).leader).toBe(next.id);
    await world.converge();
    expect(valueAt(leader, "a")).toBe("kept");
  });

  it("that commit under the next leader resolve at the deposed one", async () => {
    await start();
    const leader = await world.leader();
    const [near, far] = others(leader) as [SimNode, SimNode];
    // Only `near` gets the entry, and its acknowledgement does not come back.
    world.network.cut(leader.id, far.id);
    world.network.cut(near.id, leader.id);
    world.network.cut(far.id, leader.id);
    const kept = put(leader, "a", "kept");
    await world.run(5);
    world.network.cut(leader.id, near.id);
    const next = await world.leader(GROUP, leader);
    expect(next).toBe(near);
    world.network.heal();
    await world.during(kept);
    await world.converge();
    expect(valueAt(far, "a")).toBe("kept");
  });

  it("are refused beyond the queue's bound, and nothing of them is appended", async () => {
    world = await World.start({ machine: () => new KvMachine(), host: { maxPendingProposals: 10 } });
    const leader = await world.leader();
    const all = Array.from({ length: 15 }, (_, i) => failure(put(leader, `k${i}`, "x")));
    const errors = await world.during(Promise.all(all));
    expect(errors.slice(0, 10)).toEqual(Array(10).fill(undefined));
    for (const error of errors.slice(10)) expect(error).toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
    await world.converge();
    expect(valueAt(leader, "k10")).toBe(null);
  });
});

describe("reads", () => {
  it("of one turn share a round", async () => {
    await start();
    const leader = await world.leader();
    await world.run(500);
    let rounds = 0;
    world.network.observe = (from, to, frame) => {
      if (from === leader.id && to === others(leader)[0]?.id && frame.heartbeats.length > 0) rounds++;
    };
    await world.during(Promise.all(Array.from({ length: 100 }, () => leader.group().readIndex())));
    expect(rounds).toBeGreaterThan(0);
    expect(rounds).toBeLessThanOrEqual(2);
  });

  it("see every write acknowledged before, on whichever node leads", async () => {
    await start();
    for (let round = 0; round < 4; round++) {
      const leader = await world.leader();
      await world.during(put(leader, "n", `${round}`));
      const target = others(leader)[round % 2] as SimNode;
      await world.during(leader.group().transferLeadership(target.id));
      const next = await world.leader(GROUP, leader);
      await world.during(next.group().readIndex());
      expect(valueAt(next, "n")).toBe(`${round}`);
    }
  });

  it("are rejected, not answered, by a leader that is cut off", async () => {
    await start();
    const leader = await world.leader();
    world.network.isolate(leader.id, ids());
    expect(await world.during(failure(leader.group().readIndex()))).toBeInstanceOf(RouteError);
  });

  it("wait on a replica for an index that is not applied there yet", async () => {
    await start();
    const leader = await world.leader();
    const follower = others(leader)[0] as SimNode;
    const index = leader.group().status().lastIndex + 1;
    const waiting = follower.group().waitApplied(index as never);
    await world.during(put(leader, "a", "1"));
    await world.during(waiting);
    expect(valueAt(follower, "a")).toBe("1");
  });

  it("wait at a new leader until it has applied what its predecessor acknowledged", async () => {
    const hosted = new Map<NodeId, GroupMachine>();
    const gates = new Map<GroupMachine, Promise<void>>();
    let open = (): void => {};
    world = await World.start({
      machine: () => new KvMachine(),
      wrap: (machine, _group, node) => {
        const apply = machine.apply.bind(machine);
        machine.apply = async (entries, upTo) => {
          await gates.get(machine);
          return apply(entries, upTo);
        };
        hosted.set(node, machine);
        return machine;
      },
    });
    const first = await world.leader();
    const next = others(first)[0] as SimNode;
    await world.during(put(first, "a", "old"));
    await world.converge();
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    gates.set(hosted.get(next.id) as GroupMachine, gate);
    await world.during(put(first, "a", "new"));
    await world.during(first.group().transferLeadership(next.id));
    await world.run(500);
    let answered = false;
    const read = next.group().readIndex();
    void read.then(() => {
      answered = true;
    });
    await world.run(2_000);
    expect(next.group().status()).toMatchObject({ role: "leader", leaderReady: false });
    expect(answered).toBe(false);
    expect(valueAt(next, "a")).toBe("old");
    open();
    await world.during(read);
    expect(valueAt(next, "a")).toBe("new");
    expect(next.group().status().leaderReady).toBe(true);
  });
});

import { afterEach, describe, expect, it } from "vitest";
import { Counter, CounterMachine } from "../../../src/machines/samples/counter.js";
import { Kv, KvMachine } from "../../../src/machines/samples/kv.js";
import { Lock, LockMachine } from "../../../src/machines/samples/lock.js";
import { GROUP, type SimNode, World } from "../../sim/multiraft-world.js";

let world: World;
afterEach(() => world.stop());

const kvOf = (node: SimNode): Kv => new Kv(node.group(), node.machines.get(GROUP) as KvMachine);

describe("samples, replicated on three hosts", () => {
  it("kv: PUT, DEL, CAS and linearizable GET", async () => {
    world = await World.start({ machine: () => new KvMachine() });
    const leader = await world.leader();
    const kv = kvOf(leader);
    expect(await world.during(kv.put("a", "1"))).toEqual({ done: true, previous: null });
    expect(await world.during(kv.compareAndSet("a", "2", "3"))).toEqual({ done: false, previous: "1" });
    expect(await world.during(kv.compareAndSet("a", "1", "3"))).toEqual({ done: true, previous: "1" });
    expect(await world.during(kv.get("a"))).toBe("3");
    expect(await world.during(kv.delete("a"))).toEqual({ done: true, previous: "3" });
    expect(await world.during(kv.delete("a"))).toEqual({ done: false, previous: null });
    await world.during(kv.put("b", "kept"));
    await world.converge();
    for (const node of world.nodes) expect((node.machines.get(GROUP) as KvMachine).get("b")).toBe("kept");
  });

  it("counter: INCR, DECR, RESET beyond 2^53", async () => {
    world = await World.start({ machine: () => new CounterMachine() });
    const leader = await world.leader();
    const counter = new Counter(leader.group(), leader.machines.get(GROUP) as CounterMachine);
    expect(await world.during(counter.increment("n", 2n ** 60n))).toBe(2n ** 60n);
    expect(await world.during(counter.decrement("n"))).toBe(2n ** 60n - 1n);
    expect(await world.during(counter.value("n"))).toBe(2n ** 60n - 1n);
    expect(await world.during(counter.reset("n"))).toBe(0n);
    await world.converge();
  });

  it("lock: one owner at a time, tokens that only grow", async () => {
    world = await World.start({ machine: () => new LockMachine() });
    const leader = await world.leader();
    const lock = new Lock(leader.group(), leader.machines.get(GROUP) as LockMachine);
    const first = await world.during(lock.acquire("l", "ann"));
    expect(first).toMatchObject({ done: true, owner: "ann" });
    expect(await world.during(lock.acquire("l", "bob"))).toEqual({ ...first, done: false });
    expect(await world.during(lock.acquire("l", "ann"))).toEqual(first);
    expect(await world.during(lock.release("l", "bob"))).toMatchObject({ done: false, owner: "ann" });
    expect(await world.during(lock.release("l", "ann", first.token))).toEqual({
      done: true,
      owner: null,
      token: 0,
    });
    const second = await world.during(lock.acquire("l", "bob"));
    expect(second.token).toBeGreaterThan(first.token);
    expect(await world.during(lock.release("l", "bob", first.token))).toMatchObject({ done: false });
    expect(await world.during(lock.holder("l"))).toEqual({ owner: "bob", token: second.token });
    await world.converge();
  });
});

describe("a group of one", () => {
  it("serves, restarts with what it had, and sleeps", async () => {
    world = await World.start({ nodes: 1, machine: () => new KvMachine() });
    const node = await world.leader();
    await world.during(kvOf(node).put("a", "1"));
    await world.restart(node);
    await world.leader();
    expect(await world.during(kvOf(node).get("a"))).toBe("1");
    await world.until(() => node.host.stats().awake === 0, "it sleeps");
    await world.during(kvOf(node).put("a", "2"));
    expect(await world.during(kvOf(node).get("a"))).toBe("2");
  });
});

describe("a turn", () => {
  it("makes one append and one frame a peer of many proposals", async () => {
    world = await World.start({ machine: () => new CounterMachine() });
    const leader = await world.leader();
    await world.run(500);
    const counter = new Counter(leader.group(), leader.machines.get(GROUP) as CounterMachine);
    const before = leader.host.stats();
    let appends = 0;
    world.network.observe = (from, _to, frame) => {
      if (from === leader.id)
        appends += frame.messages.filter(({ message }) => message.entries.length > 0).length;
    };
    const all = Promise.all(Array.from({ length: 200 }, () => counter.increment("n")));
    const values = await world.during(all);
    expect(values[199]).toBe(200n);
    expect(leader.host.stats().appends - before.appends).toBe(1);
    expect(appends).toBe(2);
  });
});

describe("durability", () => {
  /** Operations of this node's disk take for ever, until the returned function is called. */
  const stick = (node: SimNode): (() => void) => {
    let release!: () => void;
    const stuck = new Promise<void>((resolve) => {
      release = resolve;
    });
    node.disk.delay = () => stuck;
    return () => {
      node.disk.delay = undefined;
      release();
    };
  };

  it("comes before every acknowledgement", async () => {
    world = await World.start({ machine: () => new KvMachine() });
    const leader = await world.leader();
    await world.run(500);
    const [stuck, other] = world.nodes.filter((node) => node !== leader) as [SimNode, SimNode];
    const before = leader.group().status().lastIndex;
    const release = stick(stuck);
    await world.during(kvOf(leader).put("a", "1"));
    await world.run(500);
    expect(leader.group().status().match.get(stuck.id)).toBe(before);
    expect(leader.group().status().match.get(other.id)).toBe(before + 1);
    release();
    await world.converge();
    expect(leader.group().status().match.get(stuck.id)).toBe(before + 1);
  });

  it("comes before every vote", async () => {
    world = await World.start({ machine: () => new KvMachine() });
    const leader = await world.leader();
    await world.run(500);
    const [stuck, other] = world.nodes.filter((node) => node !== leader) as [SimNode, SimNode];
    const release = stick(stuck);
    world.crash(leader);
    await world.run(10_000);
    expect(other.group().status().role).not.toBe("leader");
    expect(stuck.group().status().role).not.toBe("leader");
    release();
    await world.leader(GROUP, leader);
  });

  it("of the leader's own log is not waited for by its followers", async () => {
    world = await World.start({ machine: () => new KvMachine() });
    const leader = await world.leader();
    await world.run(500);
    const release = stick(leader);
    const write = kvOf(leader).put("a", "1");
    const others = world.nodes.filter((node) => node !== leader);
    const has = (node: SimNode): boolean => (node.machines.get(GROUP) as KvMachine).get("a") === "1";
    await world.until(() => others.every(has), "the followers have applied it", 1_000);
    expect(has(leader)).toBe(false);
    release();
    await world.during(write);
    expect(has(leader)).toBe(true);
  });
});

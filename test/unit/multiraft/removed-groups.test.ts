import { afterEach, describe, expect, it } from "vitest";
import { FatalError } from "../../../src/base/errors.js";
import { groupId, logIndex, term } from "../../../src/base/ids.js";
import { MemoryMachine } from "../../../src/machines/memory-machine.js";
import { encodeKvCommand, KvMachine } from "../../../src/machines/samples/kv.js";
import type { GroupMachine } from "../../../src/multiraft/types.js";
import { type Message, MessageType } from "../../../src/raft/types.js";
import { MemoryDisk } from "../../sim/memory-disk.js";
import { GROUP, type SimNode, World } from "../../sim/multiraft-world.js";

let world: World;
afterEach(() => world.stop());

const put = (node: SimNode, key: string, value: string): Promise<unknown> =>
  node.group().propose(encodeKvCommand(["PUT", key, value]));

/** A machine whose applies fail for want of space while `full`. */
function withoutSpace(machine: GroupMachine, full: () => boolean): GroupMachine {
  const apply = machine.apply.bind(machine);
  machine.apply = (entries, upTo) =>
    full() ? Promise.reject(new FatalError("OSTRAKA_DISK_FULL", "no space left")) : apply(entries, upTo);
  return machine;
}

/** One that applies the first of what it is given, durably, before it runs out of space. */
function halfApplying(machine: GroupMachine, full: () => boolean): GroupMachine {
  const apply = machine.apply.bind(machine);
  let applied = 0;
  machine.apply = async (entries, upTo) => {
    const first = entries.find(({ index }) => index > applied);
    const end = full() && first !== undefined ? first.index : upTo;
    const now = entries.filter(({ index }) => index > applied && index <= end);
    if (end > applied) await apply(now, end);
    applied = Math.max(applied, end);
    if (end < upTo) throw new FatalError("OSTRAKA_DISK_FULL", "no space left");
    return entries.map(() => new Uint8Array(0));
  };
  return machine;
}

describe("a group that is removed", () => {
  it("takes along what it lacked in disk space", async () => {
    let full = false;
    world = await World.start({
      machine: () => new KvMachine(),
      wrap: (machine, _group, node) => withoutSpace(machine, () => full && node === 1),
    });
    const leader = await world.leader();
    await world.during(put(leader, "a", "1"));
    full = true;
    const node = world.node(1);
    put(leader, "a", "2").catch(() => undefined);
    await world.until(() => node.host.diskFull !== undefined, "node 1 has no space");
    await world.during(node.host.removeGroup(GROUP));
    expect(node.host.diskFull).toBeUndefined();
  });

  it("and cannot be remembered stops the node, as it is neither here nor gone", async () => {
    world = await World.start({ machine: () => new KvMachine() });
    const node = world.node(1);
    const removed = node.host.removeGroup(GROUP, () =>
      Promise.reject(new FatalError("OSTRAKA_IO", "write departed.json: EIO")),
    );
    await expect(removed).rejects.toMatchObject({ code: "OSTRAKA_IO" });
    expect(node.fatal).toMatchObject({ code: "OSTRAKA_IO" });
    world.crash(node);
  });
});

describe("a group that has left a node", () => {
  it("is told there what is known to be committed, when somebody waits for the node's vote", async () => {
    world = await World.start({ machine: () => new KvMachine() });
    const [gone, waiting, other] = [1, 2, 3].map((id) => world.node(id)) as [SimNode, SimNode, SimNode];
    await world.during(put(await world.leader(), "a", "1"));
    gone.host.tellCommitted((group) => (group === GROUP ? { index: logIndex(9), term: term(7) } : undefined));
    await world.during(gone.host.removeGroup(GROUP));
    world.crash(other);
    const told: Message[] = [];
    const onFrame = waiting.host.onFrame.bind(waiting.host);
    waiting.host.onFrame = (from, frame) => {
      if (from === gone.id) told.push(...frame.messages.map(({ message }) => message));
      onFrame(from, frame);
    };
    await world.until(() => told.length > 0, "node 2 campaigns and is told");
    const { commit } = waiting.group().status();
    expect(told[0]).toMatchObject({
      type: MessageType.PreVoteResponse,
      term: 0,
      reject: true,
      commit: 9,
      logTerm: 7,
    });
    // It has no such entry.
    await world.run(1_000);
    expect(waiting.group().status()).toMatchObject({ commit, leader: 0 });
  });
});

describe("a host that stops", () => {
  it("closes a machine that was being opened", async () => {
    world = await World.start({ machine: () => new KvMachine() });
    const node = world.node(1);
    let opened: (() => void) | undefined;
    const machine = new MemoryMachine({
      machine: new KvMachine(),
      disk: new MemoryDisk().session(),
      directory: "state/41",
    });
    const open = machine.open.bind(machine);
    machine.open = async () => {
      await new Promise<void>((resolve) => {
        opened = resolve;
      });
      return open();
    };
    let closed = false;
    machine.close = async () => {
      closed = true;
    };
    const adding = node.host.addGroup({ group: groupId(41), machine });
    const refused = expect(adding).rejects.toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
    await world.until(() => opened !== undefined, "the machine is being opened");
    await world.during(node.host.stop());
    opened?.();
    await refused;
    expect(closed).toBe(true);
    expect(node.host.findGroup(groupId(41))).toBeUndefined();
  });

  it("does not wait for what a machine without disk space has yet to apply", async () => {
    let full = false;
    world = await World.start({
      machine: () => new KvMachine(),
      host: { maxLogBytes: 2_000, tailBytes: 0 },
      wrap: (machine, _group, node) => (node === 1 ? halfApplying(machine, () => full) : machine),
    });
    const leader = await world.leader();
    await world.during(put(leader, "a", "1"));
    await world.converge();
    full = true;
    for (let i = 0; i < 10; i++) put(leader, `${i}`, "x".repeat(500)).catch(() => undefined);
    const node = world.node(1);
    await world.until(() => node.host.diskFull !== undefined, "node 1 has no space");
    for (let i = 0; i < 10; i++) put(leader, `${i}`, "x".repeat(500)).catch(() => undefined);
    await world.run(2_000);
    await world.during(node.host.stop());
    world.crash(node);
  });
});

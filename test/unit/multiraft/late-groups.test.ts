/** Groups that are added while the node runs: as halves of others, and again after they were removed. */
import { afterEach, describe, expect, it } from "vitest";
import { groupId, logIndex, nodeId, term } from "../../../src/base/ids.js";
import { MemoryMachine } from "../../../src/machines/memory-machine.js";
import { encodeKvCommand, KvMachine } from "../../../src/machines/samples/kv.js";
import { MemoryDisk } from "../../sim/memory-disk.js";
import { type SimNode, World } from "../../sim/multiraft-world.js";

const CHILD = groupId(40);
const BEGINS = { index: logIndex(25), term: term(9) };

let world: World;
afterEach(() => world.stop());

/** A machine that has applied 25 entries of another group's log. */
async function addChild(node: SimNode): Promise<KvMachine> {
  const state = new KvMachine();
  const disk = new MemoryDisk().session();
  const made = new MemoryMachine({ machine: state, disk, directory: "state/40" });
  await made.open();
  const data = encodeKvCommand(["PUT", "inherited", "yes"]);
  await made.apply([{ index: BEGINS.index, term: BEGINS.term, kind: 0, data }], BEGINS.index);
  await made.checkpoint();
  const machine = new MemoryMachine({ machine: state, disk, directory: "state/40" });
  await node.host.addGroup({ group: CHILD, machine, bootstrap: world.members, begins: BEGINS });
  return state;
}

describe("a group that begins in the middle", () => {
  it("has a leader at once where somebody campaigns, and goes on from its index", async () => {
    world = await World.start({ machine: () => new KvMachine() });
    await world.leader();
    const states = await world.during(Promise.all(world.nodes.map(addChild)));
    const began = world.clock.monotonicMs();
    world.node(2).group(CHILD).campaign();
    await world.until(() => world.node(2).group(CHILD).status().leaderReady, "node 2 leads the child");
    expect(world.clock.monotonicMs() - began).toBeLessThan(100);
    const put = encodeKvCommand(["PUT", "own", "1"]);
    const { index, term: at } = await world.during(world.node(2).group(CHILD).propose(put));
    expect(index).toBe(27);
    expect(at).toBeGreaterThan(BEGINS.term);
    await world.converge(CHILD);
    for (const state of states) {
      expect(state.get("inherited")).toBe("yes");
      expect(state.get("own")).toBe("1");
    }
  });

  it("lets a campaign be repeated without deposing anybody or raising terms", async () => {
    world = await World.start({ machine: () => new KvMachine() });
    await world.during(addChild(world.node(1)));
    for (let i = 0; i < 20; i++) {
      world.node(1).group(CHILD).campaign();
      await world.run(10);
    }
    // Nobody else has it: there is no majority, and none was disturbed.
    expect(world.node(1).group(CHILD).status().term).toBe(BEGINS.term);
    await world.during(addChild(world.node(3)));
    world.node(1).group(CHILD).campaign();
    await world.until(() => world.node(1).group(CHILD).status().leaderReady, "node 1 leads the child");
    const { term: led } = world.node(1).group(CHILD).status();
    world.node(3).group(CHILD).campaign();
    await world.run(500);
    expect(world.node(1).group(CHILD).status()).toMatchObject({ role: "leader", term: led });
  });

  it("begins with all of its state in one write, and keeps term and vote when it is told to begin again", async () => {
    world = await World.start({ machine: () => new KvMachine() });
    const node = world.node(2);
    const { log } = node;
    const written: unknown[] = [];
    const append = log.append.bind(log);
    log.append = (records) => {
      written.push(...records.filter(({ group }) => group === CHILD));
      return append(records);
    };
    await world.during(addChild(node));
    expect(written).toMatchObject([
      {
        hardState: { term: BEGINS.term, commit: BEGINS.index },
        snapshot: { ...BEGINS, conf: world.members },
      },
    ]);
    await world.during(addChild(world.node(3)));
    node.group(CHILD).campaign();
    await world.until(() => node.group(CHILD).status().leaderReady, "node 2 leads the child");
    const promised = world.nodes.slice(1).map((one) => one.log.group(CHILD).hardState());
    expect(promised[0]!.term).toBeGreaterThan(BEGINS.term);
    for (const [i, one] of world.nodes.slice(1).entries()) {
      await world.during(one.host.begin({ group: CHILD, bootstrap: world.members, begins: BEGINS }));
      expect(one.log.group(CHILD).hardState()).toEqual(promised[i]);
    }
  });

  it("is there again after a restart", async () => {
    world = await World.start({ machine: () => new KvMachine(), groups: [CHILD] });
    const leader = await world.leader(CHILD);
    await world.during(leader.group(CHILD).propose(encodeKvCommand(["PUT", "a", "1"])));
    await world.restart(leader);
    await world.converge(CHILD);
    expect(leader.group(CHILD).status().lastIndex).toBeGreaterThan(2);
  });
});

describe("a replica that comes back to its group", () => {
  it("votes for no log that ends before the one that it had", async () => {
    world = await World.start({ machine: () => new KvMachine() });
    await world.leader();
    const node = world.node(1);
    // It had one entry more than node 3 has.
    const lost = { index: logIndex(6), term: term(49) };
    const promised = { term: term(50), vote: nodeId(2), log: lost };
    const state = new KvMachine();
    const machine = new MemoryMachine({
      machine: state,
      disk: new MemoryDisk().session(),
      directory: "state/41",
    });
    machine.restore = async (file) => logIndex(Number(/-i(\d+)-/.exec(file)![1]));
    const handle = await world.during(node.host.addGroup({ group: groupId(41), machine, promised }));
    expect(handle.hardState).toEqual({ term: 50, vote: 2 });
    expect(handle.status().applied).toBe(0);
    const members = { voters: [1, 2, 3].map(nodeId), votersOutgoing: [], learners: [], learnersNext: [] };
    const start = async (id: number): Promise<void> => {
      const disk = new MemoryDisk().session();
      const other = new MemoryMachine({ machine: new KvMachine(), disk, directory: "state/41" });
      await other.open();
      await other.apply([], logIndex(5));
      await other.checkpoint();
      await world.during(
        world.node(id).host.addGroup({
          group: groupId(41),
          machine: new MemoryMachine({ machine: new KvMachine(), disk, directory: "state/41" }),
          bootstrap: { ...members, autoLeave: false },
          begins: { index: logIndex(5), term: term(49) },
        }),
      );
    };
    await start(3);
    // What node 1 has acknowledged may be committed: it helps nobody to lead without it.
    world.node(3).group(groupId(41)).campaign();
    await world.run(10_000);
    expect(world.node(3).group(groupId(41)).leader).toBe(0);
    expect(handle.hardState).toEqual({ term: 50, vote: 2 });
    await start(2);
    await world.until(() => handle.leader > 0, "node 2 or 3 leads");
    await world.until(() => handle.status().applied > 5, "node 1 has a state");
    const leader = world.node(handle.leader);
    expect(leader.group(groupId(41)).status().term).toBeGreaterThan(49);
    world.network.isolate(leader.id, [1, 2, 3].map(nodeId));
    await world.until(() => handle.leader > 0 && handle.leader !== leader.id, "node 1 has voted");
  });
});

import { afterEach, describe, expect, it } from "vitest";
import { RetryError, RouteError, UserError } from "../../../src/base/errors.js";
import { encodeKvCommand, KvMachine } from "../../../src/machines/samples/kv.js";
import { GROUP, type SimNode, World } from "../../sim/multiraft-world.js";

let world: World;
afterEach(() => world.stop());

const put = (node: SimNode, key: string, value: string): Promise<unknown> =>
  world.during(node.group().propose(encodeKvCommand(["PUT", key, value])));
const start = async (): Promise<SimNode> => {
  world = await World.start({ machine: () => new KvMachine() });
  const leader = await world.leader();
  await put(leader, "a", "1");
  return leader;
};

describe("membership", () => {
  it("takes in a node as learner, then as voter, with the whole state and membership", async () => {
    const leader = await start();
    const joined = await world.addNode();
    expect(joined.group().status().conf.voters).toEqual([]);
    await world.during(leader.group().changeMembership({ changes: [{ kind: "learner", node: joined.id }] }));
    await world.converge();
    expect(joined.group().status().conf).toMatchObject({ voters: [1, 2, 3], learners: [4] });
    expect((joined.machines.get(GROUP) as KvMachine).get("a")).toBe("1");
    await world.during(leader.group().changeMembership({ changes: [{ kind: "voter", node: joined.id }] }));
    const { conf } = leader.group().status();
    expect([...conf.voters].sort()).toEqual([1, 2, 3, 4]);
    expect(conf.votersOutgoing).toEqual([]);
    await world.during(leader.group().transferLeadership(joined.id));
    const next = await world.leader(GROUP, leader);
    await put(next, "b", "2");
    await world.restart(joined);
    await world.converge();
    expect(joined.group().status().conf.voters).toHaveLength(4);
  });

  it("replaces a dead node in one change", async () => {
    const leader = await start();
    const dead = world.nodes.find((node) => node !== leader) as SimNode;
    world.crash(dead);
    const joined = await world.addNode();
    await world.during(
      leader.group().changeMembership({
        changes: [
          { kind: "voter", node: joined.id },
          { kind: "remove", node: dead.id },
        ],
      }),
    );
    await world.converge();
    expect(joined.group().status().conf.voters).not.toContain(dead.id);
    world.network.observe = (_from, to, frame) => {
      if (to === dead.id && frame.messages.length > 0) throw new Error("a removed node is still spoken to");
    };
    await put(leader, "b", "2");
    await world.run(3_000);
  });

  it("lets a leader remove itself, after which another leads", async () => {
    const leader = await start();
    await world.during(
      leader
        .group()
        .changeMembership({ changes: [{ kind: "remove", node: leader.id }] })
        .catch(() => {}),
    );
    const next = await world.leader(GROUP, leader);
    await put(next, "b", "2");
    expect(next.group().status().conf.voters).not.toContain(leader.id);
    await world.during(leader.host.removeGroup(GROUP));
    expect(leader.log.groups()).toEqual([]);
    expect(() => leader.group()).toThrow();
  });

  it("refuses what may never be, and what a follower is asked for", async () => {
    const leader = await start();
    const all = leader.group().changeMembership({
      changes: [1, 2, 3].map((node) => ({ kind: "remove" as const, node: node as SimNode["id"] })),
    });
    await expect(world.during(all)).rejects.toThrow(UserError);
    const follower = world.nodes.find((node) => node !== leader) as SimNode;
    const there = follower.group().changeMembership({ changes: [{ kind: "learner", node: follower.id }] });
    await expect(world.during(there)).rejects.toThrow(RouteError);
  });

  it("refuses a change after which too few could be heard to complete it", async () => {
    const leader = await start();
    const [dead, other] = world.nodes.filter((node) => node !== leader) as [SimNode, SimNode];
    world.crash(dead);
    // Long enough that the leader knows.
    await world.run(3_000);
    const without = leader.group().changeMembership({ changes: [{ kind: "remove", node: other.id }] });
    await expect(world.during(without)).rejects.toThrow(`${dead.id} cannot be heard`);
    await world.during(leader.group().changeMembership({ changes: [{ kind: "remove", node: dead.id }] }));
    expect(leader.group().status().conf.voters).not.toContain(dead.id);
  });

  it("holds still while asked to, and is not held while it changes", async () => {
    const leader = await start();
    const group = leader.group();
    const joined = await world.addNode();
    const change = { changes: [{ kind: "learner" as const, node: joined.id }] };
    const release = group.holdMembership();
    const other = group.holdMembership();
    await expect(world.during(group.changeMembership(change))).rejects.toThrow(RetryError);
    release();
    release();
    await expect(world.during(group.changeMembership(change))).rejects.toThrow(RetryError);
    other();
    const changing = world.during(group.changeMembership(change));
    expect(() => group.holdMembership()).toThrow(RetryError);
    await changing;
    group.holdMembership()();
  });

  it("lets a learner vote after all have slept, also beside a leader that is alone", async () => {
    const leader = await start();
    const group = leader.group();
    const others = world.nodes.filter((node) => node !== leader);
    const gone = others.map(({ id }) => ({ kind: "remove" as const, node: id }));
    await world.during(group.changeMembership({ changes: gone }));
    const joined = await world.addNode();
    await world.during(group.changeMembership({ changes: [{ kind: "learner", node: joined.id }] }));
    await world.until(() => group.quiesced && joined.group().quiesced, "the group sleeps");
    await world.during(group.changeMembership({ changes: [{ kind: "voter", node: joined.id }] }));
    expect([...group.conf.voters].sort()).toEqual([leader.id, joined.id].sort());
  });

  it("tells a learner that starts anew who leads, though all others sleep", async () => {
    const leader = await start();
    const joined = await world.addNode();
    const change = { changes: [{ kind: "learner" as const, node: joined.id }] };
    await world.during(leader.group().changeMembership(change));
    await world.until(() => leader.group().quiesced, "the group sleeps");
    await world.restart(joined);
    await world.until(() => joined.group().leader === leader.id, "the learner knows its leader");
  });

  it("answers also when the group has gone while somebody is not heard", async () => {
    const leader = await start();
    const [dead, other] = world.nodes.filter((node) => node !== leader) as [SimNode, SimNode];
    const group = leader.group();
    world.crash(dead);
    await world.run(3_000);
    const change = { changes: [{ kind: "remove" as const, node: other.id }] };
    const waiting = group.changeMembership(change).catch((error: unknown) => error);
    await world.during(leader.host.removeGroup(GROUP));
    expect(await world.during(waiting)).toBeInstanceOf(RetryError);
    await expect(world.during(group.changeMembership(change))).rejects.toThrow(RetryError);
  });
});

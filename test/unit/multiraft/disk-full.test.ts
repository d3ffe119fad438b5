import { afterEach, describe, expect, it } from "vitest";
import { FatalError, RetryError } from "../../../src/base/errors.js";
import { logIndex } from "../../../src/base/ids.js";
import { encodeKvCommand, KvMachine } from "../../../src/machines/samples/kv.js";
import { GROUP, type SimNode, World } from "../../sim/multiraft-world.js";

let world: World;
afterEach(() => world.stop());

const put = (node: SimNode, value: string): Promise<unknown> =>
  node.group().propose(encodeKvCommand(["PUT", "a", value]));

describe("a full disk", () => {
  it("makes the node refuse writes and hand leadership away, and it recovers", async () => {
    world = await World.start({ machine: () => new KvMachine() });
    const leader = await world.leader();
    await world.during(put(leader, "1"));
    leader.host.setDiskFull("no space left");
    await expect(put(leader, "2")).rejects.toThrow(/no disk space/);
    await expect(put(leader, "2")).rejects.toThrow(RetryError);
    const next = await world.leader(GROUP, leader);
    await world.during(put(next, "3"));
    leader.host.setDiskFull(undefined);
    await world.during(next.group().transferLeadership(leader.id));
    const again = await world.leader(GROUP, next);
    expect(again).toBe(leader);
    await world.during(put(leader, "4"));
    await world.converge();
  });

  it("on all nodes leaves leadership where it is, and writes resume with the first that has space", async () => {
    world = await World.start({ machine: () => new KvMachine() });
    const leader = await world.leader();
    for (const node of world.nodes) if (node !== leader) node.host.setDiskFull("no space left");
    await world.run(300);
    leader.host.setDiskFull("no space left");
    const { term } = leader.group().status();
    await world.run(20_000);
    expect(leader.group().status()).toMatchObject({ role: "leader", term });
    const roomy = world.nodes.find((node) => node !== leader) as SimNode;
    roomy.host.setDiskFull(undefined);
    await world.until(() => world.leaderOf() === roomy, "the one with space leads");
    await world.during(put(roomy, "1"));
  });

  it("on the log's own disk loses nothing that was proposed before", async () => {
    world = await World.start({ machine: () => new KvMachine(), segmentBytes: 8192 });
    const leader = await world.leader();
    const follower = world.nodes.find((node) => node !== leader) as SimNode;
    leader.disk.capacity = leader.disk.used();
    const outcomes: Promise<string>[] = [];
    for (let i = 0; i < 40; i++) {
      const current = world.leaderOf() ?? follower;
      outcomes.push(
        put(current, `${i}-${"x".repeat(500)}`).then(
          () => "done",
          (error: unknown) => (error as { code: string }).code,
        ),
      );
      await world.run(50);
    }
    const next = await world.leader(GROUP, leader);
    await world.during(put(next, "last"));
    leader.disk.capacity = Number.POSITIVE_INFINITY;
    const settled = await world.during(Promise.all(outcomes));
    expect(settled).toContain("done");
    expect(settled.filter((outcome) => outcome === "OSTRAKA_INTERNAL")).toEqual([]);
    await world.converge();
    expect((leader.machines.get(GROUP) as KvMachine).get("a")).toBe("last");
    expect(leader.host.diskFull).toBeUndefined();
  });
});

describe("a failure", () => {
  it("of a machine stops the node, once, and the others go on", async () => {
    let fail = false;
    world = await World.start({
      machine: () => new KvMachine(),
      wrap: (machine, _group, node) => {
        if (node !== 2) return machine;
        const apply = machine.apply.bind(machine);
        machine.apply = (entries, upTo) =>
          fail ? Promise.reject(new FatalError("OSTRAKA_IO", "the disk died")) : apply(entries, upTo);
        return machine;
      },
    });
    const leader = await world.leader();
    await world.during(put(leader, "1"));
    await world.converge();
    fail = true;
    const broken = world.node(2);
    const write = put(leader, "2").catch((error: unknown) => error);
    await world.run(1_000);
    expect(broken.fatal).toMatchObject({ code: "OSTRAKA_IO" });
    const fatal = broken.fatal;
    await broken.host.stop();
    world.crash(broken);
    await write;
    const next = await world.leader(GROUP, broken);
    await world.during(put(next, "3"));
    expect(broken.fatal).toBe(fatal);
  });
});

describe("a machine that does not go on", () => {
  it("lets no more than so many wait for it", async () => {
    let stuck = false;
    world = await World.start({
      machine: () => new KvMachine(),
      host: { maxPendingReads: 10 },
      wrap: (machine) => {
        const { apply } = machine;
        machine.apply = function (entries, upTo) {
          if (stuck) return Promise.reject(new FatalError("OSTRAKA_TOO_EARLY", "another has to come first"));
          return apply.call(this, entries, upTo);
        };
        return machine;
      },
    });
    const leader = await world.leader();
    await world.during(put(leader, "1"));
    stuck = true;
    const write = put(leader, "2");
    await world.run(100);
    const next = logIndex(leader.group().status().applied + 1);
    const waiting = Array.from({ length: 10 }, () => leader.group().waitApplied(next));
    await expect(leader.group().waitApplied(next)).rejects.toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
    stuck = false;
    await world.during(Promise.all([write, ...waiting]));
    const later = leader.group().waitApplied(logIndex(next + 1));
    await world.during(put(leader, "3"));
    await world.during(later);
  });
});

describe("stopping", () => {
  it("settles everything that waits", async () => {
    world = await World.start({ machine: () => new KvMachine() });
    const leader = await world.leader();
    world.network.isolate(
      leader.id,
      world.nodes.map(({ id }) => id),
    );
    const waiting = [
      put(leader, "1"),
      leader.group().readIndex(),
      leader.group().waitApplied((leader.group().status().applied + 10) as never),
      leader.group().transferLeadership(((leader.id % 3) + 1) as never),
    ];
    const settled = Promise.allSettled(waiting);
    const handle = leader.group();
    await world.during(leader.host.stop());
    for (const outcome of await settled) expect(outcome.status).toBe("rejected");
    await expect(handle.propose(new Uint8Array(1))).rejects.toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
    await expect(handle.readIndex()).rejects.toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
  });
});

import { afterEach, describe, expect, it } from "vitest";
import { FatalError } from "../../../src/base/errors.js";
import { type GroupId, groupId, logIndex, nodeId } from "../../../src/base/ids.js";
import { encodeKvCommand, KvMachine } from "../../../src/machines/samples/kv.js";
import { HashedSnapshot, TRAILER_BYTES } from "../../../src/multiraft/snapshot-sender.js";
import { GROUP, type SimNode, World } from "../../sim/multiraft-world.js";

let world: World;
afterEach(() => world.stop());

const SHORT_LOG = { maxLogEntries: 20, tailEntries: 0 };
const start = async (host = {}, network = {}): Promise<void> => {
  world = await World.start({ machine: () => new KvMachine(), host: { ...SHORT_LOG, ...host }, network });
};
const put = (node: SimNode, key: string, value: string): Promise<unknown> =>
  world.during(node.group().propose(encodeKvCommand(["PUT", key, value])));
const fill = async (node: SimNode, count: number, size = 100): Promise<void> => {
  for (let i = 0; i < count; i += 10)
    await world.during(
      Promise.all(
        Array.from({ length: 10 }, (_, j) =>
          node.group().propose(encodeKvCommand(["PUT", `k${i + j}`, "x".repeat(size)])),
        ),
      ),
    );
};
const ids = () => world.nodes.map(({ id }) => id);
/** A follower that was away while the log it needs was cut. */
const leaveBehind = async (size = 100): Promise<{ leader: SimNode; behind: SimNode }> => {
  const leader = await world.leader();
  const behind = world.nodes.find((node) => node !== leader) as SimNode;
  await put(leader, "before", "1");
  await world.converge();
  world.network.isolate(behind.id, ids());
  await fill(leader, 100, size);
  await world.run(1_000);
  expect(leader.log.group(GROUP).base().index).toBeGreaterThan(behind.group().status().lastIndex);
  return { leader, behind };
};

describe("a follower whose log was cut off", () => {
  it("installs a snapshot and goes on from the log", async () => {
    await start();
    const { leader, behind } = await leaveBehind();
    world.network.heal();
    await world.converge();
    expect(behind.host.stats().snapshotsInstalled).toBe(1);
    expect(behind.disk.paths("snapshots/")).toEqual([]);
    await put(leader, "after", "2");
    await world.converge();
    await world.restart(behind);
    await world.converge();
    expect((behind.machines.get(GROUP) as KvMachine).get("after")).toBe("2");
  });

  it("catches up while writes go on and the log is cut behind it", async () => {
    await start({}, { chunkBytes: 256, minDelayMs: 2, maxDelayMs: 4 });
    const { leader, behind } = await leaveBehind(400);
    world.network.heal();
    for (let i = 0; i < 300; i++) await put(leader, `more${i}`, "y".repeat(50));
    await world.until(() => behind.host.stats().snapshotsInstalled > 0, "a snapshot is installed");
    await world.converge();
    expect(behind.log.group(GROUP).base().index).toBeGreaterThan(20);
  });

  it("finds in the log what was written while the snapshot travelled", async () => {
    await start({ maxLogEntries: 100 }, { chunkBytes: 256, minDelayMs: 2, maxDelayMs: 4 });
    const leader = await world.leader();
    const behind = world.nodes.find((node) => node !== leader) as SimNode;
    world.network.isolate(behind.id, ids());
    await fill(leader, 300);
    await world.run(1_000);
    let chunks = 0;
    world.network.onChunk = () => void chunks++;
    world.network.heal();
    await world.until(() => chunks > 3, "a snapshot is on its way");
    await fill(leader, 200);
    await world.converge();
    expect(leader.host.stats().snapshotsSent).toBe(1);
    expect(behind.host.stats().snapshotsInstalled).toBe(1);
  });

  it("refuses a snapshot that arrives damaged, and takes the next", async () => {
    await start();
    const { behind } = await leaveBehind();
    let damaged = 0;
    world.network.corruptSnapshots = (chunk) => {
      if (damaged++ === 0) chunk[chunk.length >> 1] = (chunk[chunk.length >> 1] as number) ^ 1;
      return chunk;
    };
    world.network.heal();
    await world.converge();
    expect(damaged).toBeGreaterThan(1);
    expect(behind.host.stats().snapshotsInstalled).toBe(1);
    expect(behind.disk.paths("snapshots/")).toEqual([]);
  });

  it("goes down alone when its disk fails under a snapshot", async () => {
    await start();
    const { leader, behind } = await leaveBehind();
    behind.disk.onOperation = (operation, path) => {
      if (operation === "write" && path.startsWith("snapshots/"))
        throw new FatalError("OSTRAKA_IO", `write ${path}: EIO`);
    };
    world.network.heal();
    await world.run(5_000);
    expect(leader.fatal).toBeUndefined();
    expect(behind.fatal).toMatchObject({ code: "OSTRAKA_IO" });
    await behind.host.stop();
    world.crash(behind);
    await put(leader, "after", "2");
  });

  it("has no copy of the state made at every heartbeat while it takes none", async () => {
    let copies = 0;
    await start();
    const { leader, behind } = await leaveBehind();
    const { snapshot } = leader.hosted.get(GROUP)!;
    leader.hosted.get(GROUP)!.snapshot = function () {
      copies++;
      return snapshot.call(this);
    };
    behind.disk.capacity = behind.disk.used();
    world.network.heal();
    await world.run(20_000);
    expect(leader.fatal ?? behind.fatal).toBeUndefined();
    expect(copies).toBeGreaterThan(2);
    expect(copies).toBeLessThan(10);
    behind.disk.capacity = Number.POSITIVE_INFINITY;
    await world.converge();
  });

  it("keeps nobody else from being sent theirs while it waits for room to install it", async () => {
    const OTHERS = [GROUP, groupId(8), groupId(9)];
    let full = true;
    world = await World.start({
      machine: () => new KvMachine(),
      groups: OTHERS,
      host: { ...SHORT_LOG, maxSnapshotsSending: 1, maxSnapshotsReceiving: 1 },
      wrap: (machine, group) => {
        if (group !== GROUP) return machine;
        const { restore } = machine;
        machine.restore = function (file) {
          if (full) return Promise.reject(new FatalError("OSTRAKA_DISK_FULL", "no space"));
          return restore.call(this, file);
        };
        return machine;
      },
    });
    const behind = world.node(3);
    for (const group of OTHERS) {
      const leader = await world.leader(group);
      if (leader === behind) await world.during(leader.group(group).transferLeadership(nodeId(1)));
    }
    world.network.isolate(behind.id, ids());
    for (const group of OTHERS) {
      const leader = await world.leader(group);
      for (let i = 0; i < 60; i++)
        await world.during(leader.group(group).propose(encodeKvCommand(["PUT", `k${i}`, "x"])));
    }
    await world.run(1_000);
    world.network.heal();
    const has = (group: GroupId) => (behind.machines.get(group) as KvMachine).get("k59") === "x";
    await world.until(() => OTHERS.slice(1).every(has), "the other groups have their snapshots");
    expect(has(GROUP)).toBe(false);
    full = false;
    await world.until(() => has(GROUP), "this one has its own");
  });

  it("starts anew when the connection breaks half-way", async () => {
    await start({}, { chunkBytes: 1024 });
    const { leader, behind } = await leaveBehind();
    let cuts = 0;
    world.network.onChunk = (from, to, offset) => {
      if (offset < 4096 || cuts > 0) return;
      cuts++;
      world.network.cut(from, to);
    };
    world.network.heal();
    await world.until(() => cuts === 1, "the connection is cut");
    await world.run(500);
    expect(behind.group().status().applied).toBeLessThan(leader.group().status().applied);
    world.network.heal();
    await world.converge();
    expect(behind.host.stats().snapshotsInstalled).toBe(1);
  });

  it("comes back whichever disk operation of the installation a crash cuts short", async () => {
    let operations = Number.POSITIVE_INFINITY;
    const cutAt: string[] = [];
    for (let step = 0; step < operations; step++) {
      await start();
      const { behind } = await leaveBehind();
      let count = -1;
      let crashed = false;
      behind.disk.onOperation = (operation, path) => {
        if (count < 0 && !path.startsWith("snapshots/")) return;
        if (++count !== step || behind.host.stats().snapshotsInstalled > 0) return;
        cutAt.push(`${operation} ${path}`);
        crashed = true;
        world.crash(behind);
      };
      world.network.heal();
      await world.until(() => crashed || behind.host.stats().snapshotsInstalled > 0, "crashed or installed");
      behind.disk.onOperation = undefined;
      if (!crashed) operations = step;
      else await world.restart(behind);
      await world.converge();
      expect(behind.disk.paths("snapshots/")).toEqual([]);
      await world.stop();
    }
    // Receiving (open, writes, sync, close, rename), the log's record, the restore, the removal.
    for (const part of [
      "write snapshots/",
      "sync snapshots/",
      "rename snapshots/",
      "write log/",
      "writeFile state/",
      "remove snapshots/",
    ])
      expect(
        cutAt.some((at) => at.startsWith(part)),
        `a crash at: ${part}`,
      ).toBe(true);
  });

  it("does not start when its log begins at a snapshot whose bytes are gone", async () => {
    await start();
    const { behind } = await leaveBehind();
    behind.disk.onOperation = (operation, path) => {
      if (operation === "writeFile" && path.startsWith("state/")) world.crash(behind);
    };
    world.network.heal();
    await world.until(() => !behind.up, "crashed before the machine had it");
    behind.disk.onOperation = undefined;
    const [file] = behind.disk.paths("snapshots/");
    expect(file).toMatch(/\.snapshot$/);
    behind.disk.files.delete(file as string);
    await expect(world.restart(behind)).rejects.toThrow(FatalError);
    world.crash(behind);
  });
});

describe("compaction", () => {
  it("bounds the log and what a restart replays, however many writes there were", async () => {
    await start({ maxLogEntries: 50, tailEntries: 10 });
    const leader = await world.leader();
    for (let round = 0; round < 5; round++) {
      await fill(leader, 200);
      await world.run(200);
      for (const node of world.nodes) {
        const log = node.log.group(GROUP);
        expect(log.lastIndex() - log.base().index).toBeLessThanOrEqual(50 + 20);
      }
    }
    const applied: number[] = [];
    for (const node of world.nodes) {
      await world.restart(node);
      applied.push(node.group().status().lastIndex - node.group().status().applied);
    }
    for (const replayed of applied) expect(replayed).toBeLessThanOrEqual(70);
    await world.converge();
  });

  it("cuts no more than the machine has durably, whatever it has applied", async () => {
    const durable = new Map<number, number>();
    world = await World.start({
      machine: () => new KvMachine(),
      host: SHORT_LOG,
      wrap: (machine, _, node) => {
        const checkpoint = machine.checkpoint.bind(machine);
        machine.checkpoint = async () => {
          const index = logIndex(Math.max(0, (await checkpoint()) - 7));
          durable.set(node, index);
          return index;
        };
        return machine;
      },
    });
    const leader = await world.leader();
    for (let round = 0; round < 5; round++) {
      await fill(leader, 30);
      await world.run(200);
      for (const { id, log } of world.nodes)
        expect(log.group(GROUP).base().index).toBeLessThanOrEqual(durable.get(id) ?? 0);
    }
    expect(leader.log.group(GROUP).base().index).toBeGreaterThan(50);
  });

  it("checkpoints quiet groups that hold back the oldest segment", async () => {
    const quiet = 8 as typeof GROUP;
    world = await World.start({
      machine: () => new KvMachine(),
      groups: [GROUP, quiet],
      segmentBytes: 16 * 1024,
      host: { maxLogEntries: 100, tailEntries: 10, maxLogSegments: 1 },
    });
    const calm = await world.leader(quiet);
    await world.during(calm.group(quiet).propose(encodeKvCommand(["PUT", "a", "1"])));
    const leader = await world.leader();
    for (let round = 0; round < 10; round++) {
      await fill(leader, 100, 300);
      await world.run(2_000);
    }
    for (const node of world.nodes) {
      expect(node.log.usage().segments).toBeLessThanOrEqual(4);
      const log = node.log.group(quiet);
      expect(log.base().index).toBe(log.lastIndex());
    }
    for (const node of world.nodes) await world.restart(node);
    await world.converge();
    await world.converge(quiet);
    for (const node of world.nodes) expect((node.machines.get(quiet) as KvMachine).get("a")).toBe("1");
  });

  it("keeps a tail, so that a short absence needs no snapshot", async () => {
    await start({ maxLogEntries: 50, tailEntries: 30 });
    const leader = await world.leader();
    await fill(leader, 100);
    await world.converge();
    const behind = world.nodes.find((node) => node !== leader) as SimNode;
    world.network.isolate(behind.id, ids());
    await fill(leader, 20);
    world.network.heal();
    await world.converge();
    expect(behind.host.stats().snapshotsInstalled).toBe(0);
  });
});

describe("a leader that cannot apply", () => {
  it("does not keep its other groups from sending theirs", async () => {
    const [STUCK, OTHER] = [GROUP, groupId(8)];
    let stuck = false;
    const snapshots: number[] = [];
    world = await World.start({
      machine: () => new KvMachine(),
      groups: [STUCK, OTHER],
      host: { ...SHORT_LOG, maxSnapshotsSending: 1 },
      wrap: (machine, group) => {
        const { apply, snapshot } = machine;
        machine.snapshot = async function () {
          snapshots.push(group);
          const made = await snapshot.call(this);
          // As of what the machine has, and this thread will not hear of for now.
          const ahead = stuck && group === STUCK ? 1 : 0;
          return {
            appliedIndex: logIndex(made.appliedIndex + ahead),
            bytes: made.bytes,
            read: (offset, length) => made.read(offset, length),
            release: () => made.release(),
          };
        };
        machine.apply = function (entries, upTo) {
          if (stuck && group === STUCK)
            return Promise.reject(new FatalError("OSTRAKA_TOO_EARLY", "another has to come first"));
          return apply.call(this, entries, upTo);
        };
        return machine;
      },
    });
    const leader = await world.leader(STUCK);
    if ((await world.leader(OTHER)) !== leader)
      await world.during((await world.leader(OTHER)).group(OTHER).transferLeadership(leader.id));
    const behind = world.nodes.find((node) => node !== leader) as SimNode;
    const writeWithout = async (group: GroupId, value: string): Promise<void> => {
      world.network.isolate(behind.id, ids());
      for (let i = 0; i < 60; i++)
        await world.during(leader.group(group).propose(encodeKvCommand(["PUT", `k${i}`, value])));
      await world.run(1_000);
    };
    await writeWithout(STUCK, "x");
    stuck = true;
    const waiting = leader.group(STUCK).propose(encodeKvCommand(["PUT", "more", "x"]));
    await world.run(100);
    world.network.heal();
    await world.until(() => snapshots.includes(STUCK), "the stuck group's snapshot is made");
    await writeWithout(OTHER, "y");
    world.network.heal();
    const has = () => (behind.machines.get(OTHER) as KvMachine).get("k59") === "y";
    await world.until(has, "the other group is sent");
    stuck = false;
    await world.during(waiting);
    await world.converge(STUCK);
  });
});

describe("a snapshot's trailer", () => {
  it("is the same however the snapshot is read", async () => {
    const body = Uint8Array.from({ length: 1000 }, (_, i) => i & 255);
    const make = (): HashedSnapshot =>
      new HashedSnapshot({
        appliedIndex: logIndex(1),
        bytes: body.length,
        read: async (offset, length) => body.subarray(offset, offset + length),
        release: async () => {},
      });
    const readAll = async (sizes: number): Promise<Uint8Array> => {
      const snapshot = make();
      const out = new Uint8Array(snapshot.bytes);
      for (let at = 0; at < snapshot.bytes; at += sizes) out.set(await snapshot.read(at, sizes), at);
      return out;
    };
    const whole = await readAll(5000);
    expect(whole.length).toBe(body.length + TRAILER_BYTES);
    expect(await readAll(7)).toEqual(whole);
    expect(await readAll(1001)).toEqual(whole);
    expect(await make().read(body.length, TRAILER_BYTES)).toEqual(whole.subarray(body.length));
  });
});

import { describe, expect, it } from "vitest";
import { COORDINATOR_GROUP, groupId, logIndex, META_GROUP, nodeId, term } from "../../../src/base/ids.js";
import { openLog } from "../../../src/log/index.js";
import type { DurableLog } from "../../../src/log/types.js";
import { MemoryMachine } from "../../../src/machines/memory-machine.js";
import { DEFAULT_SETTINGS, encodeMetaCommand, MetaMachine } from "../../../src/machines/meta/meta.js";
import { readIdentity, writeIdentity } from "../../../src/node/identity.js";
import { recover } from "../../../src/node/recover.js";
import { encodeConfChange } from "../../../src/raft/index.js";
import { type ConfState, type Entry, EntryKind } from "../../../src/raft/types.js";
import { ManualClock } from "../../sim/manual-clock.js";
import { MemoryDisk } from "../../sim/memory-disk.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const clock = new ManualClock();
const MEMBERS: ConfState = {
  voters: [1, 2, 3].map(nodeId),
  votersOutgoing: [],
  learners: [nodeId(4)],
  learnersNext: [],
  autoLeave: false,
};
const ALONE = { ...MEMBERS, voters: [nodeId(2)], learners: [] };
const RANGE = groupId(3);
const WAITING = groupId(8);

const entry = (index: number, data: Uint8Array, kind: Entry["kind"] = EntryKind.Normal): Entry => ({
  index: logIndex(index),
  term: term(4),
  kind,
  data,
});

async function open(disk: MemoryDisk): Promise<DurableLog> {
  return openLog(disk.session(), clock, {
    directory: "data/log",
    segmentBytes: 64 * 1024,
    onDiskFull: () => undefined,
    onFailure: () => undefined,
  });
}

/** Node 2's data after nodes 1 and 3 are gone; it knew the commit index of 4. */
async function survivor(): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const log = await open(disk);
  const base = (group: number, index: number, entries: readonly Entry[]) => ({
    group: groupId(group),
    hardState: { term: term(6), vote: nodeId(3), commit: logIndex(Math.max(index, 4)) },
    snapshot: { index: logIndex(index), term: term(2), conf: MEMBERS },
    entries,
  });
  const change = encodeConfChange({ changes: [{ kind: "remove", node: nodeId(4) }] });
  const node = (id: number) => ({ id, address: `h${id}:1`, http: "off", incarnation: `i${id}` });
  const descriptor = (range: number, start: string, end: string) => ({
    range: groupId(range),
    start,
    end,
    generation: 2,
    replicas: MEMBERS.voters,
  });
  const found = encodeMetaCommand({
    kind: "found",
    clusterId: "old",
    settings: DEFAULT_SETTINGS,
    firstFreeNodeId: 4,
    ranges: [descriptor(3, "", "m"), descriptor(5, "m", "")],
  });
  const registered = [1, 2, 3].map((id) => encodeMetaCommand({ kind: "register", node: node(id) }));
  await log.append([
    base(
      META_GROUP,
      1,
      [found, ...registered].map((data, i) => entry(i + 2, data)),
    ),
    base(RANGE, 3, [
      entry(4, Uint8Array.of(1)),
      entry(5, change, EntryKind.ConfChange),
      entry(6, Uint8Array.of(2)),
    ]),
    {
      group: WAITING,
      hardState: { term: term(9), vote: nodeId(0), commit: logIndex(0) },
      snapshot: undefined,
      entries: [],
    },
  ]);
  await log.close();
  const session = disk.session();
  await writeIdentity(session, "data", {
    nodeId: 2,
    clusterId: "old",
    incarnation: "i2",
    founders: { 1: "h1:1", 2: "h2:1", 3: "h3:1" },
  });
  await session.writeFile("data/departed.json", new TextEncoder().encode("{}"));
  return disk;
}

const parts = (disk: MemoryDisk) => ({
  clock,
  random: new SeededRandom(1),
  disk: disk.session(),
  directory: "data",
});

describe("recovery from the loss of a quorum", () => {
  it("makes the node the only member of all it has, and keeps every entry", async () => {
    const disk = await survivor();
    const recovery = await recover(parts(disk));
    expect(recovery).toMatchObject({ nodeId: 2, formerClusterId: "old", coordinatorLost: true });
    expect(recovery.lostNodes).toEqual([1, 3, 4]);
    expect(recovery.lostRanges).toEqual([5]);
    expect(recovery.groups).toMatchObject([
      { group: META_GROUP, lastIndex: 5 },
      { group: RANGE, lastIndex: 6, uncertain: 2 },
    ]);
    const log = await open(disk);
    expect(log.groups().sort((a, b) => a - b)).toEqual([META_GROUP, COORDINATOR_GROUP, RANGE]);
    const range = log.group(RANGE);
    expect(range.base()).toEqual({ index: 3, term: 2, conf: ALONE });
    expect(range.hardState()).toEqual({ term: 7, vote: 0, commit: 6 });
    const entries = range.entries(logIndex(4), logIndex(7), 1_000);
    expect(entries.map(({ kind, data }) => [kind, [...data]])).toEqual([
      [EntryKind.Normal, [1]],
      [EntryKind.Normal, []],
      [EntryKind.Normal, [2]],
    ]);
    expect(log.group(COORDINATOR_GROUP).base()).toMatchObject({ index: 1, conf: ALONE });
    await log.close();
  });

  it("takes a snapshot of meta in whose installation was cut short", async () => {
    const disk = await survivor();
    const log = await open(disk);
    const meta = new MetaMachine();
    const view = log.group(META_GROUP);
    const before = view.entries(logIndex(2), logIndex(6), 100_000);
    const node = { id: 7, address: "h7:1", http: "off", incarnation: "i7" };
    meta.apply([
      ...before.map(({ index, data }) => ({ index, data })),
      { index: 8, data: encodeMetaCommand({ kind: "register", node }) },
    ]);
    await log.append([
      {
        group: META_GROUP,
        hardState: undefined,
        snapshot: { index: logIndex(8), term: term(4), conf: MEMBERS },
        entries: [],
      },
    ]);
    await log.close();
    const session = disk.session();
    const from = new MemoryMachine({ machine: meta, disk: session, directory: "elsewhere" });
    await from.open();
    await from.apply([], logIndex(8));
    const bytes = await (await from.snapshot()).read(0, Number.MAX_SAFE_INTEGER);
    await session.writeFile("data/snapshots/g1-i8-t4.snapshot", bytes);
    expect((await recover(parts(disk))).lostNodes).toEqual([1, 3, 4, 7]);
  });

  it("begins a coordinator anew where files of one that was removed are left", async () => {
    const disk = await survivor();
    const session = disk.session();
    const left = new MemoryMachine({
      machine: new MetaMachine(),
      disk: session,
      directory: "data/coordinator",
    });
    await left.open();
    await left.apply([], logIndex(40));
    await left.checkpoint();
    await recover(parts(disk));
    expect(await disk.session().list("data/coordinator")).toEqual([]);
  });

  it("gives the data another name, and forgets whom it had met", async () => {
    const disk = await survivor();
    const { clusterId } = await recover(parts(disk));
    const session = disk.session();
    const identity = await readIdentity(session, "data");
    expect(identity).toMatchObject({ nodeId: 2, clusterId, founders: { 2: "h2:1" } });
    expect(identity?.recoveredFrom).toEqual({ clusterId: "old", lost: [1, 3, 4], firstFreeRange: 1_009 });
    expect(identity?.recovering).toBeUndefined();
    expect(identity?.incarnation).not.toBe("i2");
    expect(clusterId).not.toBe("old");
    expect(await session.exists("data/departed.json")).toBe(false);
  });

  it("can be done again when it was cut short, at every write", async () => {
    for (let cut = 1; ; cut++) {
      const disk = await survivor();
      let operations = 0;
      let crashed = false;
      disk.onOperation = () => {
        if (++operations !== cut) return;
        crashed = true;
        disk.onOperation = undefined;
        disk.crash();
      };
      const first = recover(parts(disk)).catch(() => undefined);
      await Promise.race([first, new Promise((resolve) => setTimeout(resolve, 20))]);
      disk.onOperation = undefined;
      if (!crashed) break;
      const recovery = await recover(parts(disk));
      expect(recovery.groups.map(({ group, lastIndex }) => [group, lastIndex])).toContainEqual([RANGE, 6]);
      const log = await open(disk);
      expect(log.group(RANGE).base().conf).toEqual(ALONE);
      expect(log.group(RANGE).lastIndex()).toBe(6);
      await log.close();
      const { recoveredFrom } = (await readIdentity(disk.session(), "data"))!;
      // Meta has not heard of node 4.
      expect(recoveredFrom?.lost).toEqual([1, 3, 4]);
    }
  });

  it("names whoever a change of membership in the log names", async () => {
    const disk = await survivor();
    const log = await open(disk);
    const change = encodeConfChange({ changes: [{ kind: "learner", node: nodeId(9) }] });
    await log.append([
      {
        group: RANGE,
        hardState: undefined,
        snapshot: undefined,
        entries: [entry(7, change, EntryKind.ConfChange)],
      },
    ]);
    await log.close();
    expect((await recover(parts(disk))).lostNodes).toEqual([1, 3, 4, 9]);
  });

  it("refuses data without the first range, in whose place an empty one would have all keys", async () => {
    const disk = await survivor();
    const log = await open(disk);
    await log.removeGroup(RANGE);
    await log.close();
    await expect(recover(parts(disk))).rejects.toMatchObject({ code: "OSTRAKA_CONFIG" });
    const again = await open(disk);
    expect(again.group(META_GROUP).base().conf).toEqual(MEMBERS);
    await again.close();
  });

  it("refuses a directory without data", async () => {
    await expect(recover(parts(new MemoryDisk()))).rejects.toMatchObject({ code: "OSTRAKA_CONFIG" });
  });
});

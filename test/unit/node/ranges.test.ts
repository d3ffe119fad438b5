/** The ranges of a node, and what looks after them, with everything below made up. */
import { describe, expect, it } from "vitest";
import { FatalError } from "../../../src/base/errors.js";
import { type GroupId, groupId, logIndex, type NodeId, nodeId, term } from "../../../src/base/ids.js";
import { encodeMetaCommand, type MetaCommand, MetaMachine } from "../../../src/machines/meta/meta.js";
import type { SplitChild } from "../../../src/machines/range/types.js";
import type { GroupHandle } from "../../../src/multiraft/types.js";
import { CoordinatorHost, type CoordinatorHostOptions } from "../../../src/node/ranges/coordinator-host.js";
import { DepartedRanges } from "../../../src/node/ranges/departed.js";
import { Farewell, type ReplicaCareParts } from "../../../src/node/ranges/farewell.js";
import type { HostedRange } from "../../../src/node/ranges/hosted-range.js";
import { MissingReplicas } from "../../../src/node/ranges/missing.js";
import { Ranges, type RangesOptions } from "../../../src/node/ranges/ranges.js";
import { NodeRangesView, type ViewOptions } from "../../../src/node/ranges/view.js";
import type { RangeDescriptor } from "../../../src/placement/descriptor.js";
import { Schema, SchemaPool } from "../../../src/range/schema.js";
import { ManualClock, settle } from "../../sim/manual-clock.js";
import { MemoryDisk } from "../../sim/memory-disk.js";

const QUIET = { debug() {}, info() {}, warn() {}, error() {} };
const SELF = nodeId(1);
const RANGE = groupId(7);
const NOBODY = nodeId(0);
const ids = (nodes: readonly number[]): NodeId[] => nodes.map(nodeId);

const descriptor = (
  range: number,
  replicas: readonly number[] = [1, 2, 3],
  generation = 2,
): RangeDescriptor => ({
  range: groupId(range),
  start: "",
  end: "",
  generation,
  replicas: ids(replicas),
});

function metaOf(...commands: readonly MetaCommand[]): MetaMachine {
  const meta = new MetaMachine();
  meta.apply(commands.map((command, i) => ({ index: i + 1, data: encodeMetaCommand(command) })));
  return meta;
}

async function ranges(addGroup: (group: GroupId) => Promise<never>, onFatal?: (error: unknown) => void) {
  const clock = new ManualClock();
  const disk = new MemoryDisk().session();
  const logged: GroupId[] = [];
  const splits: ((child: SplitChild) => void)[] = [];
  const departed = await DepartedRanges.open(disk, "data", clock);
  const made = new Ranges({
    self: SELF,
    clock,
    disk,
    logger: QUIET,
    directory: "data",
    host: { addGroup: ({ group }: { group: GroupId }) => addGroup(group), begin: async () => undefined },
    log: { groups: () => logged, group: () => ({ lastIndex: () => 0 }) },
    workers: [
      {
        store: () => ({ onSplit: (told: (child: SplitChild) => void) => splits.push(told) }),
        remove: async () => undefined,
      },
    ],
    departed,
    lost: new Set(),
    onFatal,
  } as unknown as RangesOptions);
  await made.open(undefined);
  return { ranges: made, clock, logged, splits };
}

describe("a replica that somebody asks for", () => {
  it("is made once there is room, though its promises are in the log already", async () => {
    const asked: GroupId[] = [];
    const made = await ranges(async (group) => {
      asked.push(group);
      made.logged.push(group);
      throw new FatalError("OSTRAKA_DISK_FULL", "no space");
    });
    for (let i = 0; i < 2; i++)
      await expect(made.ranges.host(descriptor(7))).rejects.toMatchObject({ code: "OSTRAKA_DISK_FULL" });
    expect(asked).toEqual([RANGE, RANGE]);
  });

  it("does not keep the node from stopping while it waits for disk space", async () => {
    const { ranges: waiting, clock } = await ranges(() => new Promise<never>(() => {}));
    waiting.host(descriptor(7)).catch(() => undefined);
    await settle();
    let stopped = false;
    void waiting.stop().then(() => {
      stopped = true;
    });
    await clock.advance(10_000);
    expect(stopped).toBe(true);
    await expect(waiting.host(descriptor(8))).rejects.toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
  });
});

describe("a child of a split", () => {
  it("is opened once there is room, and what fills the disk does not stop the node", async () => {
    let tries = 0;
    const failures: unknown[] = [];
    const {
      clock,
      splits,
      ranges: waiting,
    } = await ranges(
      async () => {
        tries++;
        throw new FatalError("OSTRAKA_DISK_FULL", "no space");
      },
      (error) => failures.push(error),
    );
    await waiting.host(descriptor(7)).catch(() => undefined);
    const conf = {
      voters: ids([1, 2, 3]),
      votersOutgoing: [],
      learners: [],
      learnersNext: [],
      autoLeave: false,
    };
    const { replicas: _, ...child } = descriptor(8);
    splits[0]!({ descriptor: child, path: "", parent: RANGE, index: logIndex(5), term: term(2), conf });
    await clock.advance(3_500);
    expect(tries).toBeGreaterThan(3);
    await Promise.all([waiting.stop(), clock.advance(10_000)]);
    expect(failures).toEqual([]);
  });
});

describe("the coordinator's replica", () => {
  it("is finished or left before the node has stopped, and none is made afterwards", async () => {
    const clock = new ManualClock();
    const disk = new MemoryDisk();
    const session = disk.session();
    let opened = 0;
    let open: () => void = () => {};
    const host = new CoordinatorHost({
      self: SELF,
      clock,
      disk: session,
      directory: "data",
      host: {
        addGroup: async () => {
          opened++;
          await new Promise<void>((resolve) => {
            open = resolve;
          });
          throw new FatalError("OSTRAKA_DISK_FULL", "no space");
        },
      },
      log: { groups: () => [] },
      departed: await DepartedRanges.open(session, "data", clock),
      calls: { serve() {}, call: () => Promise.reject(new Error("nobody")) },
      graceMs: 1_000,
      candidates: () => [],
      askLeader: async () => NOBODY,
    } as unknown as CoordinatorHostOptions);
    await host.open({});
    const making = host.makeReplica().catch((error: FatalError) => error.code);
    await settle();
    let stopped = false;
    const stop = host.stop().then(() => {
      stopped = true;
    });
    await clock.advance(1_000);
    expect(stopped).toBe(false);
    open();
    await settle();
    expect(await making).toBe("OSTRAKA_DISK_FULL");
    await stop;
    await expect(host.makeReplica()).rejects.toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
    expect(opened).toBe(1);
  });
});

/** Twenty ranges on this node. */
function care(
  handle: Partial<GroupHandle>,
  asked: (group: number, method: string) => Promise<unknown>,
  coordinator: Partial<CoordinatorHost> = {},
) {
  const clock = new ManualClock();
  const hosted = Array.from({ length: 20 }, (_, i) => ({
    range: groupId(3 + i),
    filled: true,
    handle,
    descriptor: () => descriptor(3 + i),
  }));
  const conf = { voters: ids([1, 2, 3]), votersOutgoing: [], learners: [], learnersNext: [] };
  const parts = {
    self: SELF,
    clock,
    ranges: {
      all: new Map(hosted.map((one) => [one.range, { ...one, handle: { conf, ...handle } }])),
      get: (range: GroupId) => hosted.find((one) => one.range === range),
      absorbed: () => new Set(),
      neverHad: () => false,
    },
    coordinator,
    meta: new MetaMachine(),
    calls: {
      serve() {},
      call: (_: NodeId, method: string, [group]: readonly unknown[]) => asked(Number(group), method),
    },
  };
  return { clock, parts: parts as unknown as ReplicaCareParts };
}

const ALL = Array.from({ length: 20 }, (_, i) => 3 + i);

describe("looking after replicas", () => {
  it("asks for each of them whether it has left, however many get no answer", async () => {
    const asked = new Set<number>();
    const status = (): never => ({ lastIndex: 5 }) as never;
    const { clock, parts } = care({ leader: NOBODY, status }, async (group) => {
      asked.add(group);
      throw new Error("nobody leads it");
    });
    const farewell = new Farewell(parts);
    farewell.start();
    await clock.advance(10_000);
    farewell.stop();
    expect([...asked].sort((a, b) => a - b)).toEqual(ALL);
  });

  it("asks whether the coordinator's has left, though it has a leader and nobody tells", async () => {
    const conf = { voters: ids([1, 2, 3]), votersOutgoing: [], learners: [], learnersNext: [] };
    const handle = { leader: nodeId(2), conf, lastTerm: 4, status: () => ({ lastIndex: 5 }) };
    let left = false;
    const { clock, parts } = care({ leader: nodeId(2) }, async () => ({ member: false, index: 9, term: 4 }), {
      handle: handle as unknown as GroupHandle,
      leave: async (still) => {
        left = still(handle as unknown as GroupHandle);
      },
    });
    const farewell = new Farewell(parts);
    farewell.start();
    await clock.advance(60_000);
    farewell.stop();
    expect(left).toBe(true);
  });

  it("keeps a replica that has received something while the question was under way", async () => {
    const conf = { voters: ids([1, 2, 3]), votersOutgoing: [], learners: [], learnersNext: [] };
    let lastIndex = 2;
    const handle = { leader: NOBODY, conf, lastTerm: 4, status: () => ({ lastIndex }) };
    let left: boolean | undefined;
    const { clock, parts } = care(
      { leader: nodeId(2) },
      async () => {
        // Taken in again: the answer, from before, was late.
        lastIndex = 3;
        return { member: false, index: 9, term: 4 };
      },
      {
        handle: handle as unknown as GroupHandle,
        leave: async (still) => {
          left ??= still(handle as unknown as GroupHandle);
        },
      },
    );
    const farewell = new Farewell(parts);
    farewell.start();
    await clock.advance(1_500);
    farewell.stop();
    expect(left).toBe(false);
  });

  it("asks for each that a member lacks, however many cannot be made yet", async () => {
    const asked = new Set<number>();
    const { clock, parts } = care(
      { leader: SELF, quiesced: false, silentMembers: () => [nodeId(2)] },
      async (group) => {
        asked.add(group);
        throw new Error("it has to wait");
      },
    );
    const missing = new MissingReplicas(parts);
    missing.start();
    await clock.advance(10_000);
    missing.stop();
    expect([...asked].sort((a, b) => a - b)).toEqual(ALL);
  });
});

describe("the main leader", () => {
  const MINUTE_MS = 60_000;

  it("is the node that leads three of four ranges, and found out again after a while", () => {
    const leaders = new Map([1, 2, 3, 4].map((range) => [groupId(range), nodeId(2)]));
    const all = new Map(
      [...leaders.keys()].map((range, i, { length }) => {
        const [start, end] = [i === 0 ? "" : `${i}`, i === length - 1 ? "" : `${i + 1}`];
        const own = { ...descriptor(range), start, end };
        const handle = {
          get leader() {
            return leaders.get(range);
          },
          onChange: () => () => undefined,
        };
        const store = { state: () => ({ descriptor: own, frozenInto: undefined }) };
        return [range, { range, filled: true, handle, store, descriptor: () => own }] as const;
      }),
    );
    let nowMs = 0;
    const view = new NodeRangesView({
      self: SELF,
      clock: { monotonicMs: () => nowMs },
      ranges: { listen() {}, all, get: (range: GroupId) => all.get(range) },
      meta: new MetaMachine(),
    } as unknown as ViewOptions);
    expect(view.mainLeader()).toBe(2);
    leaders.set(groupId(1), SELF);
    nowMs += MINUTE_MS;
    expect(view.mainLeader()).toBe(2);
    leaders.set(groupId(2), SELF);
    expect(view.mainLeader()).toBe(2);
    nowMs += MINUTE_MS;
    expect(view.mainLeader()).toBe(undefined);
    leaders.set(groupId(3), NOBODY);
    nowMs += MINUTE_MS;
    expect(view.mainLeader()).toBe(undefined);
  });
});

describe("the schema that a node knows", () => {
  it("is still that of its replicas when the last of them has left or is frozen", () => {
    const schemas = new SchemaPool();
    const all = new Map<GroupId, HostedRange>();
    const view = new NodeRangesView({
      self: SELF,
      ranges: { listen() {}, all, get: (range: GroupId) => all.get(range), schemas },
      meta: new MetaMachine(),
    } as unknown as ViewOptions);
    const host = (version: number): { readonly hosted: HostedRange; freeze(): void } => {
      let frozenInto: GroupId | undefined;
      const statements = [`CREATE TABLE t${version}(id INTEGER PRIMARY KEY)`];
      const schema = Schema.of({ version, statements, appliedIndex: logIndex(1), tables: [] }, schemas);
      const hosted = {
        range: RANGE,
        filled: true,
        schema,
        handle: { leader: SELF, onChange: () => () => undefined },
        store: { state: () => ({ descriptor: descriptor(1), frozenInto }) },
        descriptor: () => descriptor(1),
      } as unknown as HostedRange;
      all.set(RANGE, hosted);
      view.changed(hosted);
      const freeze = (): void => {
        frozenInto = groupId(9);
      };
      return { hosted, freeze };
    };
    const leave = (hosted: HostedRange): void => {
      all.delete(RANGE);
      view.closed(hosted);
      hosted.schema.close();
    };
    expect(() => view.schema()).toThrow("not known yet");
    leave(host(3).hosted);
    expect(view.schema().version).toBe(3);
    expect(view.schema().analyse("SELECT * FROM t3").readonly).toBe(true);
    const { hosted, freeze } = host(5);
    freeze();
    view.changed(hosted);
    expect(view.schema().version).toBe(5);
    leave(hosted);
    leave(host(4).hosted);
    expect(view.schema().version).toBe(5);
  });
});

describe("the directory of a node", () => {
  it("knows where a range is, also when its replica here was the last to know and has left", () => {
    const found: MetaCommand = {
      kind: "found",
      clusterId: "c",
      settings: { replicas: 3, rangeMaxBytes: 1, rangeMaxRows: 0, nodeDeadMs: 1 },
      firstFreeNodeId: 2,
      ranges: [descriptor(7, [4, 5, 6])],
    };
    const schemas = new SchemaPool();
    const view = new NodeRangesView({
      self: SELF,
      ranges: { listen() {}, all: new Map(), schemas },
      meta: metaOf(found),
    } as unknown as ViewOptions);
    expect(view.directory().get(RANGE)?.replicas).toEqual([4, 5, 6]);
    const { start, end, generation } = descriptor(7);
    const hosted = {
      range: RANGE,
      filled: true,
      handle: { leader: nodeId(2) },
      store: { state: () => ({ descriptor: { start, end, generation }, frozenInto: undefined }) },
      schema: Schema.of({ version: 0, statements: [], appliedIndex: logIndex(1), tables: [] }, schemas),
      descriptor: () => descriptor(7, [1, 2, 3]),
    } as unknown as HostedRange;
    // It applies what it was sent before it was taken out.
    view.changed(hosted);
    view.closed(hosted);
    expect(view.directory().get(RANGE)?.replicas).toEqual([4, 5, 6]);
  });
});

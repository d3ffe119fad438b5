/** Three (or more) hosts in one process on simulated disks, network and clock, with real logs: for tests of hosting. */
import type { OstrakaError } from "../../src/base/errors.js";
import { type GroupId, groupId, type LogIndex, logIndex, type NodeId, nodeId } from "../../src/base/ids.js";
import { openLog } from "../../src/log/index.js";
import type { DurableLog } from "../../src/log/types.js";
import { MemoryMachine } from "../../src/machines/memory-machine.js";
import type { StateMachine } from "../../src/machines/state-machine.js";
import { AgreedClock } from "../../src/multiraft/agreed-clock.js";
import { MultiRaft } from "../../src/multiraft/host.js";
import { DEFAULT_HOST_OPTIONS, type HostOptions } from "../../src/multiraft/options.js";
import type { GroupHandle, GroupMachine } from "../../src/multiraft/types.js";
import type { ConfState } from "../../src/raft/types.js";
import { ManualClock, MortalClock, settle } from "./manual-clock.js";
import { MemoryDisk } from "./memory-disk.js";
import { MemoryNetwork, type NetworkOptions } from "./memory-transport.js";
import { SeededRandom } from "./seeded-random.js";

export const GROUP = groupId(7);
const QUIET = { debug() {}, info() {}, warn() {}, error() {} };

export interface WorldOptions {
  readonly seed?: number;
  readonly nodes?: number;
  readonly groups?: readonly GroupId[];
  /** Makes the state machine of a group on a node. */
  readonly machine: (group: GroupId, node: NodeId) => StateMachine;
  /** Wraps what hosts the machine. */
  readonly wrap?: (machine: GroupMachine, group: GroupId, node: NodeId) => GroupMachine;
  readonly host?: Partial<HostOptions>;
  readonly network?: Partial<NetworkOptions>;
  readonly segmentBytes?: number;
  /** Disk operations take up to this long. */
  readonly diskDelayMs?: number;
  /** So do calls of `apply`. */
  readonly applyDelayMs?: number;
}

export class SimNode {
  readonly disk = new MemoryDisk();
  readonly machines = new Map<GroupId, StateMachine>();
  /** What hosts them. */
  readonly hosted = new Map<GroupId, GroupMachine>();
  host!: MultiRaft;
  log!: DurableLog;
  clock!: MortalClock;
  fatal: OstrakaError | undefined;
  up = false;
  starts = 0;

  constructor(readonly id: NodeId) {}

  group(id: GroupId = GROUP): GroupHandle {
    return this.host.group(id);
  }
}

export class World {
  readonly clock = new ManualClock();
  readonly network: MemoryNetwork;
  readonly nodes: SimNode[] = [];
  readonly groups: readonly GroupId[];
  readonly members: ConfState;
  readonly #options: WorldOptions;
  readonly #seed: number;

  constructor(options: WorldOptions) {
    this.#options = options;
    this.#seed = options.seed ?? 1;
    this.groups = options.groups ?? [GROUP];
    this.network = new MemoryNetwork(this.clock, new SeededRandom(this.#seed * 31 + 7), options.network);
    const count = options.nodes ?? 3;
    for (let id = 1; id <= count; id++) this.nodes.push(new SimNode(nodeId(id)));
    this.members = {
      voters: this.nodes.map(({ id }) => id),
      votersOutgoing: [],
      learners: [],
      learnersNext: [],
      autoLeave: false,
    };
  }

  static async start(options: WorldOptions): Promise<World> {
    const world = new World(options);
    await world.during(Promise.all(world.nodes.map((node) => world.startNode(node))));
    return world;
  }

  node(id: number): SimNode {
    const node = this.nodes[id - 1];
    if (node === undefined) throw new Error(`no node ${id}`);
    return node;
  }

  /** Adds a node that knows of no group's members: it waits for a leader. */
  async addNode(): Promise<SimNode> {
    const node = new SimNode(nodeId(this.nodes.length + 1));
    this.nodes.push(node);
    await this.during(this.startNode(node, false));
    return node;
  }

  /** Needs time to pass: see `during`. */
  async startNode(node: SimNode, bootstrap = true): Promise<void> {
    const { host, segmentBytes, machine, wrap, diskDelayMs, applyDelayMs } = this.#options;
    const disk = node.disk.session();
    node.clock = new MortalClock(this.clock);
    const clock = node.clock;
    const delays = new SeededRandom(this.#seed * 77 + node.id * 13 + node.starts);
    const pause = (maxMs: number): Promise<void> =>
      new Promise((resolve) => void clock.setTimer(delays.float() * maxMs, resolve));
    node.disk.delay = diskDelayMs === undefined ? undefined : () => pause(diskDelayMs);
    node.fatal = undefined;
    node.up = true;
    node.starts++;
    node.log = await openLog(disk, clock, {
      directory: "log",
      segmentBytes: segmentBytes ?? 256 * 1024,
      onDiskFull: (reason) => node.host.setDiskFull(reason),
      onFailure: (error) => node.host.fail(error),
    });
    node.host = new MultiRaft({
      nodeId: node.id,
      clock: new AgreedClock(clock),
      random: new SeededRandom(this.#seed * 1000 + node.id * 100 + node.starts),
      disk,
      log: node.log,
      transport: this.network.attach(node.id, () => clock.pausedMs()),
      logger: QUIET,
      options: { ...DEFAULT_HOST_OPTIONS, snapshotDirectory: "snapshots", ...host },
      defer: (run) => void clock.setTimer(0, run),
      onFatal: (error) => {
        node.fatal = error;
      },
    });
    for (const group of this.groups) {
      const state = machine(group, node.id);
      node.machines.set(group, state);
      const hosted = new MemoryMachine({ machine: state, disk, directory: `state/${group}` });
      if (applyDelayMs !== undefined) slowApply(hosted, () => pause(applyDelayMs));
      const wrapped = wrap?.(hosted, group, node.id) ?? hosted;
      node.hosted.set(group, wrapped);
      await node.host.addGroup({
        group,
        machine: wrapped,
        ...(bootstrap ? { bootstrap: this.members } : {}),
      });
    }
    node.host.start();
  }

  /** Power off. */
  crash(node: SimNode): void {
    node.up = false;
    this.network.detach(node.id);
    node.clock.kill();
    node.disk.crash();
  }

  async restart(node: SimNode): Promise<void> {
    if (node.up) this.crash(node);
    await this.during(this.startNode(node, false));
  }

  /** Stops every node in an orderly way. */
  async stop(): Promise<void> {
    for (const node of this.nodes) {
      if (!node.up) continue;
      node.up = false;
      await this.during(node.host.stop());
      this.network.detach(node.id);
    }
  }

  async run(ms: number): Promise<void> {
    await this.clock.advance(ms);
  }

  /** Runs until the condition holds; fails after `limitMs` of simulated time. */
  async until(condition: () => boolean, what: string, limitMs = 30_000): Promise<void> {
    for (let spent = 0; spent <= limitMs; spent += 5) {
      if (condition()) return;
      const broken = this.live().find(({ fatal }) => fatal !== undefined);
      if (broken !== undefined) throw broken.fatal;
      await this.run(5);
    }
    throw new Error(`after ${limitMs} ms still not: ${what}`);
  }

  /** Runs until a promise settles. */
  async during<T>(promise: Promise<T>, limitMs = 60_000): Promise<T> {
    let settled = false;
    const seen = promise.finally(() => {
      settled = true;
    });
    seen.catch(() => {});
    await settle();
    await this.until(() => settled, "a promise settles", limitMs);
    return seen;
  }

  live(): SimNode[] {
    return this.nodes.filter(({ up }) => up);
  }

  leaderOf(group: GroupId = GROUP): SimNode | undefined {
    const ready = this.live().filter((node) => node.host.findGroup(group)?.status().leaderReady);
    ready.sort((a, b) => b.group(group).status().term - a.group(group).status().term);
    return ready[0];
  }

  async leader(group: GroupId = GROUP, except?: SimNode): Promise<SimNode> {
    const found = (): SimNode | undefined => {
      const leader = this.leaderOf(group);
      return leader === except ? undefined : leader;
    };
    await this.until(() => found() !== undefined, `group ${group} has a leader`);
    return found() as SimNode;
  }

  /** Waits until all live nodes have applied what the leader has, then compares their digests. */
  async converge(group: GroupId = GROUP): Promise<{ appliedIndex: LogIndex; digest: string }> {
    const leader = await this.leader(group);
    const target = leader.group(group).status().lastIndex;
    const members = this.live();
    await this.until(
      () => members.every((node) => node.group(group).status().applied >= target),
      "all replicas have applied the leader's log",
    );
    const digests = await Promise.all(members.map((node) => this.during(node.group(group).digest())));
    const first = digests[0];
    for (const digest of digests)
      if (digest.digest !== first?.digest || digest.appliedIndex !== first.appliedIndex)
        throw new Error(`replicas differ: ${JSON.stringify(digests)}`);
    return first ?? { appliedIndex: logIndex(0), digest: "" };
  }
}

/** Entries take effect some time after they were handed over, in order. */
function slowApply(machine: GroupMachine, pause: () => Promise<void>): void {
  const apply = machine.apply.bind(machine);
  let last: Promise<unknown> = Promise.resolve();
  machine.apply = (entries, upTo) => {
    const call = last.then(pause).then(() => apply(entries, upTo));
    last = call.catch(() => {});
    return call;
  };
  // The other calls queue behind, as the contract has it.
  const { checkpoint, snapshot, restore, digest } = machine;
  machine.checkpoint = () => last.then(() => checkpoint.call(machine));
  machine.snapshot = () => last.then(() => snapshot.call(machine));
  machine.restore = (file) => last.then(() => restore.call(machine, file));
  machine.digest = () => last.then(() => digest.call(machine));
}

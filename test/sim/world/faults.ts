/**
 * What goes wrong in a run: a list drawn from the seed before it begins, so that it can be printed, replayed and shrunk.
 * Each fault begins at its time and most end by themselves; what would leave fewer than a quorum with data for good
 * (a wiped disk, damage to a log) strikes one machine at most.
 */
import { FIRST_RANGE_GROUP, nodeId } from "../../../src/base/ids.js";
import type { SimRandom } from "../sim-random.js";
import type { CrashKind } from "./database-files.js";
import { MEMBERSHIP, MEMBERSHIP_WEIGHTS, type MembershipKind } from "./membership.js";
import { CALM, type NetworkWeather } from "./network.js";
import { TOPOLOGY, TOPOLOGY_WEIGHTS, type TopologyKind } from "./topology.js";
import type { World } from "./world.js";

export type FaultKind =
  | TopologyKind
  | MembershipKind
  | "crash"
  | "crash leader"
  | "crash all"
  | "stop"
  | "pause"
  | "pause leader"
  | "isolate"
  | "isolate leader"
  | "one way"
  | "split in halves"
  | "bridge"
  | "ring"
  | "clog"
  | "lag"
  | "weather"
  | "slow disk"
  | "fsync fails"
  | "write fails"
  | "disk full"
  | "database full"
  | "files fail"
  | "bit rot"
  | "wipe"
  | "join"
  | "wall clock jumps"
  | "clock drifts"
  | "transfer leadership"
  | "bounce leadership";

export interface Fault {
  readonly atMs: number;
  readonly kind: FaultKind;
  /** Which machine, where it is not told by the leadership. */
  readonly node: number;
  readonly forMs: number;
  /** Two numbers in [0, 1) for whatever else has to be chosen. */
  readonly a: number;
  readonly b: number;
}

/** In units of the world: its election timeout. */
const LONGEST_PAUSE = 5;
const LONGEST_DOWN = 4;
const LONGEST_LAG = 1.5;

export type Weights = readonly (readonly [FaultKind, number])[];

const WEIGHTS: Weights = [
  ["crash", 5],
  ["crash leader", 5],
  ["crash all", 1],
  ["stop", 2],
  ["pause", 3],
  ["pause leader", 3],
  ["isolate", 2],
  ["isolate leader", 5],
  ["one way", 4],
  ["split in halves", 2],
  ["bridge", 2],
  ["ring", 1],
  ["clog", 4],
  ["lag", 5],
  ["weather", 5],
  ["slow disk", 3],
  ["fsync fails", 1],
  ["write fails", 1],
  ["disk full", 2],
  ["database full", 2],
  ["files fail", 2],
  ["bit rot", 0.3],
  ["wipe", 0.5],
  ["wall clock jumps", 3],
  ["clock drifts", 2],
  ["transfer leadership", 5],
  ["bounce leadership", 4],
];

/** How far faults are from one another, in units of the world. */
const EVERY = [0.4, 1, 2.5, 6];
/** Of a short world some must strike while others last. */
const EVERY_IN_SHORT = [0.3, 0.6, 1];

export function drawFaults(
  random: SimRandom,
  {
    founders: nodes,
    most,
    manyRanges,
    short,
    members,
  }: Pick<World, "founders" | "most" | "manyRanges" | "short" | "members">,
  fromMs: number,
  untilMs: number,
  unitMs: number,
): Fault[] {
  // Some runs see many kinds, some see few of them often, some nothing at all.
  const kinds = [...WEIGHTS, ...(manyRanges ? TOPOLOGY_WEIGHTS : [])].filter(
    ([kind]) => random.chance(0.6) && !((nodes.length === 1 || members) && isForGood(kind)),
  );
  if (members) kinds.push(...MEMBERSHIP_WEIGHTS);
  const everyMs = unitMs * random.pick(short ? EVERY_IN_SHORT : EVERY);
  const total = kinds.reduce((sum, [, weight]) => sum + weight, 0);
  const faults: Fault[] = [];
  for (let room = most - nodes.length; room > 0; room--) {
    const atMs = Math.round(fromMs + random.float() * 0.7 * (untilMs - fromMs));
    if (random.chance(0.8)) faults.push({ atMs, kind: "join", node: 1, forMs: 0, a: 0, b: 0 });
  }
  if (kinds.length === 0 || random.chance(0.03)) return faults;
  let permanent = 0;
  for (
    let atMs = fromMs + random.float() * 2 * everyMs;
    atMs < untilMs;
    atMs += random.float() * 2 * everyMs
  ) {
    const kind = pickWeighted(kinds, random.float() * total);
    const fault: Fault = {
      atMs: Math.round(atMs),
      kind,
      // Of those that join later too: until then it is the last.
      node: random.between(1, members ? most : nodes.length + (random.chance(0.3) ? 2 : 0)),
      forMs: Math.round(unitMs * random.pick([0.2, 1, 3, 8]) * (0.5 + random.float())),
      a: random.float(),
      b: random.float(),
    };
    if (isForGood(kind) && ++permanent > 1) continue;
    faults.push(fault);
  }
  return faults.sort((a, b) => a.atMs - b.atMs);
}

/** What takes a node's data, and with it its vote. */
function isForGood(kind: FaultKind): boolean {
  return kind === "wipe" || kind === "bit rot";
}

function pickWeighted(kinds: readonly (readonly [FaultKind, number])[], drawn: number): FaultKind {
  let left = drawn;
  for (const [kind, weight] of kinds) {
    left -= weight;
    if (left < 0) return kind;
  }
  return kinds[0]![0];
}

export function describeFault({ atMs, kind, node, forMs }: Fault): string {
  return `${(atMs / 1000).toFixed(3)} s: ${kind} (node ${node}, ${forMs} ms)`;
}

export type Strike = (world: World, fault: Fault, leader: number) => void;

const STRIKES: Readonly<Record<FaultKind, Strike>> = {
  ...TOPOLOGY,
  ...MEMBERSHIP,
  crash: (world, fault) => crash(world, fault.node, fault),
  "crash leader": (world, fault, leader) => crash(world, leader, fault),
  "crash all": (world, fault) => {
    for (const { id } of world.machines) crash(world, id, fault);
  },
  stop: (world, fault) => void stop(world, fault),
  pause: (world, fault) => pause(world, fault.node, fault),
  "pause leader": (world, fault, leader) => pause(world, leader, fault),
  isolate: wires,
  "isolate leader": wires,
  "one way": wires,
  "split in halves": wires,
  bridge: wires,
  ring: wires,
  clog: wires,
  lag: (world, { node, forMs, a, b }, leader) => {
    // Shorter than an election timeout mostly: the follower stays one, and answers for what it has.
    const ms = Math.min(forMs, LONGEST_LAG * world.unitMs) * a;
    for (const { id } of world.machines)
      if (id !== leader && (b < 0.3 || id === node)) world.wires.lag(leader, id, ms);
  },
  weather: wires,
  "slow disk": disk,
  "fsync fails": disk,
  "write fails": disk,
  "disk full": disk,
  "database full": (world, { node, forMs, a }) => {
    const { files } = world.machine(node);
    files.limitGrowth(Math.floor(a * 4));
    world.after(forMs, () => files.limitGrowth());
  },
  "files fail": (world, { node, forMs, a }) => {
    const { files, damage } = world.machine(node);
    files.failure = a < 0.4 ? "EIO" : "ENOSPC";
    if (files.failure === "EIO") damage.ioErrors = true;
    world.after(forMs, () => {
      files.failure = undefined;
    });
  },
  "bit rot": rot,
  wipe,
  join: (world) => world.join(),
  "wall clock jumps": (world, { node, a, b }) => {
    world.machine(node).clock.wallErrorMs = (a - 0.5) * (b < 0.5 ? 4_000 : 2 * 3_600_000);
  },
  "clock drifts": (world, { node, a }) => world.machine(node).clock.setRate(0.8 + 0.4 * a),
  "transfer leadership": transfer,
  "bounce leadership": bounce,
};

/** Begins a fault and plans its end. */
export function strike(world: World, fault: Fault): void {
  const node = Math.min(fault.node, world.machines.length);
  STRIKES[fault.kind](world, { ...fault, node }, world.leader()?.id ?? node);
}

function pause(world: World, id: number, { forMs }: Fault): void {
  world.machine(id).clock.pause(Math.min(forMs, LONGEST_PAUSE * world.unitMs));
}

function crash(world: World, id: number, fault: Fault): void {
  const machine = world.machine(id);
  if (machine.process === undefined) return;
  const kind: CrashKind = fault.a < 0.6 ? "power" : "process";
  world.note(`crash (${kind})`);
  machine.crash(kind);
  world.after(Math.min(fault.forMs, LONGEST_DOWN * world.unitMs) * fault.b, () => machine.start());
}

async function stop(world: World, fault: Fault): Promise<void> {
  const machine = world.machine(fault.node);
  if (!machine.serving) return;
  world.note("orderly stop");
  await machine.stop();
  world.after(fault.forMs * fault.b, () => machine.start());
}

function wipe(world: World, { node, forMs }: Fault): void {
  const machine = world.machine(node);
  // A machine that never stored anything would only be new.
  if (machine.starts === 0 || !machine.serving || !world.canLose(node)) return;
  world.note("wiped disk");
  machine.wipe();
  world.invariants.forgotten(machine);
  // Whoever brings it back makes sure that it can ask somebody: alone it cannot know that it is not new.
  const restart = (): void => {
    const answers = world.machines.some(
      (other) => other.id !== node && other.serving && world.wires.connects(node, other.id),
    );
    if (answers) machine.start();
    else world.after(250, restart);
  };
  world.after(Math.min(forMs, LONGEST_DOWN * world.unitMs), restart);
}

function rot(world: World, { node, forMs, a, b }: Fault): void {
  const machine = world.machine(node);
  if (machine.process === undefined || !world.canLose(node)) return;
  machine.crash("process");
  const paths = machine.disk.paths().filter((path) => path.includes("/log/"));
  const path = paths[Math.floor(a * paths.length)];
  if (path !== undefined) {
    machine.damage.decayed = true;
    const { length } = machine.disk.contents(path);
    machine.disk.flipBit(path, Math.floor(b * length), 3);
    world.note("bit rot in the log");
  }
  world.after(Math.min(forMs, LONGEST_DOWN * world.unitMs), () => machine.start());
}

function transfer(world: World, { a, node }: Fault): void {
  const leader = world.leader();
  const groups = leader?.process?.host?.groups() ?? [];
  const group = groups[Math.floor(a * groups.length)];
  if (group === undefined || leader?.id === node) return;
  world.note("leadership transfer asked for");
  group.transferLeadership(node as never).then(
    () => world.note("leadership transferred"),
    () => undefined,
  );
}

/** Away from a leader at which transactions are open, and soon back to it. */
function bounce(world: World, fault: Fault): void {
  const endMs = world.clock.monotonicMs() + fault.forMs;
  const whenOpen = (): void => {
    if (world.openTransactions > 0) bounceNow(world, fault);
    else if (world.clock.monotonicMs() < endMs) world.after(5, whenOpen);
  };
  whenOpen();
}

function bounceNow(world: World, { node, forMs, a }: Fault): void {
  const leader = world.leader();
  const handle = leader?.process?.host?.findGroup(FIRST_RANGE_GROUP);
  const others = world.machines.filter(({ id }) => id !== leader?.id);
  const other = others.find(({ id }) => id === node) ?? others[0];
  if (leader === undefined || handle === undefined || other === undefined) return;
  handle.transferLeadership(nodeId(other.id)).then(
    () =>
      world.after(forMs * a * a * 0.1, () => {
        const back = other.process?.host?.findGroup(FIRST_RANGE_GROUP);
        back?.transferLeadership(nodeId(leader.id)).then(
          () => world.note("leadership went away and came back"),
          () => undefined,
        );
      }),
    () => undefined,
  );
}

function disk(world: World, { node, kind, forMs, a }: Fault): void {
  const machine = world.machine(node);
  if (machine.process === undefined) return;
  const { disk } = machine;
  if (kind === "slow disk") {
    disk.slowness = 20 + 400 * a * a;
    world.after(forMs, () => {
      disk.slowness = 1;
    });
  } else if (kind === "disk full") {
    disk.capacityBytes = disk.usedBytes() + Math.floor(a * 40_000);
    world.note("disk full");
    world.after(forMs, () => {
      disk.capacityBytes = Number.POSITIVE_INFINITY;
    });
  } else {
    machine.damage.ioErrors = true;
    world.note(kind);
    disk.failNext(kind === "fsync fails" ? "sync" : "write", "EIO", /\/log\//);
  }
}

function wires(world: World, fault: Fault, leader: number): void {
  const { wires: net } = world;
  const ids = world.machines.map(({ id }) => id);
  const cuts: (readonly [number, number])[] = [];
  const both = (a: number, b: number): void => void cuts.push([a, b], [b, a]);
  const rotated = [
    ...ids.slice(Math.floor(fault.a * ids.length)),
    ...ids.slice(0, Math.floor(fault.a * ids.length)),
  ];
  switch (fault.kind) {
    case "isolate":
    case "isolate leader": {
      const alone = fault.kind === "isolate" ? fault.node : leader;
      for (const id of ids) if (id !== alone) both(alone, id);
      break;
    }
    case "one way":
      for (const id of ids) {
        if (id === leader || (fault.b < 0.5 && id !== fault.node)) continue;
        cuts.push(fault.a < 0.5 ? [leader, id] : [id, leader]);
      }
      break;
    case "split in halves": {
      const half = Math.ceil(rotated.length / 2);
      for (const a of rotated.slice(0, half)) for (const b of rotated.slice(half)) both(a, b);
      break;
    }
    case "bridge":
      // Two that see each other only through the others.
      both(rotated[0]!, rotated[1]!);
      break;
    case "ring":
      for (const [i, id] of rotated.entries()) cuts.push([id, rotated[(i + 1) % rotated.length]!]);
      break;
    case "clog":
      for (const id of ids)
        if (id !== fault.node) {
          net.clog(fault.node, id, fault.forMs * fault.a);
          if (fault.b < 0.5) net.clog(id, fault.node, fault.forMs * fault.b);
        }
      return;
    default: {
      const weather: NetworkWeather = {
        loss: [0, 0.02, 0.2][Math.floor(fault.a * 3)]!,
        duplicate: fault.b < 0.5 ? 0 : 0.1,
        reorder: fault.b > 0.3,
        minDelayMs: 0.1,
        maxDelayMs: [2, 20, 300][Math.floor(fault.b * 3)]!,
      };
      net.weather = weather;
      world.after(fault.forMs, () => {
        if (net.weather === weather) net.weather = { ...CALM };
      });
      return;
    }
  }
  for (const [from, to] of cuts) net.cut(from, to);
  world.after(fault.forMs, () => {
    for (const [from, to] of cuts) net.mend(from, to);
  });
}

/**
 * One machine of the simulated cluster and the process that runs on it: the whole node, assembled from simulated parts.
 * The machine's disk and clock outlive its processes. A crash ends a process at once: its timers, disk operations,
 * messages and database connections never reach the world again.
 */
import { dirname } from "node:path";
import type { OstrakaError } from "../../../src/base/errors.js";
import type { Clock, Disk } from "../../../src/base/io.js";
import { createInProcessRunnerPool } from "../../../src/machines/range/runner/pool.js";
import { type LocalStores, openLocalStores, type StoreWorker } from "../../../src/machines/range/store.js";
import type { RunnerPool } from "../../../src/machines/range/types.js";
import type { MultiRaft } from "../../../src/multiraft/host.js";
import type { NodeConfig } from "../../../src/node/config.js";
import { assembleNode, type NodeTuning, type RunningNode } from "../../../src/node/node.js";
import type { MetPeers } from "../../../src/node/peer-refusal.js";
import type { RangeHosting } from "../../../src/node/ranges/hosting.js";
import type { Entry } from "../../../src/raft/types.js";
import type { SimClock } from "../sim-clock.js";
import { SimDisk } from "../sim-disk.js";
import type { SimRandom } from "../sim-random.js";
import { type CrashKind, DatabaseFiles } from "./database-files.js";
import { MachineClock } from "./machine-clock.js";
import { InOrder } from "./network.js";
import { type NetworkProcess, PORT, SimNodeNetwork, type Surroundings } from "./node-network.js";

const RESTART_AFTER_FAILURE_MS = 500;
/** Few, so that they are all in use now and then. */
const RUNNERS = {
  statements: { size: 4 },
  sessions: { size: 8 },
  gathering: { size: 8 },
  sources: { size: 4, maxWaitMs: 1_000 },
} as const;
const LOG_LINES = 400;

export interface WorldOfProcesses extends Surroundings {
  readonly clock: SimClock;
  /** The election timeout, in which faults are measured too. */
  readonly unitMs: number;
  readonly founders: readonly number[];
  /** Whom a machine asks that joins. */
  readonly contacts: readonly number[];
  /** Voters that every group is to have. */
  readonly replicas: number;
  readonly tuning: NodeTuning;
  /** How long a node is down until its replicas are made anew elsewhere; undefined for the default. */
  readonly nodeDeadMs: number | undefined;
  /** Beyond which ranges split by themselves; undefined for never. */
  readonly rangeMaxRows: number | undefined;
  readonly trace: (line: string) => void;
  ended(process: Process): void;
  /** The node's own decision to go down. */
  failed(machine: Machine, error: OstrakaError): void;
  /** A call failed; `has` is what the file has applied nevertheless. */
  applyFailed(machine: Machine, path: string, has: number): void;
  /** Of the store at this path below the data directory. */
  applied(
    machine: Machine,
    path: string,
    entries: readonly Entry[],
    results: readonly Uint8Array[],
    upTo: number,
  ): void;
}

class Incarnations implements MetPeers {
  readonly #of = new Map<number, string>();

  get(node: number): string | undefined {
    return this.#of.get(node);
  }

  remember(node: number, incarnation: string): void {
    this.#of.set(node, incarnation);
  }

  wipe(): void {
    this.#of.clear();
  }
}

/** What a machine has been through that excuses a node's refusal to go on. */
export interface Damage {
  wiped: boolean;
  decayed: boolean;
  ioErrors: boolean;
}

export class Process implements NetworkProcess {
  dead = false;
  readonly network: SimNodeNetwork;
  readonly met: MetPeers;
  readonly clock: Clock;
  readonly pools: RunnerPool[] = [];
  readonly stores: LocalStores[] = [];
  host: MultiRaft | undefined;
  hosting: RangeHosting | undefined;
  running: RunningNode | undefined;
  /** It gave up by itself. */
  failure: OstrakaError | undefined;
  readonly #mourners = new Set<() => void>();

  constructor(
    readonly id: number,
    readonly machine: Machine,
    world: WorldOfProcesses,
  ) {
    this.clock = machine.clock.mount(() => this.dead);
    this.met = machine.met;
    this.network = new SimNodeNetwork(id, world, () => this);
  }

  /** Calls back when it dies, or at once if it has; answers how to take that back. */
  onDeath(mourn: () => void): () => void {
    if (this.dead) mourn();
    else this.#mourners.add(mourn);
    return () => void this.#mourners.delete(mourn);
  }

  die(): void {
    this.dead = true;
    for (const mourn of this.#mourners) mourn();
    this.#mourners.clear();
  }
}

export class Machine {
  readonly disk: SimDisk;
  readonly files: DatabaseFiles;
  readonly clock: MachineClock;
  /** What the file of known peers holds: each line is durable at once. */
  readonly met = new Incarnations();
  readonly damage: Damage = { wiped: false, decayed: false, ioErrors: false };
  process: Process | undefined;
  starts = 0;
  /** Wants to be up: a process that fails is started again. */
  wanted = true;
  /** It has failed for good and never starts again. */
  lost = false;
  /** Its removal from the cluster has been asked for. */
  leaving = false;
  readonly lines: string[] = [];
  readonly #world: WorldOfProcesses;
  readonly #random: SimRandom;

  constructor(
    readonly id: number,
    world: WorldOfProcesses,
    random: SimRandom,
    root: string,
  ) {
    this.#world = world;
    this.#random = random;
    this.clock = new MachineClock(world.clock);
    this.disk = new SimDisk({
      random: random.stream("disk"),
      clock: this.clock.mount(() => false),
      meanLatencyMs: 0.2,
    });
    this.files = new DatabaseFiles(`${root}/n${id}`, this.dataDirectory, this.disk, random.stream("files"));
  }

  get dataDirectory(): string {
    return `/data-${this.id}`;
  }

  get serving(): boolean {
    return this.process?.running !== undefined && this.process.network.gateway !== undefined;
  }

  start(): void {
    if (this.process !== undefined || this.lost) return;
    this.wanted = true;
    const process = new Process(this.id, this, this.#world);
    this.process = process;
    this.starts++;
    void this.#run(process);
  }

  /** Power off, or (kind "process") SIGKILL. */
  crash(kind: CrashKind): void {
    const process = this.process;
    if (process === undefined) return;
    this.#end(process);
    this.disk.crash(kind === "power" ? "some" : "all");
    this.files.crash(kind, () => this.#abandon(process));
  }

  wipe(): void {
    const process = this.process;
    if (process !== undefined) this.#end(process);
    this.damage.wiped = true;
    this.met.wipe();
    this.disk.wipe();
    this.files.wipe(() => process !== undefined && this.#abandon(process));
  }

  /** SIGTERM: drains and ends; it may then be started again. */
  async stop(): Promise<void> {
    const process = this.process;
    if (process?.running === undefined) return;
    this.wanted = false;
    await process.running.stop();
    if (this.process !== process) return;
    this.#end(process);
    this.disk.crash("all");
    this.files.crash("process", () => this.#abandon(process));
  }

  #end(process: Process): void {
    this.#world.ended(process);
    process.die();
    this.process = undefined;
    this.clock.resume();
  }

  #abandon(process: Process): void {
    for (const pool of process.pools) void pool.close();
    for (const stores of process.stores) stores.abandon();
  }

  async #run(process: Process): Promise<void> {
    const { clock } = process;
    try {
      const disk = withFolders(this.disk.mount(), this.files);
      await disk.makeDirectory(this.dataDirectory);
      const running = await assembleNode(this.#config(), {
        clock,
        disk,
        random: this.#random.stream(`life-${this.starts}`),
        logger: this.#logger(process),
        network: process.network,
        openStores: () => this.#openStores(process),
        openRunners: (purpose) => {
          const pool = createInProcessRunnerPool({ clock, ...RUNNERS[purpose] });
          process.pools.push(pool);
          return pool;
        },
        lock: undefined,
        defer: (run) => void clock.setTimer(0, run),
        tuning: this.#world.tuning,
        onHost: (host) => {
          process.host = host;
        },
        onHosting: (hosting) => {
          process.hosting = hosting;
        },
      });
      if (process.dead) return;
      process.running = running;
      void running.failed.then((error) => this.#failed(process, error));
    } catch (error) {
      this.#failed(process, error as OstrakaError);
    }
  }

  #failed(process: Process, error: OstrakaError): void {
    if (process.dead || process.failure !== undefined) return;
    process.failure = error;
    this.#world.trace(`n${this.id} fails ${error.code ?? error.name}`);
    this.#world.failed(this, error);
    this.#world.after(1, () => {
      if (process.dead) return;
      // Whoever supervises it kills what has failed, and starts it anew.
      this.crash("process");
      // It had joined, and died before it had noted down as whom: under that id nobody may come again.
      if (error.code === "OSTRAKA_JOIN_REFUSED") this.damage.wiped = true;
      if (this.wanted && !/WIPED|CORRUPT|JOIN_REFUSED|REMOVED/.test(error.code))
        this.#world.after(RESTART_AFTER_FAILURE_MS, () => this.wanted && this.start());
    });
  }

  #openStores(process: Process): StoreWorker {
    const { clock } = process;
    const random = this.#random.stream(`worker-${this.starts}`);
    const queues = { request: new InOrder(), answer: new InOrder() };
    const stores = openLocalStores({
      clock,
      files: this.files.work(clock),
      pause: () => new Promise((resolve) => void clock.setTimer(0.1, resolve)),
      // As between threads: later, in order each way.
      deliver: (direction, run) =>
        queues[direction].push(
          clock.monotonicMs(),
          random.float() * 0.3,
          run,
          (ms, fire) => void clock.setTimer(ms, fire),
        ),
    });
    process.stores.push(stores);
    return {
      close: () => stores.close(),
      remove: (path) => this.#remove(process, path),
      store: (path) => {
        const store = stores.store(this.files.real(path));
        const apply = store.apply.bind(store);
        store.apply = async (entries, upTo) => {
          const results = await apply(entries, upTo).catch((error: OstrakaError) => {
            this.#world.note(`apply failed: ${error.code}`);
            this.#world.applyFailed(this, path.slice(this.dataDirectory.length), store.appliedIndex());
            throw error;
          });
          this.#world.applied(this, path.slice(this.dataDirectory.length), entries, results, upTo);
          return results;
        };
        const restore = store.restore.bind(store);
        store.restore = async (file) => {
          const index = await restore(file);
          if (store.beginning() !== undefined) this.#world.note("a snapshot was installed in a child");
          return index;
        };
        return store;
      },
    };
  }

  /** Of a range, its folder. In the machine's own time. */
  async #remove({ clock }: Process, path: string): Promise<void> {
    await new Promise<void>((resolve) => void clock.setTimer(1, resolve));
    this.files.removeFolder(dirname(path));
  }

  #logger(process: Process) {
    const line =
      (level: string) =>
      (fields: object, message: string): void => {
        if (process.dead) return;
        const { err, ...rest } = fields as { err?: unknown };
        const told = err === undefined ? "" : ` ${String(err)}`;
        this.lines.push(
          `${this.#world.clock.monotonicMs().toFixed(2)} ${level} ${message} ${JSON.stringify(rest, safe)}${told}`,
        );
        if (this.lines.length > LOG_LINES) this.lines.shift();
      };
    return {
      debug: line("debug"),
      info: line("info"),
      warn: line("warn"),
      error: line("error"),
    };
  }

  /** One of those that found the cluster; the others join it. */
  get #founder(): boolean {
    return this.#world.founders.includes(this.id);
  }

  #config(): NodeConfig {
    const at = (id: number) => ({ host: `node${id}`, port: PORT });
    return {
      nodeId: this.id,
      dataDirectory: this.dataDirectory,
      listen: { host: `node${this.id}`, port: PORT },
      http: undefined,
      advertise: undefined,
      initialCluster: this.#founder ? new Map(this.#world.founders.map((id) => [id, at(id)])) : undefined,
      join: this.#founder ? undefined : this.#world.contacts.map(at),
      rangeMaxBytes: 64 * 1024 * 1024,
      rangeMaxRows: this.#world.rangeMaxRows,
      replicas: this.#world.replicas,
      nodeDeadMs: this.#world.nodeDeadMs,
      electionTimeoutMs: this.#world.unitMs,
      logLevel: "info",
      authTokenFile: undefined,
      clusterSecretFile: undefined,
      tls: undefined,
      insecure: true,
    };
  }
}

/** The folders of ranges are made by SQLite's side of the machine. */
function withFolders(disk: Disk, files: DatabaseFiles): Disk {
  const list = disk.list.bind(disk);
  disk.list = async (directory) => [...new Set([...(await list(directory)), ...files.folders(directory)])];
  return disk;
}

function safe(_: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

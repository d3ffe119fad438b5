/**
 * The whole system in one process, from one seed: nodes with all their code on simulated machines, clients, and
 * whatever goes wrong. One source of randomness, split into named streams; one heap of events by (virtual time, order);
 * between two events everything that can settle does. After each event the invariants are checked.
 *
 * A run: the cluster comes up and gets a schema; in the safety phase anything may fail; then everything heals, the
 * clients finish what they are at, unknown outcomes are asked for, and replicas and histories are judged.
 */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { OstrakaError } from "../../../src/base/errors.js";
import { FIRST_RANGE_GROUP, type GroupId, META_GROUP, nodeId } from "../../../src/base/ids.js";
import type { Timer } from "../../../src/base/io.js";
import { decodeCommands, decodeResults } from "../../../src/machines/range/command.js";
import type { CommandResult } from "../../../src/machines/range/types.js";
import type { MultiRaft } from "../../../src/multiraft/host.js";
import type { PeerFrame } from "../../../src/multiraft/types.js";
import type { NodeTuning } from "../../../src/node/node.js";
import { type Entry, MessageType } from "../../../src/raft/types.js";
import type { Verdict } from "../checkers/verdict.js";
import { SimClock, settle, turns } from "../sim-clock.js";
import { SimRandom } from "../sim-random.js";
import { SimClient } from "./client.js";
import { describeDifference } from "./difference.js";
import { loseAll, recoverFrom, survivorOf } from "./disaster.js";
import { describeFault, drawFaults, type Fault, strike } from "./faults.js";
import { check, Invariants, Violation } from "./invariants.js";
import { isBeyondHelp, membershipEnds, stays } from "./membership.js";
import { SimNetwork } from "./network.js";
import { Machine, type Process, type WorldOfProcesses } from "./process.js";
import { comeToRest, coverKeyspace } from "./range-ends.js";
import { describeRanges } from "./range-states.js";
import { Sightings } from "./sightings.js";
import { Operator } from "./topology.js";
import { Trace } from "./trace.js";
import { History } from "./workloads/index.js";
import { Worker } from "./workloads/worker.js";

const FIRST_CLIENT = 101;
/** Founders, and voters in the end. */
const SIZES = [
  [3, 3],
  [3, 3],
  [3, 3],
  [3, 5],
  [1, 3],
] as const;
/** The same, and machines in the end: replicas have somewhere to go. */
const SIZES_OF_MANY = [
  [3, 3, 3],
  [3, 3, 3],
  [3, 3, 4],
  [3, 3, 5],
  [5, 5, 5],
  [1, 1, 1],
] as const;
/** The same where nodes fail for good and are removed: those that join take their places. */
const SIZES_OF_MEMBERS = [
  [3, 3, 5],
  [3, 3, 6],
  [3, 3, 7],
  [4, 3, 6],
  [5, 3, 7],
  [5, 5, 8],
] as const;
/** When what has failed is replaced without being told; mostly it is removed before. */
const DEAD_AFTER_MS = [300_000, 1_000, 4_000];
/** Of them so many end with one node. */
const DISASTERS = 0.25;
/** Beyond which ranges split by themselves; mostly they do so by hand alone. */
const ROWS_OF_RANGES = [0, 0, 10, 40];
/** How long anything may fail, in units of the world. */
const LENGTHS = [8, 16, 32] as const;
/**
 * Most worlds of many ranges are short, and what goes wrong in them comes thick: more seeds in the same time. What takes
 * long to come about (recovery by the coordinator, logs that are cut) they reach less, which the long ones are left for.
 */
const SHORT_LENGTHS = [3, 4, 6] as const;
const SHORT_SHARE = 0.75;
const START_MS = 60_000;
const HEAL_MS = 90_000;
const FINISH_MS = 120_000;

export interface RunSettings {
  readonly seed: number;
  /** Instead of those that the seed gives. */
  readonly faults?: readonly Fault[] | undefined;
  readonly keepTrace?: boolean;
  /** The database is divided, and divided again while it is used; a seed is another world with it than without. */
  readonly manyRanges?: boolean;
  /** The same, and nodes fail for good, are removed and join; another world again. */
  readonly members?: boolean;
  /** As long as worlds of one range, whatever the seed says. */
  readonly long?: boolean;
  /** Instead of what the seed gives: for scripted runs. */
  readonly fixed?: Partial<Fixed>;
}

/** What the world is like, before anything happens. */
interface Fixed {
  /** How many nodes found the cluster, and how many voters it is to have. */
  readonly founders: number;
  readonly replicas: number;
  /** Machines in the end: more than there are replicas, or as many. */
  readonly most: number;
  readonly unitMs: number;
  readonly tuning: NodeTuning;
  readonly rangeMaxRows: number;
}

export interface RunReport {
  readonly seed: number;
  readonly violation: string | undefined;
  readonly faults: readonly Fault[];
  readonly hash: string;
  readonly events: number;
  readonly virtualMs: number;
  readonly operations: number;
  readonly sometimes: ReadonlyMap<string, number>;
  readonly verdicts: ReadonlyMap<string, Verdict>;
  /** The end of the trace and of the nodes' logs, when something went wrong. */
  readonly lines: readonly string[];
  readonly logs: readonly string[];
  /** What the nodes know and have of ranges at the end, when something went wrong. */
  readonly ranges: readonly string[];
}

/** A client at work, and when it has ended. */
interface Employed {
  readonly worker: Worker;
  readonly done: Promise<void>;
}

/** Somebody who waits until something is so. */
interface Waiting {
  readonly done: () => boolean;
  readonly what: () => string;
  readonly untilMs: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class World implements WorldOfProcesses {
  readonly seed: number;
  readonly random: SimRandom;
  readonly clock = new SimClock();
  /** The election timeout; faults come and last in proportion to it. */
  readonly unitMs: number;
  readonly wires: SimNetwork;
  invariants: Invariants;
  readonly machines: Machine[];
  readonly founders: readonly number[];
  readonly replicas: number;
  readonly most: number;
  readonly tuning: NodeTuning;
  readonly manyRanges: boolean;
  /** Nodes fail for good and are removed. */
  readonly members: boolean;
  /** How long a node is down until its replicas are made anew elsewhere. */
  readonly nodeDeadMs: number | undefined;
  /** What goes wrong does within a short time. */
  readonly short: boolean;
  /** Clients give up statements early, now and then. */
  impatient = false;
  readonly rangeMaxRows: number | undefined;
  readonly operator: Operator;
  readonly sometimes = new Map<string, number>();
  readonly history: History;
  /** Of clients: begun, and neither committed nor given up. */
  openTransactions = 0;
  readonly sightings = new Sightings(
    (what) => this.note(what),
    () => this.openTransactions,
  );
  readonly #waiting = new Set<Waiting>();
  readonly #trace: Trace;
  readonly #root: string;
  #events = 0;
  #violation: Error | undefined;
  /** All nodes but one are lost. */
  #anew = false;
  /** What the nodes knew and had of ranges when it happened. */
  #rangesThen: readonly string[] = [];

  constructor({ seed, keepTrace = false, fixed = {}, ...kind }: RunSettings) {
    const { members = false, manyRanges = members, long = false } = kind;
    this.seed = seed;
    this.manyRanges = manyRanges;
    this.members = members;
    this.random = new SimRandom(seed, members ? "members" : manyRanges ? "ranges" : "world");
    this.nodeDeadMs = members ? this.random.stream("dead").pick(DEAD_AFTER_MS) : undefined;
    this.short = manyRanges && !long && this.random.stream("short").chance(SHORT_SHARE);
    this.#trace = new Trace(keepTrace);
    this.#trace.now = () => this.clock.monotonicMs();
    this.#root = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "ostraka-sim-"));
    this.unitMs = fixed.unitMs ?? this.random.stream("unit").pick([150, 200, 300, 500]);
    this.wires = new SimNetwork(this.clock, this.random.stream("network"), this.unitMs);
    this.invariants = new Invariants((what) => this.note(what));
    this.tuning = fixed.tuning ?? drawTuning(this.random.stream("tuning"), this.unitMs);
    this.history = new History(this.random.stream("workloads"), manyRanges);
    const [founders, replicas, most = replicas] = this.random
      .stream("size")
      .pick<readonly [number, number, number?]>(
        members ? SIZES_OF_MEMBERS : manyRanges ? SIZES_OF_MANY : SIZES,
      );
    this.founders = Array.from({ length: fixed.founders ?? founders }, (_, i) => i + 1);
    this.replicas = fixed.replicas ?? (fixed.founders === undefined ? replicas : Math.max(3, fixed.founders));
    this.most = Math.max(this.replicas, fixed.most ?? (fixed.founders === undefined ? most : 0));
    this.rangeMaxRows =
      (fixed.rangeMaxRows ?? (manyRanges ? this.random.stream("rows").pick(ROWS_OF_RANGES) : 0)) || undefined;
    this.machines = [];
    for (const _ of this.founders) this.addMachine();
    const operator = this.random.stream("operator");
    this.operator = new Operator(this, FIRST_CLIENT - 2, operator, this.history.splittable);
  }

  // --- what processes and clients ask of the world --------------------------------------------------------------

  addMachine(): Machine {
    const id = this.machines.length + 1;
    const machine = new Machine(id, this, this.random.stream(`machine-${id}`), this.#root);
    this.machines.push(machine);
    return machine;
  }

  /** One more node joins, while the cluster wants more. */
  join(): Machine | undefined {
    if (this.machines.length >= this.most) return undefined;
    this.note("a node was added");
    const machine = this.addMachine();
    machine.start();
    return machine;
  }

  get contacts(): readonly number[] {
    const serving = this.machines.filter((machine) => machine.serving && stays(machine));
    return this.members && serving.length > 0 ? serving.map(({ id }) => id) : this.founders;
  }

  note(what: string): void {
    this.sometimes.set(what, (this.sometimes.get(what) ?? 0) + 1);
  }

  readonly trace = (line: string): void => this.#trace.add(line);

  after(ms: number, run: () => void): Timer {
    return this.clock.setTimer(ms, run);
  }

  machine(id: number): Machine {
    return this.machines[id - 1]!;
  }

  process(id: number): Process | undefined {
    return this.machines[id - 1]?.process;
  }

  onMachine(id: number, run: () => void): void {
    const machine = this.machines[id - 1];
    if (machine === undefined) run();
    else machine.clock.whenAwake(run);
  }

  observe(from: number, to: number, frame: PeerFrame, bytes: Uint8Array): void {
    this.#trace.bytes(from * 16 + to, bytes);
    const process = this.process(from);
    if (process === undefined) return;
    if (this.manyRanges) this.#seeFrame(to, frame);
    try {
      this.invariants.sent(process, frame);
    } catch (error) {
      this.fail(error);
    }
  }

  #seeFrame(to: number, { messages }: PeerFrame): void {
    const host = this.process(to)?.host;
    for (const { group, message } of messages)
      if (
        (message.type === MessageType.Vote || message.type === MessageType.PreVote) &&
        host !== undefined &&
        host.findGroup(group) === undefined
      )
        this.note("a child was asked for a vote before it was there");
  }

  applied(
    machine: Machine,
    path: string,
    entries: readonly Entry[],
    results: readonly Uint8Array[],
    upTo: number,
  ): void {
    this.trace(`n${machine.id} applied ${upTo}`);
    try {
      const decoded = results.map((bytes) => decodeResults(bytes));
      for (const [i, entry] of entries.entries())
        this.invariants.result(machine, path, entry.index, summaryOf(decoded[i]!, entry));
      if (this.manyRanges) this.sightings.applied(path, entries, decoded);
    } catch (error) {
      this.fail(error);
    }
  }

  applyFailed(machine: Machine, path: string, has: number): void {
    this.invariants.fileHas(machine, path, has);
  }

  failed(machine: Machine, error: OstrakaError): void {
    this.note(`a node went down by itself: ${error.code}`);
    const { wiped, decayed, ioErrors } = machine.damage;
    const excused =
      (machine.leaving && error.code === "OSTRAKA_REMOVED") ||
      // A leader that knows what it had may reach it before it has found out itself.
      (wiped && (error.code === "OSTRAKA_WIPED" || /the log was lost/.test(error.message))) ||
      (decayed && /CORRUPT|IO/.test(error.code)) ||
      (ioErrors && /IO/.test(error.code)) ||
      error.family === "retry" ||
      (error.code === "OSTRAKA_JOIN_REFUSED" && machine.starts > 1) ||
      error.code === "OSTRAKA_DISK_FULL";
    if (!excused)
      this.fail(
        new Violation(
          `node ${machine.id} went down by itself: ${error.code} ${error.message}\n${error.stack}`,
        ),
      );
  }

  /** Whether some machine has been damaged in a way that explains unusual errors. */
  get excused(): boolean {
    return this.machines.some(({ damage }) => damage.decayed || damage.ioErrors || damage.wiped);
  }

  /** A process is gone: what it counted is kept. */
  ended(process: Process): void {
    const stats = process.host?.stats();
    if (stats === undefined) return;
    const count = (what: string, times: number): void => {
      if (times > 0) this.sometimes.set(what, (this.sometimes.get(what) ?? 0) + times);
    };
    count("a snapshot was installed", stats.snapshotsInstalled);
    count("a log was cut behind a checkpoint", stats.checkpoints);
    count("a node ticked late after a pause", stats.stalls);
    const { leader } = process.hosting?.coordinator ?? {};
    count("the coordinator gave a transaction up by itself, or when asked", leader?.counts().byRecovery ?? 0);
  }

  allows(error: OstrakaError): boolean {
    return error.code.startsWith("SQLITE_CONSTRAINT") || /duplicate column/.test(error.message);
  }

  fail(error: unknown): void {
    if (this.#violation !== undefined) return;
    this.#violation = error instanceof Error ? error : new Error(String(error));
    this.#rangesThen = this.machines.flatMap(describeRanges);
  }

  /** The machine whose process leads a group, in the newest term. */
  leader(group: GroupId = FIRST_RANGE_GROUP): Machine | undefined {
    let newest = -1;
    let found: Machine | undefined;
    for (const machine of this.machines) {
      const status = machine.process?.host?.findGroup(group)?.status();
      if (status?.role === "leader" && status.term > newest) [newest, found] = [status.term, machine];
    }
    return found;
  }

  /** Whether every group that is known to have a voter there can lose it for good. */
  canLose(node: number): boolean {
    const id = nodeId(node);
    const groups = this.machines.flatMap(({ process }) => process?.host?.groups() ?? []);
    return groups.every(({ conf }) =>
      [conf.voters, conf.votersOutgoing].every((voters) => !voters.includes(id) || voters.length > 2),
    );
  }

  // --- running --------------------------------------------------------------------------------------------------

  /** What the last event set going has settled: a look at what has come of it, and who waited for that. */
  #look(): void {
    try {
      this.invariants.step(this.machines);
    } catch (error) {
      this.fail(error);
    }
    if (this.#violation !== undefined) throw this.#violation;
    const nextMs = this.clock.nextAt() ?? Number.POSITIVE_INFINITY;
    for (const waiting of this.#waiting) {
      if (waiting.done()) waiting.resolve();
      else if (nextMs > waiting.untilMs) waiting.reject(new Violation(`${waiting.what()}: not in time`));
      else continue;
      this.#waiting.delete(waiting);
    }
  }

  /** Resolves once it is so, looking after every event; rejects when time is up. */
  when(done: () => boolean, what: string | (() => string), limitMs = HEAL_MS): Promise<void> {
    return new Promise((resolve, reject) => {
      const untilMs = this.clock.monotonicMs() + limitMs;
      this.#waiting.add({
        done,
        what: () => (typeof what === "string" ? what : what()),
        untilMs,
        resolve,
        reject,
      });
    });
  }

  /** The promise, or a violation when it takes too long. */
  async during<T>(promise: Promise<T>, what: string | (() => string), limitMs = HEAL_MS): Promise<T> {
    let settled = false;
    const watched = promise.finally(() => {
      settled = true;
    });
    watched.catch(() => undefined);
    await this.when(() => settled, what, limitMs);
    return watched;
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.after(ms, resolve));
  }

  /** Event by event, all that one sets going before the next, until the script has ended. */
  async #drive<T>(script: Promise<T>): Promise<T> {
    let ended = false;
    const watched = script.finally(() => {
      ended = true;
    });
    watched.catch(() => undefined);
    await turns(() => {
      if (ended) return false;
      this.#look();
      this.#events++;
      check(this.clock.fireNext(), () => "nothing happens any more");
      return true;
    });
    return watched;
  }

  /** A run that the seed has drawn, judged. */
  async run(faults: readonly Fault[] | undefined): Promise<RunReport> {
    let planned: readonly Fault[] = faults ?? [];
    let verdicts: ReadonlyMap<string, Verdict> = new Map();
    const drawn = async (): Promise<void> => {
      await this.#comeUp();
      await this.during(this.#createTables(), "the tables are made", START_MS);
      if (this.manyRanges) await this.during(this.#divide(), "the tables are divided", START_MS);
      const start = this.clock.monotonicMs();
      const end =
        start + this.unitMs * this.random.stream("length").pick(this.short ? SHORT_LENGTHS : LENGTHS);
      planned = faults ?? drawFaults(this.random.stream("faults"), this, start, end, this.unitMs);
      this.impatient = this.short && this.random.stream("impatient").chance(0.5);
      const workers = this.#employ();
      await this.#safety(planned, end);
      const survivor = this.members && this.random.stream("ends").chance(DISASTERS) && survivorOf(this);
      if (survivor) await this.#disaster(survivor, workers);
      else verdicts = await this.#liveness(workers);
    };
    try {
      await this.#drive(drawn());
    } catch (error) {
      if (this.members && !this.#anew && isBeyondHelp(this))
        this.note("a group lost most of its voters for good");
      else this.fail(error);
    } finally {
      await this.#destroy();
    }
    return this.#report(planned, verdicts);
  }

  /** A scripted run: the cluster comes up, the script does what it wants in the world's time, and all is ended. */
  async play<T>(script: (world: World) => Promise<T>): Promise<T> {
    try {
      return await this.#drive(this.#comeUp().then(() => script(this)));
    } finally {
      await this.#destroy();
    }
  }

  #comeUp(): Promise<void> {
    for (const machine of this.machines) machine.start();
    return this.when(() => this.machines.every(({ serving }) => serving), "the cluster comes up", START_MS);
  }

  async #createTables(): Promise<void> {
    const client = new SimClient(this, FIRST_CLIENT - 1, this.random.stream("setup"));
    for (const sql of this.history.statements) {
      const end = await client.write(sql, []);
      check(end.outcome === "committed", () => `${sql}: ${end.outcome}`);
    }
  }

  /** Some ranges to begin with. */
  async #divide(): Promise<void> {
    const random = this.random.stream("divide");
    for (let left = random.between(1, 4); left > 0; left--)
      await this.operator.split(random.float(), random.float());
  }

  #employ(): Employed[] {
    const random = this.random.stream("clients");
    const count = random.between(2, 6);
    return Array.from({ length: count }, (_, i) => {
      const mine = this.random.stream(`client-${i}`);
      const client = new SimClient(this, FIRST_CLIENT + i, mine.stream("driver"));
      const worker = new Worker(client, this.history, mine.stream("work"), i === 0);
      const done = worker.run().catch((error: unknown) => this.fail(error));
      return { worker, done };
    });
  }

  async #safety(faults: readonly Fault[], untilMs: number): Promise<void> {
    for (const fault of faults)
      this.clock.setTimer(Math.max(0, fault.atMs - this.clock.monotonicMs()), () => {
        this.trace(`fault ${describeFault(fault)}`);
        this.note(`fault: ${fault.kind}`);
        strike(this, fault);
      });
    await this.sleep(untilMs - this.clock.monotonicMs());
  }

  /** Machines whose data is gone or damaged need not come back; all others must. */
  #survivors(): Machine[] {
    return this.machines
      .filter(stays)
      .filter(({ damage, serving }) => !(damage.wiped || damage.decayed) || serving);
  }

  /** Clients begin nothing more; resolves when they have ended what they are at. */
  async #endWork(workers: readonly Employed[]): Promise<void> {
    this.impatient = false;
    for (const { worker } of workers) worker.stopped = true;
    await this.during(
      Promise.all(workers.map(({ done }) => done)),
      () => `clients finish (${workers.map(({ worker }) => worker.busy).join(" | ")})`,
    );
  }

  async #liveness(workers: readonly Employed[]): Promise<ReadonlyMap<string, Verdict>> {
    this.trace("everything heals");
    this.heal();
    const ended = this.#endWork(workers);
    const finished = this.operator.finish();
    finished.catch((error: unknown) => this.fail(error));
    await ended;
    await this.allServe();
    await this.during(finished, "operators finish", FINISH_MS);
    if (this.members) await membershipEnds(this);
    const readers = this.#survivors().map(({ id }) => {
      const client = new SimClient(this, FIRST_CLIENT + 50 + id, this.random.stream(`reader-${id}`));
      client.pin(id);
      return client;
    });
    await this.during(this.#resolveDoubts(readers[0]!), "outcomes are told");
    const verdicts = await this.during(
      this.history.judge(readers, () => this.clock.monotonicMs()),
      () => `the last reads (${this.history.reading})`,
    );
    for (const [name, { verdict, problems }] of verdicts)
      check(verdict !== "invalid", () => `${name}: ${problems.join("\n  ")}`);
    await this.#comeToRest();
    return verdicts;
  }

  async #disaster(survivor: Machine, workers: readonly Employed[]): Promise<void> {
    loseAll(this);
    this.heal();
    await this.#endWork(workers);
    if (!(await recoverFrom(this, survivor))) return;
    await this.during(this.operator.finish(), "operators finish", FINISH_MS);
    await membershipEnds(this);
    await this.#comeToRest();
  }

  /** Another cluster, made of what is left of the one before: what was promised there binds nobody. */
  beginAnew(): void {
    this.#anew = true;
    this.invariants = new Invariants((what) => this.note(what));
  }

  async #comeToRest(): Promise<void> {
    await comeToRest(this, () => this.#survivors());
    await coverKeyspace(this, () => this.#survivors());
    await this.compareReplicas();
  }

  allServe(): Promise<void> {
    return this.when(
      () =>
        this.#survivors().every(({ serving }) => serving) &&
        (this.members || this.#survivors().length * 2 > this.founders.length),
      () => {
        const waiting = this.#survivors().filter(({ serving }) => !serving);
        return `all nodes serve again (not ${waiting.map(({ id, process }) => `${id}: ${process === undefined ? "down" : "starting"}`).join(", ")})`;
      },
    );
  }

  /** Nothing fails any more, and every machine runs. */
  heal(): void {
    this.wires.heal();
    for (const machine of this.machines) {
      machine.clock.resume();
      machine.clock.setRate(1);
      machine.disk.capacityBytes = Number.POSITIVE_INFINITY;
      machine.disk.slowness = 1;
      machine.disk.failNext = () => undefined;
      machine.files.failure = undefined;
      machine.files.limitGrowth();
      machine.wanted = true;
      machine.start();
    }
  }

  async #resolveDoubts(client: SimClient): Promise<void> {
    for (const { id, resolve } of this.history.doubted) {
      const end = await client.resolve(id, 20);
      this.note(`a doubt was resolved at the end: ${end.outcome}`);
      resolve(end.outcome);
    }
  }

  /** Equal state at equal applied index, on all replicas of every group. */
  async compareReplicas(): Promise<void> {
    const hosts = this.#survivors().map(({ process }) => process!.host!);
    const groups = new Set(hosts.flatMap((host) => host.groups().map(({ group }) => group)));
    for (const group of groups) await this.#compareGroup(group, hosts);
  }

  async #compareGroup(group: GroupId, hosts: readonly MultiRaft[]): Promise<void> {
    // Whoever is no member any more leaves when it finds out.
    const members = () => hosts.map((host) => host.findGroup(group)).filter((handle) => handle !== undefined);
    const statuses = () => members().map((handle) => handle.status());
    const behind = (): boolean => {
      const target = Math.max(...statuses().map(({ commit }) => commit));
      return statuses().some(({ applied }) => applied < target);
    };
    const where = (): string =>
      statuses()
        .map(({ role, term, applied, conf }) => `${role} ${term} ${applied} of ${conf.voters.join(" ")}`)
        .join(", ");
    await this.when(
      () => !behind(),
      () => `all replicas of group ${group} catch up (${where()})`,
    );
    const handles = members();
    const digests = await this.during(Promise.all(handles.map((handle) => handle.digest())), "digests");
    const byIndex = new Map<number, string>();
    for (const { appliedIndex, digest } of digests) {
      const known = byIndex.get(appliedIndex);
      check(
        known === undefined || known === digest,
        () =>
          `replicas of group ${group} differ at ${appliedIndex}: ${JSON.stringify(digests)}\n  ${describeDifference(this.#survivors().map((machine) => machine.files.real(`${machine.dataDirectory}/ranges/${group}/range.db`)))}`,
      );
      byIndex.set(appliedIndex, digest);
    }
    if (byIndex.size < digests.length)
      this.note(`digests compared (${group === META_GROUP ? "meta" : "range"})`);
  }

  async #destroy(): Promise<void> {
    for (const machine of this.machines) {
      if (machine.process !== undefined) machine.crash("process");
      machine.files.remove();
    }
    rmSync(this.#root, { recursive: true, force: true });
    await settle();
  }

  #report(faults: readonly Fault[], verdicts: ReadonlyMap<string, Verdict>): RunReport {
    const violation = this.#violation;
    return {
      seed: this.seed,
      violation:
        violation === undefined
          ? undefined
          : violation instanceof Violation
            ? violation.message
            : String(violation.stack),
      faults,
      hash: this.#trace.hash,
      events: this.#events,
      virtualMs: this.clock.monotonicMs(),
      operations: this.history.begun,
      sometimes: this.sometimes,
      verdicts,
      lines: this.#trace.last(400),
      logs: this.machines.flatMap(({ id, lines }) => lines.map((line) => `n${id} ${line}`)),
      ranges: this.#rangesThen,
    };
  }
}

/**
 * What an entry's commands did, as every replica must find it; "repeated" depends on where a crash cut the entry, and how
 * many rows were trimmed is not remembered.
 */
function summaryOf(results: readonly CommandResult[], { data }: Entry): string {
  const trims = results.some(isBare) && decodeCommands(data).commands.some(({ kind }) => kind === "trim");
  return results
    .map((result) =>
      result.ok
        ? `ok ${trims && isBare(result) ? "" : result.outcomes.map(({ changes, rowCount, lastInsertRowid }) => `${changes}/${rowCount}/${lastInsertRowid}`).join()}`
        : `${result.error[1]} at ${result.statement}`,
    )
    .join("; ");
}

/** As a trim answers. */
function isBare(result: CommandResult): boolean {
  return (
    result.ok && result.outcomes.every((outcome) => outcome.rowCount === 0 && outcome.lastInsertRowid === 0n)
  );
}

/** Small bounds, so that rare paths are met often; now and then the usual ones. */
function drawTuning(random: SimRandom, unitMs: number): NodeTuning {
  if (random.chance(0.1)) return {};
  const maxLogEntries = random.pick([30, 100, 400]);
  return {
    segmentBytes: random.pick([16 * 1024, 64 * 1024]),
    host: {
      maxLogEntries,
      maxLogBytes: 256 * 1024,
      tailEntries: random.pick([0, 5, maxLogEntries / 2]),
      tailBytes: 64 * 1024,
      maxAppendBytes: random.pick([512, 16 * 1024]),
      maxReadyBytes: random.pick([512, 64 * 1024]),
      maxInflightMessages: random.pick([2, 64]),
      maxApplyBytes: random.pick([4 * 1024, 4 * 1024 * 1024]),
      quiesceTicks: random.pick([0, 5, 30]),
    },
    // What is scanned runs in a process, on a pin or a private copy, once the file is larger than this.
    gateway: {
      availabilityMs: unitMs * random.pick([3, 10, 20]),
      scanBytes: random.pick([0, 1024 * 1024, 1024 * 1024]),
    },
    leader: {
      scanBytes: random.pick([0, 1024 * 1024, 1024 * 1024]),
      maxRememberedKeys: random.pick([4, 50, 200_000]),
      reservationMs: random.pick([50, 1_000]),
      maxReplayMs: random.pick([0, 4]),
    },
  };
}

export async function runSeed(settings: RunSettings): Promise<RunReport> {
  return new World(settings).run(settings.faults);
}

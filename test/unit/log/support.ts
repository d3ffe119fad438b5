/** What the tests of the log share: short ways to say entries, states and appends. */
import { groupId, logIndex, nodeId, term } from "../../../src/base/ids.js";
import { type DurableLog, type GroupAppend, type GroupLog, openLog } from "../../../src/log/index.js";
import type { Entry, HardState, SnapshotMeta } from "../../../src/raft/types.js";
import { SimClock } from "../../sim/sim-clock.js";
import { SimDisk } from "../../sim/sim-disk.js";
import { SimRandom } from "../../sim/sim-random.js";

export const DIRECTORY = "/data/log";

export function entry(
  index: number,
  entryTerm = 1,
  data: Uint8Array | string = `entry ${index} of ${entryTerm}`,
): Entry {
  const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
  return { term: term(entryTerm), index: logIndex(index), kind: 0, data: bytes };
}

export function run(first: number, last: number, entryTerm = 1, bytes = 20): Entry[] {
  const entries: Entry[] = [];
  for (let i = first; i <= last; i++)
    entries.push(entry(i, entryTerm, `${i}@${entryTerm}`.padEnd(bytes, ".")));
  return entries;
}

export function hard(hardTerm: number, vote: number, commit: number): HardState {
  return { term: term(hardTerm), vote: nodeId(vote), commit: logIndex(commit) };
}

export function base(index: number, baseTerm = 1): SnapshotMeta {
  const conf = {
    voters: [nodeId(1), nodeId(2), nodeId(3)],
    votersOutgoing: [nodeId(1)],
    learners: [nodeId(4)],
    learnersNext: [],
    autoLeave: true,
  };
  return { index: logIndex(index), term: term(baseTerm), conf };
}

export function to(group: number, parts: Partial<Omit<GroupAppend, "group">>): GroupAppend {
  return {
    group: groupId(group),
    hardState: parts.hardState,
    entries: parts.entries ?? [],
    snapshot: parts.snapshot,
  };
}

/** Everything a view shows, as plain values. */
export interface Shown {
  readonly hardState: HardState;
  readonly base: SnapshotMeta;
  readonly entries: readonly string[];
}

export function show(log: GroupLog): Shown {
  const low = logIndex(log.base().index + 1);
  const entries = log.entries(low, logIndex(log.lastIndex() + 1), Number.MAX_SAFE_INTEGER);
  return {
    hardState: log.hardState(),
    base: log.base(),
    entries: entries.map(
      (e) => `${e.index}/${e.term}/${e.kind}/${log.term(e.index)}:${Buffer.from(e.data).toString("latin1")}`,
    ),
  };
}

export function shown(hardState: HardState, shownBase: SnapshotMeta, entries: readonly Entry[]): Shown {
  return {
    hardState,
    base: shownBase,
    entries: entries.map(
      (e) => `${e.index}/${e.term}/${e.kind}/${e.term}:${Buffer.from(e.data).toString("latin1")}`,
    ),
  };
}

/** A log on a simulated disk that can be crashed and opened again. */
export class Bench {
  readonly clock = new SimClock();
  readonly random: SimRandom;
  readonly disk: SimDisk;
  readonly announced: (string | undefined)[] = [];
  readonly failures: string[] = [];
  log!: DurableLog;
  readonly #options: { segmentBytes: number; cacheBytes?: number };

  private constructor(seed: number, options: { segmentBytes: number; cacheBytes?: number }) {
    this.random = new SimRandom(seed);
    this.disk = new SimDisk({ random: this.random.stream("disk"), clock: this.clock });
    this.#options = options;
  }

  static async start(
    options: Partial<{ seed: number; segmentBytes: number; cacheBytes: number }> = {},
  ): Promise<Bench> {
    const { seed = 1, ...rest } = options;
    const bench = new Bench(seed, { segmentBytes: 16384, ...rest });
    await bench.open();
    return bench;
  }

  async open(): Promise<void> {
    this.log = await this.wait(this.beginOpen());
  }

  /** Time does not pass by itself here. */
  beginOpen(): Promise<DurableLog> {
    return openLog(this.disk.mount(), this.clock, {
      directory: DIRECTORY,
      ...this.#options,
      onDiskFull: (reason) => this.announced.push(reason),
      onFailure: (error) => this.failures.push(error.code),
    });
  }

  wait<T>(promise: Promise<T>): Promise<T> {
    return this.clock.until(promise);
  }

  append(...appends: GroupAppend[]): Promise<void> {
    return this.wait(this.log.append(appends));
  }

  async crash(keep: "none" | "all" | "some" = "some"): Promise<void> {
    this.disk.crash(keep);
    await this.open();
  }

  show(group: number): Shown {
    return show(this.log.group(groupId(group)));
  }

  group(id: number): GroupLog {
    return this.log.group(groupId(id));
  }

  segments(): string[] {
    return this.disk.paths().filter((path) => path.endsWith(".log"));
  }
}

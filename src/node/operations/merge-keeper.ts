/**
 * Merges without being asked, where meta is led:
 * - what somebody has begun and not finished is gone on with: a frozen range serves nobody;
 * - a range in which no table can have rows any more goes into its neighbour, since every change of the schema, and every
 *   read of the whole, has to go through all ranges. Several at a time, since tables may be dropped, and leave ranges, faster
 *   than one merge after the other takes them away;
 * - seldom, two neighbours become one that are so small that they will not be split again soon.
 */
import { type GroupId, META_GROUP } from "../../base/ids.js";
import type { Timer } from "../../base/io.js";
import { pause } from "../../base/waits.js";
import { Deadline } from "../../gateway/deadline.js";
import type { RangeDirectory } from "../../placement/directory.js";
import { tableKeySpan } from "../../placement/route.js";
import { shouldMerge } from "../../placement/sizes.js";
import type { Logger } from "../logger.js";
import {
  allReports,
  type ClusterView,
  type GroupReport,
  leaderReports,
  type NodeReport,
} from "./cluster-view.js";
import { markMerging, mergeRight } from "./merge.js";

const LOOK_MS = 5_000;
/** How long the schema is waited for. */
const SCHEMA_MS = 5_000;
/** Looks between two at which sizes are compared. */
const LOOKS_PER_COMPARISON = 12;
/** Merges of vacant ranges at a time. */
const PAIRS = 8;
/** Pairs of small ranges that are tried at a look, until one is merged. */
const SMALL_PAIRS = 3;
/** A replica that has applied less than all that is committed, by more than this, would be waited for. */
const BEHIND_ENTRIES = 256;
/** Looks after which whoever was at work on a range is taken to have died: longer than moving its replicas may take. */
const LOOKS_OF_A_MERGE = 240;

interface Pair {
  readonly left: GroupId;
  readonly right: GroupId;
}

export class MergeKeeper {
  readonly #view: ClusterView;
  readonly #logger: Logger;
  /** Ranges that were frozen at the last look: somebody may be at work on them. */
  #frozen: ReadonlySet<GroupId> = new Set();
  #looks = 0;
  /** At how many looks in a row a range was marked as being merged. */
  #marked: ReadonlyMap<GroupId, number> = new Map();
  #timer: Timer | undefined;
  #stopped = false;

  constructor(view: ClusterView, logger: Logger) {
    this.#view = view;
    this.#logger = logger;
  }

  start(): void {
    if (this.#stopped) return;
    this.#timer = this.#view.clock.setTimer(LOOK_MS, () => {
      const next = (): void => this.start();
      this.#look().then(next, next);
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  async #look(): Promise<void> {
    const { host, hosting } = this.#view;
    if (!host.group(META_GROUP).status().leaderReady) {
      this.#frozen = new Set();
      this.#looks = 0;
      this.#marked = new Map();
      return;
    }
    await this.#unmark();
    const before = this.#frozen;
    this.#frozen = hosting.frozenRanges();
    await this.#finish([...this.#frozen].filter((range) => before.has(range)));
    // Those that were frozen since are finished by whoever began that, or at the next look: nothing else comes first.
    if ([...this.#frozen].some((range) => !before.has(range))) return;
    await this.#mergeVacant();
    if (++this.#looks % LOOKS_PER_COMPARISON === 0) await this.#mergeSmall();
  }

  async #mergeVacant(): Promise<void> {
    const { host, hosting, clock } = this.#view;
    for (;;) {
      if (this.#stopped || hosting.calm.leftMs > 0 || !host.group(META_GROUP).status().leaderReady) return;
      if (hosting.view.directory().ranges.length < 2) return;
      // Whoever is asked for the schema wakes: seldom, where nothing seems to be vacant.
      const due = this.#looks % LOOKS_PER_COMPARISON === 0;
      if ((!due && this.#vacant().length === 0) || !(await this.#knowsSchema())) return;
      const vacant = this.#vacant();
      if (vacant.length === 0) return;
      const answers = whichAnswer(await allReports(this.#view));
      // Who waits for a node that is gone keeps nobody else waiting.
      const pairs = apart(vacant.filter(({ left, right }) => answers(left) && answers(right)));
      const startedMs = clock.monotonicMs();
      const merged = await Promise.all(
        pairs.slice(0, PAIRS).map((pair) => this.#merge(pair, "no table has rows in the right one")),
      );
      // What somebody else has begun, or these have and not finished, is not to wait for the rest of the vacant ones.
      if (!merged.includes(true) || hosting.frozenRanges().size > 0) return;
      // Whoever wants all ranges together gets a turn, too.
      await pause(clock, clock.monotonicMs() - startedMs);
    }
  }

  /** Where no replica of a range is, what is known of the schema is as old as the last session. */
  async #knowsSchema(): Promise<boolean> {
    const { clock, hosting } = this.#view;
    const deadline = new Deadline(clock, SCHEMA_MS, SCHEMA_MS, { signal: undefined });
    try {
      await deadline.race(hosting.view.refreshSchema());
      return true;
    } catch {
      return false;
    } finally {
      deadline.dispose();
    }
  }

  /** Ranges that may as well be their left neighbour's: no table has rows there, and nobody has wished anything of them. */
  #vacant(): Pair[] {
    const { meta, hosting } = this.#view;
    const directory = hosting.view.directory();
    const { tables } = hosting.view.schema().snapshot;
    const used = new Set(tables.flatMap((table) => directory.between(tableKeySpan(table))));
    return directory.ranges.slice(1).flatMap((right, before) => {
      const left = directory.ranges[before]!;
      const wished = meta.wish(right.range) !== undefined || meta.wish(left.range)?.merging;
      return used.has(right) || wished ? [] : [{ left: left.range, right: right.range }];
    });
  }

  /** A merge whose node died leaves its marks behind. */
  async #unmark(): Promise<void> {
    const { meta } = this.#view;
    const marked = new Map<GroupId, number>();
    for (const { range, merging } of meta.state.wishes) {
      if (merging !== true) continue;
      const looks = (this.#marked.get(range) ?? 0) + 1;
      marked.set(range, looks);
      if (looks >= LOOKS_OF_A_MERGE) await markMerging(this.#view, range, false).catch(() => undefined);
    }
    this.#marked = marked;
  }

  /**
   * Whoever they were frozen for may have been taken in, or split, since: their left neighbours take them in. At the same
   * time where they can, since each may have to wait for a node that is gone; one that is frozen itself cannot.
   */
  async #finish(ranges: readonly GroupId[]): Promise<void> {
    for (let left = ranges; left.length > 0; ) {
      const directory = this.#view.hosting.view.directory();
      const frozen = this.#view.hosting.frozenRanges();
      const able = left.flatMap((range) => pairOf(directory, range)).filter((pair) => !frozen.has(pair.left));
      const pairs = apart(able);
      if (pairs.length === 0) return;
      await Promise.all(pairs.map((pair) => this.#merge(pair, "it was begun", true)));
      left = left.filter((range) => !pairs.some(({ right }) => right === range));
    }
  }

  async #mergeSmall(): Promise<void> {
    const { meta, hosting } = this.#view;
    if (meta.state.settings.rangeMaxRows > 0 || meta.state.ranges.length < 2) return;
    const reports = await allReports(this.#view);
    const leaders = leaderReports(reports);
    const answers = whichAnswer(reports);
    const { ranges } = hosting.view.directory();
    let tried = 0;
    for (let i = 1; i < ranges.length && tried < SMALL_PAIRS; i++) {
      const [left, right] = [ranges[i - 1]!, ranges[i]!];
      const wish = meta.wish(left.range);
      if (meta.wish(right.range) !== undefined || wish?.placed || wish?.merging) continue;
      if (!answers(left.range) || !answers(right.range)) continue;
      const sizes = [leaders.get(left.range), leaders.get(right.range)].map(sizeOf);
      if (sizes[0] === undefined || sizes[1] === undefined) continue;
      if (!shouldMerge(sizes[0], sizes[1], meta.state.settings)) continue;
      const pair = { left: left.range, right: right.range };
      if (await this.#merge(pair, "both are small")) return;
      tried++;
    }
  }

  /** Whether they were merged. */
  async #merge({ left, right }: Pair, why: string, begun = false): Promise<boolean> {
    const descriptor = this.#view.hosting.view.directory().get(left);
    if (descriptor === undefined) return false;
    try {
      const { range, merged } = await mergeRight(this.#view, descriptor, { byItself: right, begun });
      this.#logger.info({ range, merged, why }, "two ranges were merged");
      return true;
    } catch (error) {
      this.#logger.info({ range: left, why, reason: String(error) }, "two ranges were not merged");
      return false;
    }
  }
}

function pairOf({ ranges }: RangeDirectory, right: GroupId): Pair[] {
  const start = ranges.find(({ range }) => range === right)?.start;
  return ranges.filter(({ end }) => end !== "" && end === start).map(({ range: left }) => ({ left, right }));
}

/** Ranges whose members all answer, and could apply a freeze at once. */
function whichAnswer(reports: ReadonlyMap<number, NodeReport>): (range: GroupId) => boolean {
  const leaders = leaderReports(reports);
  return (range) => {
    const leader = leaders.get(range);
    const fit = (node: number): boolean => {
      const report = reports.get(node);
      const applied = report?.groups.find(({ group }) => group === range)?.applied;
      if (leader === undefined || applied === undefined || report?.diskFull) return false;
      return applied + BEHIND_ENTRIES >= leader.commit;
    };
    return leader?.voters.every(fit) === true;
  };
}

/** As many as have no range in common, from the left. */
function apart(pairs: readonly Pair[]): Pair[] {
  const taken = new Set<GroupId>();
  return pairs.filter(({ left, right }) => {
    if (taken.has(left) || taken.has(right)) return false;
    taken.add(left).add(right);
    return true;
  });
}

function sizeOf(report: GroupReport | undefined) {
  if (report?.liveBytes === undefined) return undefined;
  return { bytes: report.liveBytes, rows: 0, untrimmed: report.untrimmed === true };
}

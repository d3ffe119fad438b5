/**
 * Splits the ranges that are led on this node when they have grown too big. Looking is cheap while nothing happens: the
 * bytes of a range are known, and its rows are counted only where they matter and something was applied since, and at
 * most for a small part of the time.
 */
import { OstrakaError, RetryError, RouteError } from "../../base/errors.js";
import type { GroupId, NodeId } from "../../base/ids.js";
import type { Clock, Timer } from "../../base/io.js";
import type { MetaMachine } from "../../machines/meta/meta.js";
import type { RangeState } from "../../machines/range/types.js";
import { isTooBig } from "../../placement/sizes.js";
import type { Logger } from "../logger.js";
import type { MetaClient } from "../meta-client.js";
import type { Calm } from "./calm.js";
import type { HostedRange } from "./hosted-range.js";
import type { Ranges, RangesListener } from "./ranges.js";
import type { RowCounts } from "./row-counts.js";

const LOOK_MS = 500;
/** Of the time, at most one part in so many is spent counting rows of one range. */
const COUNT_PART = 20;
/** A range that could not be split is left alone for this long. */
const REST_MS = 5_000;

export interface SplitterOptions {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly ranges: Ranges;
  readonly meta: MetaMachine;
  readonly metaClient: Pick<MetaClient, "allocate">;
  readonly rowCounts: RowCounts;
  readonly calm: Calm;
}

export class RangeSplitter implements RangesListener {
  readonly #options: SplitterOptions;
  /** Ranges that are not looked at before this time. */
  readonly #restUntilMs = new Map<GroupId, number>();
  readonly #splitting = new Set<GroupId>();
  /** As they were when they were looked at because they had changed. */
  readonly #seen = new WeakMap<HostedRange, RangeState>();
  /** An id that was allocated and not used. */
  #spare: GroupId | undefined;
  #timer: Timer | undefined;
  #stopped = false;

  constructor(options: SplitterOptions) {
    this.#options = options;
  }

  start(): void {
    this.#options.ranges.listen(this);
    this.#plan();
  }

  opened(): void {}

  /** A child of a split may be too big itself: it is looked at as soon as it is led. */
  changed(hosted: HostedRange): void {
    if (hosted.store.state() !== this.#seen.get(hosted) && hosted.leadsHere) {
      this.#seen.set(hosted, hosted.store.state());
      this.#consider(hosted);
    }
  }

  closed({ range }: HostedRange): void {
    this.#restUntilMs.delete(range);
  }

  #plan(): void {
    if (this.#stopped) return;
    this.#timer = this.#options.clock.setTimer(LOOK_MS, () => {
      for (const hosted of this.#options.ranges.all.values()) this.#consider(hosted);
      this.#plan();
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #consider(hosted: HostedRange): void {
    const { clock } = this.#options;
    const { range, handle, filled } = hosted;
    if (this.#stopped || !filled || handle.leader !== this.#options.self || this.#splitting.has(range))
      return;
    if (!this.#mayBeTooBig(hosted)) return;
    const { calm } = this.#options;
    if (calm.leftMs > 0 || (this.#restUntilMs.get(range) ?? 0) > clock.monotonicMs()) return;
    this.#splitting.add(range);
    this.#splitIfTooBig(hosted).then(
      (split) => {
        this.#splitting.delete(range);
        // Either half may still be too big.
        if (split) this.#consider(hosted);
      },
      (error: unknown) => {
        this.#splitting.delete(range);
        this.#rest(range, REST_MS);
        this.#options.logger.info({ range, reason: String(error) }, "a range was not split");
      },
    );
  }

  #mayBeTooBig(hosted: HostedRange): boolean {
    const { meta, rowCounts } = this.#options;
    const { rangeMaxBytes, rangeMaxRows } = meta.state.settings;
    if (hosted.store.size().liveBytes > rangeMaxBytes) return true;
    return rangeMaxRows > 0 && (rowCounts.known(hosted) ?? rangeMaxRows + 1) > rangeMaxRows;
  }

  #rest(range: GroupId, ms: number): void {
    this.#restUntilMs.set(range, this.#options.clock.monotonicMs() + ms);
  }

  async #splitIfTooBig(hosted: HostedRange): Promise<boolean> {
    const { meta, logger } = this.#options;
    const { range, store, handle } = hosted;
    const { untrimmed, frozenInto } = store.state();
    // What is being moved is split once it is where it is going.
    if (frozenInto !== undefined || handle.conf.votersOutgoing.length > 0) return false;
    const limits = meta.state.settings;
    const rows = limits.rangeMaxRows > 0 ? await this.#rows(hosted) : 0;
    const size = { bytes: store.size().liveBytes, rows, untrimmed };
    if (!isTooBig(size, limits) || !hosted.leadsHere) return false;
    const key = await store.splitKey();
    if (key === undefined) {
      this.#rest(range, REST_MS);
      return false;
    }
    const child = await this.split(hosted, key);
    logger.info({ range, child, bytes: size.bytes, rows }, "a range was split: it was too big");
    return true;
  }

  async #rows(hosted: HostedRange): Promise<number> {
    const { clock, rowCounts } = this.#options;
    const startedMs = clock.monotonicMs();
    const known = rowCounts.known(hosted);
    if (known !== undefined) return known;
    const rows = await rowCounts.of(hosted);
    this.#rest(hosted.range, (clock.monotonicMs() - startedMs) * COUNT_PART);
    return rows;
  }

  /** Splits a range led here at this key; answers the new range's id. */
  async split(hosted: HostedRange, key: string): Promise<GroupId> {
    const child = this.#spare ?? (await this.#options.metaClient.allocate());
    this.#spare = undefined;
    try {
      await hosted.leader.split(key, child);
      return child;
    } catch (error) {
      // Surely refused: the id is still nobody's.
      if (error instanceof RouteError || error instanceof RetryError) this.#spare ??= child;
      else if (error instanceof OstrakaError && error.family === "user") this.#spare ??= child;
      throw error;
    }
  }
}

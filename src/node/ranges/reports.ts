/**
 * Tells meta of the ranges on this node, wherever meta's copy is not what their replicas say. Driven by
 * levels, not by events: what was lost, or overwritten by a leader that did not know of its deposition yet, is told
 * again. Nothing is said while nothing is new, and looking costs as much as there are ranges that have changed.
 */
import type { GroupId } from "../../base/ids.js";
import type { Clock, Timer } from "../../base/io.js";
import type { MetaMachine } from "../../machines/meta/meta.js";
import type { RangeDescriptor } from "../../placement/descriptor.js";
import type { Logger } from "../logger.js";
import type { MetaClient } from "../meta-client.js";
import type { HostedRange } from "./hosted-range.js";
import type { Ranges, RangesListener } from "./ranges.js";

/** Changes that come together are told together. */
const GATHER_MS = 20;
const AGAIN_MS = 500;

interface News {
  readonly descriptor: RangeDescriptor;
  /** What it has taken in and meta does not know to be merged. */
  readonly merged: readonly GroupId[];
}

export class RangeReports implements RangesListener {
  readonly #clock: Clock;
  readonly #ranges: Ranges;
  readonly #meta: MetaMachine;
  readonly #client: Pick<MetaClient, "command">;
  readonly #logger: Logger;
  readonly #changed = new Set<GroupId>();
  #known: readonly RangeDescriptor[] = [];
  #timer: Timer | undefined;
  #telling = false;
  #stopped = false;

  constructor(
    clock: Clock,
    ranges: Ranges,
    meta: MetaMachine,
    client: Pick<MetaClient, "command">,
    logger: Logger,
  ) {
    this.#clock = clock;
    this.#ranges = ranges;
    this.#meta = meta;
    this.#client = client;
    this.#logger = logger;
  }

  start(): void {
    this.#ranges.listen(this);
    for (const range of this.#ranges.all.keys()) this.#changed.add(range);
    this.#meta.onChange(({ ranges }) => {
      if (ranges === this.#known) return;
      const before = new Set(this.#known);
      this.#known = ranges;
      // Somebody may have told what is not so.
      for (const descriptor of ranges)
        if (!before.has(descriptor) && this.#ranges.get(descriptor.range) !== undefined)
          this.#changed.add(descriptor.range);
      if (this.#changed.size > 0) this.#soon(GATHER_MS);
    });
    this.#soon(GATHER_MS);
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  opened(): void {}

  changed(hosted: HostedRange): void {
    this.#changed.add(hosted.range);
    this.#soon(GATHER_MS);
  }

  closed(hosted: HostedRange): void {
    this.#changed.delete(hosted.range);
  }

  #soon(delayMs: number): void {
    if (this.#stopped || this.#telling) return;
    this.#timer ??= this.#clock.setTimer(delayMs, () => {
      this.#timer = undefined;
      void this.#tell();
    });
  }

  async #tell(): Promise<void> {
    if (this.#meta.state.clusterId === "") return this.#soon(AGAIN_MS);
    const looked = [...this.#changed];
    this.#changed.clear();
    const news = looked.flatMap((range) => this.#news(range) ?? []);
    if (news.length === 0) return;
    this.#telling = true;
    let failed = false;
    try {
      const merged = news.flatMap((told) => told.merged);
      await this.#client.command({
        kind: "report",
        ranges: news.map(({ descriptor }) => descriptor),
        merged,
      });
    } catch (error) {
      failed = true;
      this.#logger.warn({ ranges: news.length, reason: String(error) }, "meta could not be told of ranges");
      for (const { descriptor } of news) this.#changed.add(descriptor.range);
    }
    this.#telling = false;
    // Until it is in this node's replica of meta it is not known to have arrived.
    const told = news.map(({ descriptor }) => descriptor.range);
    if (!failed) for (const range of told) if (this.#news(range) !== undefined) this.#changed.add(range);
    const late = failed || told.some((range) => this.#changed.has(range));
    if (this.#changed.size > 0) this.#soon(late ? AGAIN_MS : GATHER_MS);
  }

  /**
   * What meta has to be told of a range. Its leader tells; but of a range that meta has never heard of, anybody who has a
   * replica: a child may have to wait for its first leader, and nobody finds its keys until meta knows where they are. One
   * that is frozen has nothing more to tell, but that it is there: a merge that was cut short is gone on with by that.
   */
  #news(range: GroupId): News | undefined {
    const hosted = this.#ranges.get(range);
    if (hosted === undefined || !hosted.filled || this.#meta.isMerged(range)) return undefined;
    const { frozenInto, absorbed } = hosted.store.state();
    if (frozenInto !== undefined && this.#meta.directory.get(range) !== undefined) return undefined;
    const descriptor = hosted.descriptor();
    // What was taken in before meta had ever heard of it is missing nowhere, and still has to go.
    const merged = hosted.leadsHere ? absorbed.filter((other) => !this.#meta.isMerged(other)) : [];
    return merged.length > 0 || this.#isNew(hosted, descriptor) ? { descriptor, merged } : undefined;
  }

  #isNew({ range, leadsHere }: HostedRange, own: RangeDescriptor): boolean {
    const known = this.#meta.directory.get(range);
    if (known !== undefined && !leadsHere) return false;
    // A replica that is behind has nothing to tell.
    if (this.#meta.directory.with([own]) === this.#meta.directory) return false;
    if (known === undefined || known.generation < own.generation) return true;
    return (
      known.generation === own.generation &&
      (known.replicas.length !== own.replicas.length ||
        known.replicas.some((node, i) => node !== own.replicas[i]))
    );
  }
}

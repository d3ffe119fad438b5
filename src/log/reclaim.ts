/**
 * Gives old segments back. Segments go oldest first, each once no group needs it: a group needs the oldest segment
 * that holds one of its live entries, its hard state or its base.
 *
 * What little still holds the oldest segment is said again at the head of the log by the log itself: hard states and
 * bases always, live entries only where they are few and segments pile up. A group with more in it has to be
 * checkpointed by its host first (`usage().oldestHeldBy`), and until then nothing is rewritten in vain.
 *
 * Invariant: before a segment is removed, all that was queued when it was found unneeded is durable.
 */
import type { Disk } from "../base/io.js";
import type { GroupState } from "./group-state.js";
import { type Segment, segmentPath } from "./segment.js";
import { isDiskFull } from "./writer.js";

/** Entries are rewritten only when there are more segments than this; until then compaction may well free them. */
const PATIENT_SEGMENTS = 3;
const RECORD_OVERHEAD = 64;
const ENTRY_OVERHEAD = 8;

export interface ReclaimHost {
  readonly disk: Disk;
  readonly directory: string;
  readonly segmentBytes: number;
  /** In order, the head last. The reclaimer removes from its front. */
  readonly segments: Segment[];
  states(): Iterable<GroupState>;
  /** Queues the group's state again; with its entries it replaces all earlier records of the group. */
  restate(state: GroupState, withEntries: boolean): void;
  barrier(): Promise<void>;
  spaceFreed(): void;
  fail(error: unknown): void;
  stopped(): boolean;
}

export class Reclaimer {
  readonly #host: ReclaimHost;
  #running: Promise<void> | undefined;
  #again = false;

  constructor(host: ReclaimHost) {
    this.#host = host;
  }

  /** Looks for segments to drop; called when something was compacted or removed, or a segment was filled. */
  request(): void {
    this.#again = true;
    this.#running ??= this.#run()
      .catch((error: unknown) => {
        if (!isDiskFull(error) && !this.#host.stopped()) this.#host.fail(error);
      })
      .finally(() => {
        this.#running = undefined;
        // Asked for between the last look and this.
        if (this.#again && !this.#host.stopped()) this.request();
      });
  }

  async idle(): Promise<void> {
    await this.#running;
  }

  async #run(): Promise<void> {
    while (this.#again && !this.#host.stopped()) {
      this.#again = false;
      while (await this.#dropOldest());
    }
  }

  async #dropOldest(): Promise<boolean> {
    const oldest = this.#host.segments[0];
    if (oldest === undefined || this.#host.segments.length < 2 || this.#host.stopped()) return false;
    if (!this.#restateHolders(oldest.sequence)) return false;
    await this.#host.barrier();
    if (this.#host.stopped()) return false;
    // A host's own append may have come before ours and hold on to nothing old, so this can only have got better.
    if (this.#holders(oldest.sequence).length > 0) return true;
    // Where it cannot be removed for now it stays the first: no later one may go before it.
    await this.#host.disk.remove(segmentPath(this.#host.directory, oldest.sequence));
    await this.#host.disk.syncDirectory(this.#host.directory);
    this.#host.segments.shift();
    await oldest.file.close();
    this.#host.spaceFreed();
    return true;
  }

  #holders(segment: number): GroupState[] {
    const holders: GroupState[] = [];
    for (const state of this.#host.states()) if (state.oldestSegment() <= segment) holders.push(state);
    return holders;
  }

  /** Queues again what holds the segment, if that is little; false if the segment has to stay for now. */
  #restateHolders(segment: number): boolean {
    const holders = this.#holders(segment);
    let bytes = 0;
    for (const state of holders) {
      bytes += RECORD_OVERHEAD;
      if (state.oldestEntrySegment() > segment) continue;
      if (this.#host.segments.length <= PATIENT_SEGMENTS) return false;
      if (state.dataBytes > this.#host.segmentBytes / 16) return false;
      bytes += state.dataBytes + state.entryCount * ENTRY_OVERHEAD;
    }
    if (bytes > this.#host.segmentBytes / 4) return false;
    for (const state of holders) this.#host.restate(state, state.oldestEntrySegment() <= segment);
    return true;
  }
}

/**
 * The node's durable log: one segmented, append-only log for all groups; see types.ts for what it promises.
 *
 * Invariants:
 * 1. What one `append` says of all its groups becomes durable together, or not at all.
 * 2. Reads see appends at once; promises tell durability, in order. Nothing visible was ever lost by an error: after
 *    one the log refuses everything.
 * 3. Memory holds an index of 16 bytes a live entry and a bounded cache of the newest entries; the rest is on disk.
 *
 * The parts: record.ts and batch.ts (layout), segment.ts (files), recovery.ts (start), group-state.ts (index),
 * entry-cache.ts, cold-reads.ts, writer.ts (group commit, full disk), reclaim.ts (dropping segments).
 *
 * Left out: what entries mean, when to compact (the host's checkpoints decide), and guarding the directory against a
 * second process (the data directory's lock does).
 */
import { assert } from "../base/assert.js";
import { FatalError } from "../base/errors.js";
import { type GroupId, type LogIndex, logIndex, type Term } from "../base/ids.js";
import type { Clock, Disk, DiskFile } from "../base/io.js";
import type { Entry, HardState, SnapshotMeta } from "../raft/types.js";
import { readCold } from "./cold-reads.js";
import { EntryCache } from "./entry-cache.js";
import { EMPTY_BASE, EMPTY_HARD_STATE, GroupState, type PendingRecord } from "./group-state.js";
import { Reclaimer } from "./reclaim.js";
import { encodeRecord, type RecordContent } from "./record.js";
import { recover } from "./recovery.js";
import { type Segment, SegmentPreparer } from "./segment.js";
import type { DurableLog, GroupAppend, GroupLog, LogOptions } from "./types.js";
import { LogWriter } from "./writer.js";

const DEFAULT_CACHE_BYTES = 16 * 1024 * 1024;

/** The records of one append while they are gathered. */
interface Draft {
  readonly chunks: Uint8Array[];
  readonly records: PendingRecord[];
  bytes: number;
}

function draft(): Draft {
  return { chunks: [], records: [], bytes: 0 };
}

class GroupView implements GroupLog {
  readonly #log: SegmentedLog;

  constructor(
    log: SegmentedLog,
    readonly group: GroupId,
  ) {
    this.#log = log;
  }

  initialHardState(): HardState {
    return this.hardState();
  }

  hardState(): HardState {
    return this.#log.state(this.group)?.hardState ?? EMPTY_HARD_STATE;
  }

  base(): SnapshotMeta {
    return this.#log.state(this.group)?.base ?? EMPTY_BASE;
  }

  lastIndex(): LogIndex {
    return logIndex(this.#log.state(this.group)?.lastIndex ?? 0);
  }

  term(index: LogIndex): Term | undefined {
    const state = this.#log.state(this.group);
    if (state === undefined) return index === 0 ? EMPTY_BASE.term : undefined;
    return state.term(index);
  }

  entries(low: LogIndex, high: LogIndex, maxBytes: number): Entry[] {
    if (low >= high) return [];
    const state = this.#log.state(this.group);
    if (state === undefined || low < state.firstIndex || high > state.lastIndex + 1) {
      throw new FatalError(
        "OSTRAKA_INVARIANT",
        `group ${this.group}: entries [${low}, ${high}) are not in the log [${state?.firstIndex ?? 1}, ${(state?.lastIndex ?? 0) + 1})`,
      );
    }
    let end: number = low;
    let bytes = 0;
    while (end < high) {
      bytes += state.dataLength(end);
      if (bytes > maxBytes && end > low) break;
      end++;
    }
    return this.#log.read(state, low, end - 1);
  }
}

class SegmentedLog implements DurableLog {
  readonly #states: Map<GroupId, GroupState>;
  readonly #segments: Segment[];
  readonly #cache: EntryCache;
  readonly #preparer: SegmentPreparer;
  readonly #writer: LogWriter;
  readonly #reclaimer: Reclaimer;
  #closed: Promise<void> | undefined;

  constructor(
    disk: Disk,
    clock: Clock,
    options: LogOptions,
    start: {
      states: Map<GroupId, GroupState>;
      segments: Segment[];
      headOffset: number;
      nextBatch: number;
      preparer: SegmentPreparer;
    },
  ) {
    this.#states = start.states;
    this.#segments = start.segments;
    this.#cache = new EntryCache(options.cacheBytes ?? DEFAULT_CACHE_BYTES);
    this.#preparer = start.preparer;
    const head = start.segments.at(-1);
    assert(head !== undefined, "a log without a segment");
    this.#writer = new LogWriter(
      clock,
      this.#preparer,
      options.segmentBytes,
      { head, offset: start.headOffset, nextBatch: start.nextBatch },
      {
        onDurable: () => this.#cache.trim(),
        onRotated: () => {
          this.#segments.push(this.#writer.head);
          this.#reclaimer.request();
        },
        onDiskFull: options.onDiskFull,
        onFailure: options.onFailure,
      },
    );
    this.#reclaimer = new Reclaimer({
      disk,
      directory: options.directory,
      segmentBytes: options.segmentBytes,
      segments: this.#segments,
      states: () => this.#states.values(),
      restate: (state, withEntries) => this.#restate(state, withEntries),
      barrier: () => this.#writer.barrier(),
      spaceFreed: () => this.#writer.spaceFreed(),
      fail: (error) => this.#writer.fail(error),
      stopped: () => this.#closed !== undefined || this.#writer.failure !== undefined,
    });
  }

  groups(): GroupId[] {
    return [...this.#states.keys()].sort((a, b) => a - b);
  }

  group(id: GroupId): GroupLog {
    return new GroupView(this, id);
  }

  state(id: GroupId): GroupState | undefined {
    return this.#states.get(id);
  }

  /** Entries `first` to `last`, which the log holds. */
  read(state: GroupState, first: number, last: number): Entry[] {
    const hot: Entry[] = [];
    let index = last;
    for (; index >= first; index--) {
      const entry = state.hotEntry(index);
      if (entry === undefined) break;
      hot.push(entry);
    }
    hot.reverse();
    if (index < first) return hot;
    return readCold(state, first, index, this.#fileOf).concat(hot);
  }

  readonly #fileOf = (sequence: number): DiskFile => {
    const segment = this.#segments[sequence - this.#segments[0]!.sequence];
    assert(segment?.sequence === sequence, `log segment ${sequence} is not open`);
    return segment.file;
  };

  append(appends: readonly GroupAppend[]): Promise<void> {
    const refusal = this.#refusal();
    if (refusal) return Promise.reject(refusal);
    const batch = draft();
    try {
      for (const append of appends) this.#stage(batch, append);
    } catch (error) {
      // Part of it may be visible already: a broken invariant, after which nothing may go on.
      this.#writer.fail(error);
      return Promise.reject(error as Error);
    }
    return this.#enqueue(batch, true);
  }

  #stage(batch: Draft, append: GroupAppend): void {
    const { hardState, entries, snapshot } = append;
    if (!hardState && !snapshot && entries.length === 0) return;
    let state = this.#states.get(append.group);
    if (state === undefined) {
      state = new GroupState(append.group);
      this.#states.set(append.group, state);
    }
    state.checkAppend(entries, snapshot);
    const content = { hardState, base: snapshot, replace: snapshot !== undefined, entries };
    const { record, checksums } = this.#encode(batch, state, content, true);
    state.append(record, content, checksums);
    if (entries.length > 0) this.#cache.add(record);
  }

  #encode(
    batch: Draft,
    state: GroupState,
    content: Partial<RecordContent>,
    cached: boolean,
  ): { record: PendingRecord; checksums: readonly number[] } {
    const encoded = encodeRecord(
      {
        group: state.id,
        hardState: content.hardState,
        base: content.base,
        replace: content.replace ?? false,
        entries: content.entries ?? [],
        remove: content.remove ?? false,
      },
      this.#cache.allocate,
    );
    const record: PendingRecord = {
      state,
      entries: encoded.entries,
      dataOffset: batch.bytes + encoded.dataOffset,
      hasHardState: content.hardState !== undefined,
      hasBase: content.base !== undefined,
      cached,
      dataBytes: encoded.bytes.length,
      durable: false,
    };
    batch.chunks.push(encoded.bytes);
    batch.records.push(record);
    batch.bytes += encoded.bytes.length;
    return { record, checksums: encoded.checksums };
  }

  #enqueue(batch: Draft, wake: boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#writer.enqueue({ ...batch, resolve, reject }, wake);
    });
  }

  #refusal(): FatalError | undefined {
    if (this.#writer.failure) return this.#writer.failure;
    return this.#closed && new FatalError("OSTRAKA_LOG_CLOSED", "the log is closed");
  }

  compact(group: GroupId, base: SnapshotMeta): void {
    const state = this.#states.get(group);
    if (state === undefined || base.index <= state.base.index || this.#refusal()) return;
    const known = state.term(base.index);
    assert(
      known === base.term,
      `group ${group}: compaction to ${base.index} of term ${base.term}, the log has ${known}`,
    );
    const held = state.oldestSegment();
    const batch = draft();
    const { record } = this.#encode(batch, state, { base }, true);
    state.compact(base, record);
    // Nobody waits for it; if it never gets to the disk, a restart merely finds more than it needs.
    this.#enqueue(batch, false).catch(() => undefined);
    if (held <= this.#segments[0]!.sequence && this.#segments.length > 1) this.#reclaimer.request();
  }

  removeGroup(group: GroupId): Promise<void> {
    const refusal = this.#refusal();
    if (refusal) return Promise.reject(refusal);
    const state = this.#states.get(group);
    if (state === undefined) return this.#writer.barrier();
    this.#states.delete(group);
    const batch = draft();
    this.#encode(batch, state, { remove: true }, true);
    const durable = this.#enqueue(batch, true);
    durable.then(
      () => this.#reclaimer.request(),
      () => undefined,
    );
    return durable;
  }

  /** Says a group's state again at the head, so that what holds an old segment does so no more. */
  #restate(state: GroupState, withEntries: boolean): void {
    const entries =
      withEntries && state.entryCount > 0 ? this.read(state, state.firstIndex, state.lastIndex) : [];
    const batch = draft();
    const content = { hardState: state.hardState, base: state.base, replace: withEntries, entries };
    const { record } = this.#encode(batch, state, content, false);
    state.restated(record);
    this.#enqueue(batch, true).catch(() => undefined);
  }

  usage(): {
    bytes: number;
    segments: number;
    oldestHeldBy: { group: GroupId; index: LogIndex } | undefined;
  } {
    let bytes = this.#preparer.preparedBytes;
    for (const segment of this.#segments) bytes += segment.file.size();
    return { bytes, segments: this.#segments.length, oldestHeldBy: this.#oldestHeldBy() };
  }

  #oldestHeldBy(): { group: GroupId; index: LogIndex } | undefined {
    const oldest = this.#segments[0];
    if (oldest === undefined || this.#segments.length < 2) return undefined;
    let worst: GroupState | undefined;
    for (const state of this.#states.values()) {
      if (state.oldestEntrySegment() > oldest.sequence) continue;
      if (worst === undefined || state.dataBytes > worst.dataBytes) worst = state;
    }
    const index = worst?.lastIndexThrough(oldest.sequence);
    return worst === undefined || index === undefined
      ? undefined
      : { group: worst.id, index: logIndex(index) };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    await this.#writer.close();
    await this.#reclaimer.idle();
    await this.#preparer.close();
    for (const segment of this.#segments) await segment.file.close();
  }
}

/**
 * Opens the log in `options.directory`, making it if there is none, and reads it back.
 *
 * Throws FatalError OSTRAKA_LOG_CORRUPT, naming segment and offset, when what was once durable is damaged or missing;
 * OSTRAKA_LOG_FORMAT for a newer format; OSTRAKA_DISK_FULL when there is no room for a first segment.
 */
export async function openLog(disk: Disk, clock: Clock, options: LogOptions): Promise<DurableLog> {
  assert(options.segmentBytes >= 4096, "log segments of less than 4096 bytes");
  const recovered = await recover(disk, options.directory);
  const newest = recovered.segments.at(-1)?.sequence ?? 0;
  const preparer = new SegmentPreparer(
    disk,
    options.directory,
    options.segmentBytes,
    newest + 1,
    recovered.ready,
  );
  const segments = [...recovered.segments];
  if (segments.length === 0) segments.push(await preparer.take());
  return new SegmentedLog(disk, clock, options, {
    states: recovered.groups,
    segments,
    headOffset: recovered.headOffset,
    nextBatch: recovered.nextBatch,
    preparer,
  });
}

/** What the rest of a node asks of the durable log: one log a node, shared by all its groups. */
import type { FatalError } from "../base/errors.js";
import type { GroupId, LogIndex } from "../base/ids.js";
import type { Entry, HardState, LogReader, SnapshotMeta } from "../raft/types.js";

export interface GroupAppend {
  readonly group: GroupId;
  readonly hardState: HardState | undefined;
  /** Contiguous; a first index at or below the stored last replaces the tail from there. */
  readonly entries: readonly Entry[];
  /** Replaces the group's whole log: afterwards it begins at this snapshot. */
  readonly snapshot: SnapshotMeta | undefined;
}

/** One group's view; reads see appends at once (durability is what the promise of `append` tells). */
export interface GroupLog extends LogReader {
  readonly group: GroupId;
  /** As last appended. */
  hardState(): HardState;
}

export interface DurableLog {
  /** Groups that have records. */
  groups(): GroupId[];
  /** A view of a group's log; a group with no records reads as empty with base index 0. */
  group(id: GroupId): GroupLog;
  /**
   * Queues records; resolves, in order, when all of them are durable. Appends queued while one sync runs share the
   * next. While the disk is full the append stays pending: the log announces it (see LogOptions.onDiskFull), tries
   * again as space returns, and nothing is lost or reordered. Any other failure is a FatalError and final.
   */
  append(appends: readonly GroupAppend[]): Promise<void>;
  /** Entries up to `base.index` are no longer needed: the group's state machine has them in a durable checkpoint. */
  compact(group: GroupId, base: SnapshotMeta): void;
  /** Forgets a group whole. */
  removeGroup(group: GroupId): Promise<void>;
  /** Bytes on disk, and the group that holds back the oldest segment, to be checkpointed first. */
  usage(): { bytes: number; segments: number; oldestHeldBy: { group: GroupId; index: LogIndex } | undefined };
  close(): Promise<void>;
}

export interface LogOptions {
  readonly directory: string;
  readonly segmentBytes: number;
  /**
   * Called with the reason when the disk is full, and with undefined once it is not. The first call usually comes
   * while what is left of the current segment still takes appends: a host that refuses new work at once leaves that
   * room to what frees space (checkpoints, compaction) and to agreement on what was already proposed.
   */
  readonly onDiskFull: (reason: string | undefined) => void;
  /**
   * Called once when the log can write no more, whether or not an append waits: the next segment is prepared and old
   * ones are reclaimed in the background. Appends that wait, and all later ones, are rejected with the same error.
   */
  readonly onFailure: (error: FatalError) => void;
  /** Bytes of the newest entries, over all groups, that are kept in memory; 16 MiB if not given. */
  readonly cacheBytes?: number;
}

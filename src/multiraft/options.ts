/** What a host is made of and the bounds it works within; every bound has a default that suits three small nodes. */
import type { OstrakaError } from "../base/errors.js";
import type { NodeId } from "../base/ids.js";
import type { Disk, Random } from "../base/io.js";
import type { DurableLog } from "../log/types.js";
import type { AgreedClock } from "./agreed-clock.js";
import type { PeerTransport } from "./types.js";

/** The part of a structured logger (pino's shape) that hosting uses. */
export interface HostLogger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface HostOptions {
  readonly tickMs: number;
  /** A follower that hears nothing campaigns after [T, 2T) ticks. */
  readonly electionTicks: number;
  readonly heartbeatTicks: number;
  /** A group that has been idle this long at its leader falls asleep; 0 keeps all awake. */
  readonly quiesceTicks: number;
  readonly maxAppendBytes: number;
  readonly maxInflightMessages: number;
  readonly maxInflightBytes: number;
  readonly maxUncommittedBytes: number;
  readonly maxReadyBytes: number;
  /** Proposals of one group that wait for their entry to apply, beyond which new ones are refused. */
  readonly maxPendingProposals: number;
  readonly maxPendingProposalBytes: number;
  readonly maxPendingReads: number;
  /** Data bytes of committed entries handed to one machine and not yet applied; beyond, they wait in the log. */
  readonly maxApplyBytes: number;
  /** `apply` calls of one group under way at once: one that runs and one that waits for it. */
  readonly maxApplyCalls: number;
  /**
   * A follower applies what may wait (`GroupMachine.mayWait`) once there is so much of it, or so many ticks after it was
   * committed: many small transactions of the machine become a few. 0 ticks: at once, and commits are told at once.
   */
  readonly lazyTicks: number;
  readonly lazyEntries: number;
  readonly lazyBytes: number;
  /** Log behind the applied index beyond which a group is checkpointed and its log cut. */
  readonly maxLogEntries: number;
  readonly maxLogBytes: number;
  /** What a cut leaves for followers that are a little behind. */
  readonly tailEntries: number;
  readonly tailBytes: number;
  /** Segments of the shared log beyond which the group that holds back the oldest one is checkpointed. */
  readonly maxLogSegments: number;
  readonly maxSnapshotsSending: number;
  readonly maxSnapshotsReceiving: number;
  /** Where received snapshots lie until they are installed. */
  readonly snapshotDirectory: string;
}

export const DEFAULT_HOST_OPTIONS: Omit<HostOptions, "snapshotDirectory"> = {
  tickMs: 100,
  electionTicks: 10,
  heartbeatTicks: 2,
  quiesceTicks: 30,
  maxAppendBytes: 256 * 1024,
  maxInflightMessages: 64,
  maxInflightBytes: 8 * 1024 * 1024,
  maxUncommittedBytes: 64 * 1024 * 1024,
  maxReadyBytes: 1024 * 1024,
  maxPendingProposals: 16_384,
  maxPendingProposalBytes: 128 * 1024 * 1024,
  maxPendingReads: 65_536,
  maxApplyBytes: 4 * 1024 * 1024,
  maxApplyCalls: 2,
  lazyTicks: 10,
  lazyEntries: 16,
  lazyBytes: 8 * 1024,
  maxLogEntries: 50_000,
  maxLogBytes: 32 * 1024 * 1024,
  tailEntries: 5_000,
  tailBytes: 4 * 1024 * 1024,
  maxLogSegments: 8,
  maxSnapshotsSending: 2,
  maxSnapshotsReceiving: 2,
};

export interface HostDependencies {
  readonly nodeId: NodeId;
  /** Is told what peers' clocks show. */
  readonly clock: AgreedClock;
  readonly random: Random;
  readonly disk: Disk;
  readonly log: DurableLog;
  readonly transport: PeerTransport;
  readonly logger: HostLogger;
  readonly options: HostOptions;
  /** Runs a callback once the input that is already there has been read (setImmediate); batches are cut at it. */
  readonly defer: (run: () => void) => void;
  /** Called once, with the reason; the host has stopped by itself and the node must go down. */
  readonly onFatal: (error: OstrakaError) => void;
}

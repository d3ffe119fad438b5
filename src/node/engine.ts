/**
 * The agreement engine of one node with its durable log, opened in one place for all that host groups on it: the
 * database node (node.ts) and replicated services (raft.ts).
 */
import { join } from "node:path";
import { FatalError, type OstrakaError } from "../base/errors.js";
import type { NodeId } from "../base/ids.js";
import type { Clock, Disk, Random } from "../base/io.js";
import { atMost } from "../base/waits.js";
import { openLog } from "../log/index.js";
import { isSegmentName } from "../log/segment.js";
import type { DurableLog } from "../log/types.js";
import type { AgreedClock } from "../multiraft/agreed-clock.js";
import type { GroupConfig } from "../multiraft/group-start.js";
import { MultiRaft } from "../multiraft/host.js";
import { DEFAULT_HOST_OPTIONS, type HostOptions } from "../multiraft/options.js";
import { removeStraySnapshots } from "../multiraft/snapshot-receiver.js";
import type { GroupHandle, PeerTransport } from "../multiraft/types.js";
import { bootstrapVoters } from "./founding.js";
import type { Identity } from "./identity.js";
import type { Logger } from "./logger.js";
import { DEPARTED_FILE } from "./ranges/departed.js";

const TICKS_PER_ELECTION = 10;
const SEGMENT_BYTES = 16 * 1024 * 1024;
const HAND_OVER_MS = 3_000;
/** Of the groups' machines, beside the log. */
const FOLDERS = ["meta", "coordinator", "ranges", "machines", "snapshots"];

export interface EngineOptions {
  readonly self: NodeId;
  /** The node's data directory; the engine's files are in folders of it. */
  readonly directory: string;
  readonly electionTimeoutMs: number;
  readonly clock: AgreedClock;
  readonly random: Random;
  readonly disk: Disk;
  readonly logger: Logger;
  readonly transport: PeerTransport;
  /** Runs a callback once the input that is already there has been read. */
  readonly defer: (run: () => void) => void;
  /** Called once: the engine has stopped by itself, and the node must go down. */
  readonly onFatal: (error: OstrakaError) => void;
  /** Bounds other than the defaults. */
  readonly segmentBytes?: number | undefined;
  readonly host?: Partial<HostOptions> | undefined;
}

export interface Engine {
  readonly host: MultiRaft;
  readonly log: DurableLog;
  /** Ends the groups; the log is closed by `closeLog`, once nothing can append any more. */
  closeLog(): Promise<void>;
}

export async function openEngine(options: EngineOptions): Promise<Engine> {
  const { self, directory, electionTimeoutMs, clock, random, disk, logger, transport, defer } = options;
  let host: MultiRaft | undefined;
  const snapshotDirectory = join(directory, "snapshots");
  await refuseLostLog(disk, directory);
  const log = await openLog(disk, clock, {
    directory: join(directory, "log"),
    segmentBytes: options.segmentBytes ?? SEGMENT_BYTES,
    onDiskFull: (reason) => {
      if (reason !== undefined)
        logger.error({ reason }, "the disk is full: this node refuses writes until there is room");
      else logger.info({}, "the disk has room again");
      host?.setDiskFull(reason);
    },
    onFailure: (error) => host?.fail(error),
  });
  await removeStraySnapshots(disk, snapshotDirectory, log.groups());
  host = new MultiRaft({
    nodeId: self,
    clock,
    random,
    disk,
    log,
    transport,
    logger,
    options: {
      ...DEFAULT_HOST_OPTIONS,
      snapshotDirectory,
      tickMs: Math.max(5, Math.round(electionTimeoutMs / TICKS_PER_ELECTION)),
      electionTicks: TICKS_PER_ELECTION,
      ...options.host,
    },
    defer,
    onFatal: options.onFatal,
  });
  const closeLog = (): Promise<void> =>
    log
      .close()
      .catch((error: unknown) => logger.warn({ reason: String(error) }, "the log did not close cleanly"));
  return { host, log, closeLog };
}

/**
 * A log that is gone, or a disk that is not there, must not be taken for a node's first start: it would vote again, and
 * acknowledge without what it acknowledged before. What is looked for is written only where there is a log.
 */
async function refuseLostLog(disk: Disk, directory: string): Promise<void> {
  const log = join(directory, "log");
  if ((await disk.list(log)).some(isSegmentName)) return;
  const traces = (await disk.exists(join(directory, DEPARTED_FILE))) ? [DEPARTED_FILE] : [];
  for (const folder of FOLDERS)
    if ((await disk.list(join(directory, folder))).length > 0) traces.push(folder);
  if (traces.length === 0) return;
  throw new FatalError(
    "OSTRAKA_LOG_CORRUPT",
    `${log} is empty, but this node has run: there is ${traces.join(", ")} in ${directory}. ` +
      "A node that lost its log must be removed and join anew under another id",
  );
}

/** The first membership of a group on a node: all founders vote; a node that joined waits for a leader's snapshot. */
export function bootstrap(identity: Identity): Pick<GroupConfig, "bootstrap"> {
  const voters = bootstrapVoters(identity);
  if (voters.length === 0) return {};
  return { bootstrap: { voters, votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false } };
}

/** Moves leadership to voters that are up to date, so that nobody has to wait for an election. */
export async function handOver(self: NodeId, groups: Iterable<GroupHandle>, clock: Clock): Promise<void> {
  const moves = [...groups].map(async (handle) => {
    const { role, conf, match } = handle.status();
    if (role !== "leader") return;
    const others = conf.voters.filter((voter) => voter !== self);
    const target = others.sort((a, b) => (match.get(b) ?? 0) - (match.get(a) ?? 0))[0];
    if (target !== undefined) await handle.transferLeadership(target);
  });
  await atMost(clock, HAND_OVER_MS, Promise.allSettled(moves));
}

/**
 * What a gateway has of the range on its own node: the replica it reads from, the leader it asks, the processes that
 * run what may take long, and the analysis of statements against the replica's schema.
 */
import { RetryError } from "../base/errors.js";
import type { GroupId, LogIndex } from "../base/ids.js";
import type { Clock, Random } from "../base/io.js";
import type { RangeStore, RunnerPool, Stamp } from "../machines/range/types.js";
import type { GroupHandle } from "../multiraft/types.js";
import { isWhole } from "../placement/descriptor.js";
import type { Schema } from "../range/schema.js";
import type { RangeService, ReadPoint } from "../range/types.js";
import type { Span } from "../sql/types.js";
import { anyIntersect, SCHEMA } from "../txn/spans.js";
import type { Deadline } from "./deadline.js";

export interface GatewayLimits {
  readonly maxStatementBytes: number;
  readonly maxTransactionBytes: number;
  readonly maxResultBytes: number;
  readonly maxRunnerBytes: number;
  /** How long a statement looks for a quorum before OSTRAKA_UNAVAILABLE. */
  readonly availabilityMs: number;
  /** A transaction without a statement for so long is rolled back; its next statement gets OSTRAKA_RETRY. */
  readonly idleTransactionMs: number;
  /** Databases up to this size may be scanned in the storage worker. */
  readonly scanBytes: number;
  /** A private copy's transaction that took longer than this is replicated as row changes. */
  readonly replayTextMs: number;
  /** Rows of several ranges that one statement may bring together. */
  readonly maxScratchBytes: number;
}

export const DEFAULT_LIMITS: GatewayLimits = {
  maxStatementBytes: 16 * 1024 * 1024,
  maxTransactionBytes: 64 * 1024 * 1024,
  maxResultBytes: 4 * 1024 * 1024 * 1024,
  maxRunnerBytes: 1024 * 1024 * 1024,
  availabilityMs: 20_000,
  idleTransactionMs: 60 * 60 * 1000,
  scanBytes: 1024 * 1024,
  replayTextMs: 2_000,
  maxScratchBytes: 4 * 1024 * 1024 * 1024,
};

/** What everything on a gateway works with. */
export interface GatewayParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: GatewayLimits;
  /** For statements: acquired and released within one. */
  readonly runners: RunnerPool;
  /** For what sessions hold on to: read-only transactions, private copies, TEMP objects. */
  readonly heldRunners: RunnerPool;
  /** For statements alone that need a workspace or a scratch database: no session keeps them waiting. */
  readonly gatherRunners: RunnerPool;
}

/** A range whose replica lies on this node. */
export interface Replica extends GatewayParts {
  readonly range: GroupId;
  readonly handle: GroupHandle;
  readonly store: RangeStore;
  /** The range's leader, wherever it is. */
  readonly leader: RangeService;
  readonly schema: Schema;
}

/**
 * A read point that this node's replica has reached, and at which nothing between vote and decision may yet change
 * `spans` (by default the schema).
 */
export async function reachReadPoint(
  replica: Replica,
  deadline: Deadline,
  spans: readonly Span[] = [SCHEMA],
): Promise<ReadPoint> {
  for (;;) {
    const point = await deadline.persist(() => replica.leader.readPoint());
    if (point.held === undefined || !anyIntersect(point.held, spans)) {
      await reach(replica, point.index, deadline);
      return point;
    }
    await deadline.persist(() => replica.leader.awaitHolds(spans));
  }
}

/** The range has all keys, as far as the state goes that this thread has reached. */
export function isStillWhole({ store }: Replica): boolean {
  return isWhole(store.state().descriptor);
}

/** Waits until the local replica has applied `index`, as long as a quorum would be looked for. */
export async function reach(replica: Replica, index: LogIndex, deadline: Deadline): Promise<void> {
  if (replica.store.appliedIndex() >= index) return;
  const { clock } = replica;
  await new Promise<void>((resolve, reject) => {
    const timer = clock.setTimer(deadline.availableMs(), () =>
      reject(new RetryError("OSTRAKA_UNAVAILABLE", "this node's replica is behind and does not catch up")),
    );
    deadline
      .race(replica.handle.waitApplied(index))
      .then(resolve, reject)
      .finally(() => timer.cancel());
  });
}

/** A stamp for a statement that runs here first: the leader's time as of `point`, a fresh seed. */
export function stampAt(
  parts: GatewayParts,
  point: Pick<ReadPoint, "wallMs">,
  lastInsertRowid: bigint,
): Stamp {
  const { random } = parts;
  return {
    wallMs: point.wallMs,
    seed: (random.uint32() & 0x1fffff) * 2 ** 32 + random.uint32(),
    lastInsertRowid,
  };
}

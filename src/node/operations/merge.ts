/**
 * Merges a range with its right neighbour: both on the same nodes; the right one frozen, and that applied on all of its
 * replicas; then the left one takes in its rows, on every node from the file beside its own.
 *
 * From the freeze on the right one's keys cannot be used until the left one has them, so all that can be prepared is
 * prepared before. Whatever ends this in between, doing it again goes on, at whoever is the left neighbour by then: a
 * range that is frozen is not frozen again.
 *
 * Nor may a node that dies in between keep the keys from being used, or one that answers and does not get on (no disk
 * space; cut off from the leader): once the right one is frozen, a member that has not answered, or not applied that, or
 * not got the replica that it lacks, for a while is taken out of both. It gets a replica again when placement finds it fit.
 *
 * Invariant: where the left range is told to take in the other one, each of its members has a replica of both, and has the
 * freeze durably. Such a node keeps the frozen replica until it has taken it in (src/node/ranges/farewell.ts).
 */
import { RetryError, UserError } from "../../base/errors.js";
import { type GroupId, groupId, type NodeId } from "../../base/ids.js";
import { pause } from "../../base/waits.js";
import { Deadline } from "../../gateway/deadline.js";
import { covers, type RangeDescriptor } from "../../placement/descriptor.js";
import {
  allReports,
  type ClusterView,
  type GroupReport,
  leaderReports,
  type NodeReport,
} from "./cluster-view.js";
import { amendWish, CATCH_UP_MS, handOver, replace } from "./replica-moves.js";

/** After that, what is in the way is an error, to be gone on from by merging again. */
const MERGE_MS = 60_000;
const FREEZE_MS = 30_000;
const APPLY_MS = 10_000;
/** How long a member may be silent, or not apply the freeze, while keys wait for it. */
const SILENT_MS = 10_000;
const PAUSE_MS = 30;
/** How long a range may have no leader while it is moved. */
const LEADERLESS_MS = 15_000;

export function serveMerges(view: ClusterView): void {
  view.calls.serve("ranges.frozen", async ([range, left]) =>
    isFrozenHere(view, groupId(Number(range)), left === null ? undefined : groupId(Number(left))),
  );
}

/**
 * Whether the freeze is applied here, and there is a replica of `left` with a state to take the range in. Durably: the
 * others leave once the neighbour has their rows, and then nobody could tell this node again, after a crash, that the
 * freeze was committed.
 */
async function isFrozenHere(
  { hosting }: ClusterView,
  range: GroupId,
  left: GroupId | undefined,
): Promise<boolean> {
  const hosted = hosting.ranges.get(range);
  if (hosted?.filled !== true || hosted.store.state().frozenInto === undefined) return false;
  if (left !== undefined && hosting.ranges.get(left)?.filled !== true) return false;
  const applied = hosted.store.appliedIndex();
  return (await hosted.store.checkpoint()) >= applied;
}

export interface MergeOptions {
  /**
   * Nobody asked for it, and this is the range that was judged: any other is refused, and so is this one once somebody
   * has decided something for it. What takes long to prepare gives up, and others get their turn.
   */
  readonly byItself?: GroupId;
  /** The right range is frozen already. */
  readonly begun?: boolean;
}

/** Answers the range that has the keys of both. */
export async function mergeRight(view: ClusterView, left: RangeDescriptor, options: MergeOptions = {}) {
  const { byItself, begun = false } = options;
  const right = left.end === "" ? undefined : view.hosting.view.directory().at(left.end);
  if (right === undefined)
    throw new UserError(
      "OSTRAKA_UNSUPPORTED",
      `range ${left.range} is the last one: it has no right neighbour`,
    );
  if (byItself !== undefined && byItself !== right.range)
    throw new RetryError("OSTRAKA_RETRY", `range ${left.range} has another right neighbour than ${byItself}`);
  const both = [left.range, right.range];
  const prepareUntilMs = view.clock.monotonicMs() + (byItself === undefined ? CATCH_UP_MS : MERGE_MS);
  const waiting: Waiting = {
    frozen: begun,
    prepareUntilMs,
    silentSinceMs: undefined,
    unappliedSinceMs: new Map(),
  };
  try {
    // Placement keeps its hands off while they have to stay together.
    for (const range of both) await markMerging(view, range, true);
    const merged = await retried(view, MERGE_MS, async () => {
      const done = takenIn(view, left.range, right);
      if (done !== undefined) return done;
      const wanted = byItself === undefined || waiting.frozen;
      if (!wanted) refuseWished(view, right.range);
      await align(view, left.range, right, waiting);
      if (!wanted) refuseWished(view, right.range);
      const frozen = await retried(view, FREEZE_MS, () =>
        view.hosting.view.client(right.range).freeze(left.range),
      );
      waiting.frozen = true;
      const ready = await untilAllApplied(view, right, left.range, waiting);
      return view.hosting.view.client(left.range).absorb(frozen, ready).catch(unavailable);
    });
    view.hosting.view.learn(JSON.stringify([merged]));
    await view.metaClient.command({ kind: "report", ranges: [merged] });
    return { range: merged.range, merged: right.range, generation: merged.generation };
  } finally {
    for (const range of both) await markMerging(view, range, false).catch(() => undefined);
  }
}

/**
 * The left range, when it has the right one's keys already. OSTRAKA_RETRY when it was split meanwhile or taken in itself: the
 * right one has another left neighbour, which may be about to take it in.
 */
function takenIn(
  { hosting }: ClusterView,
  left: GroupId,
  right: RangeDescriptor,
): RangeDescriptor | undefined {
  const now = hosting.view.directory().get(left);
  if (now !== undefined && covers(now, right)) return now;
  if (now?.end !== right.start)
    throw new RetryError("OSTRAKA_RETRY", `range ${right.range} is not next to ${left} any more`);
  return undefined;
}

/** OSTRAKA_RETRY when somebody has decided by hand meanwhile that the range is one of its own. */
function refuseWished({ meta }: ClusterView, range: GroupId): void {
  const wish = meta.wish(range);
  if (wish?.apart || wish?.placed || wish?.leader !== undefined)
    throw new RetryError("OSTRAKA_RETRY", `range ${range} was split off, or placed, by hand meanwhile`);
}

/** Whatever the left range is busy with passes, and keys wait for it. */
function unavailable(error: unknown): never {
  if (!(error instanceof RetryError)) throw error;
  throw new RetryError("OSTRAKA_UNAVAILABLE", error.message, { cause: error });
}

/** Should this node die before it ends, the keeper of merges (merge-keeper.ts) takes the mark away. */
export async function markMerging(view: ClusterView, range: GroupId, merging: boolean): Promise<void> {
  if (view.meta.isMerged(range)) return;
  await amendWish(view, range, { merging });
}

function retried<T>(view: ClusterView, withinMs: number, work: () => Promise<T>): Promise<T> {
  const deadline = new Deadline(view.clock, undefined, withinMs, { signal: undefined });
  return deadline.persist(work);
}

interface Waiting {
  /** Keys wait for the merge. */
  frozen: boolean;
  /** When to give up, before that. */
  readonly prepareUntilMs: number;
  /** Since when a node is waited for that does not answer, */
  silentSinceMs: number | undefined;
  /** and since when each that does has not applied the freeze. */
  readonly unappliedSinceMs: Map<number, number>;
}

/** Makes the right one's replicas lie where the left one's do, one by one. */
async function align(
  view: ClusterView,
  left: GroupId,
  descriptor: RangeDescriptor,
  waiting: Waiting,
): Promise<void> {
  const { clock } = view;
  const right = descriptor.range;
  let patientUntilMs = clock.monotonicMs() + LEADERLESS_MS;
  for (;;) {
    const reports = await allReports(view, { groups: [left, right] });
    const members = leaderReports(reports);
    const ours = members.get(left);
    const theirs = members.get(right);
    if (ours === undefined || theirs === undefined) {
      if (takenIn(view, left, descriptor) !== undefined)
        throw new RetryError("OSTRAKA_UNAVAILABLE", `range ${right} was taken in meanwhile`);
      if (clock.monotonicMs() > patientUntilMs)
        throw new RetryError("OSTRAKA_UNAVAILABLE", "one of the two ranges has no leader at present");
      await pause(clock, PAUSE_MS);
      continue;
    }
    if (await tookOutSilent(view, [ours, theirs], reports, waiting)) continue;
    if (await tookOutUnapplied(view, [ours, theirs], waiting)) continue;
    // A move that has begun would wait for placement, which waits for the merge.
    const moving = [ours, theirs].find(({ learners }) => learners.length > 0);
    if (moving !== undefined) {
      await replace(view, groupId(moving.group), moving.learners[0] as NodeId, null);
      continue;
    }
    const leftMs = waiting.frozen ? CATCH_UP_MS : waiting.prepareUntilMs - clock.monotonicMs();
    if (leftMs <= 0)
      throw new RetryError(
        "OSTRAKA_TIMEOUT",
        "to bring the replicas of the two ranges together took too long",
      );
    const to = ours.voters.find((node) => !theirs.voters.includes(node));
    const from = theirs.voters.find((node) => !ours.voters.includes(node));
    if (to === undefined && from === undefined) return;
    const stays = theirs.voters.find((node) => node !== from);
    // A leader that is to go hands over first: nobody waits for an election.
    if (from === theirs.node && stays !== undefined) await handOver(view, right, stays as NodeId);
    else if (waiting.frozen && to !== undefined) await bring(view, right, from, to, waiting);
    else await replace(view, right, (from ?? null) as NodeId | null, (to ?? null) as NodeId | null, leftMs);
    patientUntilMs = clock.monotonicMs() + LEADERLESS_MS;
  }
}

/** While keys wait: a node that the replica does not come to in time has not applied the freeze either. */
async function bring(
  view: ClusterView,
  right: GroupId,
  from: number | undefined,
  to: number,
  { unappliedSinceMs }: Waiting,
): Promise<void> {
  if (!unappliedSinceMs.has(to)) unappliedSinceMs.set(to, view.clock.monotonicMs());
  try {
    await replace(view, right, (from ?? null) as NodeId | null, to as NodeId, SILENT_MS);
  } catch (error) {
    if (!(error instanceof RetryError)) throw error;
  }
}

/** False when all members answer. Waits for one that does not, by way of an error, unless keys have waited long enough. */
async function tookOutSilent(
  view: ClusterView,
  ranges: readonly GroupReport[],
  reports: ReadonlyMap<number, NodeReport>,
  waiting: Waiting,
): Promise<boolean> {
  for (const { group, voters } of ranges) {
    const silent = voters.find((node) => !reports.has(node));
    if (silent === undefined) continue;
    const nowMs = view.clock.monotonicMs();
    waiting.silentSinceMs ??= nowMs;
    if (!waiting.frozen || nowMs < waiting.silentSinceMs + SILENT_MS)
      throw new RetryError(
        "OSTRAKA_UNAVAILABLE",
        `node ${silent}, which has a replica of ${group}, does not answer`,
      );
    await replace(view, groupId(group), silent as NodeId, null);
    return true;
  }
  waiting.silentSinceMs = undefined;
  return false;
}

/**
 * As long as most of a range's members have applied the freeze, those that have not for too long go. Their logs may well
 * have it, and so the membership could be changed without them, too; but what nobody has applied is no copy to rely on.
 */
async function tookOutUnapplied(
  view: ClusterView,
  ranges: readonly (GroupReport & { readonly node: number })[],
  { frozen, unappliedSinceMs }: Waiting,
): Promise<boolean> {
  const lateMs = view.clock.monotonicMs() - SILENT_MS;
  if (!frozen) return false;
  for (const { group, node: leader, voters } of ranges) {
    const late = voters.find((node) => (unappliedSinceMs.get(node) ?? Number.POSITIVE_INFINITY) <= lateMs);
    const fit = voters.filter((node) => !unappliedSinceMs.has(node));
    if (late === undefined || fit.length <= voters.length / 2) continue;
    if (late === leader) await handOver(view, groupId(group), fit[0] as NodeId);
    else await replace(view, groupId(group), late as NodeId, null);
    return true;
  }
  return false;
}

/** Answers the nodes of the right range, all of which have applied the freeze; those of the left one are among them. */
async function untilAllApplied(
  view: ClusterView,
  right: RangeDescriptor,
  into: GroupId,
  { unappliedSinceMs }: Waiting,
): Promise<NodeId[]> {
  const { clock, calls, self } = view;
  const { range } = right;
  let untilMs: number | undefined;
  for (;;) {
    if (takenIn(view, into, right) !== undefined)
      throw new RetryError("OSTRAKA_UNAVAILABLE", `range ${range} was taken in meanwhile`);
    const leaders = leaderReports(await allReports(view, { groups: [into, range] }));
    const [nodes, wanted] = [range, into].map((group) => {
      const { voters = [], learners = [] } = leaders.get(group) ?? {};
      return [...voters, ...learners] as NodeId[];
    }) as [NodeId[], NodeId[]];
    if (nodes.length > 0 && !wanted.every((node) => nodes.includes(node)))
      throw new RetryError(
        "OSTRAKA_UNAVAILABLE",
        `ranges ${into} and ${range} are not on the same nodes any more`,
      );
    const askedMs = clock.monotonicMs();
    untilMs ??= askedMs + APPLY_MS;
    const applied = await Promise.all(
      nodes.map((node) => {
        const left = wanted.includes(node) ? into : undefined;
        const asked =
          node === self
            ? isFrozenHere(view, range, left)
            : calls.call(node, "ranges.frozen", [range, left ?? null], { timeoutMs: APPLY_MS });
        return asked.catch(() => false);
      }),
    );
    for (const [i, node] of nodes.entries())
      if (applied[i] === true) unappliedSinceMs.delete(node);
      else if (!unappliedSinceMs.has(node)) unappliedSinceMs.set(node, askedMs);
    if (nodes.length > 0 && wanted.length > 0 && applied.every((is) => is === true)) return nodes;
    if (clock.monotonicMs() >= untilMs)
      throw new RetryError(
        "OSTRAKA_UNAVAILABLE",
        `range ${range} is frozen, but not all of its replicas have applied that; merge again to go on`,
      );
    await pause(clock, PAUSE_MS);
  }
}

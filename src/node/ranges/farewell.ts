/**
 * Ends the replicas on this node that are not wanted any more: their node was taken out of the range's membership, or
 * the range was merged into its neighbour. A replica is not told so by its group (the one that is removed may never
 * hear of it), so whatever looks left behind asks the range's leader.
 *
 * Invariants:
 * 1. A replica goes only on the word of a leader that a quorum has confirmed: "up to this index you are no member"; and
 *    only if it has nothing from that leader or a later one beyond that index, nor has received anything since it asked.
 *    So it can have acknowledged nothing as a member that was taken in again.
 * 2. A replica of a range that was merged away, by meta's word, stays until the neighbour that took it in has it here,
 *    durably, or is not here at all: its file is what is taken in, and after a crash perhaps once more. One that has not
 *    applied the freeze is no such file, and never will be: its node was no member any more when all of them had it.
 * 3. So does a frozen replica that was taken out of the membership, for as long as a range here has it as its right
 *    neighbour and has not taken it in. Which one it was frozen for says nothing: that one may have been split since.
 */
import {
  COORDINATOR_GROUP,
  FIRST_RANGE_GROUP,
  type GroupId,
  type LogIndex,
  NO_NODE,
  type NodeId,
} from "../../base/ids.js";
import type { Clock, Timer } from "../../base/io.js";
import type { MetaMachine } from "../../machines/meta/meta.js";
import type { GroupHandle } from "../../multiraft/types.js";
import { membersOf } from "../../raft/index.js";
import type { LogEnd } from "../../raft/types.js";
import type { NodeCalls } from "../network.js";
import type { CoordinatorHost } from "./coordinator-host.js";
import type { HostedRange } from "./hosted-range.js";
import type { MembershipAnswer, Ranges } from "./ranges.js";

const LOOK_MS = 1_000;
const SOON_MS = 50;
const ASK_MS = 1_500;
/** Replicas that ask at one look; those that get no answer, as of a range without a leader, keep nobody from asking. */
const ASKING = 16;
/** Looks after which a replica of the coordinator asks anyhow: meta does not know who has one. */
const ASK_ANYHOW = 30;

/** What looking after the replicas of this node needs. */
export interface ReplicaCareParts {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly ranges: Ranges;
  readonly coordinator: CoordinatorHost;
  readonly meta: MetaMachine;
  readonly calls: NodeCalls;
}

export class Farewell {
  readonly #options: ReplicaCareParts;
  #turn = 0;
  #looks = 0;
  #timer: Timer | undefined;
  #looking = false;
  #again = false;
  #stopped = false;

  constructor(options: ReplicaCareParts) {
    this.#options = options;
  }

  start(): void {
    this.#options.calls.serve("ranges.look", async () => {
      if (this.#looking) this.#again = true;
      else this.#plan(SOON_MS);
    });
    this.#plan(LOOK_MS);
  }

  #plan(delayMs: number): void {
    if (this.#stopped) return;
    this.#timer?.cancel();
    this.#timer = this.#options.clock.setTimer(delayMs, () => {
      this.#looking = true;
      const next = (): void => {
        this.#looking = false;
        const delay = this.#again ? SOON_MS : LOOK_MS;
        this.#again = false;
        this.#plan(delay);
      };
      this.#look().then(next, next);
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  async #look(): Promise<void> {
    const { ranges, coordinator } = this.#options;
    const asking: Promise<unknown>[] = [];
    const behind: HostedRange[] = [];
    for (const hosted of ranges.all.values()) {
      if (!this.#mergedAway(hosted)) {
        if (this.#leftBehind(hosted.range, hosted.handle)) behind.push(hosted);
      } else if (asking.length < ASKING) asking.push(this.#bury(hosted));
    }
    for (const hosted of nextOf(behind, this.#turn, ASKING)) asking.push(this.#askRange(hosted));
    this.#turn += ASKING;
    const { handle } = coordinator;
    const anyhow = ++this.#looks % ASK_ANYHOW === 0;
    if (handle !== undefined && (anyhow || this.#leftBehind(COORDINATOR_GROUP, handle)))
      asking.push(this.#askCoordinator(handle));
    await Promise.allSettled(asking);
  }

  /** Whether it may have been taken out: it hears no leader, knows itself to be out, or meta names others. */
  #leftBehind(group: GroupId, handle: GroupHandle): boolean {
    const { self, meta } = this.#options;
    if (handle.leader === NO_NODE || !membersOf(handle.conf).has(self)) return true;
    const known = meta.directory.get(group);
    return known !== undefined && known.replicas.length > 0 && !known.replicas.includes(self);
  }

  async #askRange(hosted: HostedRange): Promise<void> {
    const before = hosted.handle.status().lastIndex;
    const answer = await this.#ask(hosted.range, hosted.handle);
    if (answer?.member !== false) return;
    await this.#options.ranges.leave(
      hosted.range,
      (now) => hasNothingSince(now.handle, before, answer) && !this.#isAwaited(now),
      committed(answer),
    );
  }

  async #askCoordinator(handle: GroupHandle): Promise<void> {
    const before = handle.status().lastIndex;
    const answer = await this.#ask(COORDINATOR_GROUP, handle);
    if (answer?.member !== false) return;
    await this.#options.coordinator.leave((now) => hasNothingSince(now, before, answer), committed(answer));
  }

  /** What the leader says; undefined if nobody answers as such. */
  async #ask(group: GroupId, handle: GroupHandle): Promise<MembershipAnswer | undefined> {
    const { self, calls, meta } = this.#options;
    const { nodes } = meta.state;
    const named = meta.directory.get(group)?.replicas ?? [];
    const others = group === COORDINATOR_GROUP ? nodes.map(({ id }) => id as NodeId) : [];
    const candidates = new Set<NodeId>([...named, ...membersOf(handle.conf), ...others]);
    candidates.delete(self);
    const asked = [...candidates].map(async (node) => {
      const answer = await calls.call(node, "ranges.membership", [group, self], { timeoutMs: ASK_MS });
      return answer as MembershipAnswer;
    });
    return Promise.any(asked).catch(() => undefined);
  }

  /** Once whoever took it in would not have to do so again after a crash. */
  async #bury({ range }: HostedRange): Promise<void> {
    const { ranges } = this.#options;
    for (const { filled, store } of ranges.all.values()) {
      if (!filled || !store.state().absorbed.includes(range)) continue;
      const applied = store.appliedIndex();
      if ((await store.checkpoint()) < applied) return;
    }
    await ranges.leave(range, (now) => this.#mergedAway(now));
  }

  /** Frozen, and a replica here may yet have to take in the file. */
  #isAwaited({ range, filled, store }: HostedRange): boolean {
    if (!filled || store.state().frozenInto === undefined) return false;
    for (const other of this.#options.ranges.all.values())
      if (other.filled && other.store.state().rightNeighbour === range) return true;
    return false;
  }

  #mergedAway(hosted: HostedRange): boolean {
    const { meta } = this.#options;
    const { range } = hosted;
    return range !== FIRST_RANGE_GROUP && meta.isMerged(range) && !this.#isAwaited(hosted);
  }
}

/** So many of them, beginning with another one every time. */
export function nextOf<T>(all: readonly T[], turn: number, most: number): readonly T[] {
  if (all.length <= most) return all;
  const from = turn % all.length;
  return [...all.slice(from), ...all.slice(0, from)].slice(0, most);
}

/** What the leader that answered had applied. */
function committed({ index, logTerm }: MembershipAnswer): LogEnd | undefined {
  return logTerm === 0 ? undefined : { index, term: logTerm };
}

/** Nothing of what the leader that answered, or a later one, has sent since it spoke; its log ended there before. */
function hasNothingSince(handle: GroupHandle, before: LogIndex, { index, term }: MembershipAnswer): boolean {
  const { lastIndex } = handle.status();
  return lastIndex === before && (lastIndex <= index || handle.lastTerm < term);
}

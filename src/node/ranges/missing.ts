/**
 * Finds members of the groups led here that have no replica, and has them make one. A node that was given its parent's
 * state by a snapshot has not applied the split in between, and so never made the child that it is a member of; one
 * that was asked for a replica may have crashed before it kept anything of it, or ended it because nobody knew yet
 * what for.
 *
 * A node also looks for itself which ranges it is a member of, as meta knows it, and never had a replica of.
 *
 * That a member which has nothing is given an empty replica is safe: what has left a node is recorded there with what
 * it had promised (departed.ts), and a member whose data was lost otherwise is another node (identity.ts).
 */
import { COORDINATOR_GROUP, type GroupId, type NodeId } from "../../base/ids.js";
import type { Timer } from "../../base/io.js";
import type { GroupHandle } from "../../multiraft/types.js";
import { nextOf, type ReplicaCareParts } from "./farewell.js";
import { coordinatorDescriptor, hostArguments } from "./ranges.js";

const LOOK_MS = 1_000;
const ASK_MS = 5_000;
/** Under way at once. */
const ASKING = 16;

export class MissingReplicas {
  readonly #options: ReplicaCareParts;
  /** Members that were silent at the last look, as "group node". */
  #silent = new Set<string>();
  readonly #asking = new Set<string>();
  #turn = 0;
  /** Ranges that this node was found to lack at the last look. */
  #missingHere = new Set<GroupId>();
  #timer: Timer | undefined;
  #stopped = false;

  constructor(options: ReplicaCareParts) {
    this.#options = options;
  }

  start(): void {
    if (this.#stopped) return;
    this.#timer = this.#options.clock.setTimer(LOOK_MS, () => {
      this.#look();
      this.start();
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #look(): void {
    const { self, ranges, coordinator, meta } = this.#options;
    const silent = new Set<string>();
    const wanted: (readonly [key: string, group: GroupId, node: NodeId])[] = [];
    const consider = (group: GroupId, handle: GroupHandle): void => {
      if (handle.leader !== self || handle.quiesced) return;
      for (const node of handle.silentMembers()) {
        const key = `${group} ${node}`;
        silent.add(key);
        const down = meta.node(node)?.downSinceMs !== undefined;
        if (this.#silent.has(key) && !down && !this.#asking.has(key)) wanted.push([key, group, node]);
      }
    };
    const absorbed = ranges.absorbed();
    // Of one that was taken in the replicas go one by one, for good.
    for (const { range, handle } of ranges.all.values())
      if (!meta.isMerged(range) && !absorbed.has(range)) consider(range, handle);
    if (coordinator.handle !== undefined) consider(COORDINATOR_GROUP, coordinator.handle);
    this.#silent = silent;
    for (const [key, group, node] of nextOf(wanted, this.#turn, ASKING - this.#asking.size))
      this.#ask(key, group, node);
    this.#turn += ASKING;
    this.#lookHere(absorbed);
  }

  /** Without this node there may be no majority to elect the leader that would ask it. */
  #lookHere(absorbed: ReadonlySet<GroupId>): void {
    const { self, ranges, meta } = this.#options;
    const missing = new Set<GroupId>();
    for (const descriptor of meta.directory.ranges) {
      const { range, replicas } = descriptor;
      if (!replicas.includes(self) || !ranges.neverHad(range) || absorbed.has(range)) continue;
      missing.add(range);
      if (this.#missingHere.has(range)) ranges.host(descriptor).catch(() => undefined);
    }
    this.#missingHere = missing;
  }

  #ask(key: string, group: GroupId, node: NodeId): void {
    const { calls, ranges } = this.#options;
    const descriptor = ranges.get(group)?.descriptor() ?? coordinatorDescriptor();
    this.#asking.add(key);
    const done = (): void => void this.#asking.delete(key);
    calls.call(node, "ranges.host", hostArguments(descriptor), { timeoutMs: ASK_MS }).then(done, done);
  }
}

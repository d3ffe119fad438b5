/** One range's replica on this node: its storage, its group, its schema, and what its leader offers should it lead. */
import type { GroupId } from "../../base/ids.js";
import type { LocalRange } from "../../gateway/ranges.js";
import type { RangeStore } from "../../machines/range/types.js";
import type { GroupHandle } from "../../multiraft/types.js";
import type { RangeDescriptor } from "../../placement/descriptor.js";
import { membersOf } from "../../raft/index.js";
import type { RangeLeader } from "../../range/leader.js";
import type { Schema } from "../../range/schema.js";

export class HostedRange implements LocalRange {
  /** Has a state: not one that waits for its first snapshot. */
  filled = false;

  constructor(
    readonly range: GroupId,
    readonly handle: GroupHandle,
    readonly store: RangeStore,
    readonly schema: Schema,
    readonly leader: RangeLeader,
  ) {}

  /** What this replica knows of its range: its slice, and who has a replica. */
  descriptor(): RangeDescriptor {
    const { start, end, generation } = this.store.state().descriptor;
    const replicas = [...membersOf(this.handle.conf)].sort((a, b) => a - b);
    return { range: this.range, start, end, generation, replicas };
  }

  get leadsHere(): boolean {
    return this.filled && this.handle.status().leaderReady;
  }
}

/**
 * What a gateway sees of the cluster's ranges: the directory as this node knows it, the leader of any range, and the
 * replicas that lie on this node. Made by the node (src/node), which also keeps it true.
 */
import type { GroupId } from "../base/ids.js";
import type { CoordinatorService } from "../coordinator/types.js";
import type { RangeStore } from "../machines/range/types.js";
import type { GroupHandle } from "../multiraft/types.js";
import type { RangeDirectory } from "../placement/directory.js";
import type { Schema } from "../range/schema.js";
import type { RangeService } from "../range/types.js";

export interface LocalRange {
  readonly handle: GroupHandle;
  readonly store: RangeStore;
  readonly schema: Schema;
}

export interface RangesView {
  /** May lag behind; never empty once the node serves. */
  directory(): RangeDirectory;
  /** Takes in what a RouteError's `moved` tells. */
  learn(moved: string): void;
  /** Asks meta's leader; resolves once the directory here is as new as meta's, and complete. */
  refresh(): Promise<void>;
  /** The range's leader, wherever it is. */
  client(range: GroupId): RangeService;
  /** Undefined unless this node has a replica that can be read (it has its first snapshot). */
  local(range: GroupId): LocalRange | undefined;
  /** As some range that this node reaches has it. */
  schema(): Schema;
  /** Brings `schema()` up to what was committed before the call. */
  refreshSchema(): Promise<void>;
  readonly coordinator: CoordinatorService;
}

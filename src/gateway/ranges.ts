/**
 * The database as a gateway sees it: many ranges, some of which this node holds a replica of. The node implements it
 * (src/node/ranges); what it answers is what this node knows now, which may be old. A range that is asked for keys it
 * no longer has says where they are (RouteError.moved), and `learn` remembers.
 */

import type { GroupId, NodeId } from "../base/ids.js";
import type { CoordinatorService } from "../coordinator/types.js";
import type { RangeStore } from "../machines/range/types.js";
import type { GroupHandle } from "../multiraft/types.js";
import type { RangeDirectory } from "../placement/directory.js";
import type { Schema } from "../range/schema.js";
import type { RangeService } from "../range/types.js";

/** This node's own replica of a range. */
export interface LocalRange {
  readonly handle: GroupHandle;
  readonly store: RangeStore;
  readonly schema: Schema;
}

/** Whoever has wanted many ranges together for so long asks for calm. */
export const PATIENCE_MS = 500;

export interface RangesView {
  /** The same object until something is learned. */
  directory(): RangeDirectory;
  /** Takes in the descriptors that a RouteError carries, wherever they are newer. Anything else is ignored. */
  learn(moved: string): void;
  /** Called after every change of `directory()`; answers how to end that. */
  onChange(listener: (directory: RangeDirectory) => void): () => void;
  /** The range's leader, wherever it is; the same object for as long as the range is known. */
  client(range: GroupId): RangeService;
  /** The node that is believed to lead three of four ranges or more; undefined where there is none. */
  mainLeader(): NodeId | undefined;
  /** This node's replica, if it has one that has applied its first state. */
  local(range: GroupId): LocalRange | undefined;
  /** Resolves when the directory is complete and holds what meta's leader knew when it was asked. RetryError OSTRAKA_UNAVAILABLE when that cannot be had in time. */
  refresh(): Promise<void>;
  /**
   * Asks all nodes to leave ranges as they are for so long, as far as that can wait: whoever wants many together has had to
   * start over.
   */
  calm(ms: number): void;
  /** The schema of any replica here, else as some range's leader told it last. RetryError when there is none yet. */
  schema(): Schema;
  /** Resolves once `schema()` is at least as new as what some range's leader has now; at once where a replica is here. */
  refreshSchema(): Promise<void>;
  readonly coordinator: CoordinatorService;
}

/** What placement looks at, and what it may ask for. */
import type { GroupId, NodeId } from "../base/ids.js";
import type { ConfChange } from "../raft/types.js";

export interface PlacedNode {
  readonly id: NodeId;
  /**
   * "live": may hold replicas and lead. "dead": silent for so long that its replicas are to be made anew elsewhere.
   * "draining": is to hold nothing but stays a member of the cluster. "removing": is to leave it.
   */
  readonly standing: "live" | "dead" | "draining" | "removing";
  /** Heard just now. */
  readonly up: boolean;
  /** It has no disk space: it can take in nothing, nor lead. */
  readonly full: boolean;
}

export interface PlacedGroup {
  readonly group: GroupId;
  /** "range": as many replicas as the settings say. "everywhere": so many voters, and all other nodes learn. */
  readonly spread: "range" | "everywhere";
  /** NO_NODE while nobody is known to lead: then nothing can be done. */
  readonly leader: NodeId;
  readonly voters: readonly NodeId[];
  readonly learners: readonly NodeId[];
  /** A membership change is under way. */
  readonly joint: boolean;
  /** Learners that have nearly all of the log. */
  readonly caughtUp: readonly NodeId[];
  /** Voters that lack much of the log: who leads would keep writers waiting until they have it. */
  readonly behind: readonly NodeId[];
  /** Something was asked of its leader and is not done. */
  readonly busy: boolean;
  /** Who was told by hand to lead it. */
  readonly wishedLeader: NodeId | undefined;
  /** Its replicas were placed by hand: repaired, but not moved for balance. */
  readonly placed: boolean;
}

export interface PlacementView {
  /** Every member of a group is among them. */
  readonly nodes: readonly PlacedNode[];
  readonly groups: readonly PlacedGroup[];
  /** Replicas that each range is to have, where there are so many nodes. */
  readonly replicas: number;
  /** The range whose leader's node is where the leaders of a small database are. */
  readonly first: GroupId;
}

export interface PlacementLimits {
  /** Ranges that get a new replica at one time, for repair and drain, and for balance. */
  readonly repairs: number;
  readonly moves: number;
  /** Leaders moved for balance at one time. */
  readonly transfers: number;
  /** Up to so many ranges, all leaders are kept on one node. */
  readonly togetherRanges: number;
}

export const DEFAULT_PLACEMENT_LIMITS: PlacementLimits = {
  repairs: 8,
  moves: 2,
  transfers: 2,
  togetherRanges: 16,
};

export type PlacementAction =
  | {
      readonly kind: "change";
      readonly group: GroupId;
      readonly changes: ConfChange["changes"];
      readonly why: string;
    }
  | {
      readonly kind: "transfer";
      readonly group: GroupId;
      readonly to: NodeId;
      readonly why: string;
      /** It can wait: nobody is better off by it at once. */
      readonly optional?: boolean;
    };

/** What meta holds, and the commands that change it. */
import type { GroupId, NodeId } from "../../base/ids.js";
import type { RangeDescriptor } from "../../placement/descriptor.js";

/**
 * "live": takes part. "draining": is to hold no replica and lead nothing, but may come back. "removing": the same, and
 * it does not come back. "removed": gone for ever; its id is kept so that nobody has it again.
 */
export type NodeState = "live" | "draining" | "removing" | "removed";

/** What a node says of itself. */
export interface NodeRecord {
  readonly id: number;
  /** HOST:PORT that other nodes and clients reach it at. */
  readonly address: string;
  /** HOST:PORT, or "off". */
  readonly http: string;
  readonly incarnation: string;
}

export interface MetaNode extends NodeRecord {
  readonly state: NodeState;
  /** Wall time since when nobody hears it, as the leader of meta saw it; undefined while it is heard. */
  readonly downSinceMs: number | undefined;
}

/** Cluster-wide; the first start decides, `configure` changes. */
export interface ClusterSettings {
  readonly replicas: number;
  readonly rangeMaxBytes: number;
  /** 0: ranges split by size alone. */
  readonly rangeMaxRows: number;
  /** How long a node must be silent before its replicas are made anew elsewhere. */
  readonly nodeDeadMs: number;
}

/** What somebody has decided by hand for a range, or is about to do with it, and placement leaves alone. */
export interface RangeWish {
  readonly range: GroupId;
  /** Who is to lead it. */
  readonly leader: NodeId | undefined;
  /** Its replicas were placed by hand: they are repaired, but not moved for balance. */
  readonly placed: boolean;
  /** It was split off by hand: it is not merged by itself. */
  readonly apart: boolean;
  /** A merge is at work on it: until that ends it is not moved for balance either. */
  readonly merging?: boolean;
}

export type WishChange = Partial<Omit<RangeWish, "range">>;

export interface MetaState {
  /** Empty until the first leader has named the cluster. */
  readonly clusterId: string;
  readonly settings: ClusterSettings;
  readonly nextNodeId: number;
  /** Ids below this are the founders', or were lost with a quorum; nobody joins under one. */
  readonly founderIds: number;
  readonly nextRangeId: number;
  readonly nodes: readonly MetaNode[];
  readonly ranges: readonly RangeDescriptor[];
  /** Ranges that were merged into others, ascending: they do not come back. */
  readonly merged: readonly GroupId[];
  readonly wishes: readonly RangeWish[];
}

export type MetaCommand =
  /** Names the cluster, once. */
  | {
      readonly kind: "found";
      readonly clusterId: string;
      readonly settings: ClusterSettings;
      readonly firstFreeNodeId: number;
      readonly ranges: readonly RangeDescriptor[];
    }
  /** A node says where it is; the first to use an id owns it. */
  | { readonly kind: "register"; readonly node: NodeRecord }
  /** A new node asks in, with the id it wants or 0 for the next free one. */
  | { readonly kind: "join"; readonly node: NodeRecord }
  /** Takes an id for a range to be; one that is not used is lost. */
  | { readonly kind: "allocate" }
  /**
   * What leaders say of their ranges: newer descriptors take the place of those they overlap, older ones change nothing.
   * `merged`: ranges that these have taken in, of which nobody may have told before.
   */
  | {
      readonly kind: "report";
      readonly ranges: readonly RangeDescriptor[];
      readonly merged?: readonly GroupId[] | undefined;
    }
  /** Nodes that have fallen silent, and such as are heard again. */
  | {
      readonly kind: "heard";
      readonly wallMs: number;
      readonly down: readonly number[];
      readonly up: readonly number[];
    }
  /** Drains, takes back, or removes a node. */
  | { readonly kind: "node"; readonly id: number; readonly state: NodeState }
  | { readonly kind: "configure"; readonly settings: Partial<ClusterSettings> }
  /**
   * One node goes on alone, under another cluster id and with another incarnation: all others are gone. The ids below
   * these have been given to somebody, whether or not this meta has heard of it.
   */
  | {
      readonly kind: "recover";
      readonly clusterId: string;
      readonly node: NodeRecord;
      readonly firstFreeNodeId?: number;
      readonly firstFreeRangeId?: number;
    }
  /** Replaces what was wished of the range. */
  | { readonly kind: "wish"; readonly wish: RangeWish }
  /** Changes these of what was wished of the range, as it is then; nothing of one that was merged away. */
  | { readonly kind: "amend"; readonly range: GroupId; readonly wish: WishChange };

export type MetaResult =
  | {
      readonly ok: true;
      readonly nodeId: number;
      readonly clusterId: string;
      /** Of `allocate`. */
      readonly range?: number;
    }
  | { readonly ok: false; readonly reason: string };

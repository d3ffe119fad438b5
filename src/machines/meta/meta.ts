/**
 * Meta: what the cluster knows of itself. Its id, its nodes (addresses, the incarnation of each one's data, what is to
 * become of it), the settings that all nodes share, and the directory of ranges. A small state machine in memory,
 * replicated like any other; every node holds a replica and reads it directly where a slightly old answer does no harm.
 *
 * Invariants:
 * 1. A node id, once given, is never given again, and belongs to one incarnation of a data directory for ever: a node
 *    that lost its data is another node, and one that was removed stays removed.
 * 2. Commands are idempotent: proposing one again changes nothing and answers the same (but for `allocate`, which may
 *    waste an id).
 * 3. The directory is a copy: the ranges' own replicas are the authority. Generations decide what is newer.
 */
import { createHash } from "node:crypto";
import type { GroupId } from "../../base/ids.js";
import { RangeDirectory } from "../../placement/directory.js";
import type { StateMachine } from "../state-machine.js";
import { decodeMetaCommand, decodeMetaState, encodeMetaResult, encodeMetaState } from "./codec.js";
import type {
  ClusterSettings,
  MetaCommand,
  MetaNode,
  MetaResult,
  MetaState,
  NodeRecord,
  NodeState,
  RangeWish,
  WishChange,
} from "./types.js";

export { decodeMetaResult, encodeMetaCommand } from "./codec.js";
export type {
  ClusterSettings,
  MetaCommand,
  MetaNode,
  MetaResult,
  MetaState,
  NodeRecord,
  NodeState,
  RangeWish,
  WishChange,
} from "./types.js";

export const DEFAULT_SETTINGS: ClusterSettings = {
  replicas: 3,
  rangeMaxBytes: 64 * 1024 * 1024,
  rangeMaxRows: 0,
  nodeDeadMs: 5 * 60 * 1000,
};

const EMPTY: MetaState = {
  clusterId: "",
  settings: DEFAULT_SETTINGS,
  nextNodeId: 1,
  founderIds: 1,
  nextRangeId: 1,
  nodes: [],
  ranges: [],
  merged: [],
  wishes: [],
};

export class MetaMachine implements StateMachine {
  #state: MetaState = EMPTY;
  #directory = new RangeDirectory([]);
  /** Those of the state: they only become more, and are asked for all the time. */
  #merged = new Set<GroupId>();
  readonly #listeners = new Set<(state: MetaState) => void>();

  get state(): MetaState {
    return this.#state;
  }

  get directory(): RangeDirectory {
    return this.#directory;
  }

  node(id: number): MetaNode | undefined {
    return this.#state.nodes.find((node) => node.id === id);
  }

  onChange(listener: (state: MetaState) => void): void {
    this.#listeners.add(listener);
  }

  apply(entries: readonly { readonly index: number; readonly data: Uint8Array }[]): readonly Uint8Array[] {
    const before = this.#state;
    const results = entries.map(({ data }) => encodeMetaResult(this.#execute(decodeMetaCommand(data))));
    if (this.#state !== before) for (const listener of this.#listeners) listener(this.#state);
    return results;
  }

  #execute(command: MetaCommand): MetaResult {
    switch (command.kind) {
      case "found":
        return this.#found(command);
      case "register":
        return this.#admit(command.node);
      case "join":
        return this.#join(command.node);
      case "allocate": {
        const range = this.#state.nextRangeId;
        this.#change({ nextRangeId: range + 1 });
        return { ok: true, nodeId: 0, clusterId: this.#state.clusterId, range };
      }
      case "report":
        this.#report(
          this.#directory.with(command.ranges.filter(({ range }) => !this.isMerged(range))),
          command.merged ?? [],
        );
        return this.#accepted(0);
      case "heard":
        return this.#heard(command);
      case "node":
        return this.#setNodeState(command.id, command.state);
      case "configure":
        this.#change({ settings: { ...this.#state.settings, ...command.settings } });
        return this.#accepted(0);
      case "recover":
        return this.#recover(command);
      case "wish":
        return this.#wish(command.wish);
      case "amend":
        return this.#amend(command.range, command.wish);
    }
  }

  #change(part: Partial<MetaState>): void {
    this.#state = { ...this.#state, ...part };
  }

  #found(command: Extract<MetaCommand, { readonly kind: "found" }>): MetaResult {
    if (this.#state.clusterId !== "") return this.#accepted(0);
    const { clusterId, settings, ranges, firstFreeNodeId } = command;
    this.#change({
      clusterId,
      settings,
      nextNodeId: Math.max(this.#state.nextNodeId, firstFreeNodeId),
      founderIds: firstFreeNodeId,
      nextRangeId: Math.max(this.#state.nextRangeId, ...ranges.map(({ range }) => range + 1)),
    });
    this.#report(this.#directory.with(ranges));
    return this.#accepted(0);
  }

  /**
   * A range has its first key for as long as it lives, so one whose first key is another's by now was merged away. One that
   * is only overlapped has split off what was told first; what is left of it is yet to be told.
   */
  #report(directory: RangeDirectory, told: readonly GroupId[] = []): void {
    const before = this.#directory;
    const unheard = told.filter((range) => !this.isMerged(range) && directory.get(range) === undefined);
    if (directory === before && unheard.length === 0) return;
    this.#directory = directory;
    const gone = before.ranges
      .filter(({ range, start }) => directory.get(range) === undefined && directory.at(start) !== undefined)
      .map(({ range }) => range);
    const merged = [...new Set([...gone, ...unheard])];
    for (const range of merged) this.#merged.add(range);
    // That of a range to come stays.
    const wishes = this.#state.wishes.filter(({ range }) => !merged.includes(range));
    this.#change({
      ranges: directory.ranges,
      merged: [...this.#state.merged, ...merged].sort((a, b) => a - b),
      wishes: wishes.length === this.#state.wishes.length ? this.#state.wishes : wishes,
    });
  }

  #join(node: NodeRecord): MetaResult {
    const known = this.#state.nodes.find((other) => other.incarnation === node.incarnation);
    if (known !== undefined) return this.#admit({ ...node, id: known.id });
    if (node.id === 0) return this.#admit({ ...node, id: this.#state.nextNodeId });
    // Those who were removed are remembered; of the founders some may not have said where they are yet.
    if (node.id < this.#state.founderIds && this.node(node.id) === undefined) {
      return {
        ok: false,
        reason: `node id ${node.id} is one of the cluster's founders', or was lost with them`,
      };
    }
    return this.#admit(node);
  }

  #admit({ id, address, http, incarnation }: NodeRecord): MetaResult {
    const owner = this.node(id);
    if (owner?.state === "removed") {
      return {
        ok: false,
        reason: `node ${id} was removed from the cluster, and its id is never used again: it must join anew under another id`,
      };
    }
    if (owner !== undefined && owner.incarnation !== incarnation) {
      return {
        ok: false,
        reason: `node ${id} is known with other data (${owner.incarnation}, not ${incarnation}): a node that lost its data must be removed and join anew under another id`,
      };
    }
    const { state, downSinceMs } = owner ?? { state: "live", downSinceMs: undefined };
    this.#putNode({ id, address, http, incarnation, state, downSinceMs });
    this.#change({ nextNodeId: Math.max(this.#state.nextNodeId, id + 1) });
    return this.#accepted(id);
  }

  #putNode(node: MetaNode): void {
    const nodes = [...this.#state.nodes.filter((other) => other.id !== node.id), node];
    this.#change({ nodes: nodes.sort((a, b) => a.id - b.id) });
  }

  #heard({ wallMs, down, up }: Extract<MetaCommand, { readonly kind: "heard" }>): MetaResult {
    for (const node of this.#state.nodes) {
      if (down.includes(node.id) && node.downSinceMs === undefined)
        this.#putNode({ ...node, downSinceMs: wallMs });
      else if (up.includes(node.id) && node.downSinceMs !== undefined)
        this.#putNode({ ...node, downSinceMs: undefined });
    }
    return this.#accepted(0);
  }

  #setNodeState(id: number, state: NodeState): MetaResult {
    const node = this.node(id);
    if (node === undefined) return { ok: false, reason: `there is no node ${id}` };
    if (node.state === state) return this.#accepted(id);
    if (node.state === "removed")
      return { ok: false, reason: `node ${id} was removed and does not come back` };
    if (node.state === "removing" && state !== "removed")
      return { ok: false, reason: `node ${id} is being removed` };
    const others = this.#state.nodes.filter((other) => other.id !== id && other.state === "live");
    if (state !== "live" && others.length === 0)
      return { ok: false, reason: `node ${id} is the last one that can hold data` };
    this.#putNode({ ...node, state });
    return this.#accepted(id);
  }

  #recover(command: Extract<MetaCommand, { readonly kind: "recover" }>): MetaResult {
    const { clusterId, node, firstFreeNodeId = 1, firstFreeRangeId = 1 } = command;
    const { nextNodeId, founderIds, nextRangeId } = this.#state;
    if (this.#state.clusterId === clusterId) return this.#accepted(node.id);
    const gone = this.#state.nodes
      .filter(({ id }) => id !== node.id)
      .map((other): MetaNode => ({ ...other, state: "removed", downSinceMs: undefined }));
    const { id, address, http, incarnation } = node;
    const survivor: MetaNode = { id, address, http, incarnation, state: "live", downSinceMs: undefined };
    this.#change({
      clusterId,
      nodes: [...gone, survivor].sort((a, b) => a.id - b.id),
      wishes: [],
      nextNodeId: Math.max(nextNodeId, firstFreeNodeId),
      founderIds: Math.max(founderIds, firstFreeNodeId),
      nextRangeId: Math.max(nextRangeId, firstFreeRangeId),
    });
    return this.#accepted(node.id);
  }

  #wish(wish: RangeWish): MetaResult {
    const wishes = this.#state.wishes.filter(({ range }) => range !== wish.range);
    if (wish.leader !== undefined || wish.placed || wish.apart || wish.merging) wishes.push(wish);
    this.#change({ wishes: wishes.sort((a, b) => a.range - b.range) });
    return this.#accepted(0);
  }

  #amend(range: GroupId, change: WishChange): MetaResult {
    if (this.isMerged(range)) return this.#accepted(0);
    const before = this.wish(range) ?? { leader: undefined, placed: false, apart: false };
    return this.#wish({ ...before, ...change, range });
  }

  #accepted(nodeId: number): MetaResult {
    return { ok: true, nodeId, clusterId: this.#state.clusterId };
  }

  isMerged(range: GroupId): boolean {
    return this.#merged.has(range);
  }

  wish(range: GroupId): RangeWish | undefined {
    return this.#state.wishes.find((wish) => wish.range === range);
  }

  snapshot(): Uint8Array {
    return encodeMetaState(this.#state);
  }

  restore(snapshot: Uint8Array): void {
    this.#state = decodeMetaState(snapshot);
    this.#directory = new RangeDirectory(this.#state.ranges);
    this.#merged = new Set(this.#state.merged);
    for (const listener of this.#listeners) listener(this.#state);
  }
}

/** The id of a cluster whose founding nodes all know its first membership and nothing else in common. */
export function foundingClusterId(members: ReadonlyMap<number, string>): string {
  const text = [...members]
    .sort(([a], [b]) => a - b)
    .map(([id, address]) => `${id}=${address}`)
    .join(",");
  return createHash("sha256").update(`ostraka founding ${text}`).digest("hex").slice(0, 32);
}

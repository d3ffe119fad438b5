/**
 * Meta: what the cluster knows of itself. Its id, its nodes (addresses, the incarnation of each one's data), and the
 * directory of ranges. A small state machine in memory, replicated like any other; every node holds a replica and
 * reads it directly where a slightly old answer does no harm.
 *
 * Invariants:
 * 1. A node id, once given, is never given again, and belongs to one incarnation of a data directory for ever: a node
 *    that lost its data is another node.
 * 2. Commands are idempotent: proposing one again changes nothing and answers the same.
 */
import { createHash } from "node:crypto";
import { Packr } from "msgpackr";
import type { StateMachine } from "../state-machine.js";

export interface MetaNode {
  readonly id: number;
  /** HOST:PORT that other nodes and clients reach it at. */
  readonly address: string;
  /** HOST:PORT, or "off". */
  readonly http: string;
  readonly incarnation: string;
}

/** A slice of the keyspace and the group that has it. Empty bounds are open. */
export interface RangeDescriptor {
  readonly range: number;
  readonly group: number;
  readonly startKey: string;
  readonly endKey: string;
  readonly generation: number;
}

export interface MetaState {
  /** Empty until the first leader has named the cluster. */
  readonly clusterId: string;
  readonly replicas: number;
  readonly nextNodeId: number;
  readonly nodes: readonly MetaNode[];
  readonly ranges: readonly RangeDescriptor[];
}

export type MetaCommand =
  /** Names the cluster, once. */
  | {
      readonly kind: "found";
      readonly clusterId: string;
      readonly replicas: number;
      readonly firstFreeNodeId: number;
      readonly ranges: readonly RangeDescriptor[];
    }
  /** A node says where it is; the first to use an id owns it. */
  | { readonly kind: "register"; readonly node: MetaNode }
  /** A new node asks in, with the id it wants or 0 for the next free one. */
  | { readonly kind: "join"; readonly node: MetaNode };

export type MetaResult =
  | { readonly ok: true; readonly nodeId: number; readonly clusterId: string }
  | { readonly ok: false; readonly reason: string };

const packr = new Packr({ useRecords: false, variableMapSize: true });

export const encodeMetaCommand = (command: MetaCommand): Uint8Array => packr.pack(command);
export const decodeMetaResult = (bytes: Uint8Array): MetaResult => packr.unpack(bytes) as MetaResult;

const EMPTY: MetaState = { clusterId: "", replicas: 3, nextNodeId: 1, nodes: [], ranges: [] };

export class MetaMachine implements StateMachine {
  #state: MetaState = EMPTY;
  readonly #listeners = new Set<(state: MetaState) => void>();

  get state(): MetaState {
    return this.#state;
  }

  node(id: number): MetaNode | undefined {
    return this.#state.nodes.find((node) => node.id === id);
  }

  onChange(listener: (state: MetaState) => void): void {
    this.#listeners.add(listener);
  }

  apply(entries: readonly { readonly index: number; readonly data: Uint8Array }[]): readonly Uint8Array[] {
    const before = this.#state;
    const results = entries.map(({ data }) => packr.pack(this.#execute(packr.unpack(data) as MetaCommand)));
    if (this.#state !== before) for (const listener of this.#listeners) listener(this.#state);
    return results;
  }

  #execute(command: MetaCommand): MetaResult {
    switch (command.kind) {
      case "found":
        if (this.#state.clusterId === "") {
          const nextNodeId = Math.max(this.#state.nextNodeId, command.firstFreeNodeId);
          this.#state = {
            ...this.#state,
            clusterId: command.clusterId,
            replicas: command.replicas,
            ranges: command.ranges,
            nextNodeId,
          };
        }
        return this.#accepted(0);
      case "register":
        return this.#admit(command.node);
      case "join":
        return this.#join(command.node);
    }
  }

  #join(node: MetaNode): MetaResult {
    const known = this.#state.nodes.find((other) => other.incarnation === node.incarnation);
    if (known !== undefined) return this.#admit({ ...node, id: known.id });
    if (node.id === 0) return this.#admit({ ...node, id: this.#state.nextNodeId });
    if (node.id < this.#state.nextNodeId && this.node(node.id) === undefined) {
      return { ok: false, reason: `node id ${node.id} was used before and is never used again` };
    }
    return this.#admit(node);
  }

  #admit(node: MetaNode): MetaResult {
    const owner = this.node(node.id);
    if (owner !== undefined && owner.incarnation !== node.incarnation) {
      return {
        ok: false,
        reason: `node ${node.id} is known with other data (${owner.incarnation}, not ${node.incarnation}): a node that lost its data must be removed and join anew under another id`,
      };
    }
    const nodes = [...this.#state.nodes.filter((other) => other.id !== node.id), node].sort(
      (a, b) => a.id - b.id,
    );
    this.#state = { ...this.#state, nodes, nextNodeId: Math.max(this.#state.nextNodeId, node.id + 1) };
    return this.#accepted(node.id);
  }

  #accepted(nodeId: number): MetaResult {
    return { ok: true, nodeId, clusterId: this.#state.clusterId };
  }

  snapshot(): Uint8Array {
    return packr.pack(this.#state);
  }

  restore(snapshot: Uint8Array): void {
    this.#state = packr.unpack(snapshot) as MetaState;
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

/**
 * What a node needs of a network: to be reached by clients and peers, and to reach them. PeerNetwork is the real one;
 * LocalNetwork is that of a cluster of one inside somebody's process.
 */
import { type OstrakaError, RetryError } from "../base/errors.js";
import type { NodeId } from "../base/ids.js";
import type { MetaMachine, MetaResult, NodeRecord } from "../machines/meta/meta.js";
import type { PeerTransport } from "../multiraft/types.js";
import type { Gateway } from "../rpc/gateway.js";
import type { PeerCallOptions, PeerMethod } from "../rpc/peer-calls.js";
import type { ClusterProbe, Strangers } from "./founding.js";
import type { Identity } from "./identity.js";

/** Calls between nodes, as their users see them. */
export interface NodeCalls {
  serve(method: string, handler: PeerMethod): void;
  call(node: NodeId, method: string, args: readonly unknown[], options?: PeerCallOptions): Promise<unknown>;
}

/** What strangers may ask. */
export interface StrangerService {
  probe(): Promise<ClusterProbe>;
  join(node: NodeRecord): Promise<MetaResult>;
}

export interface NodeNetwork extends Strangers {
  listen(): Promise<void>;
  /** HOST:PORT as bound, or what stands for it. */
  readonly address: string;
  readonly clientCount: number;
  /** Resolves when a peer will not have this node, however often it asks: its data was lost. */
  readonly refused?: Promise<OstrakaError>;
  readonly calls: NodeCalls;
  readonly transport: PeerTransport;
  /** From now on this node is somebody: peers are let in, and can be reached by what meta (or the founders) say. */
  identify(identity: Identity, meta: MetaMachine): void;
  serveClients(gateway: Gateway, clusterId: string, self: NodeId): void;
  stopClients(): void;
  serveStrangers(service: StrangerService): void;
  close(): Promise<void>;
}

/** A node with no peers and no socket. */
export class LocalNetwork implements NodeNetwork {
  readonly address = "embedded";
  readonly clientCount = 0;
  readonly calls: NodeCalls = { serve: () => undefined, call: () => Promise.reject(alone()) };
  readonly transport: PeerTransport = {
    send: () => undefined,
    sendSnapshot: () => Promise.reject(alone()),
    receive: () => undefined,
  };
  readonly #onServing: (gateway: Gateway, clusterId: string, self: NodeId) => void;

  /** `onServing` is told once when the node serves. */
  constructor(onServing: (gateway: Gateway, clusterId: string, self: NodeId) => void) {
    this.#onServing = onServing;
  }

  async listen(): Promise<void> {}
  identify(): void {}
  serveClients(gateway: Gateway, clusterId: string, self: NodeId): void {
    this.#onServing(gateway, clusterId, self);
  }
  stopClients(): void {}
  serveStrangers(): void {}
  probe(): Promise<never> {
    return Promise.reject(alone());
  }
  join(): Promise<never> {
    return Promise.reject(alone());
  }
  async close(): Promise<void> {}
}

function alone(): RetryError {
  return new RetryError("OSTRAKA_UNAVAILABLE", "an embedded database has no other nodes");
}

/**
 * How this node calls others: addresses, credentials, and the hello that goes before every stream. Snapshots travel on
 * a connection of their own, so that the agreement engine's frames never wait in a socket behind one.
 */
import { ChannelCredentials, Client, Metadata, status } from "@grpc/grpc-js";
import type { NodeId } from "../base/ids.js";
import { PEER_PROTOCOL_VERSION, PeerHeader } from "./auth.js";
import { type CallerHandler, GrpcCallerPipe } from "./client-pipe.js";
import { CHANNEL_OPTIONS, PEER_SNAPSHOT } from "./wire.js";

export interface PeerChannelOptions {
  readonly clusterId: string;
  readonly nodeId: NodeId;
  readonly incarnation: string;
  /** host:port, or undefined while it is not known. Asked before every stream: addresses change. */
  readonly address: (node: NodeId) => string | undefined;
  /** A node did not want this one for a peer. */
  readonly onRefused?: (node: NodeId, reason: string) => void;
  readonly clusterSecret?: string | undefined;
  readonly tls?: { readonly ca: Uint8Array; readonly cert: Uint8Array; readonly key: Uint8Array } | undefined;
}

interface Channel {
  readonly address: string;
  readonly client: Client;
}

const PEER_OPTIONS = {
  ...CHANNEL_OPTIONS,
  "grpc.keepalive_time_ms": 4_000,
  "grpc.keepalive_timeout_ms": 4_000,
  // The streams' owners have a backoff of their own.
  "grpc.initial_reconnect_backoff_ms": 50,
  "grpc.min_reconnect_backoff_ms": 50,
  "grpc.max_reconnect_backoff_ms": 500,
};

export class PeerChannels {
  readonly #options: PeerChannelOptions;
  readonly #credentials: ChannelCredentials;
  readonly #channels = new Map<string, Channel>();
  readonly #pipes = new Set<GrpcCallerPipe>();
  #closed = false;

  constructor(options: PeerChannelOptions) {
    this.#options = options;
    const { tls } = options;
    this.#credentials =
      tls === undefined
        ? ChannelCredentials.createInsecure()
        : ChannelCredentials.createSsl(Buffer.from(tls.ca), Buffer.from(tls.key), Buffer.from(tls.cert));
  }

  get nodeId(): NodeId {
    return this.#options.nodeId;
  }

  /** A stream to `node`; undefined when its address is not known or this node is closing. */
  open(node: NodeId, path: string, handler: CallerHandler): GrpcCallerPipe | undefined {
    const address = this.#options.address(node);
    if (address === undefined || this.#closed) return undefined;
    const client = this.#client(node, address, path === PEER_SNAPSHOT ? "bulk" : "main");
    const pipe: GrpcCallerPipe = new GrpcCallerPipe(client, path, this.#hello(node), {
      onAccepted: () => handler.onAccepted(),
      onFrame: (body) => handler.onFrame(body),
      onDrain: () => handler.onDrain(),
      onClose: (reason, code) => {
        this.#pipes.delete(pipe);
        if (code === status.FAILED_PRECONDITION) this.#options.onRefused?.(node, reason);
        handler.onClose(reason, code);
      },
    });
    this.#pipes.add(pipe);
    return pipe;
  }

  #client(node: NodeId, address: string, use: "main" | "bulk"): Client {
    const key = `${node} ${use}`;
    const known = this.#channels.get(key);
    if (known?.address === address) return known.client;
    known?.client.close();
    const client = new Client(address, this.#credentials, PEER_OPTIONS);
    this.#channels.set(key, { address, client });
    return client;
  }

  #hello(node: NodeId): Metadata {
    const { clusterId, nodeId, incarnation, clusterSecret } = this.#options;
    const metadata = new Metadata();
    metadata.set(PeerHeader.cluster, clusterId);
    metadata.set(PeerHeader.from, String(nodeId));
    metadata.set(PeerHeader.to, String(node));
    metadata.set(PeerHeader.incarnation, incarnation);
    metadata.set(PeerHeader.protocol, String(PEER_PROTOCOL_VERSION));
    if (clusterSecret !== undefined) metadata.set(PeerHeader.secret, clusterSecret);
    return metadata;
  }

  close(): void {
    this.#closed = true;
    for (const pipe of [...this.#pipes]) pipe.end();
    for (const { client } of this.#channels.values()) client.close();
    this.#channels.clear();
  }
}

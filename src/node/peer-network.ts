/**
 * A node's one port and its connections to the others: the server for clients and peers, the engine's transport, and
 * calls between nodes. Listens before the node knows who it is (it has to ask others to find out); until then peers
 * are refused and strangers, nodes that belong to no cluster yet, are told so.
 */
import { createHmac } from "node:crypto";
import { join } from "node:path";
import { FatalError, type OstrakaError, RetryError } from "../base/errors.js";
import { type NodeId, nodeId } from "../base/ids.js";
import type { Clock, Random } from "../base/io.js";
import type { MetaMachine, MetaResult, NodeRecord } from "../machines/meta/meta.js";
import type { PeerHello, PeerIdentity } from "../rpc/auth.js";
import type { Gateway } from "../rpc/gateway.js";
import { PeerCalls } from "../rpc/peer-calls.js";
import { PeerChannels } from "../rpc/peer-channels.js";
import { GrpcPeerTransport } from "../rpc/peer-transport.js";
import { RpcServer, type ServerTls } from "../rpc/server.js";
import { type Address, formatAddress, type NodeConfig, type NodeSecrets } from "./config.js";
import type { ClusterProbe } from "./founding.js";
import type { Identity } from "./identity.js";
import { KnownPeers } from "./known-peers.js";
import type { Logger } from "./logger.js";
import type { NodeNetwork, StrangerService } from "./network.js";
import { KNOWN_OTHERWISE, peerRefusal, REMOVED } from "./peer-refusal.js";
import { sqliteVersion } from "./sqlite-version.js";

export interface PeerNetworkOptions {
  readonly config: NodeConfig;
  readonly secrets: NodeSecrets;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

const STRANGER_MS = 3_000;
const JOIN_MS = 20_000;

export class PeerNetwork implements NodeNetwork {
  readonly #options: PeerNetworkOptions;
  readonly #server: RpcServer;
  readonly #identity = new LateIdentity();
  readonly refused: Promise<OstrakaError>;
  #refuse!: (error: OstrakaError) => void;
  readonly #strangers: PeerCalls;
  readonly #secret: string | undefined;
  readonly #tls: ServerTls | undefined;
  #channels: PeerChannels | undefined;
  #calls: PeerCalls | undefined;
  #transport: GrpcPeerTransport | undefined;

  constructor(options: PeerNetworkOptions) {
    this.#options = options;
    this.refused = new Promise((resolve) => {
      this.#refuse = resolve;
    });
    const { config, secrets, clock, logger, random } = options;
    this.#tls = secrets.tls;
    this.#secret = clusterSecret(secrets);
    this.#strangers = new PeerCalls({
      channels: this.#strangerChannels({ host: "", port: 0 }),
      clock,
      random,
      logger,
    });
    this.#server = new RpcServer({
      host: config.listen.host,
      port: config.listen.port,
      tls: this.#tls,
      authToken: secrets.authToken,
      clusterSecret: this.#secret,
      clock,
      logger,
      peer: {
        identity: this.#identity,
        services: {
          raft: (stream) => this.transport.acceptRaft(stream),
          snapshot: (stream) => this.transport.acceptSnapshot(stream),
          call: (stream) => this.calls.accept(stream),
          stranger: (stream) => this.#strangers.accept(stream),
        },
      },
    });
  }

  async listen(): Promise<void> {
    await this.#server.listen();
  }

  /** HOST:PORT as bound. */
  get address(): string {
    return formatAddress({ host: this.#options.config.listen.host, port: this.#server.port });
  }

  get clientCount(): number {
    return this.#server.clientCount;
  }

  /** From now on this node is somebody: peers are let in, and can be reached by what meta (or the founders) say. */
  identify(identity: Identity, meta: MetaMachine): void {
    const { clock, random, logger, config } = this.#options;
    const address = (node: NodeId): string | undefined =>
      meta.node(node)?.address ?? identity.founders[String(node)] ?? identity.seeds?.[String(node)];
    this.#channels = new PeerChannels({
      clusterId: identity.clusterId,
      nodeId: nodeId(identity.nodeId),
      incarnation: identity.incarnation,
      address,
      onRefused: (_node, reason) => {
        if (reason.includes(KNOWN_OTHERWISE)) this.#refuse(new FatalError("OSTRAKA_WIPED", reason));
        if (reason.includes(REMOVED)) this.#refuse(new FatalError("OSTRAKA_REMOVED", reason));
      },
      clusterSecret: this.#secret,
      tls: this.#tls,
    });
    this.#calls = new PeerCalls({ channels: this.#channels, clock, random, logger });
    this.#transport = new GrpcPeerTransport({ channels: this.#channels, clock, random, logger });
    this.#identity.become(identity, meta, new KnownPeers(join(config.dataDirectory, "peers.json")));
  }

  get calls(): PeerCalls {
    if (this.#calls === undefined) throw new RetryError("OSTRAKA_UNAVAILABLE", "the node is starting");
    return this.#calls;
  }

  get transport(): GrpcPeerTransport {
    if (this.#transport === undefined) throw new RetryError("OSTRAKA_UNAVAILABLE", "the node is starting");
    return this.#transport;
  }

  serveClients(gateway: Gateway, clusterId: string, self: NodeId): void {
    this.#server.serveClients({ gateway, clusterId, nodeId: self, sqliteVersion: sqliteVersion() });
  }

  stopClients(): void {
    this.#server.serveClients(undefined);
  }

  serveStrangers(service: StrangerService): void {
    this.#strangers.serve("cluster.probe", () => service.probe());
    this.#strangers.serve("cluster.join", ([node]) => service.join(node as NodeRecord));
  }

  async probe(address: Address): Promise<ClusterProbe> {
    return (await this.#askStranger(address, "cluster.probe", [], STRANGER_MS)) as ClusterProbe;
  }

  async join(address: Address, node: NodeRecord): Promise<MetaResult> {
    return (await this.#askStranger(address, "cluster.join", [node], JOIN_MS)) as MetaResult;
  }

  async #askStranger(
    address: Address,
    method: string,
    args: readonly unknown[],
    timeoutMs: number,
  ): Promise<unknown> {
    const { clock, random, logger } = this.#options;
    const channels = this.#strangerChannels(address);
    const calls = new PeerCalls({ channels, clock, random, logger });
    try {
      return await calls.call(nodeId(1), method, args, { timeoutMs });
    } finally {
      calls.close();
      channels.close();
    }
  }

  #strangerChannels(address: Address): PeerChannels {
    return new PeerChannels({
      clusterId: "",
      nodeId: nodeId(0),
      incarnation: "",
      address: () => formatAddress(address),
      clusterSecret: this.#secret,
      tls: this.#tls,
    });
  }

  async close(): Promise<void> {
    this.#strangers.close();
    this.#calls?.close();
    this.#transport?.close();
    this.#channels?.close();
    await this.#server.close();
  }
}

/** Refuses everybody until it is known who is asked, and whoever meta knows with other data. */
class LateIdentity implements PeerIdentity {
  #identity: Identity | undefined;
  #meta: MetaMachine | undefined;
  #peers: KnownPeers | undefined;

  become(identity: Identity, meta: MetaMachine, peers: KnownPeers): void {
    this.#identity = identity;
    this.#meta = meta;
    this.#peers = peers;
  }

  /** Until it is known, what no peer can ask for. */
  get clusterId(): string {
    return this.#identity?.clusterId ?? "(starting)";
  }

  get nodeId(): number {
    return this.#identity?.nodeId ?? 0;
  }

  get incarnation(): string {
    return this.#identity?.incarnation ?? "";
  }

  refuse(hello: PeerHello): string | undefined {
    if (this.#peers === undefined) return "the node is starting";
    const { fromNode: node, incarnation } = hello;
    return peerRefusal({ node, incarnation }, this.#meta, this.#peers);
  }
}

/**
 * What peers show one another without TLS: the secret of --cluster-secret-file; where there is none but clients need
 * a token, a secret derived from that token (which by itself opens nothing here).
 */
function clusterSecret(secrets: NodeSecrets): string | undefined {
  if (secrets.clusterSecret !== undefined) return secrets.clusterSecret;
  if (secrets.tls !== undefined || secrets.authToken === undefined) return undefined;
  return createHmac("sha256", secrets.authToken).update("ostraka peers").digest("hex");
}

/**
 * One gRPC server on one port for clients and peers. It owns the streams and their credentials; what is said on them
 * belongs to ClientConnection, PeerTransport and PeerCalls.
 *
 * Invariants
 * 1. No handler is called for a stream whose credentials, cluster, addressee or version did not match; the refusal
 *    says which, to the caller and in the log, without naming any secret.
 * 2. Whatever a stream sends, the others do not notice: every failure ends that stream alone.
 */
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  status,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import type { Clock } from "../base/io.js";
import { addressError } from "./address-error.js";
import {
  AUTHORIZATION,
  PeerHeader,
  type PeerHello,
  type PeerIdentity,
  refuseClient,
  refusePeer,
  refusePeerCredentials,
  type ServerSecrets,
} from "./auth.js";
import { ClientConnection, type ClientLimits } from "./client-service.js";
import type { Gateway } from "./gateway.js";
import type { RpcLogger } from "./logger.js";
import type { FramePipe, PipeFailure, PipeHandler } from "./pipe.js";
import { CHANNEL_OPTIONS, clientService, peerService } from "./wire.js";

export interface ServerTls {
  readonly cert: Uint8Array;
  readonly key: Uint8Array;
  /** Signs the nodes' certificates. */
  readonly ca: Uint8Array;
}

/** A peer's stream, already identified. */
export interface PeerStream {
  readonly hello: PeerHello;
  readonly pipe: FramePipe;
}

/** Who serves the peers' streams: answers the handler of their frames. */
export interface PeerServices {
  raft(stream: PeerStream): PipeHandler;
  snapshot(stream: PeerStream): PipeHandler;
  call(stream: PeerStream): PipeHandler;
  /** A call from a node that belongs to no cluster yet: its credentials are good, its names are nobody's. */
  stranger(stream: PeerStream): PipeHandler;
}

export interface RpcServerOptions {
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  readonly tls?: ServerTls | undefined;
  readonly authToken?: string | undefined;
  readonly clusterSecret?: string | undefined;
  readonly clock: Clock;
  readonly logger: RpcLogger;
  /** Undefined: this server has no clients (yet): they are told to come back. */
  readonly client?: ClientServing | undefined;
  readonly peer?: { readonly identity: PeerIdentity; readonly services: PeerServices } | undefined;
}

export interface ClientServing {
  readonly gateway: Gateway;
  readonly clusterId: string;
  readonly nodeId: number;
  readonly sqliteVersion: string;
  readonly limits?: Partial<ClientLimits> | undefined;
}

type Stream = ServerDuplexStream<Buffer | undefined, Uint8Array>;

const STATUS_OF: Readonly<Record<PipeFailure["kind"], status>> = {
  malformed: status.INVALID_ARGUMENT,
  "too-slow": status.RESOURCE_EXHAUSTED,
  "shutting-down": status.UNAVAILABLE,
  refused: status.PERMISSION_DENIED,
};

/** Between saying why to the clients and cutting the connections. */
const LAST_WORDS_MS = 20;

export class RpcServer {
  readonly #options: RpcServerOptions;
  readonly #secrets: ServerSecrets;
  readonly #server: Server;
  readonly #clients = new Set<ClientConnection>();
  #serving: ClientServing | undefined;
  #port = 0;
  #closed = false;

  constructor(options: RpcServerOptions) {
    this.#options = options;
    this.#serving = options.client;
    this.#secrets = {
      authToken: options.authToken,
      clusterSecret: options.clusterSecret,
      tls: options.tls !== undefined,
    };
    this.#server = new Server(CHANNEL_OPTIONS);
    const clients: UntypedServiceImplementation = {
      Connect: ((stream: Stream) => this.#acceptClient(stream)) as never,
    };
    this.#server.addService(clientService, clients);
    const { peer } = options;
    if (peer === undefined) return;
    const accept = (
      serve: (stream: PeerStream) => PipeHandler,
      stranger?: (stream: PeerStream) => PipeHandler,
    ) => ((stream: Stream) => this.#acceptPeer(stream, peer.identity, serve, stranger)) as never;
    this.#server.addService(peerService, {
      Raft: accept((stream) => peer.services.raft(stream)),
      Snapshot: accept((stream) => peer.services.snapshot(stream)),
      Call: accept(
        (stream) => peer.services.call(stream),
        (stream) => peer.services.stranger(stream),
      ),
    });
  }

  /** The port listened on. */
  get port(): number {
    return this.#port;
  }

  get clientCount(): number {
    return this.#clients.size;
  }

  /** Rejects when the address cannot be had. */
  async listen(): Promise<void> {
    const { host, port, tls } = this.#options;
    const address = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
    this.#port = await new Promise<number>((resolve, reject) => {
      this.#server.bindAsync(address, credentials(tls), (error, bound) =>
        error === null ? resolve(bound) : reject(addressError("the address", address, error)),
      );
    });
  }

  /** From now on clients are served, or with undefined told to go elsewhere. */
  serveClients(serving: ClientServing | undefined, reason = "this node is draining"): void {
    this.#serving = serving;
    if (serving === undefined) for (const client of [...this.#clients]) client.shutDown(reason);
  }

  /** Ends every stream and lets the port go. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.serveClients(undefined, "this node is shutting down");
    // Peers' streams last for ever: after a moment for the clients to hear why, everything is cut.
    const { clock } = this.#options;
    await new Promise<void>((resolve) => {
      clock.setTimer(LAST_WORDS_MS, () => this.#server.forceShutdown());
      this.#server.tryShutdown(() => resolve());
    });
  }

  #acceptClient(stream: Stream): void {
    const peer = stream.getPeer();
    const refusal = refuseClient(this.#secrets, header(stream, AUTHORIZATION));
    if (refusal !== undefined) {
      this.#options.logger.warn({ peer, reason: refusal }, "client refused");
      refuse(stream, status.UNAUTHENTICATED, refusal);
      return;
    }
    const serving = this.#serving;
    if (serving === undefined) {
      refuse(stream, status.UNAVAILABLE, "this node does not serve clients now");
      return;
    }
    const { clock, logger } = this.#options;
    const pipe = new GrpcServerPipe(stream);
    const connection = new ClientConnection({ ...serving, clock, logger }, pipe, peer);
    this.#clients.add(connection);
    pipe.serve({
      onFrame: (body) => connection.onFrame(body),
      onDrain: () => connection.onDrain(),
      onClose: (reason) => {
        this.#clients.delete(connection);
        connection.onClose(reason);
      },
    });
  }

  #acceptPeer(
    stream: Stream,
    identity: PeerIdentity,
    serve: (stream: PeerStream) => PipeHandler,
    stranger: ((stream: PeerStream) => PipeHandler) | undefined,
  ): void {
    const hello: PeerHello = {
      clusterId: header(stream, PeerHeader.cluster) ?? "",
      fromNode: Number(header(stream, PeerHeader.from)),
      toNode: Number(header(stream, PeerHeader.to)),
      incarnation: header(stream, PeerHeader.incarnation) ?? "",
      protocol: Number(header(stream, PeerHeader.protocol)),
    };
    const certificate = stream.getAuthContext().sslPeerCertificate !== undefined;
    const credentials = refusePeerCredentials(this.#secrets, header(stream, PeerHeader.secret), certificate);
    const asStranger = hello.clusterId === "" ? stranger : undefined;
    const refusal = credentials ?? (asStranger === undefined ? refusePeer(identity, hello) : undefined);
    if (refusal !== undefined) {
      const from = { peer: stream.getPeer(), fromNode: hello.fromNode, clusterId: hello.clusterId };
      this.#options.logger.warn({ ...from, reason: refusal }, "peer refused");
      refuse(
        stream,
        credentials === undefined ? status.FAILED_PRECONDITION : status.UNAUTHENTICATED,
        refusal,
      );
      return;
    }
    // Tells the caller that it is welcome before anything else is said.
    stream.sendMetadata(new Metadata());
    const pipe = new GrpcServerPipe(stream);
    pipe.serve((asStranger ?? serve)({ hello, pipe }));
  }
}

function header(stream: Stream, name: string): string | undefined {
  const value = stream.metadata.get(name)[0];
  return typeof value === "string" ? value : undefined;
}

function refuse(stream: Stream, code: status, details: string): void {
  stream.on("error", () => undefined);
  stream.emit("error", { code, details });
}

function credentials(tls: ServerTls | undefined): ServerCredentials {
  if (tls === undefined) return ServerCredentials.createInsecure();
  const pair = { private_key: Buffer.from(tls.key), cert_chain: Buffer.from(tls.cert) };
  const made = ServerCredentials.createSsl(Buffer.from(tls.ca), [pair], true);
  // Clients come to the same port without certificates: those are asked for, and judged stream by stream.
  const settings = made._getConstructorOptions();
  if (settings === null) throw new Error("gRPC took no TLS settings");
  settings.rejectUnauthorized = false;
  return made;
}

/** A gRPC server stream as a pipe. */
class GrpcServerPipe implements FramePipe {
  readonly #stream: Stream;
  #handler: PipeHandler | undefined;
  #closed = false;

  constructor(stream: Stream) {
    this.#stream = stream;
  }

  serve(handler: PipeHandler): void {
    this.#handler = handler;
    const stream = this.#stream;
    stream.on("data", (body: Buffer | undefined) => {
      if (this.#closed) return;
      if (body !== undefined) handler.onFrame(body);
      else this.end({ kind: "malformed", reason: "not a Frame message" });
    });
    stream.on("drain", () => {
      if (!this.#closed) handler.onDrain();
    });
    stream.on("end", () => {
      this.#close("the other side ended the stream");
      stream.end();
    });
    stream.on("cancelled", () => this.#close("cancelled or disconnected"));
    stream.on("error", (error: Error) => this.#close(error.message));
    stream.on("close", () => this.#close("closed"));
  }

  #close(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#handler?.onClose(reason);
  }

  write(body: Uint8Array): boolean {
    if (this.#closed) return true;
    return this.#stream.write(body);
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  end(failure?: PipeFailure): void {
    if (this.#closed) return;
    if (failure === undefined) this.#stream.end();
    else this.#stream.emit("error", { code: STATUS_OF[failure.kind], details: failure.reason });
    this.#close(failure?.reason ?? "ended");
  }
}

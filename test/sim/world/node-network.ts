/**
 * A process's place in the simulated network: frames, snapshots and calls between nodes, as GrpcPeerTransport and
 * PeerCalls promise them. Bytes really are encoded and decoded, so that what arrives is a copy and the codecs are
 * tried. A process that has died neither sends nor hears anything.
 *
 * Calls: OSTRAKA_UNAVAILABLE says that the request has not left, AmbiguousError that it may have been carried out.
 */
import {
  AmbiguousError,
  FatalError,
  fromWireError,
  type OstrakaError,
  RetryError,
  toWireError,
  type WireError,
} from "../../../src/base/errors.js";
import { type NodeId, nodeId } from "../../../src/base/ids.js";
import type { Timer } from "../../../src/base/io.js";
import type { MetaMachine, MetaNode, MetaResult } from "../../../src/machines/meta/meta.js";
import type {
  MachineSnapshot,
  PeerFrame,
  PeerHandler,
  PeerTransport,
  SnapshotHeader,
} from "../../../src/multiraft/types.js";
import type { Address } from "../../../src/node/config.js";
import type { ClusterProbe } from "../../../src/node/founding.js";
import type { Identity } from "../../../src/node/identity.js";
import type { NodeCalls, NodeNetwork, StrangerService } from "../../../src/node/network.js";
import { type MetPeers, peerRefusal, REMOVED } from "../../../src/node/peer-refusal.js";
import type { Gateway } from "../../../src/rpc/gateway.js";
import type { PeerCallContext, PeerCallOptions, PeerMethod } from "../../../src/rpc/peer-calls.js";
import { decodePeerFrame, encodePeerFrame } from "../../../src/rpc/peer-frames.js";
import { packMessages, unpackMessages } from "../../../src/rpc/wire.js";
import type { SimNetwork } from "./network.js";

const CALL_TIMEOUT_MS = 30_000;
const CHUNK_BYTES = 32 * 1024;
export const PORT = 7400;

/** What the network has to know of a process. */
export interface NetworkProcess {
  readonly id: number;
  readonly dead: boolean;
  readonly network: SimNodeNetwork;
  readonly met: MetPeers;
  onDeath(mourn: () => void): () => void;
}

/** The rest of the world as a process's network sees it. */
export interface Surroundings {
  readonly wires: SimNetwork;
  /** Runs after `ms` of the world's time, whatever becomes of any process. */
  after(ms: number, run: () => void): Timer;
  /** On the target's machine: waits while it is paused. */
  onMachine(id: number, run: () => void): void;
  /** The process that runs on a machine now. */
  process(id: number): NetworkProcess | undefined;
  /** Sees every frame as it is sent. */
  observe(from: number, to: number, frame: PeerFrame, bytes: Uint8Array): void;
  note(what: string): void;
}

interface Waiting {
  /** Nothing is waited for any more. */
  forget: () => void;
  readonly settled: () => boolean;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class SimNodeNetwork implements NodeNetwork {
  readonly address: string;
  readonly clientCount = 0;
  readonly refused: Promise<OstrakaError>;
  readonly calls: NodeCalls;
  readonly transport: PeerTransport;
  readonly #id: number;
  readonly #around: Surroundings;
  readonly #self: () => NetworkProcess;
  readonly #methods = new Map<string, PeerMethod>();
  #handler: PeerHandler | undefined;
  #identity: Identity | undefined;
  #meta: MetaMachine | undefined;
  #strangers: StrangerService | undefined;
  #listening = false;
  #refuse!: (error: OstrakaError) => void;
  /** Set while the node serves SQL. */
  gateway: Gateway | undefined;

  constructor(id: number, around: Surroundings, self: () => NetworkProcess) {
    this.#id = id;
    this.#around = around;
    this.#self = self;
    this.address = `node${id}:${PORT}`;
    this.refused = new Promise((resolve) => {
      this.#refuse = resolve;
    });
    this.calls = {
      serve: (method, handler) => void this.#methods.set(method, handler),
      call: (node, method, args, options) => this.#call(node, method, args, options ?? {}),
    };
    this.transport = {
      receive: (handler) => {
        this.#handler = handler;
      },
      send: (to, frame) => this.#sendFrame(to, frame),
      sendSnapshot: (to, header, source) => this.#sendSnapshot(to, header, source),
    };
  }

  async listen(): Promise<void> {
    this.#listening = true;
  }

  identify(identity: Identity, meta: MetaMachine): void {
    this.#identity = identity;
    this.#meta = meta;
  }

  /** This node's replica of meta, once it knows who it is. */
  get meta(): MetaMachine | undefined {
    return this.#meta;
  }

  serveClients(gateway: Gateway): void {
    this.gateway = gateway;
  }

  stopClients(): void {
    this.gateway = undefined;
  }

  serveStrangers(service: StrangerService): void {
    this.#strangers = service;
  }

  async close(): Promise<void> {
    this.#listening = false;
    this.gateway = undefined;
  }

  get #alive(): boolean {
    return !this.#self().dead && this.#listening;
  }

  /** Why this process does not let another in. */
  #refuses(from: SimNodeNetwork): string | undefined {
    const identity = from.#identity;
    if (identity === undefined || this.#identity === undefined) return "not known yet";
    const peer = { node: from.#id, incarnation: identity.incarnation };
    const reason = peerRefusal(peer, this.#meta, this.#self().met);
    if (reason?.includes(REMOVED)) from.#hears(this.#id, new FatalError("OSTRAKA_REMOVED", reason));
    return reason;
  }

  /** Another node does not let this one in, for ever. */
  #hears(from: number, refusal: OstrakaError): void {
    this.#around.wires.stream(
      from,
      this.#id,
      () => this.#around.onMachine(this.#id, () => this.#alive && this.#refuse(refusal)),
      () => undefined,
    );
  }

  // --- frames and snapshots -------------------------------------------------------------------------------------

  #sendFrame(to: NodeId, frame: PeerFrame): void {
    if (!this.#alive) return;
    const { wires } = this.#around;
    const bytes = encodePeerFrame(frame);
    this.#around.observe(this.#id, to, frame, bytes);
    if (!wires.connects(this.#id, to) || this.#around.process(to) === undefined)
      this.#around.after(wires.detectionMs(), () => {
        if (this.#alive && !wires.connects(this.#id, to)) this.#handler?.onUnreachable(to);
      });
    wires.datagram(this.#id, to, () =>
      this.#around.onMachine(to, () => {
        const target = this.#around.process(to)?.network;
        if (target === undefined || !target.#alive || target.#refuses(this) !== undefined) return;
        target.#handler?.onFrame(nodeId(this.#id), decodePeerFrame(bytes));
      }),
    );
  }

  async #sendSnapshot(to: NodeId, header: SnapshotHeader, source: MachineSnapshot): Promise<void> {
    const { wires } = this.#around;
    const target = this.#around.process(to);
    const lost = (): Error => new RetryError("OSTRAKA_UNAVAILABLE", "the snapshot was cut short");
    if (
      !this.#alive ||
      target === undefined ||
      !target.network.#alive ||
      target.network.#refuses(this) !== undefined
    )
      throw lost();
    const queue: (Uint8Array | Error | undefined)[] = [];
    let wake: (() => void) | undefined;
    const push = (item: Uint8Array | Error | undefined): void => {
      queue.push(item);
      wake?.();
    };
    const chunks = async function* (): AsyncGenerator<Uint8Array> {
      for (;;) {
        while (queue.length === 0)
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        const item = queue.shift();
        if (item instanceof Error) throw item;
        if (item === undefined) return;
        yield item;
      }
    };
    let over = false;
    const ended = new Promise<void>((resolve, reject) => {
      const broken = (): void => {
        if (over) return;
        over = true;
        push(lost());
        this.#around.after(wires.detectionMs(), () => reject(lost()));
      };
      // A process that dies ends its connections, whatever it was about to say.
      this.#self().onDeath(broken);
      target.onDeath(broken);
      const hop = (from: number, arriveAt: number, run: () => void): void =>
        wires.stream(
          from,
          arriveAt,
          () =>
            this.#around.onMachine(arriveAt, () => {
              if (this.#self().dead || target.dead) broken();
              else run();
            }),
          broken,
        );
      hop(this.#id, to, () => {
        const handler = target.network.#handler;
        if (handler === undefined) {
          broken();
          return;
        }
        handler.onSnapshot(nodeId(this.#id), header, chunks()).then(
          () => hop(to, this.#id, resolve),
          (error: unknown) => {
            const wire = toWireError(error);
            hop(to, this.#id, () => reject(fromWireError(wire)));
          },
        );
      });
      const stream = async (): Promise<void> => {
        for (let offset = 0; offset < header.bytes; offset += CHUNK_BYTES) {
          const chunk = (await source.read(offset, Math.min(CHUNK_BYTES, header.bytes - offset))).slice();
          await new Promise<void>((sent) => {
            hop(this.#id, to, () => {
              push(chunk);
              sent();
            });
          });
        }
        hop(this.#id, to, () => push(undefined));
      };
      stream().catch((error: unknown) => {
        // Whoever cannot read on ends the connection, and the other end is not left waiting.
        hop(this.#id, to, () => push(lost()));
        reject(error);
      });
    });
    return ended.finally(() => {
      over = true;
    });
  }

  // --- calls ----------------------------------------------------------------------------------------------------

  #call(to: NodeId, method: string, args: readonly unknown[], options: PeerCallOptions): Promise<unknown> {
    if (options.signal?.aborted) return Promise.reject(options.signal.reason as Error);
    return new Promise((resolve, reject) => {
      if (!this.#alive) return;
      const settled = { done: false };
      const waiting: Waiting = {
        forget: () => undefined,
        settled: () => settled.done,
        resolve: (value) => settle(() => resolve(value)),
        reject: (error) => settle(() => reject(error)),
      };
      const settle = (how: () => void): void => {
        if (settled.done || this.#self().dead) return;
        settled.done = true;
        waiting.forget();
        how();
      };
      options.signal?.addEventListener("abort", () => waiting.reject(options.signal?.reason as Error));
      this.#request(
        to,
        method,
        packMessages(args as unknown[]),
        options.timeoutMs ?? CALL_TIMEOUT_MS,
        waiting,
      );
    });
  }

  #request(to: NodeId, method: string, body: Uint8Array, timeoutMs: number, waiting: Waiting): void {
    const { wires } = this.#around;
    const target = this.#around.process(to);
    const notSent = (why: string): void =>
      void this.#around.after(1, () =>
        this.#around.onMachine(this.#id, () =>
          waiting.reject(new RetryError("OSTRAKA_UNAVAILABLE", `node ${to} cannot be reached: ${why}`)),
        ),
      );
    if (target === undefined || !target.network.#alive) {
      notSent("connection refused");
      return;
    }
    const refusal = target.network.#refuses(this);
    if (refusal !== undefined) {
      notSent(refusal);
      return;
    }
    if (!wires.connects(this.#id, to) && this.#around.wires.detectionMs() > 20) {
      notSent("timed out");
      return;
    }
    const inDoubt = (why: string): void => {
      if (waiting.settled()) return;
      this.#around.note("a call was left in doubt");
      waiting.reject(new AmbiguousError(`node ${to} ${why} during ${method}`, undefined));
    };
    const lost = (): void =>
      void this.#around.after(wires.detectionMs(), () =>
        this.#around.onMachine(this.#id, () => inDoubt("was lost")),
      );
    const arrive = (id: number, run: () => void): void =>
      this.#around.onMachine(id, () => {
        if (target.dead || !target.network.#alive) lost();
        else run();
      });
    const answer = (run: () => void): void =>
      wires.stream(to, this.#id, () => this.#around.onMachine(this.#id, run), lost);
    wires.stream(
      this.#id,
      to,
      () =>
        arrive(to, () =>
          target.network.#serve(nodeId(this.#id), method, body, timeoutMs).then(
            (value) => {
              if (target.dead) {
                lost();
                return;
              }
              const bytes = packMessages([value]);
              answer(() => waiting.resolve(unpackMessages(bytes)[0]));
            },
            (error: unknown) => {
              if (target.dead) {
                lost();
                return;
              }
              const bytes = packMessages([toWireError(error)]);
              answer(() => waiting.reject(fromWireError(unpackMessages(bytes)[0] as WireError)));
            },
          ),
        ),
      lost,
    );
    const timeout = this.#around.after(timeoutMs, () =>
      this.#around.onMachine(this.#id, () => inDoubt("did not answer in time")),
    );
    // A process that dies before it has answered is found out sooner.
    const deaf = target.onDeath(lost);
    waiting.forget = () => {
      timeout.cancel();
      deaf();
    };
  }

  async #serve(from: NodeId, method: string, body: Uint8Array, timeoutMs: number): Promise<unknown> {
    const handler = this.#methods.get(method);
    if (handler === undefined)
      throw new RetryError("OSTRAKA_UNAVAILABLE", `node ${this.#id} does not serve ${method}`);
    const context: PeerCallContext = {
      from,
      timeoutMs,
      signal: new AbortController().signal,
    };
    return handler(unpackMessages(body) as unknown[], context).catch((error: Error) => {
      if (/is not on this node/.test(error.message)) this.#around.note("a range was asked where it is not");
      throw error;
    });
  }

  // --- strangers ------------------------------------------------------------------------------------------------

  probe(address: Address): Promise<ClusterProbe> {
    return this.#askStranger(address, (service) => service.probe());
  }

  join(address: Address, node: MetaNode): Promise<MetaResult> {
    return this.#askStranger(address, (service) => service.join(node));
  }

  #askStranger<T>(address: Address, ask: (service: StrangerService) => Promise<T>): Promise<T> {
    const to = Number(address.host.replace("node", ""));
    const { wires } = this.#around;
    return new Promise<T>((resolve, reject) => {
      const failed = (): void =>
        void this.#around.after(wires.detectionMs(), () =>
          this.#around.onMachine(this.#id, () =>
            reject(new RetryError("OSTRAKA_UNAVAILABLE", `${address.host} cannot be reached`)),
          ),
        );
      wires.stream(
        this.#id,
        to,
        () =>
          this.#around.onMachine(to, () => {
            const target = this.#around.process(to);
            const service = target === undefined ? undefined : target.network.#strangers;
            if (target === undefined || service === undefined || !target.network.#alive) {
              failed();
              return;
            }
            const answer = (run: () => void): void => {
              if (!target.dead)
                wires.stream(to, this.#id, () => this.#around.onMachine(this.#id, run), failed);
              else failed();
            };
            target.onDeath(failed);
            ask(service).then(
              (value) => answer(() => resolve(structuredClone(value))),
              (error: unknown) => answer(() => reject(error as Error)),
            );
          }),
        failed,
      );
    });
  }
}

/**
 * Requests and answers between nodes, multiplexed over one stream each way for each pair; what a turn of the event
 * loop gathers goes in one frame. Frames are msgpack arrays of messages:
 * request [1, id, method, args, timeoutMs] · cancel [2, id] · answer [1, id, value] · refusal [2, id, WireError].
 *
 * Invariants
 * 1. A call settles once: answered, timed out, aborted, or its connection lost.
 * 2. RetryError OSTRAKA_UNAVAILABLE means that the request has not left; AmbiguousError that it may have been carried
 *    out. Requests leave only after the other side has accepted the stream.
 * 3. Plain values come back as they were: bigint and number are kept apart, bytes are Uint8Arrays, undefined stays.
 *    Maps and instances of classes come back as plain objects.
 */
import { AmbiguousError, fromWireError, RetryError, toWireError, type WireError } from "../base/errors.js";
import { type NodeId, nodeId } from "../base/ids.js";
import type { Clock, Random, Timer } from "../base/io.js";
import type { GrpcCallerPipe } from "./client-pipe.js";
import type { RpcLogger } from "./logger.js";
import type { PeerChannels } from "./peer-channels.js";
import { MessageReader, MessageWriter } from "./peer-messages.js";
import type { PipeHandler } from "./pipe.js";
import type { PeerStream } from "./server.js";
import { MalformedFrame, PEER_CALL } from "./wire.js";

const Op = { Request: 1, Cancel: 2 } as const;
const Answer = { Value: 1, Error: 2 } as const;

const SWEEP_MS = 50;
const ACCEPT_MS = 3_000;
const FIRST_BACKOFF_MS = 20;
const MAX_BACKOFF_MS = 1_000;
/** Requests of one peer that run here at once; beyond it they are refused. */
const MAX_RUNNING = 10_000;
const DEFAULT_TIMEOUT_MS = 30_000;

export interface PeerCallOptions {
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface PeerCallContext {
  readonly from: NodeId;
  /** What is left of the caller's patience. */
  readonly timeoutMs: number;
  /** Aborted when the caller gave up or was lost. Made when first looked at. */
  readonly signal: AbortSignal;
}

export type PeerMethod = (args: readonly unknown[], context: PeerCallContext) => Promise<unknown>;

export interface PeerCallsOptions {
  readonly channels: PeerChannels;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: RpcLogger;
}

export class PeerCalls {
  readonly #options: PeerCallsOptions;
  readonly #methods = new Map<string, PeerMethod>();
  readonly #callers = new Map<NodeId, Caller>();
  #closed = false;

  constructor(options: PeerCallsOptions) {
    this.#options = options;
  }

  /** Answers peers' calls of `method`. A node does not call itself. */
  serve(method: string, handler: PeerMethod): void {
    if (this.#methods.has(method)) throw new Error(`${method} is served already`);
    this.#methods.set(method, handler);
  }

  /** Calls a method on another node. Rejects with what it rejected with, or as invariant 2 says. */
  call(
    node: NodeId,
    method: string,
    args: readonly unknown[],
    options: PeerCallOptions = {},
  ): Promise<unknown> {
    if (this.#closed) return Promise.reject(new RetryError("OSTRAKA_UNAVAILABLE", "this node is closing"));
    let caller = this.#callers.get(node);
    if (caller === undefined) {
      caller = new Caller(node, this.#options);
      this.#callers.set(node, caller);
    }
    return caller.call(method, args, options);
  }

  /** Serves a peer's Call stream. */
  accept({ hello, pipe }: PeerStream): PipeHandler {
    const from = nodeId(hello.fromNode);
    const writer = new MessageWriter(pipe);
    const reader = new MessageReader();
    const running = new Map<number, ServedCall>();
    const answer = (call: ServedCall, kind: number, value: unknown): void => {
      if (!running.delete(call.id)) return;
      writer.push([kind, call.id, value]);
    };
    const start = (id: number, method: string, args: readonly unknown[], timeoutMs: number): void => {
      const call = new ServedCall(id, from, timeoutMs);
      running.set(id, call);
      const handler = this.#methods.get(method);
      const refusal =
        handler === undefined
          ? `node ${this.#options.channels.nodeId} does not serve ${method}`
          : running.size > MAX_RUNNING
            ? "too many calls of this peer are running"
            : undefined;
      if (refusal !== undefined || handler === undefined) {
        answer(call, Answer.Error, toWireError(new RetryError("OSTRAKA_UNAVAILABLE", refusal ?? "")));
        return;
      }
      // A handler that throws at once is one that rejects.
      new Promise((resolve) => resolve(handler(args, call))).then(
        (value) => answer(call, Answer.Value, value),
        (error: unknown) => answer(call, Answer.Error, toWireError(error)),
      );
    };
    const malformed = (reason: string): void => {
      this.#options.logger.warn({ from, reason }, "malformed call from a peer");
      pipe.end({ kind: "malformed", reason });
    };
    return {
      onFrame: (body) => {
        try {
          for (const message of reader.read(body)) {
            const [op, id, method, args, timeoutMs] = message;
            if (
              op === Op.Request &&
              typeof id === "number" &&
              typeof method === "string" &&
              Array.isArray(args)
            )
              start(id, method, args, typeof timeoutMs === "number" ? timeoutMs : DEFAULT_TIMEOUT_MS);
            else if (op === Op.Cancel && typeof id === "number") running.get(id)?.abort();
            else throw new MalformedFrame("not a request");
          }
        } catch (error) {
          malformed(error instanceof Error ? error.message : String(error));
        }
      },
      onDrain: () => writer.drained(),
      onClose: () => {
        writer.close();
        for (const call of running.values()) call.abort();
        running.clear();
      },
    };
  }

  close(): void {
    this.#closed = true;
    for (const caller of this.#callers.values()) caller.close();
    this.#callers.clear();
  }
}

class ServedCall implements PeerCallContext {
  #controller: AbortController | undefined;
  #aborted = false;

  constructor(
    readonly id: number,
    readonly from: NodeId,
    readonly timeoutMs: number,
  ) {}

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#aborted) this.#controller.abort();
    }
    return this.#controller.signal;
  }

  abort(): void {
    this.#aborted = true;
    this.#controller?.abort();
  }
}

interface Pending {
  readonly method: string;
  /** Undefined once it has left. */
  args: readonly unknown[] | undefined;
  readonly deadlineMs: number;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** The calling side towards one node. */
class Caller {
  readonly #node: NodeId;
  readonly #options: PeerCallsOptions;
  readonly #pending = new Map<number, Pending>();
  #pipe: GrpcCallerPipe | undefined;
  #writer: MessageWriter | undefined;
  #reader = new MessageReader();
  #accepted = false;
  #nextId = 1;
  #failures = 0;
  #acceptTimer: Timer | undefined;
  #retryTimer: Timer | undefined;
  #sweepTimer: Timer | undefined;
  #lastFailure = "it was never reached";
  #closed = false;

  constructor(node: NodeId, options: PeerCallsOptions) {
    this.#node = node;
    this.#options = options;
  }

  call(method: string, args: readonly unknown[], options: PeerCallOptions): Promise<unknown> {
    const { signal } = options;
    if (signal?.aborted === true) return Promise.reject(signal.reason);
    const { clock } = this.#options;
    const deadlineMs = clock.monotonicMs() + (options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    const id = this.#nextId++;
    const promise = new Promise<unknown>((resolve, reject) => {
      this.#pending.set(id, { method, args, deadlineMs, resolve, reject });
    });
    this.#sweepTimer ??= clock.setTimer(SWEEP_MS, () => this.#sweep());
    if (this.#accepted) this.#send(id);
    else this.#connect();
    return signal === undefined ? promise : this.#abortable(id, promise, signal);
  }

  #abortable(id: number, promise: Promise<unknown>, signal: AbortSignal): Promise<unknown> {
    const abort = (): void => {
      const pending = this.#drop(id);
      pending?.reject(signal.reason);
    };
    signal.addEventListener("abort", abort, { once: true });
    return promise.finally(() => signal.removeEventListener("abort", abort));
  }

  /** Forgets a call nobody waits for any more, at the other node too. */
  #drop(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (pending !== undefined && pending.args === undefined) this.#writer?.push([Op.Cancel, id]);
    return pending;
  }

  #send(id: number): void {
    const pending = this.#pending.get(id)!;
    const { method, args, deadlineMs } = pending;
    const timeoutMs = Math.max(1, Math.ceil(deadlineMs - this.#options.clock.monotonicMs()));
    pending.args = undefined;
    this.#writer!.push([Op.Request, id, method, args, timeoutMs]);
  }

  #connect(): void {
    if (this.#pipe !== undefined || this.#retryTimer !== undefined || this.#closed) return;
    const { channels, clock } = this.#options;
    const pipe = channels.open(this.#node, PEER_CALL, {
      onAccepted: () => this.#ready(),
      onFrame: (body) => this.#receive(body),
      onDrain: () => this.#writer?.drained(),
      onClose: (reason) => this.#lost(reason),
    });
    if (pipe === undefined) {
      this.#lost("its address is not known");
      return;
    }
    this.#pipe = pipe;
    this.#writer = new MessageWriter(pipe);
    this.#reader = new MessageReader();
    this.#acceptTimer = clock.setTimer(ACCEPT_MS, () => pipe.end());
  }

  #ready(): void {
    this.#accepted = true;
    this.#failures = 0;
    this.#acceptTimer?.cancel();
    for (const id of this.#pending.keys()) this.#send(id);
  }

  #receive(body: Uint8Array): void {
    try {
      for (const message of this.#reader.read(body)) {
        const [kind, id, value] = message as readonly [number, number, unknown];
        const pending = this.#pending.get(id);
        if (pending === undefined) continue;
        this.#pending.delete(id);
        if (kind === Answer.Value) pending.resolve(value);
        else pending.reject(fromWireError(value as WireError));
      }
    } catch (error) {
      this.#options.logger.warn({ peer: this.#node, reason: String(error) }, "malformed answer from a peer");
      this.#pipe?.end();
    }
  }

  /** What had left is in doubt; what had not is refused, so that its caller can try another node at once. */
  #lost(reason: string): void {
    this.#pipe = undefined;
    this.#writer?.close();
    this.#writer = undefined;
    this.#accepted = false;
    this.#acceptTimer?.cancel();
    this.#lastFailure = reason;
    for (const [id, pending] of this.#pending) {
      if (pending.args !== undefined) continue;
      this.#pending.delete(id);
      pending.reject(
        new AmbiguousError(`node ${this.#node} was lost during ${pending.method}: ${reason}`, undefined),
      );
    }
    if (this.#closed) return;
    const { clock, random } = this.#options;
    const backoff = Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** Math.min(this.#failures++, 10));
    this.#retryTimer = clock.setTimer(backoff * (0.5 + random.float()), () => {
      this.#retryTimer = undefined;
      if (this.#pending.size > 0) this.#connect();
    });
    for (const [id, pending] of this.#pending) {
      this.#pending.delete(id);
      pending.reject(this.#notSent());
    }
  }

  #notSent(): RetryError {
    return new RetryError(
      "OSTRAKA_UNAVAILABLE",
      `node ${this.#node} cannot be reached: ${this.#lastFailure}`,
    );
  }

  #sweep(): void {
    this.#sweepTimer = undefined;
    const now = this.#options.clock.monotonicMs();
    for (const [id, pending] of this.#pending) {
      if (now < pending.deadlineMs) continue;
      const left = pending.args === undefined;
      this.#drop(id);
      if (left) {
        const message = `node ${this.#node} did not answer ${pending.method} in time`;
        pending.reject(new AmbiguousError(message, undefined));
      } else pending.reject(this.#notSent());
    }
    if (this.#pending.size > 0 && !this.#closed)
      this.#sweepTimer = this.#options.clock.setTimer(SWEEP_MS, () => this.#sweep());
  }

  close(): void {
    this.#closed = true;
    this.#retryTimer?.cancel();
    this.#sweepTimer?.cancel();
    this.#lastFailure = "this node is closing";
    const pipe = this.#pipe;
    if (pipe === undefined) this.#lost(this.#lastFailure);
    else pipe.end();
  }
}

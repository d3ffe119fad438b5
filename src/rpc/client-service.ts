/**
 * Serves one client's stream: turns its messages into calls of the gateway, and what they come to into messages.
 * Knows nothing of gRPC; the embedded library and tests speak to it through a pipe in memory.
 *
 * Invariants
 * 1. Every request with an id is answered exactly once (a result, chunks that end, or an error), unless the stream
 *    ends first or the client closed the cursor.
 * 2. Requests of one session start in the order in which they came; sessions do not wait for each other.
 * 3. What a stream may hold is bounded: running requests and their bytes, sessions, open cursors, bytes going out.
 *    At the bound of requests or of bytes the stream is no longer read; at the others requests are refused.
 * 4. When the stream ends all its requests are aborted, its cursors freed and its sessions closed.
 *
 * Control messages (Fetch, Cancel, CloseCursor) overtake requests that wait for room: they are what makes room.
 */
import {
  AmbiguousError,
  type OstrakaError,
  type RetryCode,
  RetryError,
  toWireError,
  UserError,
} from "../base/errors.js";
import { IdTable } from "../base/id-table.js";
import type { Clock, Timer } from "../base/io.js";
import type { RowStream, StatementOutcome } from "../machines/range/types.js";
import { ClientCursor, type CursorOwner } from "./client-cursor.js";
import {
  protocolError,
  readCounts,
  readId,
  readKey,
  readParams,
  readRetry,
  readSentUnder,
  readString,
  readTimeout,
  ServedRequest,
} from "./client-request.js";
import type { ExecuteResult, Gateway, Session, SessionCounts } from "./gateway.js";
import { LeaderAdvice } from "./leader-advice.js";
import type { RpcLogger } from "./logger.js";
import { OutcomeStream } from "./outcome-stream.js";
import { type FramePipe, FrameWriter, type PipeHandler } from "./pipe.js";
import { Present } from "./present.js";
import { ClientOp, MAX_FRAME_BYTES, PROTOCOL_VERSION, ServerOp, type SessionState } from "./protocol.js";
import { STATES, summarize } from "./summary.js";
import { MalformedFrame, packMessages, unpackMessages } from "./wire.js";

export interface ClientLimits {
  readonly maxSessions: number;
  /** Running requests of a stream, and the bytes of their texts and parameters. */
  readonly maxRequests: number;
  readonly maxRequestBytes: number;
  /** Cursors that wait for the client. */
  readonly maxCursors: number;
  /** A stream that takes nothing for this long while something waits for it is ended. */
  readonly stallMs: number;
  readonly helloMs: number;
}

export const DEFAULT_CLIENT_LIMITS: ClientLimits = {
  maxSessions: 1000,
  maxRequests: 4096,
  maxRequestBytes: 64 * 1024 * 1024,
  maxCursors: 1000,
  stallMs: 60_000,
  helloMs: 10_000,
};

export interface ClientServiceOptions {
  readonly gateway: Gateway;
  readonly clusterId: string;
  readonly nodeId: number;
  readonly sqliteVersion: string;
  readonly clock: Clock;
  readonly logger: RpcLogger;
  readonly limits?: Partial<ClientLimits> | undefined;
}

const MALFORMED_LIMIT = 100;

type Running = ServedRequest | ClientCursor;

export class ClientConnection implements PipeHandler {
  readonly #options: ClientServiceOptions;
  readonly #limits: ClientLimits;
  readonly #pipe: FramePipe;
  readonly #writer: FrameWriter;
  readonly #peer: string;
  readonly #advice: LeaderAdvice;
  readonly #present: Present;
  readonly #sessions = new Map<number, Session>();
  /** Sessions that there was no room for: the client has not waited to hear so. A statement opens one once there is. */
  readonly #refused = new Map<number, SessionCounts | undefined>();
  readonly #running = new IdTable<Running>();
  #autocommit: Session | undefined;
  #requests = 0;
  #requestBytes = 0;
  #parkedCursors = 0;
  #backlog: unknown[] = [];
  #paused = false;
  #welcomed = false;
  #closed = false;
  #malformed = 0;
  #helloTimer: Timer | undefined;
  #stallTimer: Timer | undefined;

  /** `peer`: the client's address, for log lines. */
  constructor(options: ClientServiceOptions, pipe: FramePipe, peer: string) {
    this.#options = options;
    this.#limits = { ...DEFAULT_CLIENT_LIMITS, ...options.limits };
    this.#pipe = pipe;
    this.#writer = new FrameWriter(pipe, () => {
      this.#watchForStall();
      this.#regulate();
    });
    this.#peer = peer;
    this.#advice = new LeaderAdvice(options.clock, options.gateway, options.nodeId);
    this.#present = new Present(options.clock, options.gateway);
    this.#helloTimer = options.clock.setTimer(this.#limits.helloMs, () =>
      this.#fail("malformed", "no hello in time"),
    );
  }

  onFrame(body: Uint8Array): void {
    if (this.#closed) return;
    let messages: unknown[];
    try {
      messages = unpackMessages(body);
    } catch (error) {
      if (!(error instanceof MalformedFrame)) throw error;
      this.#fail("malformed", `not a frame: ${error.message}`);
      return;
    }
    for (const message of messages) {
      if (this.#closed) return;
      if (this.#backlog.length > 0 || (this.#full() && !isControl(message))) {
        if (isControl(message)) this.#handle(message);
        else this.#backlog.push(message);
      } else this.#handle(message);
    }
    this.#regulate();
  }

  onDrain(): void {
    this.#stallTimer?.cancel();
    this.#stallTimer = undefined;
    this.#writer.drained();
    this.#regulate();
  }

  onClose(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#helloTimer?.cancel();
    this.#stallTimer?.cancel();
    this.#writer.close();
    this.#backlog = [];
    for (const running of this.#running.values()) {
      if (running instanceof ClientCursor) running.close();
      else running.abort();
    }
    this.#running.clear();
    const sessions = [...this.#sessions.values()];
    if (this.#autocommit !== undefined) sessions.push(this.#autocommit);
    this.#sessions.clear();
    for (const session of sessions) {
      session.close().catch((error: unknown) => {
        this.#options.logger.warn({ peer: this.#peer, error: String(error) }, "closing a session failed");
      });
    }
    this.#options.logger.info({ peer: this.#peer, reason }, "client stream ended");
  }

  /** Ends the stream, as when the node drains. */
  shutDown(reason: string): void {
    this.#pipe.end({ kind: "shutting-down", reason });
    this.onClose(reason);
  }

  #fail(kind: "malformed" | "too-slow", reason: string): void {
    if (this.#closed) return;
    this.#options.logger.warn({ peer: this.#peer, reason }, "client stream refused");
    this.#pipe.end({ kind, reason });
    this.onClose(reason);
  }

  // --- Bounds ---

  #full(): boolean {
    return (
      this.#requests >= this.#limits.maxRequests ||
      this.#requestBytes >= this.#limits.maxRequestBytes ||
      this.#writer.blocked
    );
  }

  /** Stops reading at the bounds and goes on below them. */
  #regulate(): void {
    if (this.#closed) return;
    while (this.#backlog.length > 0 && !this.#full()) this.#handle(this.#backlog.shift());
    const pause = this.#backlog.length > 0 || this.#full();
    if (pause === this.#paused) return;
    this.#paused = pause;
    if (pause) this.#pipe.pause();
    else this.#pipe.resume();
  }

  #watchForStall(): void {
    if (!this.#writer.blocked || this.#stallTimer !== undefined || this.#closed) return;
    this.#stallTimer = this.#options.clock.setTimer(this.#limits.stallMs, () =>
      this.#fail("too-slow", `nothing was read for ${this.#limits.stallMs} ms`),
    );
  }

  // --- Messages ---

  #handle(message: unknown): void {
    const id = Array.isArray(message) && Number.isSafeInteger(message[1]) ? (message[1] as number) : 0;
    try {
      if (!Array.isArray(message)) throw protocolError("a message must be an array");
      this.#dispatch(message);
    } catch (error) {
      const wire = toWireError(error);
      if (wire[1] === "OSTRAKA_PROTOCOL") this.#countMalformed(wire[2]);
      this.#writer.push([ServerOp.Error, id, wire, this.#stateAfter(message)], wire[2].length);
    }
  }

  /** Of the session that a message which came to nothing was for: what is open there stays open. */
  #stateAfter(message: unknown): SessionState {
    const [op, , name] = Array.isArray(message) ? (message as unknown[]) : [];
    if ((op !== ClientOp.Execute && op !== ClientOp.Batch) || typeof name !== "number") return 0;
    const session = this.#sessions.get(name);
    return session === undefined ? 0 : STATES[session.state()];
  }

  /** Said in the log, but not once a message: that would be the client's way to fill a disk. */
  #countMalformed(reason: string): void {
    this.#malformed++;
    if (this.#malformed === 1)
      this.#options.logger.warn({ peer: this.#peer, reason }, "malformed message from a client");
    if (this.#malformed >= MALFORMED_LIMIT) this.#fail("malformed", "too many malformed messages");
  }

  #dispatch(message: unknown[]): void {
    const op = message[0];
    if (!this.#welcomed) {
      if (op !== ClientOp.Hello) throw protocolError("the first message must be a hello");
      this.#hello(message);
      return;
    }
    switch (op) {
      case ClientOp.Execute:
        this.#execute(message);
        break;
      case ClientOp.Batch:
        this.#batch(message);
        break;
      case ClientOp.Fetch:
        this.#fetch(message);
        break;
      case ClientOp.Cancel:
      case ClientOp.CloseCursor:
        this.#cancel(message, op === ClientOp.CloseCursor);
        break;
      case ClientOp.OpenSession:
        this.#openSession(message);
        break;
      case ClientOp.CloseSession:
        this.#closeSession(message);
        break;
      case ClientOp.Outcome:
        this.#outcome(message);
        break;
      case ClientOp.Admin:
        this.#admin(message);
        break;
      default:
        throw protocolError(`unknown op ${String(op)}`);
    }
  }

  #hello(message: unknown[]): void {
    if (message[1] !== PROTOCOL_VERSION) {
      this.#fail("malformed", `this node speaks protocol ${PROTOCOL_VERSION}, not ${String(message[1])}`);
      return;
    }
    this.#welcomed = true;
    this.#helloTimer?.cancel();
    const { clusterId, nodeId, sqliteVersion } = this.#options;
    const present = this.#present.tell();
    this.#writer.push(
      [ServerOp.Welcome, 0, PROTOCOL_VERSION, clusterId, nodeId, sqliteVersion, ...present],
      80,
    );
  }

  #session(value: unknown): Session {
    if (value === 0) {
      this.#autocommit ??= this.#options.gateway.openSession("autocommit");
      return this.#autocommit;
    }
    const name = readId(value, "the session");
    const session = this.#sessions.get(name);
    if (session !== undefined) return session;
    if (!this.#refused.has(name)) {
      if (this.#refused.size >= this.#limits.maxSessions) throw this.#tooManySessions();
      throw new UserError("OSTRAKA_UNSUPPORTED", `no session ${name}`);
    }
    if (this.#sessions.size >= this.#limits.maxSessions) throw this.#tooManySessions();
    const opened = this.#options.gateway.openSession("session", this.#refused.get(name));
    this.#refused.delete(name);
    this.#sessions.set(name, opened);
    return opened;
  }

  #tooManySessions(): RetryError {
    const limit = this.#limits.maxSessions;
    return new RetryError("OSTRAKA_UNAVAILABLE", `more than ${limit} sessions on a connection`);
  }

  #freshId(value: unknown): number {
    const id = readId(value, "the request's id");
    if (id === 0 || this.#running.has(id)) throw protocolError(`the request's id ${id} is in use`);
    return id;
  }

  #openSession(message: unknown[]): void {
    const id = this.#freshId(message[1]);
    const name = readId(message[2], "the session");
    if (name === 0 || this.#sessions.has(name) || this.#refused.has(name))
      throw protocolError(`the session ${name} is in use`);
    const counts = readCounts(message[3]);
    if (this.#sessions.size >= this.#limits.maxSessions) {
      if (this.#refused.size < this.#limits.maxSessions) this.#refused.set(name, counts);
      throw this.#tooManySessions();
    }
    this.#sessions.set(name, this.#options.gateway.openSession("session", counts));
    this.#writer.push([ServerOp.Done, id], 0);
  }

  #closeSession(message: unknown[]): void {
    const id = this.#freshId(message[1]);
    const name = readId(message[2], "the session");
    if (this.#refused.delete(name)) {
      this.#writer.push([ServerOp.Done, id], 0);
      return;
    }
    const session = this.#session(name);
    if (name === 0) throw protocolError("session 0 cannot be closed");
    this.#sessions.delete(name);
    const request = this.#begin(ServedRequest.plain(id, 0));
    session.close().then(
      () => this.#answer(request, [ServerOp.Done, id], 0),
      (error: unknown) => this.#answerError(request, error, undefined),
    );
  }

  #execute(message: unknown[]): void {
    const id = this.#freshId(message[1]);
    const session = this.#session(message[2]);
    const sql = readString(message[3], "the statement");
    const params = readParams(message[4]);
    const key = readKey(message[5]);
    const sentUnder = readSentUnder(message[5]);
    const timeoutMs = readTimeout(message[6]);
    const want = readId(message[7], "the number of chunks");
    const vector = message[4] instanceof Uint8Array ? message[4] : undefined;
    const bytes = sql.length + (vector?.length ?? 64);
    const request = this.#begin(
      new ServedRequest(id, bytes, sql, params, key, sentUnder, timeoutMs, readRetry(message[8]), vector),
    );
    session.execute(request).then(
      (result) => this.#executed(request, session, result, want),
      (error: unknown) => this.#answerError(request, error, session),
    );
  }

  #executed(request: ServedRequest, session: Session, result: ExecuteResult, want: number): void {
    if (this.#running.get(request.id) !== request) {
      if (result.kind === "stream") result.stream.close().catch(() => undefined);
      return;
    }
    if (result.kind === "stream") {
      this.#openCursor(request, session, result.stream, want);
      return;
    }
    const { columns, columnTypes, rows, rowCount, changes } = result.outcome;
    if (rows.length > MAX_FRAME_BYTES / 2) {
      this.#openCursor(request, session, new OutcomeStream(result.outcome), want);
      this.#advise(changes > 0);
      return;
    }
    const summary = summarize(session, result.outcome);
    const head = [ServerOp.Result, request.id, columns, columnTypes, rows, rowCount, false, summary];
    this.#answer(request, head, rows.length + columns.length * 16);
    this.#advise(changes > 0);
  }

  #advise(wrote: boolean): void {
    const leader = this.#advice.answered(wrote);
    if (leader !== undefined) this.#writer.push([ServerOp.Prefer, 0, leader], 8);
    const present = this.#present.answered();
    if (present !== undefined) this.#writer.push([ServerOp.Present, 0, ...present], 16);
  }

  #openCursor(request: ServedRequest, session: Session, stream: RowStream, want: number): void {
    let parked = false;
    const park = (now: boolean): void => {
      if (now === parked) return;
      parked = now;
      this.#requests += now ? -1 : 1;
      this.#parkedCursors += now ? 1 : -1;
      if (now && this.#parkedCursors > this.#limits.maxCursors) {
        cursor.close();
        const limit = this.#limits.maxCursors;
        owner.ended(
          cutShort(stream, "OSTRAKA_UNAVAILABLE", `more than ${limit} open cursors on a connection`),
        );
      } else this.#regulate();
    };
    const owner: CursorOwner = {
      writer: this.#writer,
      summary: (of) => summarize(session, of),
      parked: park,
      ended: (error) => {
        park(false);
        if (!this.#finish(request, cursor) || error === undefined) return;
        const wire = toWireError(error);
        this.#writer.push([ServerOp.Error, request.id, wire, STATES[session.state()]], wire[2].length);
      },
    };
    const cursor = new ClientCursor(request.id, stream, want, owner);
    this.#cursorOwners.set(cursor, { request, session, stream, park });
    this.#running.set(request.id, cursor);
    void cursor.pump();
  }

  readonly #cursorOwners = new WeakMap<
    ClientCursor,
    {
      readonly request: ServedRequest;
      readonly session: Session;
      readonly stream: RowStream;
      readonly park: (parked: boolean) => void;
    }
  >();

  #batch(message: unknown[]): void {
    const id = this.#freshId(message[1]);
    const session = this.#session(message[2]);
    if (!Array.isArray(message[3])) throw protocolError("a batch must be an array");
    let bytes = 64;
    const statements = (message[3] as unknown[]).map((item) => {
      if (!Array.isArray(item)) throw protocolError("a batch's statement must be an array");
      const sql = readString(item[0], "the statement");
      bytes += sql.length + (item[1] instanceof Uint8Array ? item[1].length : 64);
      return { sql, params: readParams(item[1]) };
    });
    const request = this.#begin(
      new ServedRequest(
        id,
        bytes,
        "",
        [],
        readKey(message[4]),
        readSentUnder(message[4]),
        readTimeout(message[5]),
        undefined,
        undefined,
      ),
    );
    session.batch(statements, request).then(
      (outcomes) => this.#batched(request, session, outcomes),
      (error: unknown) => this.#answerError(request, error, session),
    );
  }

  #batched(request: ServedRequest, session: Session, outcomes: readonly StatementOutcome[]): void {
    this.#advise(outcomes.some(({ changes }) => changes > 0));
    let bytes = 0;
    const results = outcomes.map((outcome) => {
      bytes += outcome.rows.length + 64;
      return [
        outcome.columns,
        outcome.columnTypes,
        outcome.rows,
        outcome.rowCount,
        summarize(session, outcome),
      ];
    });
    if (bytes <= MAX_FRAME_BYTES / 2) {
      this.#answer(request, [ServerOp.Batch, request.id, results], bytes);
      return;
    }
    // What was written stays written; only the rows are too many to be told.
    const told = outcomes.map((o) => [o.columns, o.columnTypes, null, o.rowCount, summarize(session, o)]);
    this.#answer(request, [ServerOp.Batch, request.id, told], told.length * 64);
  }

  #fetch(message: unknown[]): void {
    const cursor = this.#running.get(readId(message[1], "the cursor"));
    // It may have ended while the credits were under way.
    if (cursor instanceof ClientCursor) cursor.fetch(readId(message[2], "the number of chunks"));
  }

  #cancel(message: unknown[], quiet: boolean): void {
    const id = readId(message[1], "the request's id");
    const running = this.#running.get(id);
    if (running instanceof ServedRequest) {
      running.abort();
      return;
    }
    if (running === undefined) {
      // Still waiting for room: it never starts.
      const at = this.#backlog.findIndex((m) => Array.isArray(m) && m[1] === id && !isControl(m));
      if (at < 0) return;
      const [message] = this.#backlog.splice(at, 1);
      const wire = ["retry", "OSTRAKA_TIMEOUT", "cancelled before it began", null];
      this.#writer.push([ServerOp.Error, id, wire, this.#stateAfter(message)], 32);
      return;
    }
    running.close();
    const owner = this.#cursorOwners.get(running)!;
    owner.park(false);
    owner.request.abort();
    this.#finish(owner.request, running);
    if (quiet) return;
    const wire = toWireError(cutShort(owner.stream, "OSTRAKA_TIMEOUT", "interrupted"));
    this.#writer.push([ServerOp.Error, id, wire, STATES[owner.session.state()]], 32);
  }

  #outcome(message: unknown[]): void {
    const id = this.#freshId(message[1]);
    const transaction = readString(message[2], "the transaction's id");
    this.#json(id, this.#options.gateway.outcome(transaction));
  }

  #admin(message: unknown[]): void {
    const id = this.#freshId(message[1]);
    const verb = readString(message[2], "the verb");
    const args = message[3];
    if (typeof args !== "object" || args === null || Array.isArray(args) || args instanceof Uint8Array)
      throw protocolError("an operation's arguments must be an object");
    this.#json(id, this.#options.gateway.admin(verb, args as Record<string, unknown>));
  }

  #json(id: number, value: Promise<unknown>): void {
    const request = this.#begin(ServedRequest.plain(id, 64));
    value
      .then((answer) => {
        // What cannot be packed must fail here and not when the turn's frame is made, where others would suffer.
        const bytes = packMessages([answer]).length;
        this.#answer(request, [ServerOp.Json, id, answer], bytes);
      })
      .catch((error: unknown) => this.#answerError(request, error, undefined));
  }

  // --- Requests ---

  #begin(request: ServedRequest): ServedRequest {
    this.#running.set(request.id, request);
    this.#requests++;
    this.#requestBytes += request.bytes;
    return request;
  }

  /** False when the stream has ended, or the request with it. */
  #finish(request: ServedRequest, running: Running): boolean {
    if (this.#running.get(request.id) !== running) return false;
    this.#running.delete(request.id);
    this.#requests--;
    this.#requestBytes -= request.bytes;
    if (this.#paused) this.#regulate();
    return true;
  }

  #answer(request: ServedRequest, message: readonly unknown[], bytes: number): void {
    if (this.#running.get(request.id) !== request) return;
    this.#writer.push(message, bytes);
    this.#finish(request, request);
  }

  #answerError(request: ServedRequest, error: unknown, session: Session | undefined): void {
    const wire = toWireError(error);
    if (wire[0] === "fatal")
      this.#options.logger.warn(
        { peer: this.#peer, code: wire[1], error: wire[2] },
        "a request failed badly",
      );
    const state = session === undefined ? 0 : STATES[session.state()];
    this.#answer(request, [ServerOp.Error, request.id, wire, state], wire[2].length);
  }
}

/** What was written is not undone because its rows were not told. */
function cutShort(stream: RowStream, code: RetryCode, message: string): OstrakaError {
  return stream instanceof OutcomeStream
    ? new AmbiguousError(`${message}; the statement was carried out`, undefined)
    : new RetryError(code, message);
}

function isControl(message: unknown): boolean {
  const op = Array.isArray(message) ? message[0] : undefined;
  return op === ClientOp.Fetch || op === ClientOp.Cancel || op === ClientOp.CloseCursor;
}

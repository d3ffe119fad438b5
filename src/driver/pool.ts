/**
 * The cluster as the driver reaches it: a link to one live host, another one when it goes down, a queue for calls
 * while there is none, deadlines, idempotency keys, and the end of it all.
 *
 * Invariants
 * 1. A call submitted is settled: answered, past its deadline, or rejected by `close`.
 * 2. Sequences grow by one; `lowestUnanswered` never passes one that may be sent again.
 *
 * Hosts are tried from a random one on, the next one joining in when one has not answered for a moment; the first to
 * say welcome is taken. Writers go over to the leader's node later (move.ts).
 */
import type { Clock, Random, Timer } from "../base/io.js";
import type { WireKey } from "../rpc/protocol.js";
import { OstrakaError, unavailable } from "./errors.js";
import { type Call, type Dial, Link, type LinkOwner } from "./link.js";
import { Move } from "./move.js";
import type { ServerInfo } from "./types.js";

const STAGGER_MS = 500;
/** A host that takes the connection and says nothing is let go after this. */
const WELCOME_MS = 5_000;
const FIRST_BACKOFF_MS = 25;
const MAX_BACKOFF_MS = 1000;
/** Deadlines are looked at this often. */
const SWEEP_MS = 50;
/** How long, and for how many writes, an unknown outcome is kept to be asked for. */
const DOUBT_MS = 10 * 60_000;
const MAX_DOUBTS = 1000;
/** How long a node may overrun a deadline with an answer that is better than ours. */
export const GRACE_MS = 1000;

/** A call with an owner who waits. */
export interface PooledCall extends Call {
  /** Where the pool has it; -1 where it has it not. */
  place: number;
  readonly deadlineMs: number;
  /** Past its deadline (`overdue`: and past the grace after it). True when it gave up. */
  expire(overdue: boolean): boolean;
  /** Nothing more will come. */
  abandon(error: OstrakaError): void;
}

export interface PoolOptions {
  readonly hosts: readonly string[];
  readonly dial: (host: string) => Dial;
  readonly clock: Clock;
  readonly random: Random;
}

export class Pool implements LinkOwner {
  readonly clock: Clock;
  readonly random: Random;
  readonly clientName: string;
  readonly #options: PoolOptions;
  /** Without order: what leaves is replaced by the last. A Set of so short lives would be the garbage collector's ruin. */
  readonly #live: PooledCall[] = [];
  readonly #links = new Set<Link>();
  readonly #unanswered = new Set<number>();
  /** Sequences of writes that ended with an unknown outcome, and since when. */
  readonly #doubts = new Map<number, number>();
  #waiting: { readonly call: PooledCall; take(link: Link): void }[] = [];
  #current: Link | undefined;
  #server: ServerInfo | undefined;
  #told: { readonly wallMs: number; readonly atMs: number } | undefined;
  #nextSequence = 1;
  #nextHost: number;
  readonly #attempts = new Map<Link, Timer>();
  readonly #move: Move;
  #failures = 0;
  #lastFailure = "no host was tried";
  #dialTimer: Timer | undefined;
  #sweepTimer: Timer | undefined;
  #closed = false;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.clock = options.clock;
    this.random = options.random;
    this.clientName = Buffer.from(options.random.bytes(12)).toString("base64url");
    this.#nextHost = options.random.uint32() % options.hosts.length;
    const arrived = (link: Link): void => this.#moveTo(link);
    this.#move = new Move({ ...options, welcomeMs: WELCOME_MS, arrived });
  }

  get server(): ServerInfo {
    const server = this.#current?.server ?? this.#server;
    if (server === undefined) throw unavailable("not connected yet");
    return server;
  }

  get closed(): boolean {
    return this.#closed;
  }

  get lastFailure(): string {
    return this.#lastFailure;
  }

  // --- Idempotency keys ---

  newSequence(): number {
    this.#endOldDoubts();
    const sequence = this.#nextSequence++;
    this.#unanswered.add(sequence);
    return sequence;
  }

  /** Nobody will send or ask for it again. */
  answered(sequence: number): void {
    this.#unanswered.delete(sequence);
    this.#doubts.delete(sequence);
  }

  /**
   * Its caller was told that the outcome is unknown, and may ask: while the sequence counts as unanswered, the range
   * keeps the answer.
   */
  doubted(sequence: number): void {
    this.#doubts.set(sequence, this.clock.monotonicMs());
  }

  /** The outcome of that name is known for good. */
  resolved(transactionId: string): void {
    const [client, rest = ""] = transactionId.split(":", 2);
    if (client === this.clientName) this.answered(Number.parseInt(rest, 10));
  }

  #endOldDoubts(): void {
    const oldest = this.clock.monotonicMs() - DOUBT_MS;
    for (const [sequence, sinceMs] of this.#doubts) {
      if (sinceMs >= oldest && this.#doubts.size <= MAX_DOUBTS) return;
      this.answered(sequence);
    }
  }

  /** `sentUnder`: the version of the schema that was known when it was sent before, if it may have been applied then. */
  key(sequence: number, issuedMs: number, sentUnder?: number): WireKey {
    // A Set keeps the order of insertion, which is that of the sequences.
    const [lowest = sequence] = this.#unanswered;
    return sentUnder === undefined
      ? [this.clientName, sequence, lowest, issuedMs]
      : [this.clientName, sequence, lowest, issuedMs, sentUnder];
  }

  /** The time by the nodes' clock, as one of them told it last: that of this machine may be wrong. */
  issueMs(): number {
    if (this.#told === undefined) return this.clock.wallMs();
    return Math.floor(this.#told.wallMs + this.clock.monotonicMs() - this.#told.atMs);
  }

  told(wallMs: number): void {
    this.#told = { wallMs, atMs: this.clock.monotonicMs() };
  }

  /**
   * What a write is called whose outcome is asked for, as gateways call it. Without the time nobody could tell whether its
   * answer has been forgotten.
   */
  nameOf(sequence: number, issuedMs: number): string {
    return `${this.clientName}:${sequence}@${Math.floor(issuedMs).toString(36)}`;
  }

  // --- Calls ---

  /** Watches over the call until `done`. Throws when the pool is closed. */
  begin(call: PooledCall): void {
    if (this.#closed) throw closedError();
    call.place = this.#live.length;
    this.#live.push(call);
    this.#sweepTimer ??= this.clock.setTimer(SWEEP_MS, () => this.#sweep());
  }

  done(call: PooledCall): void {
    const { place } = call;
    if (place < 0) return;
    call.place = -1;
    const last = this.#live.pop()!;
    if (last === call) return;
    this.#live[place] = last;
    last.place = place;
  }

  /** The link that new calls go over; undefined while there is none. */
  get current(): Link | undefined {
    return this.#current;
  }

  /** Calls `take` with a link as soon as there is one: at once, or later; never after `close` or the call's end. */
  withLink(call: PooledCall, take: (link: Link) => void): void {
    if (this.#current !== undefined) take(this.#current);
    else {
      this.#waiting.push({ call, take });
      this.#connect();
    }
  }

  /** Jittered delays that grow with `attempt`, from 0. */
  backoffMs(attempt: number, firstMs = 10): number {
    return Math.min(MAX_BACKOFF_MS, firstMs * 2 ** Math.min(attempt, 10)) * (0.5 + this.random.float());
  }

  #sweep(): void {
    this.#sweepTimer = undefined;
    const now = this.clock.monotonicMs();
    for (const call of this.#live.filter(({ deadlineMs }) => now >= deadlineMs))
      if (call.place >= 0 && call.expire(now >= call.deadlineMs + GRACE_MS)) this.done(call);
    // While no host answers, calls come and go: those that gave up are not kept.
    this.#waiting = this.#waiting.filter(({ call }) => call.place >= 0);
    if (this.#live.length > 0) this.#sweepTimer = this.clock.setTimer(SWEEP_MS, () => this.#sweep());
  }

  // --- Links ---

  #connect(): void {
    if (this.#closed || this.#current !== undefined || this.#dialTimer !== undefined) return;
    if (this.#attempts.size > 0) return;
    this.#dialNext();
  }

  #dialNext(): void {
    this.#dialTimer = undefined;
    if (this.#closed || this.#current !== undefined) return;
    const { hosts, dial } = this.#options;
    const trying = new Set([...this.#attempts.keys()].map((link) => link.host));
    for (let i = 0; i < hosts.length; i++) {
      const host = hosts[this.#nextHost++ % hosts.length]!;
      if (trying.has(host)) continue;
      const link = new Link(host, dial(host), this);
      this.#links.add(link);
      this.#attempts.set(
        link,
        this.clock.setTimer(WELCOME_MS, () => link.close("it took the connection and said nothing")),
      );
      break;
    }
    if (this.#attempts.size < hosts.length) this.#dialLater(STAGGER_MS);
  }

  #dialLater(delayMs: number): void {
    this.#dialTimer?.cancel();
    this.#dialTimer = this.clock.setTimer(delayMs, () => this.#dialNext());
  }

  ready(link: Link): void {
    this.#endAttempt(link);
    if (this.#current !== undefined || this.#closed) {
      link.close("not needed");
      return;
    }
    const known = this.#server?.clusterId;
    if (known !== undefined && known !== link.server!.clusterId) {
      link.close(`${link.host} belongs to another cluster`);
      this.#lastFailure = `${link.host} belongs to another cluster`;
      this.#retryDialing();
      return;
    }
    this.#current = link;
    this.#server = link.server;
    this.#failures = 0;
    this.#dialTimer?.cancel();
    this.#dialTimer = undefined;
    for (const other of [...this.#attempts.keys()]) {
      this.#endAttempt(other);
      other.close("another host was first");
    }
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { take } of waiting) take(link);
  }

  #endAttempt(link: Link): boolean {
    this.#attempts.get(link)?.cancel();
    return this.#attempts.delete(link);
  }

  down(link: Link, reason: string, refused: boolean): void {
    this.#links.delete(link);
    const attempt = this.#endAttempt(link);
    if (attempt || this.#current === link) this.#lastFailure = `${link.host}: ${reason}`;
    if (this.#current === link) this.#current = undefined;
    if (attempt) this.#failures++;
    if (attempt && refused && this.#current === undefined) {
      this.#refused(reason);
      return;
    }
    if (this.#current === undefined && (attempt || this.#waiting.length > 0)) this.#retryDialing();
  }

  /** Who waits need not wait for the deadline to hear that the token is wrong. */
  #refused(reason: string): void {
    this.#waiting = [];
    this.#dialTimer?.cancel();
    this.#dialTimer = undefined;
    for (const call of [...this.#live]) call.abandon(new OstrakaError("OSTRAKA_UNAUTHENTICATED", reason));
  }

  /** At once while there are hosts not tried since the last success, then with growing pauses. */
  #retryDialing(): void {
    if (this.#closed || (this.#waiting.length === 0 && this.#attempts.size === 0)) return;
    const round = Math.floor(this.#failures / this.#options.hosts.length);
    if (round === 0) {
      this.#dialTimer?.cancel();
      this.#dialNext();
    } else if (this.#attempts.size === 0) this.#dialLater(this.backoffMs(round - 1, FIRST_BACKOFF_MS));
  }

  /** This node answers that it cannot serve: new calls try another host, if there is one. */
  avoid(link: Link): void {
    if (this.#current !== link || this.#options.hosts.length < 2) return;
    this.#current = undefined;
    link.retire();
  }

  prefer(link: Link, node: number): void {
    if (this.#current === link && !this.#closed) this.#move.begin(node, link);
  }

  /** What the link in use carries stays there, with its sessions; everything new goes to the other node. */
  #moveTo(link: Link): void {
    link.handOver(this);
    this.#links.add(link);
    const before = this.#current;
    if (before?.server?.clusterId === link.server?.clusterId) this.#current = undefined;
    this.ready(link);
    if (this.#current === link) before?.retire();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#move.close();
    this.#dialTimer?.cancel();
    this.#sweepTimer?.cancel();
    this.#waiting = [];
    for (const call of [...this.#live]) call.abandon(closedError());
    for (const call of [...this.#live]) this.done(call);
    for (const link of [...this.#links]) link.close("the database was closed");
  }
}

export function closedError(): OstrakaError {
  return new OstrakaError("OSTRAKA_CLOSED", "the database is closed");
}

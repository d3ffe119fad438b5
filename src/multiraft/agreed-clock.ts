/**
 * A node's clock, corrected by its peers': where its own wall time is more than a second from the median of its and
 * theirs, the median counts. A leader with a clock of its own would stamp rows with it, and the ranges that it led would
 * keep it for as long as it was ahead.
 *
 * Every frame says what its sender's wall clock showed. A frame that travelled long shows a time that is over, so of
 * what a peer has said for a while the latest in relation to this node's monotonic clock counts; jumps of this node's
 * wall clock make no difference to that.
 *
 * Order never depends on wall time: this is for what is stamped, and for how long outcomes are kept.
 */
import type { NodeId } from "../base/ids.js";
import type { Clock, Timer } from "../base/io.js";

/** Clocks that are kept by NTP are far closer. */
const TOLERANCE_MS = 1_000;
/** What a peer has said counts for one to two of these. */
const PERIOD_MS = 10_000;
/** A correction is reckoned anew after this, and when the own wall clock jumps. */
const FRESH_MS = 100;
const JUMP_MS = 2;

/** A peer's wall time less this node's monotonic time: the greatest of this period and of the one before. */
interface Heard {
  sinceMs: number;
  now: number;
  before: number | undefined;
}

export class AgreedClock implements Clock {
  readonly #clock: Clock;
  readonly #peers = new Map<NodeId, Heard>();
  #correctionMs = 0;
  #base = Number.NaN;
  #freshUntilMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  monotonicMs(): number {
    return this.#clock.monotonicMs();
  }

  setTimer(delayMs: number, fire: () => void): Timer {
    return this.#clock.setTimer(delayMs, fire);
  }

  wallMs(): number {
    return this.#clock.wallMs() + this.correctionMs();
  }

  /** This node's own wall time, as its peers are told it. */
  ownWallMs(): number {
    return this.#clock.wallMs();
  }

  /** A peer's wall clock showed this when it sent what has just arrived. Anything that is no time is ignored. */
  heard(peer: NodeId, wallMs: number): void {
    if (!Number.isFinite(wallMs)) return;
    const nowMs = this.#clock.monotonicMs();
    const base = wallMs - nowMs;
    const heard = this.#peers.get(peer);
    if (heard === undefined || nowMs - heard.sinceMs >= 2 * PERIOD_MS)
      this.#peers.set(peer, { sinceMs: nowMs, now: base, before: undefined });
    else if (nowMs - heard.sinceMs >= PERIOD_MS)
      this.#peers.set(peer, { sinceMs: nowMs, now: base, before: heard.now });
    else heard.now = Math.max(heard.now, base);
  }

  /** What `wallMs` adds to this node's own wall time; 0 while that is near its peers'. */
  correctionMs(): number {
    const nowMs = this.#clock.monotonicMs();
    const base = this.#clock.wallMs() - nowMs;
    if (nowMs < this.#freshUntilMs && Math.abs(base - this.#base) <= JUMP_MS) return this.#correctionMs;
    this.#base = base;
    this.#freshUntilMs = nowMs + FRESH_MS;
    const off = this.#median(base, nowMs) - base;
    this.#correctionMs = Math.abs(off) > TOLERANCE_MS ? Math.round(off) : 0;
    return this.#correctionMs;
  }

  /** Of two in the middle, that which is nearer to this node's own. */
  #median(own: number, nowMs: number): number {
    const bases = [own];
    for (const { sinceMs, now, before } of this.#peers.values())
      if (nowMs - sinceMs < 2 * PERIOD_MS) bases.push(Math.max(now, before ?? now));
    bases.sort((a, b) => a - b);
    const low = bases[(bases.length - 1) >> 1]!;
    const high = bases[bases.length >> 1]!;
    return Math.abs(low - own) <= Math.abs(high - own) ? low : high;
  }
}

/**
 * The reservations of one leadership (src/txn/reservations.ts) as promises, with the clock that lets them expire.
 */
import { RetryError } from "../base/errors.js";
import type { TransactionId } from "../base/ids.js";
import type { Clock, Timer } from "../base/io.js";
import type { Span } from "../sql/types.js";
import { type Granted, Reservations } from "../txn/reservations.js";

interface Waiting {
  readonly pass: () => void;
  readonly refuse: (error: Error) => void;
}

export class ReservationLine {
  readonly #clock: Clock;
  readonly #reservations: Reservations;
  readonly #reserving = new Map<TransactionId, Waiting>();
  readonly #waiting = new Map<number, Waiting>();
  #timer: Timer | undefined;

  /** `holdMs`: a reservation whose holder does nothing for so long is let go. */
  constructor(clock: Clock, holdMs: number) {
    this.#clock = clock;
    this.#reservations = new Reservations(holdMs);
  }

  get empty(): boolean {
    return this.#reservations.size === 0;
  }

  /** Resolves when it is the transaction's turn; `ageMs` is how long ago it was first tried. */
  reserve(id: TransactionId, spans: readonly Span[], ageMs: number): Promise<void> {
    const nowMs = this.#clock.monotonicMs();
    return new Promise((resolve, reject) => {
      // Asked for again, as its answer was lost: whoever asked first waits for the same turn.
      const before = this.#reserving.get(id);
      const pass = (): void => {
        before?.pass();
        resolve();
      };
      const refuse = (error: Error): void => {
        before?.refuse(error);
        reject(error);
      };
      this.#reserving.set(id, { pass, refuse });
      this.#passOn(this.#reservations.reserve(id, spans, nowMs - ageMs, nowMs));
      if (this.#reservations.isGranted(id)) this.#grant(id);
    });
  }

  /** Reserves what a statement touches, and waits for it so long at most. */
  more(id: TransactionId, spans: readonly Span[], ageMs: number, maxMs: number): Promise<void> {
    const nowMs = this.#clock.monotonicMs();
    return new Promise((resolve, refuse) => {
      const timer = this.#clock.setTimer(maxMs, () => {
        this.#reserving.delete(id);
        this.#passOn(this.#reservations.giveUp(id, this.#clock.monotonicMs()));
        resolve();
      });
      const settled = (settle: () => void): void => {
        timer.cancel();
        settle();
      };
      this.#reserving.set(id, {
        pass: () => settled(resolve),
        refuse: (error) => settled(() => refuse(error)),
      });
      this.#passOn(this.#reservations.more(id, spans, nowMs - ageMs, nowMs));
      if (this.#reservations.isGranted(id)) this.#grant(id);
    });
  }

  /** The holder is at work: its time begins anew. */
  renew(id: TransactionId): void {
    if (!this.empty) this.#reservations.renew(id, this.#clock.monotonicMs());
  }

  release(id: TransactionId): void {
    if (this.empty) return;
    const waiting = this.#reserving.get(id);
    this.#reserving.delete(id);
    waiting?.refuse(new RetryError("OSTRAKA_RETRY", "the transaction ended while it waited for its turn"));
    this.#passOn(this.#reservations.release(id, this.#clock.monotonicMs()));
  }

  /** Resolves once no other transaction holds a reservation on any of `spans`. */
  waitFor(spans: readonly Span[], id: TransactionId | undefined): Promise<void> {
    const ticket = this.empty ? undefined : this.#reservations.wait(spans, id);
    if (ticket === undefined) return Promise.resolve();
    return new Promise((pass, refuse) => {
      this.#waiting.set(ticket, { pass, refuse });
      this.#watch();
    });
  }

  /** The same for so long at most; false when it had to be given up. */
  waitAtMost(spans: readonly Span[], id: TransactionId, maxMs: number): Promise<boolean> {
    const ticket = this.empty ? undefined : this.#reservations.wait(spans, id);
    if (ticket === undefined) return Promise.resolve(true);
    return new Promise((resolve, refuse) => {
      const timer = this.#clock.setTimer(maxMs, () => {
        this.#waiting.delete(ticket);
        this.#passOn(this.#reservations.cancel(ticket, this.#clock.monotonicMs()));
        resolve(false);
      });
      const pass = (): void => {
        timer.cancel();
        resolve(true);
      };
      this.#waiting.set(ticket, { pass, refuse });
      this.#watch();
    });
  }

  /** Leadership ended: nobody waits here any longer. */
  clear(): void {
    this.#timer?.cancel();
    for (const { refuse } of this.#reserving.values()) {
      refuse(new RetryError("OSTRAKA_RETRY", "leadership changed; run the transaction again"));
    }
    for (const { pass } of this.#waiting.values()) pass();
    this.#reserving.clear();
    this.#waiting.clear();
  }

  #passOn({ reservations, waiters }: Granted): void {
    for (const id of reservations) this.#grant(id);
    for (const ticket of waiters) {
      this.#waiting.get(ticket)?.pass();
      this.#waiting.delete(ticket);
    }
    this.#watch();
  }

  #grant(id: TransactionId): void {
    this.#reserving.get(id)?.pass();
    this.#reserving.delete(id);
  }

  /** Expiry matters only while somebody waits. */
  #watch(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    const nextMs = this.#reservations.nextExpiryMs();
    if (nextMs === undefined || (this.#waiting.size === 0 && this.#reserving.size === 0)) return;
    const delayMs = Math.max(1, nextMs - this.#clock.monotonicMs() + 1);
    this.#timer = this.#clock.setTimer(delayMs, () =>
      this.#passOn(this.#reservations.advance(this.#clock.monotonicMs())),
    );
  }
}

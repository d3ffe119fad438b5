/**
 * The line in which transactions wait that have lost before (and those that must not lose): the one at the head has
 * its footprint to itself until it ends, so that contention ends in a line and not in starvation.
 *
 * Oldest first (by `age`), soft state: a reservation whose holder does not end expires after a bounded time, and the
 * line vanishes with the leadership. Commits and autocommit writes that intersect a held reservation wait for it.
 */
import { RetryError } from "../base/errors.js";
import type { TransactionId } from "../base/ids.js";
import type { Clock, Timer } from "../base/io.js";
import type { Span } from "../sql/types.js";
import { anyIntersect } from "../txn/spans.js";

interface Reservation {
  readonly id: TransactionId;
  readonly spans: readonly Span[];
  /** When the transaction was first tried, on the leader's clock. */
  readonly sinceMs: number;
  readonly order: number;
  held: boolean;
  timer: Timer | undefined;
  readonly granted: () => void;
  readonly refused: (error: Error) => void;
}

interface Waiter {
  readonly spans: readonly Span[];
  readonly id: TransactionId | undefined;
  readonly pass: () => void;
}

export class ReservationLine {
  readonly #clock: Clock;
  readonly #holdMs: number;
  readonly #reservations = new Map<TransactionId, Reservation>();
  #waiters: Waiter[] = [];
  #order = 0;

  constructor(clock: Clock, holdMs: number) {
    this.#clock = clock;
    this.#holdMs = holdMs;
  }

  get empty(): boolean {
    return this.#reservations.size === 0;
  }

  /** Resolves when every older reservation that intersects has ended. */
  reserve(id: TransactionId, spans: readonly Span[], ageMs: number): Promise<void> {
    if (this.#reservations.has(id)) return Promise.resolve();
    return new Promise((granted, refused) => {
      const sinceMs = this.#clock.monotonicMs() - ageMs;
      this.#reservations.set(id, {
        id,
        spans,
        sinceMs,
        order: ++this.#order,
        held: false,
        timer: undefined,
        granted,
        refused,
      });
      this.#advance();
    });
  }

  /** The holder is at work: its time begins anew. */
  renew(id: TransactionId): void {
    const reservation = this.#reservations.get(id);
    if (reservation?.held !== true) return;
    reservation.timer?.cancel();
    reservation.timer = this.#clock.setTimer(this.#holdMs, () => this.release(id));
  }

  release(id: TransactionId): void {
    const reservation = this.#reservations.get(id);
    if (reservation === undefined) return;
    this.#reservations.delete(id);
    reservation.timer?.cancel();
    if (!reservation.held)
      reservation.refused(
        new RetryError("OSTRAKA_RETRY", "the transaction ended while it waited for its turn"),
      );
    this.#advance();
  }

  /** Resolves once no other transaction holds a reservation on any of `spans`. */
  waitFor(spans: readonly Span[], id: TransactionId | undefined): Promise<void> {
    if (!this.#isHeld(spans, id)) return Promise.resolve();
    return new Promise((pass) => this.#waiters.push({ spans, id, pass }));
  }

  #isHeld(spans: readonly Span[], id: TransactionId | undefined): boolean {
    for (const reservation of this.#reservations.values()) {
      if (reservation.held && reservation.id !== id && anyIntersect(reservation.spans, spans)) return true;
    }
    return false;
  }

  #advance(): void {
    const line = [...this.#reservations.values()].sort(
      (a, b) => Number(b.held) - Number(a.held) || a.sinceMs - b.sinceMs || a.order - b.order,
    );
    const ahead: Reservation[] = [];
    for (const reservation of line) {
      if (!reservation.held && !ahead.some((other) => anyIntersect(other.spans, reservation.spans)))
        this.#grant(reservation);
      ahead.push(reservation);
    }
    const waiters = this.#waiters;
    this.#waiters = waiters.filter(({ spans, id }) => this.#isHeld(spans, id));
    for (const waiter of waiters) if (!this.#waiters.includes(waiter)) waiter.pass();
  }

  #grant(reservation: Reservation): void {
    reservation.held = true;
    reservation.timer = this.#clock.setTimer(this.#holdMs, () => this.release(reservation.id));
    reservation.granted();
  }

  /** Leadership ended: nobody waits here any longer. */
  clear(): void {
    for (const id of [...this.#reservations.keys()]) this.release(id);
    for (const waiter of this.#waiters) waiter.pass();
    this.#waiters = [];
  }
}

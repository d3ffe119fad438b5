/**
 * The line for transactions that lost before, and for those that must not lose: whoever is at its head has its
 * footprint to itself until it ends, so that contention ends in a line and not in starvation.
 *
 * A step-style core: time comes in as values, and every call answers who may go on. Soft state of one leadership.
 *
 * Rules
 * 1. Older transactions first (when first tried, then order of arrival); a reservation is granted when no older one and no
 *    granted one intersects it. So there is no deadlock at one leader; at several, callers take reservations in one global
 *    order of ranges.
 * 2. A granted reservation that is not renewed expires; nobody waits for it after that. Expiry harms nothing but
 *    fairness: reservations only keep others waiting, validation decides alone what may commit.
 * 3. Others wait while a granted reservation of somebody else intersects what they touch, in the order in which they came: a
 *    waiter is never passed by a later one that it intersects, so fresh writes cannot keep an old one waiting for ever.
 * 4. What a transaction touches may become known as it goes: it reserves more, at the age of its first reservation. Having
 *    some it waits for others, so two may wait for one another; such waits are bounded by whoever asks (`giveUp`), and
 *    what could not be reserved is touched without.
 * 5. Waiting comes before validation. When a wait ends, validation and proposing follow in one step without a pause.
 */
import type { TransactionId } from "../base/ids.js";
import type { Span } from "../sql/types.js";
import { anyIntersect, covers } from "./spans.js";

interface Reservation {
  readonly id: TransactionId;
  readonly spans: readonly Span[];
  readonly sinceMs: number;
  readonly order: number;
  /** Undefined until granted. */
  expiresMs: number | undefined;
}

interface Waiter {
  readonly ticket: number;
  readonly id: TransactionId | undefined;
  readonly spans: readonly Span[];
}

/** Who may go on after a step. */
export interface Granted {
  readonly reservations: readonly TransactionId[];
  /** Tickets of `wait`, in the order in which they came. */
  readonly waiters: readonly number[];
}

export class Reservations {
  readonly #holdMs: number;
  /** In line order. */
  #line: Reservation[] = [];
  #waiters: Waiter[] = [];
  #order = 0;
  #ticket = 0;

  /** @param holdMs how long a granted reservation lasts without being renewed. */
  constructor(holdMs: number) {
    this.#holdMs = holdMs;
  }

  get size(): number {
    return this.#line.length;
  }

  /** All that it asked for. */
  isGranted(id: TransactionId): boolean {
    const own = this.#of(id);
    return own.length > 0 && own.every(({ expiresMs }) => expiresMs !== undefined);
  }

  /** When `advance` has something to do next; undefined when nothing expires. */
  nextExpiryMs(): number | undefined {
    let next: number | undefined;
    for (const { expiresMs } of this.#line) {
      if (expiresMs !== undefined && (next === undefined || expiresMs < next)) next = expiresMs;
    }
    return next;
  }

  /** Joins the line; `sinceMs` is when the transaction was first tried. A second call for the same id changes nothing. */
  reserve(id: TransactionId, spans: readonly Span[], sinceMs: number, nowMs: number): Granted {
    this.#expire(nowMs);
    if (this.#of(id).length === 0) this.#join(id, spans, sinceMs);
    return this.advance(nowMs);
  }

  /** Reserves what is not reserved for it yet. */
  more(id: TransactionId, spans: readonly Span[], sinceMs: number, nowMs: number): Granted {
    this.#expire(nowMs);
    const own = this.#of(id);
    const missing = spans.filter(
      (span) => !own.some((other) => other.spans.some((has) => covers(has, span))),
    );
    if (missing.length > 0) this.#join(id, missing, own[0]?.sinceMs ?? sinceMs);
    return this.advance(nowMs);
  }

  /** It does not wait any longer; what it has it keeps. */
  giveUp(id: TransactionId, nowMs: number): Granted {
    this.#line = this.#line.filter((other) => other.id !== id || other.expiresMs !== undefined);
    return this.advance(nowMs);
  }

  #join(id: TransactionId, spans: readonly Span[], sinceMs: number): void {
    this.#line.push({ id, spans, sinceMs, order: ++this.#order, expiresMs: undefined });
    this.#line.sort((a, b) => a.sinceMs - b.sinceMs || a.order - b.order);
  }

  /** The holder is at work: its time begins anew. Answers false when it has no granted reservation (any more). */
  renew(id: TransactionId, nowMs: number): boolean {
    let renewed = false;
    for (const reservation of this.#of(id)) {
      if (reservation.expiresMs === undefined || reservation.expiresMs <= nowMs) continue;
      reservation.expiresMs = nowMs + this.#holdMs;
      renewed = true;
    }
    return renewed;
  }

  /** The transaction ended, or does not want its place any more. */
  release(id: TransactionId, nowMs: number): Granted {
    this.#line = this.#line.filter((reservation) => reservation.id !== id);
    return this.advance(nowMs);
  }

  /**
   * Asks to touch `spans`; undefined when that may happen now, else a ticket that a later step answers. `id` is the
   * transaction that asks, if it is one: its own reservation is not in its way. What has expired counts until `advance`
   * lets it go, and with it everybody who waited for it.
   */
  wait(spans: readonly Span[], id: TransactionId | undefined): number | undefined {
    const holder = this.#has(id);
    const waiter = { ticket: this.#ticket + 1, id, spans };
    // A holder passes those who wait: they wait for it.
    if (!this.#isBlocked(waiter, holder ? [] : this.#waiters)) return undefined;
    this.#ticket = waiter.ticket;
    this.#waiters.push(waiter);
    return waiter.ticket;
  }

  /** Gives up a wait. */
  cancel(ticket: number, nowMs: number): Granted {
    this.#waiters = this.#waiters.filter((waiter) => waiter.ticket !== ticket);
    return this.advance(nowMs);
  }

  /** Lets expired reservations go and grants what can be granted. */
  advance(nowMs: number): Granted {
    this.#expire(nowMs);
    const reservations: TransactionId[] = [];
    this.#line.forEach((reservation, i) => {
      if (reservation.expiresMs !== undefined) return;
      const inTheWay = this.#line.some(
        (other, j) =>
          other.id !== reservation.id &&
          (j < i || other.expiresMs !== undefined) &&
          anyIntersect(other.spans, reservation.spans),
      );
      if (inTheWay) return;
      reservation.expiresMs = nowMs + this.#holdMs;
      reservations.push(reservation.id);
    });
    const waiters: number[] = [];
    const still: Waiter[] = [];
    for (const waiter of this.#waiters) {
      const holder = this.#has(waiter.id);
      if (this.#isBlocked(waiter, holder ? [] : still)) still.push(waiter);
      else waiters.push(waiter.ticket);
    }
    this.#waiters = still;
    return { reservations, waiters };
  }

  /** Some reservation of it is granted. */
  #has(id: TransactionId | undefined): boolean {
    return this.#line.some((other) => other.id === id && other.expiresMs !== undefined);
  }

  #of(id: TransactionId): readonly Reservation[] {
    return this.#line.filter((reservation) => reservation.id === id);
  }

  #expire(nowMs: number): void {
    this.#line = this.#line.filter(({ expiresMs }) => expiresMs === undefined || expiresMs > nowMs);
  }

  #isBlocked(waiter: Waiter, ahead: readonly Waiter[]): boolean {
    for (const { id, spans, expiresMs } of this.#line) {
      if (expiresMs !== undefined && id !== waiter.id && anyIntersect(spans, waiter.spans)) return true;
    }
    return ahead.some((other) => other.id !== waiter.id && anyIntersect(other.spans, waiter.spans));
  }
}

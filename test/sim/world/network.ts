/**
 * The wires between machines, clients among them: delay, loss, duplication, reordering, one-way cuts, and clogs, under
 * which everything waits and comes out at the end. What lives at the ends is not known here: whoever sends says what
 * happens on arrival.
 *
 * Datagrams (frames of the agreement engine) may be lost, doubled and overtake one another; what belongs to a
 * connection (calls, client requests, snapshots) stays in order and is lost only with the connection.
 */
import type { SimClock } from "../sim-clock.js";
import type { SimRandom } from "../sim-random.js";

export interface NetworkWeather {
  loss: number;
  duplicate: number;
  /** Frames may overtake one another. */
  reorder: boolean;
  minDelayMs: number;
  maxDelayMs: number;
}

export const CALM: NetworkWeather = {
  loss: 0,
  duplicate: 0,
  reorder: false,
  minDelayMs: 0.1,
  maxDelayMs: 1,
};

export class SimNetwork {
  readonly #clock: SimClock;
  readonly #random: SimRandom;
  readonly #cuts = new Set<string>();
  readonly #clogs = new Map<string, number>();
  readonly #lags = new Map<string, number>();
  readonly #queues = new Map<string, InOrder>();
  weather: NetworkWeather = { ...CALM };
  sent = 0;

  readonly #unitMs: number;

  /** Connections are found dead within some `unitMs`. */
  constructor(clock: SimClock, random: SimRandom, unitMs: number) {
    this.#clock = clock;
    this.#unitMs = unitMs;
    this.#random = random;
  }

  cut(from: number, to: number): void {
    this.#cuts.add(`${from}>${to}`);
  }

  mend(from: number, to: number): void {
    this.#cuts.delete(`${from}>${to}`);
  }

  heal(): void {
    this.#cuts.clear();
    this.#clogs.clear();
    this.#lags.clear();
    this.weather = { ...CALM };
  }

  /** What is sent on this wire arrives after `ms` at the earliest. */
  clog(from: number, to: number, ms: number): void {
    this.#clogs.set(`${from}>${to}`, this.#clock.monotonicMs() + ms);
  }

  /** The same for datagrams alone: what belongs to connections goes on, past a peer that falls behind. */
  lag(from: number, to: number, ms: number): void {
    this.#lags.set(`${from}>${to}`, this.#clock.monotonicMs() + ms);
  }

  passes(from: number, to: number): boolean {
    return !this.#cuts.has(`${from}>${to}`);
  }

  /** A connection works only both ways. */
  connects(a: number, b: number): boolean {
    return this.passes(a, b) && this.passes(b, a);
  }

  /** Best effort: `arrive` may run never, late, twice, or before what was sent earlier. */
  datagram(from: number, to: number, arrive: () => void): void {
    this.sent++;
    const { loss, duplicate, reorder } = this.weather;
    if (this.#random.chance(loss)) return;
    const copies = this.#random.chance(duplicate) ? 2 : 1;
    const landed = (): void => {
      if (this.passes(from, to)) arrive();
    };
    for (let i = 0; i < copies; i++) {
      const lag = (this.#lags.get(`${from}>${to}`) ?? 0) - this.#clock.monotonicMs();
      const delay = this.#draw(from, to) + Math.max(0, lag);
      if (reorder) this.#clock.setTimer(delay, landed);
      else this.#inOrder(`${from}>${to}/frames`, delay, landed);
    }
  }

  /** Of a connection: in order. `lost` runs instead of `arrive` when the wire is cut on arrival. */
  stream(from: number, to: number, arrive: () => void, lost: () => void): void {
    this.sent++;
    this.#inOrder(`${from}>${to}/stream`, this.#draw(from, to), () => {
      if (this.connects(from, to)) arrive();
      else lost();
    });
  }

  /** How long it takes to find out that a connection is dead. */
  detectionMs(): number {
    return this.#random.chance(0.5)
      ? this.#random.between(1, 20)
      : this.#random.between(this.#unitMs / 2, this.#unitMs * 4);
  }

  #draw(from: number, to: number): number {
    const { minDelayMs, maxDelayMs } = this.weather;
    const drawn = minDelayMs + this.#random.float() * (maxDelayMs - minDelayMs);
    const clogged = (this.#clogs.get(`${from}>${to}`) ?? 0) - this.#clock.monotonicMs();
    return Math.max(0, clogged) + drawn;
  }

  #inOrder(wire: string, delayMs: number, arrive: () => void): void {
    const now = this.#clock.monotonicMs();
    let queue = this.#queues.get(wire);
    if (queue === undefined) {
      queue = new InOrder();
      this.#queues.set(wire, queue);
    }
    queue.push(now, delayMs, arrive, (ms, run) => void this.#clock.setTimer(ms, run));
  }
}

/** First in, first out, each after its delay at the earliest; no rounding of times changes the order. */
export class InOrder {
  readonly #waiting: (() => void)[] = [];
  #last = 0;

  push(now: number, delayMs: number, run: () => void, after: (ms: number, run: () => void) => void): void {
    this.#last = Math.max(now + delayMs, this.#last);
    this.#waiting.push(run);
    after(this.#last - now, () => this.#waiting.shift()?.());
  }
}

/**
 * Delivers the coordinator's outbox rows to the ranges they are for, while this node leads. One of these belongs to one
 * leadership: it begins with all rows that are there, is given the new ones, and ends with it.
 *
 * Invariants:
 * 1. A row is acknowledged only after its delivery has resolved. Until the acknowledgement is applied the row is in the
 *    log's state, so whoever leads next delivers it again: at least once, in any order.
 * 2. A destination that fails gets one try at a time, with a growing pause between them; the others do not wait for it.
 * 3. After `stop` nothing is begun, and nothing that ends is heard.
 *
 * A delivery has to settle in the end, and does where calls to other nodes have a timeout.
 */
import type { GroupId, TransactionId } from "../base/ids.js";
import type { Clock, Timer } from "../base/io.js";
import { Fifo } from "../log/fifo.js";
import type { Decision, OutboxRow } from "../txn/coordinator.js";

/** Tells a range what became of a transaction; resolves once the range has it in its log. */
export type Resolve = (range: GroupId, transaction: TransactionId, decision: Decision) => Promise<void>;

export interface OutboxLimits {
  /** Deliveries to one range under way at once. */
  readonly window: number;
  readonly firstBackoffMs: number;
  readonly maxBackoffMs: number;
  /** Acknowledgements gather for so long before they are proposed. */
  readonly gatherMs: number;
  /** What could not be proposed is proposed again after this. */
  readonly proposeAgainMs: number;
}

export const DEFAULT_OUTBOX_LIMITS: OutboxLimits = {
  window: 128,
  firstBackoffMs: 50,
  maxBackoffMs: 2_000,
  gatherMs: 10,
  proposeAgainMs: 200,
};

interface Destination {
  readonly queue: Fifo<OutboxRow>;
  running: number;
  /** Tries in a row that have failed. */
  failures: number;
  /** Until it fires nothing is sent there. */
  pause: Timer | undefined;
}

interface OutboxDependencies {
  readonly clock: Clock;
  readonly limits: OutboxLimits;
  readonly resolve: Resolve;
  /** Proposes that these rows have been delivered. */
  readonly acknowledge: (rows: readonly number[]) => Promise<unknown>;
}

export class Outbox {
  readonly #deps: OutboxDependencies;
  readonly #destinations = new Map<GroupId, Destination>();
  #delivered: number[] = [];
  #gathering: Timer | undefined;
  #stopped = false;

  constructor(deps: OutboxDependencies) {
    this.#deps = deps;
  }

  add(rows: readonly OutboxRow[]): void {
    if (this.#stopped) return;
    const touched = new Set<Destination>();
    for (const row of rows) {
      const destination = this.#destination(row.destination);
      destination.queue.push(row);
      touched.add(destination);
    }
    for (const destination of touched) this.#pump(destination);
  }

  stop(): void {
    this.#stopped = true;
    this.#gathering?.cancel();
    this.#gathering = undefined;
    for (const { pause } of this.#destinations.values()) pause?.cancel();
    this.#destinations.clear();
  }

  #destination(range: GroupId): Destination {
    let destination = this.#destinations.get(range);
    if (destination === undefined) {
      destination = { queue: new Fifo(), running: 0, failures: 0, pause: undefined };
      this.#destinations.set(range, destination);
    }
    return destination;
  }

  #pump(destination: Destination): void {
    if (this.#stopped || destination.pause !== undefined) return;
    const window = destination.failures > 0 ? 1 : this.#deps.limits.window;
    while (destination.running < window) {
      const row = destination.queue.shift();
      if (row === undefined) return;
      destination.running++;
      void this.#deliver(destination, row);
    }
  }

  async #deliver(destination: Destination, row: OutboxRow): Promise<void> {
    let delivered = false;
    try {
      await this.#deps.resolve(row.destination, row.transaction, row.decision);
      delivered = true;
    } catch {
      // Whatever it was, it is tried again.
    }
    if (this.#stopped) return;
    destination.running--;
    if (delivered) {
      destination.failures = 0;
      this.#delivered.push(row.id);
      this.#gather(this.#deps.limits.gatherMs);
    } else {
      destination.queue.push(row);
      this.#backOff(destination);
    }
    this.#pump(destination);
    if (destination.running === 0 && destination.queue.length === 0)
      this.#destinations.delete(row.destination);
  }

  #backOff(destination: Destination): void {
    // Those that were under way together fail together, and count once.
    if (destination.pause !== undefined) return;
    const { clock, limits } = this.#deps;
    const pauseMs = Math.min(
      limits.maxBackoffMs,
      limits.firstBackoffMs * 2 ** Math.min(destination.failures, 16),
    );
    destination.failures++;
    destination.pause = clock.setTimer(pauseMs, () => {
      destination.pause = undefined;
      this.#pump(destination);
    });
  }

  #gather(delayMs: number): void {
    this.#gathering ??= this.#deps.clock.setTimer(delayMs, () => {
      this.#gathering = undefined;
      void this.#acknowledge();
    });
  }

  async #acknowledge(): Promise<void> {
    const rows = this.#delivered;
    this.#delivered = [];
    try {
      await this.#deps.acknowledge(rows);
    } catch {
      if (this.#stopped) return;
      // Saying it twice does no harm.
      for (const row of rows) this.#delivered.push(row);
      this.#gather(this.#deps.limits.proposeAgainMs);
    }
  }
}

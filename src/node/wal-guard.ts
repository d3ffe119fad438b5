/**
 * Keeps the write-ahead logs of the ranges' databases bounded: a pin keeps the log from starting over, so when it has
 * grown too far the oldest pins are given up. Whoever read from one gets OSTRAKA_RETRY and may start again.
 */
import type { Clock, Timer } from "../base/io.js";
import type { RangeStore, RunnerPool } from "../machines/range/types.js";
import type { Logger } from "./logger.js";

const CHECK_MS = 1_000;

export class WalGuard {
  readonly #clock: Clock;
  readonly #stores: () => Iterable<RangeStore>;
  readonly #pools: readonly RunnerPool[];
  readonly #maxBytes: number;
  readonly #logger: Logger;
  #timer: Timer | undefined;

  constructor(
    clock: Clock,
    stores: () => Iterable<RangeStore>,
    pools: readonly RunnerPool[],
    maxBytes: number,
    logger: Logger,
  ) {
    this.#clock = clock;
    this.#stores = stores;
    this.#pools = pools;
    this.#maxBytes = maxBytes;
    this.#logger = logger;
  }

  start(): void {
    this.#timer = this.#clock.setTimer(CHECK_MS, () => {
      this.#check();
      this.start();
    });
  }

  stop(): void {
    this.#timer?.cancel();
  }

  /** One a check and range: the next checkpoint may do with what that frees. */
  #check(): void {
    for (const store of this.#stores()) {
      const { walBytes } = store.size();
      if (walBytes <= this.#maxBytes) continue;
      const oldest = this.#pools.flatMap((pool) => [...pool.pinned(store.path)])[0];
      if (oldest === undefined) continue;
      this.#logger.warn(
        { walBytes, maxBytes: this.#maxBytes },
        "the oldest snapshot in use is given up: it keeps the log from starting over",
      );
      oldest.kill();
    }
  }
}

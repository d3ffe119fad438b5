/**
 * The last scratch database that reads over several ranges were answered from, kept for the next one. It is current as
 * long as every range that a statement touches is still at the log index it was pinned at, confirmed by its leader after
 * the statement came: a range's state changes only with its index, so between the pin and the confirmation it never
 * changed, and all of them were in the state shown when the statement came.
 *
 * It costs its rows in a process and, while it lasts, pins; so it goes at the first sign that it is out of date, and when
 * nobody has used it for a while.
 */
import type { GroupId } from "../base/ids.js";
import type { Timer } from "../base/io.js";
import type { RangeDescriptor } from "../placement/descriptor.js";
import type { Span } from "../sql/types.js";
import { anyIntersect } from "../txn/spans.js";
import type { GatewayDatabase } from "./database.js";
import type { Deadline } from "./deadline.js";
import { Scratch } from "./scratch.js";
import { takeSnapshot } from "./snapshot.js";

const IDLE_MS = 2_000;
/** Kept side by side: as many as reads are likely to run at once. */
const MAX_KEPT = 2;

export interface ScratchLoan {
  readonly scratch: Scratch;
  /** To be called once nothing runs on it any more. */
  giveBack(): void;
  /** Instead, when not all is in it that was to be. */
  discard(): Promise<void>;
}

interface Kept {
  readonly scratch: Scratch;
  timer: Timer | undefined;
}

export class WarmScratches {
  readonly #db: GatewayDatabase;
  #idle: Kept[] = [];
  #closed = false;

  constructor(db: GatewayDatabase) {
    this.#db = db;
  }

  /** A scratch that shows a moment after the call, over at least these ranges. */
  async borrow(
    ranges: readonly RangeDescriptor[],
    spans: readonly Span[],
    deadline: Deadline,
  ): Promise<ScratchLoan> {
    const kept = this.#take(ranges);
    if (kept !== undefined) {
      try {
        if (await this.#isCurrent(kept.scratch, ranges, spans)) return this.#loan(kept.scratch);
      } catch {
        // A leader that cannot be asked is looked for by the snapshot below.
      }
      await this.#discard(kept.scratch);
    }
    const runner = await this.#db.gatherRunners.acquire(deadline.signal);
    let scratch: Scratch | undefined;
    try {
      const everywhere = spans.some((span) => span.table === "*");
      const snapshot = await takeSnapshot(this.#db, runner, { spans, everywhere }, deadline);
      scratch = await Scratch.open(this.#db, runner, snapshot);
      return this.#loan(scratch);
    } catch (error) {
      if (scratch === undefined) this.#db.gatherRunners.release(runner);
      else await this.#discard(scratch);
      throw error;
    }
  }

  #take(ranges: readonly RangeDescriptor[]): Kept | undefined {
    const at = this.#idle.findIndex(({ scratch }) => covers(scratch, ranges));
    if (at < 0) return undefined;
    const [kept] = this.#idle.splice(at, 1);
    kept!.timer?.cancel();
    return kept;
  }

  async #isCurrent(
    scratch: Scratch,
    ranges: readonly RangeDescriptor[],
    spans: readonly Span[],
  ): Promise<boolean> {
    if (scratch.runner.dead || scratch.snapshot.schema.version !== this.#db.ranges.schema().version)
      return false;
    const points = await Promise.all(ranges.map(({ range }) => this.#db.client(range).readPoint()));
    return points.every((point, i) => {
      const held = point.held !== undefined && anyIntersect(point.held, spans);
      return !held && scratch.snapshot.pins.get(ranges[i]!.range)?.index === point.index;
    });
  }

  #loan(scratch: Scratch): ScratchLoan {
    return { scratch, giveBack: () => this.#keep(scratch), discard: () => this.#discard(scratch) };
  }

  #keep(scratch: Scratch): void {
    if (scratch.runner.dead || scratch.worn || this.#closed) {
      void this.#discard(scratch);
      return;
    }
    const kept: Kept = { scratch, timer: undefined };
    kept.timer = this.#db.clock.setTimer(IDLE_MS, () => {
      this.#idle = this.#idle.filter((other) => other !== kept);
      void this.#discard(scratch);
    });
    this.#idle.push(kept);
    if (this.#idle.length > MAX_KEPT) {
      const oldest = this.#idle.shift()!;
      oldest.timer?.cancel();
      void this.#discard(oldest.scratch);
    }
  }

  async #discard(scratch: Scratch): Promise<void> {
    await scratch.close("rollback").catch(() => scratch.runner.kill());
    this.#db.gatherRunners.release(scratch.runner);
  }

  async close(): Promise<void> {
    this.#closed = true;
    const idle = this.#idle;
    this.#idle = [];
    for (const { scratch, timer } of idle) {
      timer?.cancel();
      await this.#discard(scratch);
    }
  }
}

function covers({ snapshot }: Scratch, ranges: readonly RangeDescriptor[]): boolean {
  const generation = (range: GroupId) => snapshot.pins.get(range)?.descriptor.generation;
  return ranges.every((descriptor) => generation(descriptor.range) === descriptor.generation);
}

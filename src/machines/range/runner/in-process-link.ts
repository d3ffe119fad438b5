/**
 * A runner in the same thread, for simulation and embedding tests: the host's own code, with the world's clock. What
 * it cannot do is kill a step that never yields; statements that yield rows stop as in a process.
 *
 * Everything is deterministic: slices are counted, not timed, and answers are delivered by the clock's timers in order.
 */
import type { Clock } from "../../../base/io.js";
import type { LinkEvents, RunnerLink } from "./client.js";
import { DEFAULT_CAPTURED_BYTES, DEFAULT_SPOOL_BYTES, RunnerHost } from "./host.js";
import type { Request } from "./protocol.js";

export class InProcessLink implements RunnerLink {
  readonly #host: RunnerHost;
  readonly #clock: Clock;
  #killed = false;

  constructor(clock: Clock, events: LinkEvents) {
    this.#clock = clock;
    let steps = 0;
    this.#host = new RunnerHost(
      {
        // A slice takes time, or an endless query would hold a simulated clock where it is.
        defer: (run) => this.#later(run, 1),
        nowMs: () => steps++,
        spoolMemoryBytes: DEFAULT_SPOOL_BYTES,
        maxCapturedBytes: DEFAULT_CAPTURED_BYTES,
        preparesScratch: false,
      },
      (answer) => this.#later(() => events.onAnswer(answer)),
    );
  }

  send(request: Request): void {
    this.#later(() => this.#host.handle(request));
  }

  kill(): void {
    if (this.#killed) return;
    this.#killed = true;
    this.#host.close();
  }

  memoryBytes(): number | undefined {
    return undefined;
  }

  #later(run: () => void, delayMs = 0): void {
    this.#clock.setTimer(delayMs, () => {
      if (!this.#killed) run();
    });
  }
}

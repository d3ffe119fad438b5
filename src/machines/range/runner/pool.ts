/**
 * A bounded number of runners shared by everything that runs on this node's replicas. Started when needed, kept for
 * the next one when they come back clean, and replaced when they don't.
 *
 * Invariants:
 * 1. At most `size` runners exist; whoever finds none free waits in line, and the line is bounded in length and time.
 * 2. A runner that is handed out has no pin, copy, TEMP objects or statements of anybody else's.
 * 3. A runner that died before it ever worked is not replaced by itself: only the next request tries again.
 * 4. Of those that nobody has needed for `IDLE_MS` one stays, or as many as are to be kept warm: each holds some 60 MB.
 */
import { tmpdir } from "node:os";
import { RetryError, UserError } from "../../../base/errors.js";
import type { Clock, Timer } from "../../../base/io.js";
import type { Runner, RunnerPool } from "../types.js";
import { DEFAULT_GRACE_MS, type LinkEvents, RunnerClient, type RunnerLink } from "./client.js";
import { InProcessLink } from "./in-process-link.js";
import { ProcessLink, RUNNER_ENTRY } from "./process-link.js";

export interface RunnerPoolOptions {
  readonly clock: Clock;
  /** Most runners at a time. */
  readonly size?: number;
  /** Runners kept ready even when nobody asks. */
  readonly warm?: number;
  /** Most callers waiting for one. */
  readonly maxWaiting?: number;
  /** How long one may wait. */
  readonly maxWaitMs?: number;
  /** How long a statement may take to notice that it is to stop, before its process is killed. */
  readonly graceMs?: number;
  /** The script a runner process runs. */
  readonly entry?: string;
  /** Where runner processes spool rows and sort what does not fit into memory; the system's by default. */
  readonly temporaryDirectory?: string;
}

/** Runners in processes of their own. */
export function createRunnerPool(options: RunnerPoolOptions): RunnerPool {
  const settings = {
    entry: options.entry ?? RUNNER_ENTRY,
    temporaryDirectory: options.temporaryDirectory ?? tmpdir(),
  };
  return new Pool(options, (events) => new ProcessLink(settings, events));
}

/** Runners in this thread, for simulation. */
export function createInProcessRunnerPool(options: RunnerPoolOptions): RunnerPool {
  return new Pool({ warm: 0, ...options }, (events) => new InProcessLink(options.clock, events));
}

const IDLE_MS = 60_000;

interface Waiting {
  readonly resolve: (runner: Runner) => void;
  readonly reject: (error: Error) => void;
  readonly timer: Timer;
  readonly signal: AbortSignal | undefined;
  readonly onAbort: () => void;
}

class Pool implements RunnerPool {
  readonly #clock: Clock;
  readonly #size: number;
  readonly #warm: number;
  readonly #maxWaiting: number;
  readonly #maxWaitMs: number;
  readonly #graceMs: number;
  readonly #connect: (events: LinkEvents) => RunnerLink;
  readonly #runners = new Set<RunnerClient>();
  /** The one used last at the end, and taken first. */
  readonly #idle: RunnerClient[] = [];
  /** How many of the idle ones nobody has needed since the timer was set. */
  #spare = 0;
  #idleTimer: Timer | undefined;
  readonly #waiting: Waiting[] = [];
  #closed = false;

  constructor(options: RunnerPoolOptions, connect: (events: LinkEvents) => RunnerLink) {
    this.#clock = options.clock;
    this.#size = options.size ?? 4;
    this.#warm = Math.min(options.warm ?? 1, this.#size);
    this.#maxWaiting = options.maxWaiting ?? 256;
    this.#maxWaitMs = options.maxWaitMs ?? 10_000;
    this.#graceMs = options.graceMs ?? DEFAULT_GRACE_MS;
    this.#connect = connect;
    for (let i = 0; i < this.#warm; i++) this.#idle.push(this.#start());
  }

  acquire(signal?: AbortSignal): Promise<Runner> {
    if (this.#closed) return Promise.reject(unavailable("this node is closing"));
    if (signal?.aborted) return Promise.reject(interrupted());
    const idle = this.#idle.pop();
    if (idle !== undefined) {
      this.#spare = Math.min(this.#spare, this.#idle.length);
      return Promise.resolve(idle);
    }
    if (this.#runners.size < this.#size) return Promise.resolve(this.#start());
    if (this.#waiting.length >= this.#maxWaiting)
      return Promise.reject(unavailable("too many statements wait for a process to run in"));
    return new Promise((resolve, reject) => {
      const leave = (error: Error): void => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
        this.#settle(waiting);
        reject(error);
      };
      const onAbort = (): void => leave(interrupted());
      const timer = this.#clock.setTimer(this.#maxWaitMs, () =>
        leave(unavailable("no process to run the statement in became free")),
      );
      const waiting: Waiting = { resolve, reject, timer, signal, onAbort };
      signal?.addEventListener("abort", onAbort);
      this.#waiting.push(waiting);
    });
  }

  release(runner: Runner): void {
    if (!(runner instanceof RunnerClient) || !this.#runners.has(runner) || this.#idle.includes(runner))
      return;
    if (!runner.clean) {
      runner.kill();
      return;
    }
    // Requests are answered in order: whoever gets it next finds it without the pin.
    if (runner.hasPin) runner.unpin().catch(() => runner.kill());
    this.#offer(runner);
  }

  pinned(path: string): readonly Runner[] {
    const pins = [...this.#runners].flatMap((runner) => {
      const sinceMs = runner.pinnedSinceMs(path);
      return sinceMs === undefined ? [] : [{ runner, sinceMs }];
    });
    return pins.sort((a, b) => a.sinceMs - b.sinceMs).map(({ runner }) => runner);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#idleTimer?.cancel();
    for (const waiting of this.#waiting.splice(0)) {
      this.#settle(waiting);
      waiting.reject(unavailable("this node is closing"));
    }
    for (const runner of [...this.#runners]) runner.kill();
  }

  #start(): RunnerClient {
    const runner = new RunnerClient(this.#connect, this.#clock, this.#graceMs, (dead) => this.#lost(dead));
    this.#runners.add(runner);
    return runner;
  }

  #lost(runner: RunnerClient): void {
    this.#runners.delete(runner);
    const at = this.#idle.indexOf(runner);
    if (at >= 0) this.#idle.splice(at, 1);
    this.#spare = Math.min(this.#spare, this.#idle.length);
    if (this.#closed) return;
    if (this.#waiting.length > 0) this.#offer(this.#start());
    else if (this.#runners.size < this.#warm && runner.proven) this.#idle.push(this.#start());
  }

  #offer(runner: RunnerClient): void {
    const waiting = this.#waiting.shift();
    if (waiting === undefined) {
      this.#idle.push(runner);
      this.#watchIdle();
      return;
    }
    this.#settle(waiting);
    waiting.resolve(runner);
  }

  #watchIdle(): void {
    const kept = Math.max(this.#warm, 1);
    if (this.#idleTimer !== undefined || this.#idle.length <= kept) return;
    this.#spare = this.#idle.length;
    this.#idleTimer = this.#clock.setTimer(IDLE_MS, () => {
      this.#idleTimer = undefined;
      const most = this.#idle.length - kept;
      for (const runner of this.#idle.slice(0, Math.max(0, Math.min(this.#spare, most)))) runner.kill();
      this.#watchIdle();
    });
  }

  #settle({ timer, signal, onAbort }: Waiting): void {
    timer.cancel();
    signal?.removeEventListener("abort", onAbort);
  }
}

function unavailable(message: string): RetryError {
  return new RetryError("OSTRAKA_UNAVAILABLE", message);
}

function interrupted(): UserError {
  return new UserError("SQLITE_INTERRUPT", "interrupted");
}

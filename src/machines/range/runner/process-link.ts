/**
 * A runner in a process of its own: can be killed in the middle of anything, and takes its memory with it.
 *
 * Frames travel over an extra pipe (descriptor 3). A second one (4) carries nothing: it breaks when this process ends,
 * however it ends, and a thread of the child that waits for that kills the child even in the middle of a query.
 *
 * Memory is that of the whole process, some 60 MB before it does anything. It is read from /proc; where there is none, the limit on memory is not enforced.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { fileURLToPath } from "node:url";
import type { LinkEvents, RunnerLink } from "./client.js";
import { type Answer, encodeFrame, FrameReader, type Request } from "./protocol.js";

/** The compiled entry beside this module. */
export const RUNNER_ENTRY = fileURLToPath(new URL("./runner-main.js", import.meta.url));

export interface ProcessSettings {
  /** The script to run. */
  readonly entry: string;
  /** Where rows are spooled and sorts go that do not fit into memory; should not itself be memory. */
  readonly temporaryDirectory: string;
}

export class ProcessLink implements RunnerLink {
  readonly pid: number | undefined;
  readonly #child: ChildProcess | undefined;
  readonly #frames: Socket | undefined;
  #killed = false;

  constructor({ entry, temporaryDirectory }: ProcessSettings, events: LinkEvents) {
    const died = (): void => {
      if (this.#killed) return;
      this.kill();
      events.onDeath();
    };
    try {
      this.#child = spawn(process.execPath, [entry], {
        stdio: ["ignore", "ignore", "inherit", "pipe", "pipe"],
        // Nothing of our environment is its business; answers must not depend on it.
        env: { TZ: "UTC", TMPDIR: temporaryDirectory, SQLITE_TMPDIR: temporaryDirectory },
      });
    } catch {
      // There is no room for another process.
      setImmediate(died);
      return;
    }
    this.#child.on("error", died);
    this.#child.on("exit", died);
    this.pid = this.#child.pid;
    // Where no more files may be opened there are no pipes, and the error is on its way.
    const stdio = this.#child.stdio as ChildProcess["stdio"] | undefined;
    if (stdio === undefined) return;
    this.#frames = stdio[3] as Socket;
    const lifeline = stdio[4] as Socket;
    const reader = new FrameReader<Answer>((answer) => events.onAnswer(answer));
    this.#frames.on("data", (chunk: Buffer) => reader.push(chunk));
    this.#frames.on("error", died);
    this.#frames.on("close", died);
    lifeline.on("error", died);
  }

  send(request: Request): void {
    if (!this.#killed) this.#frames?.write(encodeFrame(request));
  }

  kill(): void {
    if (this.#killed) return;
    this.#killed = true;
    this.#child?.kill("SIGKILL");
    const stdio = this.#child?.stdio as ChildProcess["stdio"] | undefined;
    for (const stream of stdio ?? []) stream?.destroy();
  }

  memoryBytes(): number | undefined {
    if (this.pid === undefined) return undefined;
    try {
      const resident = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${this.pid}/status`, "latin1"));
      return resident === null ? undefined : Number(resident[1]) * 1024;
    } catch {
      return undefined;
    }
  }
}

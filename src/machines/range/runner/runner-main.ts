/**
 * Entry of a runner process: a RunnerHost behind descriptor 3. It ends only by SIGKILL, its parent's or its own, so
 * that nothing it does can delay its end; there is nothing to clean up (spool files have no names).
 */
import { Socket } from "node:net";
import { setPriority } from "node:os";
import { Worker } from "node:worker_threads";
import { DEFAULT_CAPTURED_BYTES, DEFAULT_SPOOL_BYTES, RunnerHost } from "./host.js";
import { type Answer, encodeFrame, FrameReader, type Request } from "./protocol.js";

const FRAMES = 3;
const NICENESS = 5;

/** Blocks on the lifeline (descriptor 4) until the parent is gone, while the main thread may be deep inside SQLite. */
const WATCHDOG = `
  const { readSync } = require("node:fs");
  const byte = Buffer.alloc(1);
  try { while (readSync(4, byte) > 0); } catch {}
  process.kill(process.pid, "SIGKILL");
`;

function end(): void {
  process.kill(process.pid, "SIGKILL");
}

function main(): void {
  // Signals to the process group (an interrupt at the terminal) are for the parent, which drains first.
  process.on("SIGINT", () => {});
  process.on("SIGTERM", () => {});
  try {
    // Heartbeats and applies on the same cores come first.
    setPriority(0, NICENESS);
  } catch {
    // Not permitted here: it runs at normal priority.
  }
  new Worker(WATCHDOG, {
    eval: true,
    resourceLimits: { maxOldGenerationSizeMb: 8, maxYoungGenerationSizeMb: 2 },
  });
  const frames = new Socket({ fd: FRAMES, readable: true, writable: true });
  const host = new RunnerHost(
    {
      defer: setImmediate,
      nowMs: () => performance.now(),
      spoolMemoryBytes: DEFAULT_SPOOL_BYTES,
      maxCapturedBytes: DEFAULT_CAPTURED_BYTES,
      preparesScratch: true,
    },
    (answer: Answer) => frames.write(encodeFrame(answer)),
  );
  const reader = new FrameReader<Request>((request) => host.handle(request));
  frames.on("data", (chunk: Buffer) => reader.push(chunk));
  frames.on("close", end);
  frames.on("error", end);
}

main();

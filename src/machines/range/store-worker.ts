/** Entry of a storage worker thread: hands messages to the stores that it owns, and their answers back. */
import { setPriority } from "node:os";
import { performance } from "node:perf_hooks";
import { parentPort } from "node:worker_threads";
import { FatalError } from "../../base/errors.js";
import { mostAwake } from "./awake.js";
import type { StoreRequest } from "./store-protocol.js";
import { StoreServer } from "./store-server.js";

const port = parentPort;
if (port === null) throw new FatalError("OSTRAKA_INVARIANT", "a storage worker runs in a thread of its own");

try {
  // On Linux this is the thread's own priority: timers and sockets on the main thread go first.
  setPriority(0, 10);
} catch {
  // Not allowed, or not this kind of system: the worker is only less polite.
}

const server = new StoreServer(
  {
    monotonicMs: () => performance.now(),
    pause: () => new Promise((resolve) => setImmediate(resolve)),
    awake: mostAwake(),
    later: (delayMs, run) => {
      const timer = setTimeout(run, delayMs);
      timer.unref();
      return { cancel: () => clearTimeout(timer) };
    },
  },
  (reply, transfer) => port.postMessage(reply, transfer),
);

port.on("message", (message: readonly StoreRequest[] | "close") => {
  if (message !== "close") {
    server.handle(message);
    return;
  }
  server.close().finally(() => port.close());
});

/** The real Clock and Random, for processes that live in real time. */
import { randomBytes, randomInt } from "node:crypto";
import { performance } from "node:perf_hooks";
import type { Clock, Random } from "../base/io.js";

export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  setTimer(delayMs, fire) {
    const timer = setTimeout(fire, delayMs);
    return { cancel: () => clearTimeout(timer) };
  },
};

export const systemRandom: Random = {
  uint32: () => randomInt(0, 2 ** 32),
  float: () => Math.random(),
  bytes: (length) => new Uint8Array(randomBytes(length)),
};

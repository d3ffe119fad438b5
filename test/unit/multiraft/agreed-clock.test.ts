import { describe, expect, it } from "vitest";
import { nodeId } from "../../../src/base/ids.js";
import type { Clock } from "../../../src/base/io.js";
import { AgreedClock } from "../../../src/multiraft/agreed-clock.js";

const HOUR_MS = 3_600_000;
const START_MS = 1_700_000_000_000;

/** Real time passes by `pass`; this node's wall clock is off by `off`. */
function clocks() {
  let elapsedMs = 0;
  let off = 0;
  const raw: Clock = {
    monotonicMs: () => 500 + elapsedMs,
    wallMs: () => START_MS + elapsedMs + off,
    setTimer: () => {
      throw new Error("no timers are set");
    },
  };
  const clock = new AgreedClock(raw);
  return {
    clock,
    now: () => START_MS + elapsedMs,
    pass(ms: number): void {
      elapsedMs += ms;
    },
    jump(ms: number): void {
      off += ms;
    },
    /** A frame of a peer whose clock is off by so much, after so long on its way. */
    hear(peer: number, peerOff: number, delayMs = 1): void {
      clock.heard(nodeId(peer), START_MS + elapsedMs + peerOff - delayMs);
    },
  };
}

describe("a node's wall clock", () => {
  it("is its own alone, with one peer, and near its peers'", () => {
    const world = clocks();
    world.jump(2 * HOUR_MS);
    expect(world.clock.correctionMs()).toBe(0);
    world.hear(2, 0);
    world.pass(200);
    expect(world.clock.correctionMs()).toBe(0);
    const near = clocks();
    near.jump(900);
    near.hear(2, 0);
    near.hear(3, 50);
    expect(near.clock.wallMs()).toBe(near.now() + 900);
  });

  it.each([2 * HOUR_MS, -2 * HOUR_MS, 1_500])("that is off by %i ms counts as its peers' do", (off) => {
    const world = clocks();
    world.jump(off);
    world.hear(2, 0);
    world.hear(3, 20);
    expect(Math.abs(world.clock.wallMs() - world.now())).toBeLessThan(30);
    expect(world.clock.ownWallMs()).toBe(world.now() + off);
  });

  it("is not moved by one peer that is off, or by two that are off to either side", () => {
    const world = clocks();
    world.hear(2, HOUR_MS);
    world.hear(3, 10);
    expect(world.clock.correctionMs()).toBe(0);
    world.hear(4, -HOUR_MS);
    world.hear(5, 0);
    world.pass(200);
    expect(world.clock.correctionMs()).toBe(0);
  });

  it("is corrected at once when it jumps, and no more when it jumps back", () => {
    const world = clocks();
    world.hear(2, 0);
    world.hear(3, 0);
    expect(world.clock.correctionMs()).toBe(0);
    world.jump(HOUR_MS);
    expect(Math.abs(world.clock.wallMs() - world.now())).toBeLessThan(5);
    world.jump(-HOUR_MS);
    expect(world.clock.correctionMs()).toBe(0);
  });

  it("is not taken for fast because frames are late", () => {
    const world = clocks();
    for (const peer of [2, 3]) world.hear(peer, 0);
    // Stopped for a while, it reads what has come meanwhile.
    world.pass(9_000);
    for (const peer of [2, 3]) world.hear(peer, 0, 9_000);
    expect(world.clock.correctionMs()).toBe(0);
    for (const peer of [2, 3]) world.hear(peer, 0, 5);
    world.pass(5_000);
    for (const peer of [2, 3]) world.hear(peer, 0, 3_000);
    world.pass(200);
    expect(world.clock.correctionMs()).toBe(0);
  });

  it("goes by no peer that has not been heard for long, nor by what is no time", () => {
    const world = clocks();
    world.jump(HOUR_MS);
    world.hear(2, 0);
    world.hear(3, 0);
    expect(world.clock.correctionMs()).not.toBe(0);
    world.pass(20_000);
    expect(world.clock.correctionMs()).toBe(0);
    for (const wallMs of [Number.NaN, Number.POSITIVE_INFINITY])
      for (const peer of [2, 3]) world.clock.heard(nodeId(peer), wallMs);
    world.pass(200);
    expect(world.clock.correctionMs()).toBe(0);
  });
});

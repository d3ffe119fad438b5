import { describe, expect, it } from "vitest";
import { nodeId } from "../../../src/base/ids.js";
import { judge } from "../../../src/placement/liveness.js";

const TIMES = { nowMs: 100_000, sinceMs: 90_000, wallMs: 1_000_000, silentMs: 3_000, deadMs: 60_000 };
const hearing = (heardMs: number | undefined, downSinceMs: number | undefined) => ({
  id: nodeId(7),
  heardMs,
  downSinceMs,
});
const judged = (heardMs: number | undefined, downSinceMs: number | undefined, times = TIMES) => {
  const { down, up, dead, silent } = judge([hearing(heardMs, downSinceMs)], times);
  return {
    down: down.length > 0,
    up: up.length > 0,
    dead: dead.has(nodeId(7)),
    silent: silent.has(nodeId(7)),
  };
};

describe("liveness", () => {
  it("calls down who has been silent, and takes it back", () => {
    expect(judged(99_000, undefined)).toEqual({ down: false, up: false, dead: false, silent: false });
    expect(judged(97_000, undefined)).toEqual({ down: true, up: false, dead: false, silent: true });
    expect(judged(99_000, 5)).toEqual({ down: false, up: true, dead: false, silent: false });
  });

  it("calls dead who has been down for long, unless this leader has not missed it yet itself", () => {
    expect(judged(undefined, 990_000).dead).toBe(false);
    expect(judged(undefined, 940_000).dead).toBe(true);
    const fresh = { ...TIMES, sinceMs: 99_000 };
    expect(judged(undefined, 940_000, fresh)).toEqual({ down: false, up: false, dead: false, silent: true });
    expect(judged(99_500, 1, fresh).up).toBe(true);
  });
});

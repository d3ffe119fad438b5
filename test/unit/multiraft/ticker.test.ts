import { describe, expect, it } from "vitest";
import { Ticker } from "../../../src/multiraft/ticker.js";
import { ManualClock } from "../../sim/manual-clock.js";

function make(): { clock: ManualClock; ticker: Ticker; order: string[] } {
  const clock = new ManualClock();
  const order: string[] = [];
  const defer = (run: () => void): void =>
    void clock.setTimer(0, () => {
      order.push("input");
      run();
    });
  const ticker = new Ticker(clock, 100, defer, () => void order.push(`tick ${clock.monotonicMs()}`));
  ticker.start();
  return { clock, ticker, order };
}

describe("ticks", () => {
  it("keep to their cadence", async () => {
    const { clock, order, ticker } = make();
    await clock.advance(350);
    expect(order).toEqual(["tick 100", "tick 200", "tick 300"]);
    ticker.stop();
    await clock.advance(1_000);
    expect(order).toHaveLength(3);
  });

  it("that are a little late do not shift the ones after them", async () => {
    const { clock, order } = make();
    clock.stall(150);
    await clock.advance(100);
    expect(order).toEqual(["tick 150", "tick 200"]);
  });

  it("that were missed are not made up for, and input comes before the one that is given", async () => {
    const { clock, order, ticker } = make();
    clock.stall(60_000);
    await clock.advance(250);
    expect(order).toEqual(["input", "input", "input", "tick 60000", "tick 60100", "tick 60200"]);
    expect(ticker.stalls).toBe(1);
  });
});

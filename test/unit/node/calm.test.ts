import { expect, it } from "vitest";
import { Calm } from "../../../src/node/ranges/calm.js";
import { ManualClock } from "../../sim/manual-clock.js";

it("lasts as long as it was asked for, and at most half a minute", async () => {
  const clock = new ManualClock();
  const calm = new Calm(clock);
  expect(calm.leftMs).toBe(0);
  calm.ask(3_000);
  calm.ask(1_000);
  expect(calm.leftMs).toBe(3_000);
  await clock.advance(2_000);
  calm.ask(4_000);
  expect(calm.leftMs).toBe(4_000);
  calm.ask(100_000);
  expect(calm.leftMs).toBe(28_000);
});

it("is over for as long as it has lasted before it begins again", async () => {
  const clock = new ManualClock();
  const calm = new Calm(clock);
  calm.ask(10_000);
  await clock.advance(10_000);
  calm.ask(5_000);
  expect(calm.leftMs).toBe(0);
  await clock.advance(9_999);
  calm.ask(5_000);
  expect(calm.leftMs).toBe(0);
  await clock.advance(1);
  calm.ask(5_000);
  expect(calm.leftMs).toBe(5_000);
});

it("tells whether it lasts longer for having been asked for", async () => {
  const clock = new ManualClock();
  const calm = new Calm(clock);
  expect(calm.ask(3_000)).toBe(true);
  expect(calm.ask(2_000)).toBe(false);
  expect(calm.ask(40_000)).toBe(true);
  expect(calm.ask(50_000)).toBe(false);
  await clock.advance(30_000);
  expect(calm.ask(1_000)).toBe(false);
});

/** Stores rest once nobody has used them for a while, one after the other, and sooner only for want of room. */
import { beforeEach, describe, expect, it } from "vitest";
import { Awake, mostAwake, type Restable } from "../../../src/machines/range/awake.js";

describe("which stores are open", () => {
  let nowMs = 0;
  let timer: { atMs: number; run: () => void } | undefined;
  let rested: number[] = [];
  const busy = new Set<number>();

  const awake = (most?: number): Awake =>
    new Awake(
      {
        monotonicMs: () => nowMs,
        later: (delayMs, run) => {
          expect(timer).toBeUndefined();
          timer = { atMs: nowMs + delayMs, run };
          return {
            cancel: () => {
              timer = undefined;
            },
          };
        },
      },
      most,
    );
  const store = (id: number): Restable => ({
    rest: () => {
      if (busy.has(id)) return false;
      rested.push(id);
      return true;
    },
  });
  const pass = (untilMs: number): void => {
    while (timer !== undefined && timer.atMs <= untilMs) {
      const { atMs, run } = timer;
      timer = undefined;
      nowMs = atMs;
      run();
    }
    nowMs = untilMs;
  };

  beforeEach(() => {
    [nowMs, timer, rested] = [0, undefined, []];
    busy.clear();
  });

  it("waits for a while, also where the clock cannot tell what is left of it", () => {
    const stores = awake();
    // A number that a minute is added to and taken from is not always what it was.
    nowMs = 0.1 + 2 ** -44;
    while (nowMs + 60_000 - nowMs >= 60_000) nowMs += 0.013;
    for (let id = 0; id < 100; id++) stores.use(id, store(id));
    let turns = 0;
    for (; timer !== undefined && rested.length === 0; turns++) {
      const { atMs, run } = timer;
      timer = undefined;
      nowMs = atMs;
      run();
      expect(turns).toBeLessThan(5);
    }
    expect(rested).toHaveLength(1);
  });

  it("leaves a few alone, however long nobody uses them", () => {
    const stores = awake();
    for (let id = 1; id <= 16; id++) stores.use(id, store(id));
    expect(timer).toBeUndefined();
  });

  it("lets those rest that nobody has used for a minute, slowly, until a few are left", () => {
    const stores = awake();
    for (let id = 1; id <= 20; id++) stores.use(id, store(id));
    pass(5000);
    stores.use(1, store(1));
    pass(59_999);
    expect(rested).toEqual([]);
    pass(60_000);
    expect(rested).toEqual([2]);
    pass(60_049);
    expect(rested).toEqual([2]);
    pass(80_000);
    expect(rested).toEqual([2, 3, 4, 5]);
    expect(timer).toBeUndefined();
  });

  it("never closes what is used all the time, alone", () => {
    const stores = awake();
    for (let id = 1; id <= 17; id++) stores.use(id, store(id));
    for (let at = 1000; at <= 300_000; at += 1000) {
      pass(at);
      stores.use(17, store(17));
    }
    expect(rested).toEqual([1]);
  });

  it("makes room for one more, but not of those that cannot rest", () => {
    const stores = awake(2);
    for (let id = 1; id <= 2; id++) stores.use(id, store(id));
    busy.add(1);
    stores.use(3, store(3));
    expect(rested).toEqual([2]);
    stores.delete(1);
    stores.use(4, store(4));
    expect(rested).toEqual([2]);
    busy.add(3);
    stores.use(5, store(5));
    expect(rested).toEqual([2, 4]);
    busy.add(5);
    stores.use(6, store(6));
    expect(rested).toEqual([2, 4]);
    busy.clear();
    stores.use(7, store(7));
    expect(rested).toHaveLength(4);
    expect(rested).not.toContain(7);
  });

  it("finds some open of a few more than may be, used in turn", () => {
    const stores = awake(64);
    for (let use = 0; use < 100 * 76; use++) stores.use(use % 76, store(use % 76));
    expect(rested.length).toBeGreaterThan(0);
    expect(rested.length).toBeLessThan((100 * 76) / 2);
  });

  it("keeps open what is used often, whoever else comes by", () => {
    const stores = awake(64);
    for (let use = 0; use < 5000; use++) {
      stores.use(use % 16, store(use % 16));
      stores.use(100 + use, store(100 + use));
    }
    expect(rested.filter((id) => id < 16)).toEqual([]);
  });

  it("tries again later when nobody can rest", () => {
    const stores = awake();
    for (let id = 1; id <= 17; id++) {
      busy.add(id);
      stores.use(id, store(id));
    }
    pass(70_000);
    busy.clear();
    pass(120_000);
    expect(rested).toEqual([1]);
  });

  it("has no timer behind its end", () => {
    const stores = awake();
    for (let id = 1; id <= 20; id++) stores.use(id, store(id));
    stores.clear();
    expect(timer).toBeUndefined();
  });
});

it("opens as many as a process may have files", () => {
  expect(mostAwake(1024)).toBe(64);
  expect(mostAwake(4096)).toBe(438);
  expect(mostAwake(1_048_576)).toBe(1024);
  expect(mostAwake()).toBeGreaterThanOrEqual(64);
});

/** The contract of the durable log in good times: what is seen, when promises resolve, what a restart finds. */
import { describe, expect, test } from "vitest";
import { groupId, logIndex } from "../../../src/base/ids.js";
import { Bench, base, entry, hard, run, shown, to } from "./support.js";

const NO_BASE = {
  index: 0,
  term: 0,
  conf: { voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
};

describe("what a group's view shows", () => {
  test("a group without records is empty", async () => {
    const { log } = await Bench.start();
    const view = log.group(groupId(9));
    expect(log.groups()).toEqual([]);
    expect(view.base()).toEqual(NO_BASE);
    expect(view.lastIndex()).toBe(0);
    expect(view.term(logIndex(0))).toBe(0);
    expect(view.term(logIndex(1))).toBeUndefined();
    expect(view.initialHardState()).toEqual(hard(0, 0, 0));
    expect(view.entries(logIndex(1), logIndex(1), 100)).toEqual([]);
    expect(() => view.entries(logIndex(1), logIndex(2), 100)).toThrow(/group 9/);
  });

  test("appends are seen before they are durable, and nothing else is", async () => {
    const bench = await Bench.start();
    const pending = bench.log.append([to(3, { hardState: hard(1, 2, 0), entries: run(1, 3) })]);
    expect(bench.show(3)).toEqual(shown(hard(1, 2, 0), NO_BASE as never, run(1, 3)));
    bench.disk.crash("none");
    await bench.open();
    expect(bench.log.groups()).toEqual([]);
    await Promise.race([
      pending.then(() => expect.unreachable("it never became durable")),
      bench.clock.run(10),
    ]);
  });

  test("the log keeps its own copy of an entry's bytes", async () => {
    const bench = await Bench.start();
    const bytes = new Uint8Array([1, 2, 3]);
    const pending = bench.log.append([to(3, { entries: [entry(1, 1, bytes)] })]);
    bytes.fill(9);
    await bench.wait(pending);
    expect([...bench.group(3).entries(logIndex(1), logIndex(2), 10)[0]!.data]).toEqual([1, 2, 3]);
    await bench.crash();
    expect([...bench.group(3).entries(logIndex(1), logIndex(2), 10)[0]!.data]).toEqual([1, 2, 3]);
  });

  test("entries are cut at maxBytes, but there is at least one", async () => {
    const bench = await Bench.start();
    await bench.append(to(3, { entries: run(1, 10, 1, 100) }));
    const indexes = (low: number, high: number, maxBytes: number): number[] =>
      bench
        .group(3)
        .entries(logIndex(low), logIndex(high), maxBytes)
        .map((e) => e.index);
    expect(indexes(2, 9, 1)).toEqual([2]);
    expect(indexes(2, 9, 299)).toEqual([2, 3]);
    expect(indexes(2, 9, 300)).toEqual([2, 3, 4]);
    expect(indexes(2, 9, 10_000)).toEqual([2, 3, 4, 5, 6, 7, 8]);
    expect(() => indexes(9, 12, 100)).toThrow(/not in the log/);
  });

  test("a tail is replaced from the first index of an append, terms with it", async () => {
    const bench = await Bench.start();
    await bench.append(to(3, { entries: [...run(1, 4, 1), ...run(5, 6, 2)] }));
    await bench.append(to(3, { entries: run(3, 4, 5) }));
    const expected = shown(hard(0, 0, 0), NO_BASE as never, [...run(1, 2, 1), ...run(3, 4, 5)]);
    expect(bench.show(3)).toEqual(expected);
    expect(bench.group(3).term(logIndex(5))).toBeUndefined();
    await bench.crash();
    expect(bench.show(3)).toEqual(expected);
  });

  test("a snapshot replaces the log, and entries follow it", async () => {
    const bench = await Bench.start();
    await bench.append(to(3, { hardState: hard(1, 1, 2), entries: run(1, 4) }));
    await bench.append(
      to(3, { snapshot: base(100, 7), hardState: hard(7, 0, 100), entries: run(101, 102, 8) }),
    );
    const expected = shown(hard(7, 0, 100), base(100, 7), run(101, 102, 8));
    expect(bench.show(3)).toEqual(expected);
    expect(bench.group(3).term(logIndex(100))).toBe(7);
    expect(bench.group(3).term(logIndex(99))).toBeUndefined();
    await bench.crash();
    expect(bench.show(3)).toEqual(expected);
  });

  test("compacted entries are gone at once; after a restart, once something was written", async () => {
    const bench = await Bench.start();
    await bench.append(to(3, { entries: [...run(1, 5, 1), ...run(6, 9, 3)] }));
    bench.log.compact(groupId(3), base(6, 3));
    const expected = shown(hard(0, 0, 0), base(6, 3), run(7, 9, 3));
    expect(bench.show(3)).toEqual(expected);
    expect(() => bench.group(3).entries(logIndex(6), logIndex(8), 100)).toThrow(/not in the log/);
    bench.log.compact(groupId(3), base(2));
    await bench.append(to(4, { entries: run(1, 1) }));
    await bench.crash();
    expect(bench.show(3)).toEqual(expected);
    bench.log.compact(groupId(3), base(9, 3));
    await bench.append(to(3, { entries: run(10, 10, 4) }));
    await bench.crash();
    expect(bench.show(3)).toEqual(shown(hard(0, 0, 0), base(9, 3), run(10, 10, 4)));
  });

  test("a removed group is forgotten, and may begin anew", async () => {
    const bench = await Bench.start();
    await bench.append(to(3, { entries: run(1, 5) }), to(4, { entries: run(1, 1) }));
    await bench.wait(bench.log.removeGroup(groupId(3)));
    expect(bench.log.groups()).toEqual([4]);
    await bench.crash();
    expect(bench.log.groups()).toEqual([4]);
    expect(bench.group(3).lastIndex()).toBe(0);
    await bench.append(to(3, { entries: run(1, 2, 9) }));
    await bench.crash();
    expect(bench.show(3)).toEqual(shown(hard(0, 0, 0), NO_BASE as never, run(1, 2, 9)));
  });

  test("numbers beyond 32 bits, empty and large entries, and both kinds survive", async () => {
    const bench = await Bench.start();
    const far = 2 ** 50;
    const big = bench.random.bytes(200_000);
    const entries = [
      { ...entry(far + 1, 2 ** 40, new Uint8Array(0)), kind: 1 as const },
      entry(far + 2, 2 ** 40, big),
      entry(far + 3, 2 ** 41, "x"),
    ];
    const append = to(2 ** 45, {
      hardState: hard(2 ** 41, 2 ** 20, far),
      snapshot: base(far, 2 ** 39),
      entries,
    });
    await bench.append(append);
    await bench.append(to(3, { entries: run(1, 1) }));
    await bench.crash();
    expect(bench.show(2 ** 45)).toEqual(shown(hard(2 ** 41, 2 ** 20, far), base(far, 2 ** 39), entries));
    expect(bench.show(3).entries).toHaveLength(1);
  });

  test("a hole, a step back below the base and a falling term are refused for good", async () => {
    for (const bad of [run(7, 7), run(2, 3), [entry(6), entry(8)], [entry(6, 3), entry(7, 2)]]) {
      const bench = await Bench.start();
      await bench.append(to(3, { snapshot: base(3), entries: run(4, 5) }));
      await expect(bench.append(to(3, { entries: bad }))).rejects.toMatchObject({
        code: "OSTRAKA_INVARIANT",
      });
      await expect(bench.append(to(3, { entries: run(6, 6) }))).rejects.toMatchObject({
        code: "OSTRAKA_INVARIANT",
      });
    }
  });
});

describe("group commit", () => {
  test("all that is queued during one write goes into the next, and resolves in order", async () => {
    const bench = await Bench.start();
    await bench.append(to(3, { entries: run(1, 1) }));
    const before = bench.disk.counts.get("write")!;
    const order: number[] = [];
    const pending: Promise<void>[] = [];
    for (let i = 2; i <= 200; i++) {
      pending.push(bench.log.append([to(3, { entries: run(i, i) })]).then(() => void order.push(i)));
      if (i === 2) await Promise.resolve().then(() => undefined);
    }
    await bench.wait(Promise.all(pending));
    expect(bench.disk.counts.get("write")! - before).toBe(2);
    expect(order).toEqual(Array.from({ length: 199 }, (_, i) => i + 2));
  });

  test("an append with nothing in it resolves after those before it", async () => {
    const bench = await Bench.start();
    const order: string[] = [];
    const first = bench.log.append([to(3, { entries: run(1, 1) })]).then(() => order.push("first"));
    const empty = bench.log.append([to(3, {})]).then(() => order.push("empty"));
    await bench.wait(Promise.all([first, empty]));
    expect(order).toEqual(["first", "empty"]);
    expect(bench.log.groups()).toEqual([3]);
  });

  test("[87] a write that ends late takes nothing from the tail that replaced its own", async () => {
    const bench = await Bench.start({ cacheBytes: 1 });
    await bench.append(to(3, { hardState: hard(1, 1, 0), entries: run(1, 4, 1) }));
    const late = bench.log.append([to(3, { entries: run(5, 8, 1) })]);
    await bench.clock.run(0);
    const newer = bench.log.append([to(3, { hardState: hard(2, 2, 4), entries: run(6, 7, 2) })]);
    const expected = shown(hard(2, 2, 4), NO_BASE as never, [...run(1, 5, 1), ...run(6, 7, 2)]);
    await bench.wait(late);
    expect(bench.show(3)).toEqual(expected);
    await bench.wait(newer);
    expect(bench.show(3)).toEqual(expected);
    await bench.crash("none");
    expect(bench.show(3)).toEqual(expected);
  });

  test("[88] when the promise resolves a power cut takes nothing, before it may take all", async () => {
    const bench = await Bench.start();
    let durable = false;
    const pending = bench.log.append([to(3, { entries: run(1, 1) })]).then(() => {
      durable = true;
    });
    await bench.clock.run(0);
    expect(bench.group(3).lastIndex()).toBe(1);
    expect(durable).toBe(false);
    await bench.wait(pending);
    await bench.crash("none");
    expect(bench.group(3).lastIndex()).toBe(1);
  });
});

describe("segments", () => {
  async function fill(bench: Bench, group: number, first: number, last: number): Promise<void> {
    for (let i = first; i <= last; i++) await bench.append(to(group, { entries: run(i, i, 1, 1000) }));
  }

  test("an idle log has one segment, a busy one rotates, and all of it is read back", async () => {
    const bench = await Bench.start({ segmentBytes: 16384, cacheBytes: 4096 });
    await fill(bench, 3, 1, 1);
    expect(bench.disk.paths()).toEqual(["/data/log/0000000001.log"]);
    await fill(bench, 3, 2, 100);
    expect(bench.log.usage().segments).toBe(7);
    const expected = shown(hard(0, 0, 0), NO_BASE as never, run(1, 100, 1, 1000));
    expect(bench.show(3)).toEqual(expected);
    await bench.crash();
    expect(bench.show(3)).toEqual(expected);
    expect(bench.log.usage()).toMatchObject({ segments: 7, oldestHeldBy: { group: 3, index: 15 } });
  });

  test("segments go once every group in them is compacted; what else is in them is said again", async () => {
    const bench = await Bench.start({ segmentBytes: 16384 });
    await bench.append(
      to(5, { hardState: hard(4, 2, 0), snapshot: base(50, 3) }),
      to(6, { hardState: hard(2, 1, 0) }),
    );
    await bench.append(to(7, { hardState: hard(1, 1, 1), entries: run(1, 3, 1) }));
    await fill(bench, 3, 1, 100);
    expect(bench.log.usage().oldestHeldBy).toMatchObject({ group: 3 });
    bench.log.compact(groupId(3), base(98));
    await bench.clock.run(1000);
    expect(bench.log.usage()).toMatchObject({ segments: 1, oldestHeldBy: undefined });
    const [inUse, prepared] = bench.segments();
    expect([inUse, prepared]).toEqual(["/data/log/0000000007.log", "/data/log/0000000008.log"]);
    await bench.crash("none");
    expect(bench.show(3)).toEqual(shown(hard(0, 0, 0), base(98), run(99, 100, 1, 1000)));
    expect(bench.show(5)).toEqual(shown(hard(4, 2, 0), base(50, 3), []));
    expect(bench.show(6)).toEqual(shown(hard(2, 1, 0), NO_BASE as never, []));
    expect(bench.show(7)).toEqual(shown(hard(1, 1, 1), NO_BASE as never, run(1, 3, 1)));
  });

  test("entries said again do not come back over those that replaced them in the same write", async () => {
    const bench = await Bench.start({ segmentBytes: 16384, cacheBytes: 1 });
    await bench.append(to(7, { hardState: hard(1, 1, 1), entries: run(1, 5, 1) }));
    await fill(bench, 3, 1, 100);
    bench.log.compact(groupId(3), base(100));
    const replaced = bench.log.append([to(7, { hardState: hard(2, 1, 1), entries: run(3, 4, 2) })]);
    const expected = shown(hard(2, 1, 1), NO_BASE as never, [...run(1, 2, 1), ...run(3, 4, 2)]);
    expect(bench.show(7)).toEqual(expected);
    await bench.wait(replaced);
    await bench.clock.run(1000);
    expect(bench.log.usage().segments).toBe(1);
    expect(bench.show(7)).toEqual(expected);
    await bench.crash("none");
    expect(bench.show(7)).toEqual(expected);
  });

  test("what is queued for the disk stays in memory, however little of it the cache may hold", async () => {
    const bench = await Bench.start({ segmentBytes: 16384, cacheBytes: 1 });
    await bench.append(to(3, { entries: run(1, 2) }));
    const first = bench.log.append([to(3, { entries: run(3, 4) })]);
    await bench.clock.run(0);
    const second = bench.log.append([to(3, { entries: run(5, 6) })]);
    await bench.wait(first);
    expect(bench.show(3).entries).toHaveLength(6);
    await bench.wait(second);
    expect(bench.show(3)).toEqual(shown(hard(0, 0, 0), NO_BASE as never, run(1, 6)));
  });

  test("a group with much in the oldest segment is named, and nothing is rewritten meanwhile", async () => {
    const bench = await Bench.start({ segmentBytes: 16384 });
    await fill(bench, 3, 1, 8);
    await fill(bench, 4, 1, 60);
    bench.log.compact(groupId(4), base(60));
    await bench.clock.run(1000);
    expect(bench.log.usage().oldestHeldBy).toEqual({ group: 3, index: 8 });
    const segments = bench.log.usage().segments;
    expect(segments).toBeGreaterThan(3);
    bench.log.compact(groupId(3), base(8));
    await bench.clock.run(1000);
    expect(bench.log.usage().segments).toBe(1);
    await bench.crash("none");
    expect(bench.show(3)).toEqual(shown(hard(0, 0, 0), base(8), []));
    expect(bench.show(4)).toEqual(shown(hard(0, 0, 0), base(60), []));
  });

  test("an entry larger than a segment has one of its own", async () => {
    const bench = await Bench.start({ segmentBytes: 4096 });
    const big = entry(2, 1, bench.random.bytes(50_000));
    for (const e of [entry(1), big, entry(3)]) await bench.append(to(3, { entries: [e] }));
    const expected = shown(hard(0, 0, 0), NO_BASE as never, [entry(1), big, entry(3)]);
    await bench.crash();
    expect(bench.show(3)).toEqual(expected);
    expect(bench.log.usage().segments).toBe(3);
  });

  test("closing keeps everything, refuses what comes after, and can be repeated", async () => {
    const bench = await Bench.start();
    const pending = bench.log.append([to(3, { entries: run(1, 2) })]);
    bench.log.compact(groupId(3), base(1));
    await bench.wait(Promise.all([bench.log.close(), pending]));
    await bench.wait(bench.log.close());
    await expect(bench.append(to(3, { entries: run(3, 3) }))).rejects.toMatchObject({
      code: "OSTRAKA_LOG_CLOSED",
    });
    for (let i = 0; i < 3; i++) {
      await bench.open();
      expect(bench.show(3)).toEqual(shown(hard(0, 0, 0), base(1), run(2, 2)));
      await bench.wait(bench.log.close());
    }
  });
});

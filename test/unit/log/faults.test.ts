/** What the log does when its disk refuses. */
import { describe, expect, test } from "vitest";
import { groupId, logIndex } from "../../../src/base/ids.js";
import { Bench, base, entry, run, to } from "./support.js";

describe("a failed write or sync", () => {
  for (const operation of ["write", "sync"] as const) {
    test(`[90] ${operation}: everything pending and later is refused with it, and nothing is written again`, async () => {
      const bench = await Bench.start();
      await bench.append(to(3, { entries: run(1, 3) }));
      bench.disk.failNext(operation, "EIO");
      const outcomes = [4, 5, 6].map((i) => bench.log.append([to(3, { entries: run(i, i) })]));
      const settled = await bench.wait(Promise.allSettled(outcomes));
      for (const outcome of settled) {
        expect(outcome).toMatchObject({
          status: "rejected",
          reason: { family: "fatal", code: "OSTRAKA_IO" },
        });
      }
      const writes = bench.disk.counts.get("write");
      await expect(bench.append(to(3, { entries: run(7, 7) }))).rejects.toMatchObject({ code: "OSTRAKA_IO" });
      await expect(bench.wait(bench.log.removeGroup(groupId(3)))).rejects.toMatchObject({
        code: "OSTRAKA_IO",
      });
      bench.log.compact(groupId(3), base(2));
      await bench.clock.run(60_000);
      await bench.wait(bench.log.close());
      expect(bench.failures).toEqual(["OSTRAKA_IO"]);
      expect(bench.disk.counts.get("write")).toBe(writes);
      await bench.crash("none");
      expect(bench.group(3).lastIndex()).toBeGreaterThanOrEqual(3);
      expect(bench.group(3).base().index).toBe(0);
    });
  }

  test("[90] an error while the next segment is prepared stops the log too", async () => {
    const bench = await Bench.start({ segmentBytes: 16384 });
    bench.disk.failNext("write", "EIO", /next\.tmp/);
    let refused: unknown;
    for (let i = 1; i <= 20 && refused === undefined; i++) {
      await bench.append(to(3, { entries: run(i, i, 1, 1000) })).catch((error: unknown) => {
        refused = error;
      });
    }
    expect(refused).toMatchObject({ code: "OSTRAKA_IO" });
  });

  test("[90] an error while nobody waits is told: a host that refuses writes would never hear of it", async () => {
    const bench = await Bench.start({ segmentBytes: 16384 });
    bench.disk.failNext("write", "ENOSPC", /next\.tmp/);
    let next = 1;
    while (bench.announced.length === 0) {
      await bench.append(to(3, { entries: run(next, next, 1, 1000) }));
      next++;
      expect(next).toBeLessThan(16);
    }
    bench.disk.failNext("open", "EIO", /next\.tmp/);
    await bench.clock.run(2000);
    expect(bench.failures).toEqual(["OSTRAKA_IO"]);
  });
});

describe("a full disk", () => {
  test("[94] is announced while there is room, then holds appends until space returns, none lost or reordered", async () => {
    const bench = await Bench.start({ segmentBytes: 16384 });
    bench.disk.capacityBytes = bench.disk.usedBytes() + 5000;
    const order: number[] = [];
    const pending: Promise<unknown>[] = [];
    for (let i = 1; i <= 40; i++) {
      pending.push(bench.log.append([to(3, { entries: run(i, i, 1, 1000) })]).then(() => order.push(i)));
      await bench.clock.run(5);
      if (bench.announced.length > 0 && order.length === i) expect(i).toBeLessThan(16);
    }
    expect(bench.announced).toEqual([expect.stringContaining("no space left")]);
    expect(order).toEqual(Array.from({ length: 15 }, (_, i) => i + 1));
    await bench.clock.run(60_000);
    expect(order).toHaveLength(15);
    expect(bench.announced).toHaveLength(1);
    expect(bench.group(3).lastIndex()).toBe(40);

    bench.disk.capacityBytes += 200_000;
    await bench.wait(Promise.all(pending));
    expect(order).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
    await bench.clock.run(60_000);
    expect(bench.announced).toEqual([expect.any(String), undefined]);
    await bench.crash("none");
    expect(bench.group(3).lastIndex()).toBe(40);
  });

  test("[94] announced early, the room left lets compaction free the space that was lacking", async () => {
    const bench = await Bench.start({ segmentBytes: 16384 });
    for (let i = 1; i <= 30; i++) await bench.append(to(3, { entries: run(i, i, 1, 1000) }));
    bench.disk.capacityBytes = bench.disk.usedBytes();
    let next = 31;
    while (bench.announced.length === 0) {
      await bench.append(to(3, { entries: run(next, next, 1, 1000) }));
      await bench.clock.run(5);
      next++;
      expect(next).toBeLessThan(60);
    }
    bench.log.compact(groupId(3), base(next - 1));
    await bench.append(to(3, { entries: run(next, next, 1, 1000) }));
    await bench.clock.run(2000);
    expect(bench.announced).toEqual([expect.any(String), undefined]);
    await bench.append(to(3, { entries: run(next + 1, next + 20, 1, 1000) }));
    await bench.crash("none");
    expect(bench.group(3).lastIndex()).toBe(next + 20);
  });

  test("[94] a write that finds no space is written again whole", async () => {
    const bench = await Bench.start({ segmentBytes: 4096 });
    await bench.append(to(3, { entries: run(1, 1) }));
    bench.disk.failNext("write", "ENOSPC");
    bench.disk.failNext("sync", "ENOSPC");
    const data = bench.random.bytes(20_000);
    await bench.append(to(3, { entries: [entry(2, 1, data)] }), to(4, { entries: run(1, 1) }));
    expect(bench.announced.at(-1)).toBeUndefined();
    expect(bench.announced.length).toBeGreaterThanOrEqual(2);
    await bench.append(to(3, { entries: run(3, 3) }));
    await bench.crash("none");
    const found = bench.group(3).entries(logIndex(2), logIndex(3), 1)[0]!;
    expect(Buffer.compare(found.data, data)).toBe(0);
    expect(bench.group(3).lastIndex()).toBe(3);
  });

  test("closing while it lasts refuses what is pending", async () => {
    const bench = await Bench.start({ segmentBytes: 4096 });
    bench.disk.capacityBytes = bench.disk.usedBytes();
    const pending = bench.log.append([to(3, { entries: run(1, 1) })]);
    const stuck = bench.log.append([to(3, { entries: run(2, 2, 1, 10_000) })]);
    stuck.catch(() => undefined);
    await bench.wait(pending);
    await bench.clock.run(2000);
    await bench.wait(bench.log.close());
    await expect(stuck).rejects.toMatchObject({ code: "OSTRAKA_LOG_CLOSED" });
  });

  test("a first start without room says so", async () => {
    const bench = await Bench.start();
    bench.disk.wipe();
    bench.disk.capacityBytes = 5000;
    await expect(bench.open()).rejects.toMatchObject({ code: "OSTRAKA_DISK_FULL" });
    bench.disk.capacityBytes = 1e9;
    await bench.open();
  });
});

test("a segment that could not be removed for want of space leaves no gap behind it", async () => {
  const bench = await Bench.start({ segmentBytes: 16384 });
  let next = 1;
  const fill = async (count: number): Promise<void> => {
    for (const end = next + count; next < end; next++)
      await bench.append(to(3, { entries: run(next, next, 1, 1000) }));
    bench.log.compact(groupId(3), base(next - 1));
    await bench.append(to(3, { entries: run(next, next, 1, 1000) }));
    next++;
    await bench.clock.run(2000);
  };
  // As file systems that copy on write answer when they are full.
  bench.disk.failNext("remove", "ENOSPC", /0000000001\.log/);
  await fill(80);
  await fill(40);
  expect(bench.failures).toEqual([]);
  await bench.wait(bench.log.close());
  await bench.open();
  expect(bench.group(3).lastIndex()).toBe(next - 1);
});

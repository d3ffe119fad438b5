/** What a start makes of a log that a crash, a rotation cut short, or a bad disk has left. */
import { describe, expect, test } from "vitest";
import { logIndex } from "../../../src/base/ids.js";
import { decodeSegmentHeader, endOfContent, HEADER_BYTES } from "../../../src/log/batch.js";
import { segmentName } from "../../../src/log/segment.js";
import { Bench, base, DIRECTORY, hard, run, to } from "./support.js";

const FIRST = `${DIRECTORY}/${segmentName(1)}`;

/** A log of three acknowledged writes, and where each of them ends in the only segment. */
async function threeWrites(): Promise<{ bench: Bench; ends: number[]; states: unknown[] }> {
  const bench = await Bench.start({ segmentBytes: 4096 });
  const ends = [HEADER_BYTES];
  const states: unknown[] = [both(bench)];
  const writes = [
    [to(3, { hardState: hard(1, 1, 0), entries: run(1, 2, 1) })],
    [
      to(3, { hardState: hard(2, 2, 1), entries: run(2, 3, 2) }),
      to(4, { snapshot: base(9, 2), hardState: hard(2, 0, 9) }),
    ],
    [to(3, { hardState: hard(3, 3, 3), entries: run(4, 4, 3) }), to(4, { entries: run(10, 12, 3) })],
  ];
  for (const write of writes) {
    await bench.append(...write);
    ends.push(endOfContent(bench.disk.contents(FIRST), HEADER_BYTES));
    states.push(both(bench));
  }
  return { bench, ends, states };
}

function both(bench: Bench): unknown {
  return [bench.show(3), bench.show(4)];
}

describe("a torn tail", () => {
  test("[91] is cut at the last whole write, wherever it tore, and the log goes on from there", async () => {
    const { bench, ends, states } = await threeWrites();
    const whole = bench.disk.contents(FIRST);
    for (let cut = ends[2]!; cut < ends[3]!; cut++) {
      const torn = whole.slice();
      torn.fill(0, cut);
      bench.disk.damage(FIRST, 0, torn);
      await bench.crash("none");
      expect(both(bench), `torn at ${cut}`).toEqual(states[2]);
      await bench.append(to(5, { entries: run(1, 1) }));
      await bench.crash("none");
      expect(both(bench), `torn at ${cut}, then written to`).toEqual(states[2]);
      expect(bench.group(5).lastIndex()).toBe(1);
    }
  });

  test("[91] is cut too when its beginning is what is missing, and leaves nothing behind", async () => {
    const { bench, ends, states } = await threeWrites();
    const whole = bench.disk.contents(FIRST);
    for (let from = ends[2]! + 1; from < ends[3]!; from++) {
      const torn = whole.slice();
      torn.fill(0, ends[2]!, from);
      bench.disk.damage(FIRST, 0, torn);
      await bench.crash("none");
      expect(both(bench), `the first ${from - ends[2]!} bytes missing`).toEqual(states[2]);
      expect(endOfContent(bench.disk.contents(FIRST), HEADER_BYTES)).toBe(ends[2]);
    }
  });

  test("[92] hard state and entries of one append are there together or not at all", async () => {
    let lost = 0;
    let kept = 0;
    for (let seed = 1; seed <= 60; seed++) {
      const bench = await Bench.start({ seed });
      await bench.append(to(3, { hardState: hard(1, 1, 1), entries: run(1, 2, 1) }));
      const before = bench.show(3);
      void bench.log
        .append([to(3, { hardState: hard(2, 2, 2), entries: run(2, 40, 2, 300) })])
        .catch(() => undefined);
      const after = bench.show(3);
      await bench.clock.run(0);
      await bench.crash();
      const found = bench.show(3);
      if (found.hardState.term === 1) {
        lost++;
        expect(found, `seed ${seed}`).toEqual(before);
      } else {
        kept++;
        expect(found, `seed ${seed}`).toEqual(after);
      }
    }
    expect(Math.min(lost, kept), `lost ${lost}, kept ${kept}`).toBeGreaterThan(5);
  });
});

describe("damage", () => {
  test("[91] to any bit before the last write is fatal and names segment and offset", async () => {
    const { bench, ends } = await threeWrites();
    for (let at = 0; at < ends[2]!; at++) {
      bench.disk.flipBit(FIRST, at, at % 8);
      bench.disk.crash("none");
      const start = at < HEADER_BYTES ? 0 : ends.findLast((end) => end <= at)!;
      await expect(bench.open(), `bit flipped at ${at}`).rejects.toMatchObject({
        family: "fatal",
        code: "OSTRAKA_LOG_CORRUPT",
        message: expect.stringContaining(`0000000001.log is damaged at offset ${start}:`),
      });
      bench.disk.flipBit(FIRST, at, at % 8);
    }
    bench.disk.crash("none");
    await bench.open();
  });

  test("[91] to the last write cannot be told from a torn tail, but after a clean close it is fatal", async () => {
    const { bench, ends, states } = await threeWrites();
    bench.disk.flipBit(FIRST, ends[2]! + 40, 1);
    await bench.crash("none");
    expect(both(bench)).toEqual(states[2]);

    const closed = await threeWrites();
    await closed.bench.wait(closed.bench.log.close());
    closed.bench.disk.flipBit(FIRST, ends[2]! + 40, 1);
    await expect(closed.bench.open()).rejects.toThrow(
      `is damaged at offset ${ends[2]}: batch 3 is not whole`,
    );
  });

  test("[91] to the end of a segment that others follow is fatal", async () => {
    const bench = await Bench.start({ segmentBytes: 4096 });
    for (let i = 1; i <= 12; i++) await bench.append(to(3, { entries: run(i, i, 1, 900) }));
    const end = endOfContent(bench.disk.contents(FIRST), HEADER_BYTES);
    bench.disk.flipBit(FIRST, end - 10, 1);
    bench.disk.crash("none");
    await expect(bench.open()).rejects.toThrow(
      /0000000001\.log is damaged at offset \d+: batch 4 is not whole, but segment 0000000002\.log/,
    );
    bench.disk.flipBit(FIRST, end - 10, 1);

    // A write that vanished whole: zeros where it was.
    const bytes = bench.disk.contents(FIRST);
    bench.disk.damage(FIRST, 2900, new Uint8Array(bytes.length - 2900));
    bench.disk.crash("none");
    await expect(bench.open()).rejects.toMatchObject({ code: "OSTRAKA_LOG_CORRUPT" });
  });

  test("a missing segment, and one under another's name, are fatal", async () => {
    const bench = await Bench.start({ segmentBytes: 4096 });
    for (let i = 1; i <= 20; i++) await bench.append(to(3, { entries: run(i, i, 1, 900) }));
    const [first, second, third] = bench.segments();
    await bench.wait(bench.disk.remove(second!));
    await expect(bench.open()).rejects.toThrow("log segment 0000000002.log is missing");
    await bench.wait(bench.disk.rename(third!, second!));
    await expect(bench.open()).rejects.toThrow("is missing");
    await bench.crash("all").catch(() => undefined);
    for (const path of bench.segments()) if (path > second!) await bench.wait(bench.disk.remove(path));
    await expect(bench.open()).rejects.toThrow("its header says it is segment 0000000003.log");
    await bench.wait(bench.disk.remove(first!));
    await bench.wait(bench.disk.remove(second!));
    await bench.open();
    expect(bench.log.groups()).toEqual([]);
  });

  test("the loss of the oldest segments is noticed by the groups that needed them", async () => {
    const bench = await Bench.start({ segmentBytes: 4096 });
    for (let i = 1; i <= 20; i++) await bench.append(to(3, { entries: run(i, i, 1, 900) }));
    await bench.wait(bench.disk.remove(FIRST));
    await expect(bench.open()).rejects.toThrow("the log of group 3 begins at entry 5, but its base is 0");
  });

  test("an entry that decays while the log is open fails its checksum when it is read", async () => {
    const bench = await Bench.start({ segmentBytes: 65536, cacheBytes: 1 });
    await bench.append(to(3, { entries: run(1, 3, 1, 500) }));
    bench.disk.flipBit(FIRST, 1000);
    expect(() => bench.group(3).entries(logIndex(1), logIndex(4), 10_000)).toThrow(
      /entry 2 of group 3 fails its checksum/,
    );
  });

  test("an error reading at start is reported, not taken for an end", async () => {
    const { bench } = await threeWrites();
    bench.disk.failNext("read", "EIO");
    await expect(bench.open()).rejects.toMatchObject({ code: "OSTRAKA_IO" });
  });
});

describe("rotation", () => {
  test("[93] names and contents of segments agree after a crash at any step of it", async () => {
    let rotations = 0;
    for (const keep of ["none", "all", "some"] as const) {
      for (let steps = 0; steps < 90; steps++) {
        const bench = await Bench.start({ seed: steps + 1, segmentBytes: 4096 });
        let acknowledged = 0;
        void (async () => {
          for (let i = 1; ; i++) {
            await bench.log.append([to(3, { entries: run(i, i, 1, 700) })]);
            acknowledged = i;
            if (i % 4 === 0) bench.log.compact(3 as never, base(i - 2));
          }
        })();
        for (let i = 0; i < steps; i++) {
          await bench.clock.run(0);
          bench.clock.fireNext();
        }
        await bench.clock.run(0);
        await bench.crash(keep);
        const last = bench.group(3).lastIndex();
        expect(last, `keep ${keep}, ${steps} steps`).toBeGreaterThanOrEqual(acknowledged);
        expect(last).toBeLessThanOrEqual(acknowledged + 1);
        const names = bench.segments();
        for (const [i, path] of names.entries()) {
          const header = decodeSegmentHeader(bench.disk.contents(path))!;
          expect(path).toBe(`${DIRECTORY}/${segmentName(header.segment)}`);
          expect(header.segment).toBe(Number(names[0]!.slice(-14, -4)) + i);
          rotations = Math.max(rotations, header.segment);
        }
        await bench.append(to(3, { entries: run(last + 1, last + 9, 2, 700) }));
      }
    }
    expect(rotations).toBeGreaterThan(4);
  });
});

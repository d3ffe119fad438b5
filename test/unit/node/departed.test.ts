import { describe, expect, it } from "vitest";
import { FatalError } from "../../../src/base/errors.js";
import { groupId, logIndex, nodeId, term } from "../../../src/base/ids.js";
import { DepartedRanges } from "../../../src/node/ranges/departed.js";
import { ManualClock } from "../../sim/manual-clock.js";
import { MemoryDisk } from "../../sim/memory-disk.js";

const promised = (atTerm: number, vote = 2, last = 9, lastTerm = atTerm) => ({
  term: term(atTerm),
  vote: nodeId(vote),
  log: { index: logIndex(last), term: term(lastTerm) },
});

describe("departed ranges", () => {
  it("are remembered with what they had promised, over restarts", async () => {
    const disk = new MemoryDisk();
    const before = await DepartedRanges.open(disk.session(), "data", new ManualClock());
    expect(before.get(groupId(7))).toBeUndefined();
    await before.left(groupId(7), promised(5));
    await before.left(groupId(9), promised(1, 0));
    disk.crash();
    const after = await DepartedRanges.open(disk.session(), "data", new ManualClock());
    expect(after.gone()).toEqual([7, 9]);
    expect(after.get(groupId(7))).toEqual({ promised: promised(5), back: false });
  });

  it("come back, and never promise less than before", async () => {
    const disk = new MemoryDisk();
    const departed = await DepartedRanges.open(disk.session(), "data", new ManualClock());
    await departed.left(groupId(7), promised(5));
    await departed.back(groupId(7));
    expect(departed.gone()).toEqual([]);
    // It left again before it had heard anything of its group.
    await departed.left(groupId(7), promised(0, 0, 0));
    expect(departed.get(groupId(7))).toEqual({ promised: promised(5), back: false });
    disk.crash();
    const after = await DepartedRanges.open(disk.session(), "data", new ManualClock());
    expect(after.get(groupId(7))).toEqual({ promised: promised(5), back: false });
  });

  it("know what their groups had committed, also when they leave again without hearing of it", async () => {
    const disk = new MemoryDisk();
    const departed = await DepartedRanges.open(disk.session(), "data", new ManualClock());
    const committed = { index: logIndex(8), term: term(4) };
    await departed.left(groupId(7), promised(5), committed);
    await departed.back(groupId(7));
    await departed.left(groupId(7), promised(6));
    await departed.left(groupId(8), promised(5));
    disk.crash();
    const after = await DepartedRanges.open(disk.session(), "data", new ManualClock());
    expect(after.get(groupId(7))?.committed).toEqual(committed);
    expect(after.get(groupId(8))?.committed).toBeUndefined();
  });

  it("may have promised a later term with a shorter log", async () => {
    const departed = await DepartedRanges.open(new MemoryDisk().session(), "data", new ManualClock());
    await departed.left(groupId(7), promised(5));
    await departed.left(groupId(7), promised(6, 1, 4, 4));
    expect(departed.returning(groupId(7))).toEqual({ promised: promised(6, 1, 9, 5) });
    expect(departed.returning(groupId(8))).toEqual({});
  });

  it("may have had anything of their term where it was not noted", async () => {
    const disk = new MemoryDisk().session();
    await disk.writeFile("data/departed.json", new TextEncoder().encode('{"format":1,"ranges":[[7,5,2,1]]}'));
    const departed = await DepartedRanges.open(disk, "data", new ManualClock());
    expect(departed.returning(groupId(7))).toEqual({ promised: promised(5, 2, Number.MAX_SAFE_INTEGER) });
  });

  it("are back only once that is on the disk", async () => {
    const disk = new MemoryDisk();
    const departed = await DepartedRanges.open(disk.session(), "data", new ManualClock());
    await departed.left(groupId(7), promised(5));
    disk.onOperation = () => {
      throw new FatalError("OSTRAKA_DISK_FULL", "no space left");
    };
    await expect(departed.back(groupId(7))).rejects.toThrow("no space left");
    expect(departed.gone()).toEqual([7]);
    disk.onOperation = undefined;
    await departed.back(groupId(7));
    disk.crash();
    const after = await DepartedRanges.open(disk.session(), "data", new ManualClock());
    expect(after.get(groupId(7))).toEqual({ promised: promised(5), back: true });
  });

  it("are not guessed at when the file is damaged", async () => {
    const disk = new MemoryDisk();
    await disk.session().writeFile("data/departed.json", new TextEncoder().encode("{"));
    await expect(DepartedRanges.open(disk.session(), "data", new ManualClock())).rejects.toMatchObject({
      code: "OSTRAKA_CORRUPT",
    });
  });
});

import { describe, expect, it } from "vitest";
import { IdTable } from "../../../src/base/id-table.js";
import { SeededRandom } from "../../sim/seeded-random.js";

describe("a table of ids", () => {
  it("keeps ids that share a place apart", () => {
    const table = new IdTable<string>();
    table.set(1, "a");
    table.set(1 + 64, "b");
    table.set(1 + 4096, "c");
    expect([table.get(1), table.get(65), table.get(4097), table.get(129)]).toEqual([
      "a",
      "b",
      "c",
      undefined,
    ]);
    expect(table.delete(1)).toBe(true);
    expect(table.delete(1)).toBe(false);
    // The place is free, but its second owner has been kept elsewhere all the time.
    table.set(65, "b2");
    expect([table.get(65), table.size]).toEqual(["b2", 2]);
    expect(table.delete(65)).toBe(true);
    expect([table.get(65), table.has(4097), table.size]).toEqual([undefined, true, 1]);
  });

  it("takes ids beyond 32 bits", () => {
    const table = new IdTable<number>();
    const ids = [2 ** 31, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 1];
    for (const id of ids) table.set(id, id);
    expect(ids.map((id) => table.get(id))).toEqual(ids);
    expect([table.get(0), table.get(1), table.size]).toEqual([undefined, undefined, 4]);
  });

  it.each([1, 2, 3, 4])("does as a Map does (SEED=%i)", (seed) => {
    const random = new SeededRandom(seed);
    const table = new IdTable<number>();
    const map = new Map<number, number>();
    let next = 0;
    for (let step = 0; step < 20_000; step++) {
      const known = [...map.keys()];
      const draw = random.float();
      // Mostly as calls come and go: ids count up, and leave soon; now and then one that is anywhere.
      const id =
        draw < 0.5
          ? next++
          : draw < 0.95
            ? (known[Math.floor(random.float() * known.length)] ?? 0)
            : random.uint32();
      if (draw < 0.5 || draw > 0.97) {
        table.set(id, step);
        map.set(id, step);
      } else expect(table.delete(id)).toBe(map.delete(id));
      if (step % 1000 === 0) {
        expect(table.values().sort((a, b) => a - b)).toEqual([...map.values()].sort((a, b) => a - b));
        for (const [key, value] of map) expect(table.get(key)).toBe(value);
      }
      if (step === 15_000) {
        table.clear();
        map.clear();
      }
      expect(table.size).toBe(map.size);
    }
  });
});

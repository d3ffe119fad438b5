/** What a scratch database is known to have. */
import { beforeEach, describe, expect, it } from "vitest";
import { groupId, logIndex, term } from "../../../src/base/ids.js";
import { encodeKey } from "../../../src/base/keys.js";
import type { GatewayDatabase } from "../../../src/gateway/database.js";
import type { Deadline } from "../../../src/gateway/deadline.js";
import { Scratch } from "../../../src/gateway/scratch.js";
import type { Runner, SchemaSnapshot } from "../../../src/machines/range/types.js";
import type { RangeDescriptor } from "../../../src/placement/descriptor.js";
import { RangeDirectory } from "../../../src/placement/directory.js";
import { rangesOf } from "../../../src/placement/route.js";

const SCHEMA: SchemaSnapshot = {
  version: 1,
  statements: [],
  appliedIndex: logIndex(1),
  tables: [{ name: "t", id: 1, shard: "rowid", keyColumns: ["rowid"], autoincrement: false }],
};

function range(id: number, start: string, end: string, generation: number): RangeDescriptor {
  return { range: groupId(id), start, end, generation, replicas: [] };
}

async function scratchOver(
  pinned: readonly RangeDescriptor[],
  known: readonly RangeDescriptor[],
  load?: Runner["load"],
) {
  const directory = new RangeDirectory(known);
  const db = {
    limits: { maxScratchBytes: 1 << 20 },
    ranges: { directory: () => directory },
    replica: () => undefined,
    rangesOf: (spans: Parameters<typeof rangesOf>[0]) => rangesOf(spans, SCHEMA.tables, directory),
  };
  const pins = new Map(
    pinned.map((descriptor) => [
      descriptor.range,
      { descriptor, index: logIndex(1), term: term(1), source: Number(descriptor.range) },
    ]),
  );
  const runner = { openScratch: async () => {}, load } as unknown as Runner;
  return Scratch.open(db as unknown as GatewayDatabase, runner, { pins, schema: SCHEMA, wallMs: 0 });
}

describe("a scratch database", () => {
  const at = (rowid: number) => encodeKey(1, [BigInt(rowid)]);
  const left = range(3, "", at(10), 2);
  const right = range(4, at(10), "", 2);
  const row = (rowid: number) => [{ table: "t", low: BigInt(rowid), high: BigInt(rowid) }];

  it("reaches what is pinned as it is now", async () => {
    const scratch = await scratchOver([left], [left, right]);
    expect(scratch.reaches(row(5))).toBe(true);
    expect(scratch.reaches(row(15))).toBe(false);
    expect((await scratchOver([left], [{ ...left, generation: 3 }, right])).reaches(row(5))).toBe(false);
  });

  it("does not take what lies in a range that nobody has told of for nothing", async () => {
    const scratch = await scratchOver([left], [left]);
    expect(scratch.reaches(row(15))).toBe(false);
  });

  describe("over ranges that have not deleted each other's rows yet", () => {
    const ROWIDS = [1n, 5n, 9n, 10n, 11n, 15n];
    const whole = [{ table: "t", low: undefined, high: undefined }];
    const deadline = { stopped: false, race: <T>(work: Promise<T>) => work } as unknown as Deadline;
    let brought: string[];
    let asked: number;

    /** Both files still have all of the rows, as right after a split. */
    const load: Runner["load"] = async (loads) => {
      asked++;
      for (const {
        source,
        load: { slice },
      } of loads)
        for (const rowid of ROWIDS) {
          const [low, high] = [slice.low?.[0] as bigint | undefined, slice.high?.[0] as bigint | undefined];
          const { lowAfter = false, highAfter = false } = slice;
          if (low !== undefined && (lowAfter ? rowid <= low : rowid < low)) continue;
          if (high !== undefined && (highAfter ? rowid > high : rowid >= high)) continue;
          brought.push(`${rowid} of ${source}`);
        }
      return { rows: brought.length, bytes: 0 } as unknown as Awaited<ReturnType<Runner["load"]>>;
    };

    beforeEach(() => {
      brought = [];
      asked = 0;
    });

    const ITS_OWN = ["1 of 3", "5 of 3", "9 of 3", "10 of 4", "11 of 4", "15 of 4"];

    it("brings every row from the range that has its key", async () => {
      const scratch = await scratchOver([left, right], [left, right], load);
      await scratch.ensure({ reads: whole, writes: [], checks: [] }, deadline);
      expect(brought).toEqual(ITS_OWN);
      brought = [];
      await scratch.ensure({ reads: [], writes: [], checks: row(11) }, deadline);
      expect(brought).toEqual([]);
    });

    it("brings parts of a table from the range that has their keys", async () => {
      const scratch = await scratchOver([left, right], [left, right], load);
      const some = { table: "t", low: 5n, high: 11n };
      await scratch.ensure({ reads: [some], writes: [], checks: [] }, deadline);
      expect(brought).toEqual(["5 of 3", "9 of 3", "10 of 4", "11 of 4"]);
    });

    it("brings rows for each condition, also where only values differ that JSON does not know", async () => {
      const scratch = await scratchOver([left, right], [left, right], load);
      const values = [
        null,
        Number.POSITIVE_INFINITY,
        Number.NEGATIVE_INFINITY,
        0,
        -0,
        0n,
        "0",
        new Uint8Array(1),
      ];
      for (const value of values) {
        const where = [{ sql: "v IS ?", params: [value] }];
        for (const expected of [ITS_OWN, []]) {
          brought = [];
          await scratch.ensure({ reads: whole, writes: [], checks: [] }, deadline, new Map([["t", where]]));
          expect(brought).toEqual(expected);
        }
      }
    });

    it("lets each range answer for its own rows, of those that have any, and asks once for all of them", async () => {
      const scratch = await scratchOver([left, right], [left, right], load);
      await scratch.bring(scratch.slices("t", whole), { table: "t" }, deadline);
      expect(brought).toEqual(ITS_OWN);
      expect(asked).toBe(1);
      expect(scratch.slices("t", row(5)).map(({ pin }) => pin.descriptor.range)).toEqual([3]);
    });
  });
});

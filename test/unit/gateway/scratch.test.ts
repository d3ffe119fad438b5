/** What a scratch database is known to have. */
import { describe, expect, it } from "vitest";
import { groupId, logIndex, term } from "../../../src/base/ids.js";
import { encodeKey } from "../../../src/base/keys.js";
import type { GatewayDatabase } from "../../../src/gateway/database.js";
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

async function scratchOver(pinned: readonly RangeDescriptor[], known: readonly RangeDescriptor[]) {
  const directory = new RangeDirectory(known);
  const db = {
    ranges: { directory: () => directory },
    rangesOf: (spans: Parameters<typeof rangesOf>[0]) => rangesOf(spans, SCHEMA.tables, directory),
  };
  const pins = new Map(
    pinned.map((descriptor) => [
      descriptor.range,
      { descriptor, index: logIndex(1), term: term(1), source: 0 },
    ]),
  );
  const runner = { openScratch: async () => {} } as unknown as Runner;
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
});

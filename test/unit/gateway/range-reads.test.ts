import { expect, it } from "vitest";
import { groupId, logIndex, term } from "../../../src/base/ids.js";
import { RangeReads } from "../../../src/gateway/range-reads.js";

it("tells once what was read again and again, each range as of its pins", () => {
  const reads = new RangeReads();
  const whole = { table: "t", low: undefined, high: undefined };
  const row = (key: bigint) => ({ table: "u", low: key, high: key });
  for (let i = 0; i < 1_000; i++)
    for (const range of [3, 4]) reads.add(groupId(range), logIndex(7), term(1), [whole, row(BigInt(i % 10))]);
  reads.add(groupId(3), logIndex(9), term(1), [row(5n)]);
  reads.add(groupId(5), logIndex(9), term(1), []);
  const rows = Array.from({ length: 10 }, (_, i) => row(BigInt(i)));
  expect(reads.all()).toEqual([
    { range: 3, index: 7, term: 1, spans: [whole, ...rows] },
    { range: 4, index: 7, term: 1, spans: [whole, ...rows] },
    { range: 3, index: 9, term: 1, spans: [row(5n)] },
  ]);
});

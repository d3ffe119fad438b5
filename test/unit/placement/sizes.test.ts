import { expect, it } from "vitest";
import { isTooBig, shouldMerge } from "../../../src/placement/sizes.js";

const size = (bytes: number, rows = 0, untrimmed = false) => ({ bytes, rows, untrimmed });
const BY_BYTES = { rangeMaxBytes: 1000, rangeMaxRows: 0 };
const BY_ROWS = { rangeMaxBytes: 1000, rangeMaxRows: 10 };

it("splits what is too big, by bytes only once what is another's is gone", () => {
  expect(isTooBig(size(1000), BY_BYTES)).toBe(false);
  expect(isTooBig(size(1001), BY_BYTES)).toBe(true);
  expect(isTooBig(size(1001, 0, true), BY_BYTES)).toBe(false);
  expect(isTooBig(size(1, 11, true), BY_ROWS)).toBe(true);
  expect(isTooBig(size(1, 1_000_000), BY_BYTES)).toBe(false);
});

it("merges only what is far from being split again", () => {
  expect(shouldMerge(size(100), size(149), BY_BYTES)).toBe(true);
  expect(shouldMerge(size(100), size(150), BY_BYTES)).toBe(false);
  expect(shouldMerge(size(1), size(1, 0, true), BY_BYTES)).toBe(false);
  expect(shouldMerge(size(1), size(1), BY_ROWS)).toBe(false);
});

/** When ranges are too big, and when two are so small that they should be one. */

export interface SizeLimits {
  readonly rangeMaxBytes: number;
  /** 0 for none. */
  readonly rangeMaxRows: number;
}

export interface RangeSize {
  /** Without free pages. */
  readonly bytes: number;
  readonly rows: number;
  /** Rows that are not the range's own may be left in its file: its size says little. */
  readonly untrimmed: boolean;
}

/** Two ranges become one when both together are smaller than this part of the limit: far from being split again. */
const MERGE_PART = 4;

export function isTooBig({ bytes, rows, untrimmed }: RangeSize, limits: SizeLimits): boolean {
  if (limits.rangeMaxRows > 0 && rows > limits.rangeMaxRows) return true;
  return !untrimmed && bytes > limits.rangeMaxBytes;
}

/** Never where ranges are split by rows: who sets that wants many. */
export function shouldMerge(left: RangeSize, right: RangeSize, limits: SizeLimits): boolean {
  if (limits.rangeMaxRows > 0 || left.untrimmed || right.untrimmed) return false;
  return left.bytes + right.bytes < limits.rangeMaxBytes / MERGE_PART;
}

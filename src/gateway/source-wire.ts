/** What nodes say to one another about sources, as plain values: what is to be pinned, what was, and loads of rows. */
import type { WireError } from "../base/errors.js";
import type { GroupId, LogIndex } from "../base/ids.js";
import { decodeVector, encodeVector, type SqlValue } from "../base/values.js";
import type { ScratchCondition, ScratchLoad } from "../machines/range/types.js";

/** A range as it is to be pinned: at this generation, once it has applied this index. */
export type WantedSource = readonly [range: GroupId, generation: number, index: LogIndex];
/** The index it was pinned at, or why it could not be. */
export type SourceAnswer = LogIndex | WireError;

export interface SourceChunk {
  readonly rows: Uint8Array;
  readonly count: number;
}

/** The next rows of a scan; undefined when there are no more, empty when there are none yet. */
export interface ScanAnswer {
  readonly scan: number;
  readonly rows: Uint8Array | undefined;
  readonly count: number;
}

export type PackedLoad = [
  load: Omit<ScratchLoad, "slice" | "where">,
  slice: { low: Uint8Array | null; high: Uint8Array | null; lowAfter: boolean; highAfter: boolean },
  where: (Omit<ScratchCondition, "params"> & { readonly params: Uint8Array }) | null,
];

export function packLoad({ slice, where, ...load }: ScratchLoad): PackedLoad {
  const packed = (values: readonly SqlValue[] | undefined) =>
    values === undefined ? null : encodeVector(values);
  return [
    load,
    {
      low: packed(slice.low),
      high: packed(slice.high),
      lowAfter: slice.lowAfter === true,
      highAfter: slice.highAfter === true,
    },
    where === undefined ? null : { ...where, params: encodeVector(where.params) },
  ];
}

export function unpackLoad([load, { low, high, lowAfter, highAfter }, where]: PackedLoad): ScratchLoad {
  return {
    ...load,
    slice: {
      low: low === null ? undefined : decodeVector(low),
      high: high === null ? undefined : decodeVector(high),
      lowAfter,
      highAfter,
    },
    where: where === null ? undefined : { ...where, params: decodeVector(where.params) },
  };
}

/** Meta's commands and state as bytes. Keys travel as bytes: they are binary, and msgpack's strings are UTF-8. */
import { Packr } from "msgpackr";
import { keyBytes, keyOf } from "../../base/keys.js";
import type { RangeDescriptor } from "../../placement/descriptor.js";
import type { MetaCommand, MetaResult, MetaState } from "./types.js";

const packr = new Packr({ useRecords: false, variableMapSize: true });

type PackedRange = readonly [
  range: number,
  start: Uint8Array,
  end: Uint8Array,
  generation: number,
  replicas: readonly number[],
];

function packRanges(ranges: readonly RangeDescriptor[]): PackedRange[] {
  return ranges.map(({ range, start, end, generation, replicas }) => [
    range,
    keyBytes(start),
    keyBytes(end),
    generation,
    replicas,
  ]);
}

function unpackRanges(packed: readonly PackedRange[]): RangeDescriptor[] {
  return packed.map(([range, start, end, generation, replicas]) => ({
    range: range as RangeDescriptor["range"],
    start: keyOf(start),
    end: keyOf(end),
    generation,
    replicas: replicas as RangeDescriptor["replicas"],
  }));
}

export function encodeMetaCommand(command: MetaCommand): Uint8Array {
  return packr.pack("ranges" in command ? { ...command, ranges: packRanges(command.ranges) } : command);
}

export function decodeMetaCommand(bytes: Uint8Array): MetaCommand {
  const command = packr.unpack(bytes) as MetaCommand;
  if (!("ranges" in command)) return command;
  return { ...command, ranges: unpackRanges(command.ranges as unknown as PackedRange[]) };
}

export function encodeMetaState(state: MetaState): Uint8Array {
  return packr.pack({ ...state, ranges: packRanges(state.ranges) });
}

export function decodeMetaState(bytes: Uint8Array): MetaState {
  const state = packr.unpack(bytes) as MetaState;
  return { ...state, ranges: unpackRanges(state.ranges as unknown as PackedRange[]) };
}

export const encodeMetaResult = (result: MetaResult): Uint8Array => packr.pack(result);
export const decodeMetaResult = (bytes: Uint8Array): MetaResult => packr.unpack(bytes) as MetaResult;

import { Packr } from "msgpackr";

/**
 * msgpack as it stands in a range's log. `useRecords: false` alone would give records for objects in Maps; arrays are all
 * there is here.
 */
export const packr = new Packr({
  useRecords: false,
  moreTypes: false,
  int64AsType: "bigint",
  variableMapSize: true,
});

/** msgpackr answers Buffers, whose slices are views; everybody else works on plain arrays. */
export function plain(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The head of an array, whose elements follow. */
export function arrayHead(length: number): Uint8Array {
  if (length < 0x10) return Uint8Array.of(0x90 | length);
  const head = new DataView(new ArrayBuffer(5));
  head.setUint8(0, 0xdd);
  head.setUint32(1, length);
  return new Uint8Array(head.buffer);
}

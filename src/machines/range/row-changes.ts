/**
 * Row changes as bytes: encoded where they are captured, and carried so into the log. Runs of one table share one buffer
 * of vectors: for each change its key and, unless it deletes, its row.
 */
import { decodeRows, ValueWriter } from "../../base/values.js";
import { packr, plain } from "./packr.js";
import type { RowChange, RowChanges } from "./types.js";

export type PackedChanges = [table: string, present: Uint8Array, values: Uint8Array][];

const writer = new ValueWriter(64 * 1024);

/** Throws `tooLarge()` once there are more than `maxBytes` of keys and rows. */
export function packChanges(
  changes: Iterable<RowChange>,
  maxBytes = Number.POSITIVE_INFINITY,
  tooLarge?: () => Error,
): PackedChanges {
  const packed: PackedChanges = [];
  let table: string | undefined;
  let present: number[] = [];
  let bytes = 0;
  writer.reset();
  const close = (): void => {
    if (table === undefined) return;
    bytes += writer.length;
    packed.push([table, Uint8Array.from(present), writer.take()]);
    present = [];
  };
  for (const change of changes) {
    if (change.table !== table) close();
    table = change.table;
    writer.vector(change.key);
    if (change.row !== undefined) writer.vector(change.row);
    present.push(change.row === undefined ? 0 : 1);
    if (tooLarge !== undefined && bytes + writer.length > maxBytes) throw tooLarge();
  }
  close();
  return packed;
}

export function unpackChanges(packed: PackedChanges): RowChange[] {
  const changes: RowChange[] = [];
  for (const [table, present, values] of packed) {
    const vectors = decodeRows(plain(values));
    let at = 0;
    for (const flag of present) {
      const key = vectors[at++]!;
      changes.push({ table, key, row: flag === 1 ? vectors[at++]! : undefined });
    }
  }
  return changes;
}

export function encodeChanges(
  changes: Iterable<RowChange>,
  maxBytes?: number,
  tooLarge?: () => Error,
): Uint8Array {
  return packr.pack(packChanges(changes, maxBytes, tooLarge));
}

/** One by one, whichever form they have. */
export function listed(changes: RowChanges): readonly RowChange[] {
  return changes instanceof Uint8Array ? decodeChanges(changes) : changes;
}

/** As bytes, likewise. */
export function encoded(changes: RowChanges): Uint8Array {
  return changes instanceof Uint8Array ? changes : encodeChanges(changes);
}

export function decodeChanges(bytes: Uint8Array): RowChange[] {
  return unpackChanges(packr.unpack(bytes) as PackedChanges);
}

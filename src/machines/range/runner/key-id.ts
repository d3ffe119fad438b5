/** Row keys as keys of a Map. */
import { decodeVector, encodeVector, type SqlValue } from "../../../base/values.js";

export type KeyId = string | bigint;

export function keyId(key: readonly SqlValue[]): KeyId {
  const first = key[0];
  if (key.length === 1 && typeof first === "bigint") return first;
  return Buffer.from(encodeVector(key)).toString("latin1");
}

/** What `keyId` was made of. */
export function keyOf(id: KeyId): readonly SqlValue[] {
  return typeof id === "bigint" ? [id] : decodeVector(Buffer.from(id, "latin1"));
}

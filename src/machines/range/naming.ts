/** How the transactions of autocommit writes are named. */
import type { TransactionId } from "../../base/ids.js";
import type { IdempotencyKey } from "./types.js";

/** Client, sequence, perhaps an attempt, and when the key was issued (src/gateway/attempts.ts). */
export const AUTOCOMMIT = /:(\d+)(?:~\d+)?@([0-9a-z]+)$/;

/**
 * Ids of interactive transactions are used once; those of autocommit writes are made of their keys, and what became of
 * such a write is what is answered under its key.
 */
export function isNamedByKey({
  transaction,
  key,
}: {
  readonly transaction: TransactionId;
  readonly key: IdempotencyKey;
}): boolean {
  return transaction.startsWith(`${key.client}:${key.sequence}`);
}

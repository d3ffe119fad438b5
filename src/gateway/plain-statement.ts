/** A statement of our own, beside the client's: it asks for no time, no random value and no session's settings. */
import type { SqlValue } from "../base/values.js";
import type { StampedStatement } from "../machines/range/types.js";

export function plainStatement(sql: string, wallMs = 0, params: readonly SqlValue[] = []): StampedStatement {
  return { sql, params, flags: 0, stamp: { wallMs, seed: 0, lastInsertRowid: 0n }, told: undefined };
}

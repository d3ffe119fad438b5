/**
 * "Told is kept": a short digest of what a session was told when a statement ran, carried to the commit and compared
 * with what the statement does then. Two answers that a client could tell apart have different digests.
 */
import { createHash } from "node:crypto";
import { isWireError, type WireError } from "../../base/errors.js";
import type { StatementOutcome } from "./types.js";

/** Of a transaction of more statements than this, whose answers have been told, the answers are not kept. */
export const MAX_TOLD_OUTCOMES = 1_000;

export function toldDigest(told: StatementOutcome | WireError): string {
  if (isWireError(told)) return `!${told[1]} ${hash(told[2])}`;
  const numbers = `${told.changes} ${told.totalChanges} ${told.lastInsertRowid}`;
  return told.rowCount === 0 ? numbers : `${numbers} ${told.rowCount} ${hash(told.rows)}`;
}

function hash(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("base64url").slice(0, 22);
}

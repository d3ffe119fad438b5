/**
 * Which entries followers may leave unapplied for a while, so that a few of them share a SQLite transaction: small ones
 * that only change rows. Whoever reads at a replica waits for an index, and so ends the waiting.
 *
 * Splits, merges and schema changes never wait: other parts of the node learn of them by their being applied. Whether an
 * entry waits changes nothing of what it does (apply.ts: how entries are grouped leaves no trace).
 */
import { decodeCommands } from "./command.js";
import { firstWord } from "./parameters.js";
import type { Command, StampedStatement } from "./types.js";

/** Larger ones are batches already, and looking into them would cost as much as they do. */
const SMALL_BYTES = 1024;
const ROW_WORDS = new Set(["insert", "update", "delete", "replace", "with"]);

export function mayWait(data: Uint8Array): boolean {
  return data.length <= SMALL_BYTES && decodeCommands(data).commands.every(onlyRows);
}

function onlyRows(command: Command): boolean {
  switch (command.kind) {
    case "execute":
      return changesRows(command.statement);
    case "transaction":
      return command.statements.every(changesRows);
    case "prepare":
      return command.prepared.body.kind !== "schema";
    case "rows":
    case "tombstone":
    case "trim":
      return true;
    default:
      return false;
  }
}

function changesRows({ sql }: StampedStatement): boolean {
  return ROW_WORDS.has(firstWord(sql));
}

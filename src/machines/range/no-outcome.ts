/** The outcome of what has no rows and changes nothing. */
import type { StatementOutcome } from "./types.js";

export const NO_OUTCOME: StatementOutcome = {
  columns: [],
  columnTypes: [],
  rows: new Uint8Array(0),
  rowCount: 0,
  changes: 0,
  totalChanges: 0,
  lastInsertRowid: 0n,
};

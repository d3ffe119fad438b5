/** Small shapes of results that several parts of a session make. */
import { encodeVector, type SqlValue, ValueWriter } from "../base/values.js";
import type { StatementOutcome } from "../machines/range/types.js";
import type { ExecuteResult } from "../rpc/gateway.js";
import { collect } from "./private-copy.js";

const NOTHING: StatementOutcome = {
  columns: [],
  columnTypes: [],
  rows: new Uint8Array(0),
  rowCount: 0,
  changes: 0,
  totalChanges: 0,
  lastInsertRowid: 0n,
};

/** Of statements that answer no rows and change none. */
export function emptyOutcome(): { readonly kind: "outcome"; readonly outcome: StatementOutcome } {
  return { kind: "outcome", outcome: NOTHING };
}

export function rowsOutcome(
  columns: readonly string[],
  rows: readonly (readonly SqlValue[])[],
): ExecuteResult {
  const writer = new ValueWriter();
  for (const row of rows) writer.vector(row);
  return {
    kind: "outcome",
    outcome: {
      ...NOTHING,
      columns,
      columnTypes: columns.map(() => null),
      rows: writer.take(),
      rowCount: rows.length,
    },
  };
}

export function oneValue(column: string, value: SqlValue): ExecuteResult {
  return {
    kind: "outcome",
    outcome: { ...NOTHING, columns: [column], columnTypes: [null], rows: encodeVector([value]), rowCount: 1 },
  };
}

export async function collectResult(result: ExecuteResult, maxBytes: number): Promise<StatementOutcome> {
  return result.kind === "outcome" ? result.outcome : collect(result.stream, maxBytes);
}

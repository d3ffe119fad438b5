/** Small shapes of results that several parts of a session make. */
import { UserError } from "../base/errors.js";
import { encodeVector, type SqlValue, ValueReader, ValueWriter } from "../base/values.js";
import { NO_OUTCOME } from "../machines/range/no-outcome.js";
import type { RowStream, StatementOutcome } from "../machines/range/types.js";
import type { ExecuteResult } from "../rpc/gateway.js";

/** Of statements that answer no rows and change none. */
export function emptyOutcome(): { readonly kind: "outcome"; readonly outcome: StatementOutcome } {
  return { kind: "outcome", outcome: NO_OUTCOME };
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
      ...NO_OUTCOME,
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
    outcome: {
      ...NO_OUTCOME,
      columns: [column],
      columnTypes: [null],
      rows: encodeVector([value]),
      rowCount: 1,
    },
  };
}

export async function collectResult(result: ExecuteResult, maxBytes: number): Promise<StatementOutcome> {
  return result.kind === "outcome" ? result.outcome : collect(result.stream, maxBytes);
}

/** The first column of all rows, as text. */
export async function collectTexts(stream: RowStream): Promise<string[]> {
  const texts: string[] = [];
  for (let chunk = await stream.next(); chunk !== undefined; chunk = await stream.next()) {
    const reader = new ValueReader(chunk.rows);
    while (!reader.done) texts.push(String(reader.vector()[0]));
  }
  await stream.close();
  return texts;
}

/** Gathers a stream into one outcome; its error rejects. */
export async function collect(stream: RowStream, maxBytes: number): Promise<StatementOutcome> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  let rowCount = 0;
  try {
    for (let chunk = await stream.next(); chunk !== undefined; chunk = await stream.next()) {
      bytes += chunk.rows.length;
      if (bytes > maxBytes)
        throw new UserError("OSTRAKA_TOO_LARGE", `the result is larger than ${maxBytes} bytes`);
      rowCount += chunk.count;
      chunks.push(chunk.rows);
    }
    return {
      columns: stream.columns,
      columnTypes: stream.columnTypes,
      rows: concat(chunks, bytes),
      rowCount,
      ...stream.summary(),
    };
  } finally {
    await stream.close();
  }
}

function concat(chunks: readonly Uint8Array[], bytes: number): Uint8Array {
  if (chunks.length === 1) return chunks[0]!;
  const out = new Uint8Array(bytes);
  let at = 0;
  for (const chunk of chunks) {
    out.set(chunk, at);
    at += chunk.length;
  }
  return out;
}

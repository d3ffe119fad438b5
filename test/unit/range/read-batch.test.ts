import { describe, expect, it } from "vitest";
import type { WireError } from "../../../src/base/errors.js";
import { encodeVector } from "../../../src/base/values.js";
import {
  decodeReads,
  encodeReads,
  ReadAnswerReader,
  ReadAnswerWriter,
} from "../../../src/machines/range/read-batch.js";
import type { BoundedRead, StatementOutcome } from "../../../src/machines/range/types.js";

function read(sql: string, wallMs: number): BoundedRead {
  const stamp = { wallMs, seed: 2 ** 53 - 1, lastInsertRowid: -5n };
  return { maxBytes: 2 ** 20, statement: { sql, params: [1n, "é", null], flags: 3, stamp, told: undefined } };
}

function outcome(columns: readonly string[], rowCount: number): StatementOutcome {
  const rows = new Uint8Array(Array.from({ length: rowCount }, () => [...encodeVector([7n, "x"])]).flat());
  const columnTypes = columns.map((_, i) => (i === 0 ? "INTEGER" : null));
  return { columns, columnTypes, rows, rowCount, changes: 0, totalChanges: 0, lastInsertRowid: 2n ** 62n };
}

describe("a batch of reads", () => {
  it("carries statements exactly, later and earlier stamps among them", () => {
    const reads = [
      read("select ?, ?, ?", 1_700_000_000_000),
      read("select 2", 5),
      read("select ?, ?, ?", 2 ** 41),
    ];
    expect(decodeReads(encodeReads(reads))).toEqual(reads);
    expect(decodeReads(encodeReads([]))).toEqual([]);
  });

  it("carries answers and errors in order, and equal columns as one object", () => {
    const columns = ["a", 'b "quoted"\u0000é'];
    const error: WireError = ["user", "SQLITE_ERROR", "no such table: é", null];
    const writer = new ReadAnswerWriter();
    const outcomes = [outcome(columns, 2), outcome([...columns], 0), outcome([], 0)];
    const round = (): StatementOutcome[] => {
      writer.ran(outcomes[0]!);
      writer.failed(error);
      for (const one of outcomes.slice(1)) writer.ran(one);
      const reader = new ReadAnswerReader(writer.take());
      const answers = [reader.next(), reader.next(), reader.next(), reader.next()];
      expect(answers[1]).toEqual({ ok: false, error });
      return answers.flatMap((answer) => (answer.ok ? [answer.outcome] : []));
    };
    const first = round();
    expect(first).toEqual(outcomes);
    const second = round();
    expect(second).toEqual(outcomes);
    expect(second[0]!.columns).toBe(first[0]!.columns);
    expect(second[1]!.columns).toBe(first[0]!.columns);
  });
});

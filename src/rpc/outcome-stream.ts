/**
 * An answer that is there as a whole and too large for one frame, as a stream: its rows in chunks, cut between rows.
 * What the statement did is done, so an answer that cannot be told must say that.
 */
import { UserError } from "../base/errors.js";
import { encodeVector, ValueReader, ValueWriter } from "../base/values.js";
import type { RowStream, StatementOutcome } from "../machines/range/types.js";
import { LARGEST_CHUNK } from "./client-cursor.js";

const CHUNK_BYTES = 64 * 1024;

export class OutcomeStream implements RowStream {
  readonly #outcome: StatementOutcome;
  readonly #reader: ValueReader;
  /** Read, and left for the next chunk. */
  #ahead: Uint8Array | undefined;

  constructor(outcome: StatementOutcome) {
    this.#outcome = outcome;
    this.#reader = new ValueReader(outcome.rows);
  }

  get columns(): readonly string[] {
    return this.#outcome.columns;
  }

  get columnTypes(): readonly (string | null)[] {
    return this.#outcome.columnTypes;
  }

  async next(): Promise<{ readonly rows: Uint8Array; readonly count: number } | undefined> {
    const chunk = new ValueWriter();
    let count = 0;
    while (chunk.length < CHUNK_BYTES) {
      const row = this.#ahead ?? this.#row();
      this.#ahead = undefined;
      if (row === undefined) break;
      // A large row behind small ones must not make them too large together.
      if (count > 0 && chunk.length + row.length > LARGEST_CHUNK) {
        this.#ahead = row;
        break;
      }
      chunk.raw(row);
      count++;
    }
    return count === 0 ? undefined : { rows: chunk.take(), count };
  }

  #row(): Uint8Array | undefined {
    if (this.#reader.done) return undefined;
    const row = encodeVector(this.#reader.vector());
    if (row.length <= LARGEST_CHUNK) return row;
    const size = `a row of ${row.length} bytes does not fit a frame`;
    throw new UserError("OSTRAKA_TOO_LARGE", `the statement was carried out, but ${size}`);
  }

  summary(): StatementOutcome {
    return this.#outcome;
  }

  async close(): Promise<void> {}
}

/**
 * An answer that is there as a whole and too large for one frame, as a stream: its rows in chunks, cut between rows.
 * What the statement did is done, so an answer that cannot be told must say that.
 */
import { UserError } from "../base/errors.js";
import { ValueReader } from "../base/values.js";
import type { RowStream, StatementOutcome } from "../machines/range/types.js";
import { LARGEST_CHUNK } from "./client-cursor.js";

const CHUNK_BYTES = 64 * 1024;

export class OutcomeStream implements RowStream {
  readonly #outcome: StatementOutcome;
  readonly #reader: ValueReader;

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
    const reader = this.#reader;
    if (reader.done) return undefined;
    const from = reader.at;
    let end = from;
    let count = 0;
    while (!reader.done && end - from < CHUNK_BYTES) {
      reader.vector();
      // A large row behind small ones must not make them too large together.
      if (count > 0 && reader.at - from > LARGEST_CHUNK) {
        reader.at = end;
        break;
      }
      end = reader.at;
      count++;
    }
    if (end - from > LARGEST_CHUNK)
      throw new UserError(
        "OSTRAKA_TOO_LARGE",
        `the statement was carried out, but a row of ${end - from} bytes does not fit a frame`,
      );
    return { rows: this.#outcome.rows.subarray(from, end), count };
  }

  summary(): StatementOutcome {
    return this.#outcome;
  }

  async close(): Promise<void> {}
}

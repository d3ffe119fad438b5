/**
 * Tables of a transaction that has changed the schema, by the names that all others know them by: what it reads of a
 * table that it has renamed is validated, and what it writes there is found, under the table's name of before.
 */
import type { Runner } from "../machines/range/types.js";
import { lowerAscii } from "../sql/tokenizer.js";
import type { Span } from "../sql/types.js";

export class TableNamesNow {
  /** By the name now; undefined for tables that the transaction has made. */
  #before: ReadonlyMap<string, string | undefined> = new Map();

  /** After a change of the schema, or after one was undone. */
  async learn(runner: Runner): Promise<void> {
    const names = await runner.tableNames();
    this.#before = new Map(names.map(([now, before]) => [now, before ?? undefined]));
  }

  forget(): void {
    this.#before = new Map();
  }

  /** What the table was called when the transaction began; undefined for one that it has made. */
  before(name: string): string | undefined {
    const lower = lowerAscii(name);
    return this.#before.has(lower) ? this.#before.get(lower) : lower;
  }

  /** Nobody else has anything of a table that the transaction has made: its spans stay as they are. */
  spansBefore(spans: readonly Span[]): readonly Span[] {
    if (this.#before.size === 0) return spans;
    return spans.map((span) => {
      const table = this.#before.get(span.table);
      return table === undefined ? span : { ...span, table };
    });
  }
}

/** How many rows the ranges on this node have; counted again only when something was applied since. */
import type { LogIndex } from "../../base/ids.js";
import type { HostedRange } from "./hosted-range.js";

interface Counted {
  readonly index: LogIndex;
  readonly rows: Promise<number>;
  sum: number | undefined;
}

export class RowCounts {
  readonly #counted = new WeakMap<HostedRange, Counted>();

  of(hosted: HostedRange): Promise<number> {
    const index = hosted.store.appliedIndex();
    const known = this.#counted.get(hosted);
    if (known?.index === index) return known.rows;
    const rows = hosted.store.rowCounts().then((counts) => {
      let sum = 0;
      for (const count of counts.values()) sum += count;
      return sum;
    });
    const counted: Counted = { index, rows, sum: undefined };
    this.#counted.set(hosted, counted);
    rows.then(
      (sum) => {
        counted.sum = sum;
      },
      () => this.#counted.delete(hosted),
    );
    return rows;
  }

  /** What `of` would answer, if it need not count. */
  known(hosted: HostedRange): number | undefined {
    const counted = this.#counted.get(hosted);
    return counted?.index === hosted.store.appliedIndex() ? counted.sum : undefined;
  }
}

/**
 * What of a dump did not come over, or came over changed, by kind and with the lines where it was. Rows that are missing
 * are kept apart from the rest: an import that lacks some has failed.
 */
import { printable } from "../../format/width.js";

/** Of each kind so many are named; of those that say all in their number, so many lines. */
const MAX_ENTRIES = 200;
const MAX_LINES = 12;

interface Entry {
  readonly line: number;
  readonly what: string;
}

interface Group {
  count: number;
  readonly missing: boolean;
  readonly entries: Entry[];
}

export class Report {
  readonly #groups = new Map<string, Group>();

  /** `what` is left out where the kind says everything. */
  note(kind: string, line: number, what = ""): void {
    this.#add(kind, line, what, false);
  }

  /** Rows that the dump has, or would have made, and the database has not. */
  missing(kind: string, line: number, what = ""): void {
    this.#add(kind, line, what, true);
  }

  #add(kind: string, line: number, what: string, missing: boolean): void {
    let group = this.#groups.get(kind);
    if (group === undefined) {
      group = { count: 0, missing, entries: [] };
      this.#groups.set(kind, group);
    }
    group.count++;
    if (group.entries.length < MAX_ENTRIES) group.entries.push({ line, what });
  }

  get rowsAreMissing(): boolean {
    return [...this.#groups.values()].some(({ missing }) => missing);
  }

  /** For people; empty when there is nothing to tell. */
  text(path: string): string {
    const changed = [...this.#groups].filter(([, { missing }]) => !missing);
    const missing = [...this.#groups].filter(([, group]) => group.missing);
    let text = "";
    if (changed.length > 0) {
      text += `${path}: not carried over, or not as it was:\n${changed.map(groupText).join("")}`;
    }
    if (missing.length > 0) text += `${path}: rows are missing:\n${missing.map(groupText).join("")}`;
    return text;
  }
}

function groupText([kind, { count, entries }]: readonly [string, Group]): string {
  const named = entries.filter(({ what }) => what !== "");
  if (named.length === 0) {
    const lines = entries.slice(0, MAX_LINES).map(({ line }) => line);
    const more = count > MAX_LINES ? ", …" : "";
    return `  ${kind}: ${count} (${count === 1 ? "line" : "lines"} ${lines.join(", ")}${more})\n`;
  }
  const rest = count > entries.length ? `    … and ${count - entries.length} more\n` : "";
  return `  ${kind}: ${count}\n${named.map(({ line, what }) => `    line ${line}: ${printable(what)}\n`).join("")}${rest}`;
}

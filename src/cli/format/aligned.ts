/**
 * The formats with aligned columns. Numbers stand on the right when a column holds nothing else; a value of several
 * lines takes several lines. The first page fixes the widths (see printer.ts).
 */
import type { Value } from "../../driver/types.js";
import { valueText } from "./literals.js";
import type { Printer, PrintOptions } from "./printer.js";
import { displayWidth, printable } from "./width.js";

/** A page: as many rows as a person looks at, or as much text as costs nothing to hold. */
const PAGE_ROWS = 1000;
const PAGE_CHARACTERS = 4 * 1024 * 1024;

interface Cell {
  readonly lines: readonly string[];
  readonly numeric: boolean;
  readonly empty: boolean;
}

interface Lines {
  /** Around and between columns: [left, between, right]. */
  readonly row: readonly [string, string, string];
  readonly top: Rule | undefined;
  readonly underHeader: Rule;
  readonly bottom: Rule | undefined;
  /** Whether a line feed may break a cell; else it is shown as an escape. */
  readonly multiline: boolean;
  readonly escapeBars: boolean;
}
type Rule = readonly [left: string, fill: string, between: string, right: string];

const TABLE: Lines = {
  row: ["| ", " | ", " |"],
  top: ["+-", "-", "-+-", "-+"],
  underHeader: ["+-", "-", "-+-", "-+"],
  bottom: ["+-", "-", "-+-", "-+"],
  multiline: true,
  escapeBars: false,
};
const BOX: Lines = {
  row: ["│ ", " │ ", " │"],
  top: ["┌─", "─", "─┬─", "─┐"],
  underHeader: ["├─", "─", "─┼─", "─┤"],
  bottom: ["└─", "─", "─┴─", "─┘"],
  multiline: true,
  escapeBars: false,
};
const MARKDOWN: Lines = {
  row: ["| ", " | ", " |"],
  top: undefined,
  underHeader: ["|-", "-", "-|-", "-|"],
  bottom: undefined,
  multiline: false,
  escapeBars: true,
};

export const tablePrinter = (options: PrintOptions): Printer => new AlignedPrinter(TABLE, options);
export const boxPrinter = (options: PrintOptions): Printer => new AlignedPrinter(BOX, options);
export const markdownPrinter = (options: PrintOptions): Printer => new AlignedPrinter(MARKDOWN, options);

class AlignedPrinter implements Printer {
  readonly #lines: Lines;
  readonly #options: PrintOptions;
  #names: string[] = [];
  #page: Cell[][] = [];
  #pageCharacters = 0;
  /** Set once the first page is out. */
  #widths: number[] | undefined;
  #right: boolean[] = [];

  constructor(lines: Lines, options: PrintOptions) {
    this.#lines = lines;
    this.#options = options;
  }

  head(columns: readonly string[]): string {
    this.#names = columns.map((name) => this.#escape(printable(name)));
    return "";
  }

  row(values: readonly Value[]): string {
    const cells = values.map((value) => this.#cell(value));
    if (this.#widths !== undefined) return this.#format(cells, this.#widths);
    this.#page.push(cells);
    for (const cell of cells) for (const line of cell.lines) this.#pageCharacters += line.length;
    return this.#page.length >= PAGE_ROWS || this.#pageCharacters >= PAGE_CHARACTERS ? this.#flush() : "";
  }

  end(): string {
    const rest = this.#widths === undefined ? this.#flush() : "";
    return rest + this.#rule(this.#lines.bottom);
  }

  #cell(value: Value): Cell {
    const numeric = typeof value === "bigint" || typeof value === "number";
    const text = valueText(value, this.#options.nullText);
    const lines =
      this.#lines.multiline && text.includes("\n")
        ? text.split(/\r?\n/).map(printable)
        : [this.#escape(printable(text))];
    return { lines, numeric, empty: value === null };
  }

  #escape(text: string): string {
    return this.#lines.escapeBars ? text.replaceAll("|", "\\|") : text;
  }

  /** Fixes the widths by what is held, and prints it. */
  #flush(): string {
    const widths = this.#names.map((name, i) =>
      Math.max(this.#options.header ? displayWidth(name) : 1, Math.abs(this.#options.widths[i] ?? 0)),
    );
    this.#right = this.#names.map((_, i) => {
      if ((this.#options.widths[i] ?? 0) < 0) return true;
      return (
        this.#page.some((cells) => cells[i]?.numeric) &&
        this.#page.every((cells) => cells[i]?.numeric || cells[i]?.empty)
      );
    });
    for (const cells of this.#page) {
      cells.forEach((cell, i) => {
        for (const line of cell.lines) widths[i] = Math.max(widths[i] ?? 0, displayWidth(line));
      });
    }
    this.#widths = widths;
    const out = [this.#rule(this.#lines.top)];
    if (this.#options.header || this.#lines === MARKDOWN) {
      const [left, between, right] = this.#lines.row;
      out.push(left, this.#names.map((name, i) => center(name, widths[i]!)).join(between), right, "\n");
      out.push(this.#rule(this.#lines.underHeader));
    }
    for (const cells of this.#page) out.push(this.#format(cells, widths));
    this.#page = [];
    return out.join("");
  }

  #format(cells: readonly Cell[], widths: readonly number[]): string {
    const [left, between, right] = this.#lines.row;
    const height = Math.max(1, ...cells.map((cell) => cell.lines.length));
    let out = "";
    for (let line = 0; line < height; line++) {
      const parts = cells.map((cell, i) => pad(cell.lines[line] ?? "", widths[i]!, this.#right[i]!));
      out += `${left}${parts.join(between)}${right}\n`;
    }
    return out;
  }

  #rule(rule: Rule | undefined): string {
    if (rule === undefined || this.#widths === undefined) return "";
    const [left, fill, between, right] = rule;
    return `${left}${this.#widths.map((width) => fill.repeat(width)).join(between)}${right}\n`;
  }
}

function pad(text: string, width: number, right: boolean): string {
  const space = " ".repeat(Math.max(0, width - displayWidth(text)));
  return right ? space + text : text + space;
}

function center(text: string, width: number): string {
  const space = Math.max(0, width - displayWidth(text));
  const before = Math.floor(space / 2);
  return " ".repeat(before) + text + " ".repeat(space - before);
}

/**
 * Turns a result, row by row, into text. Printers are pure: they answer what to write and hold at most one page.
 *
 * Formats that need no widths (csv, tsv, json, jsonl, line, insert) answer text for every row. Aligned ones (table,
 * box, markdown) hold the first page to find their widths; rows beyond it are printed with those widths, each at
 * least as wide as it needs, so that a result of any length takes bounded memory.
 *
 * With `terminal`, the text is meant for a person's screen: nothing in the data can drive it, in any format. Without,
 * csv, tsv and insert carry the data exactly.
 */
import type { Value } from "../../driver/types.js";
import { RESERVED_WORDS } from "../../sql/keywords.js";
import { boxPrinter, markdownPrinter, tablePrinter } from "./aligned.js";
import { blobLiteral, nameLiteral, realText, sqlLiteral, valueText } from "./literals.js";
import { displayWidth, printable, printableKeepingLayout } from "./width.js";

export const FORMATS = ["table", "box", "csv", "tsv", "json", "jsonl", "line", "markdown", "insert"] as const;
export type Format = (typeof FORMATS)[number];

export interface PrintOptions {
  readonly header: boolean;
  /** Shown for NULL; json and insert have their own. */
  readonly nullText: string;
  /** Between the columns of csv. */
  readonly separator: string;
  /** For insert. */
  readonly tableName: string;
  /** The text goes to a screen. */
  readonly terminal: boolean;
  /** Least width of each column of aligned formats; negative aligns to the right. */
  readonly widths: readonly number[];
  /** One column and value a line, whatever the format (psql's \x). */
  readonly expanded: boolean;
}

export const DEFAULT_PRINT_OPTIONS: PrintOptions = {
  header: true,
  nullText: "",
  separator: ",",
  tableName: "table",
  terminal: false,
  widths: [],
  expanded: false,
};

export interface Printer {
  head(columns: readonly string[]): string;
  row(values: readonly Value[]): string;
  end(): string;
}

export function createPrinter(format: Format, options: PrintOptions): Printer {
  if (options.expanded && format !== "json" && format !== "jsonl" && format !== "insert") {
    return expandedPrinter(options);
  }
  switch (format) {
    case "table":
      return tablePrinter(options);
    case "box":
      return boxPrinter(options);
    case "markdown":
      return markdownPrinter(options);
    case "csv":
      return separatedPrinter(options.separator, options);
    case "tsv":
      return separatedPrinter("\t", options);
    case "json":
      return jsonPrinter();
    case "jsonl":
      return jsonLinesPrinter();
    case "line":
      return linePrinter(options);
    case "insert":
      return insertPrinter(options);
  }
}

/** RFC 4180, lines ended by LF as by sqlite3 and psql. An empty text is "" so that it differs from NULL. */
export function separatedField(text: string, separator: string): string {
  if (text === "") return '""';
  const plain =
    !text.includes('"') &&
    !text.includes("\n") &&
    !text.includes("\r") &&
    !text.includes(separator) &&
    text.charCodeAt(0) !== 32 &&
    text.charCodeAt(text.length - 1) !== 32;
  return plain ? text : `"${text.replaceAll('"', '""')}"`;
}

function separatedPrinter(separator: string, options: PrintOptions): Printer {
  const shown = options.terminal ? printableKeepingLayout : (text: string) => text;
  const field = (value: Value): string =>
    value === null ? options.nullText : separatedField(shown(valueText(value, "")), separator);
  return {
    head: (columns) =>
      options.header
        ? `${columns.map((name) => separatedField(shown(name), separator)).join(separator)}\n`
        : "",
    row: (values) => `${values.map(field).join(separator)}\n`,
    end: () => "",
  };
}

/** JSON's own escapes, and none of the characters that act on a terminal left bare. */
function jsonText(text: string): string {
  return JSON.stringify(text).replace(
    /[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function jsonValue(value: Value): string {
  if (value === null) return "null";
  if (typeof value === "string") return jsonText(value);
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "number") {
    if (Number.isFinite(value)) return realText(value);
    return value > 0 ? "1e999" : "-1e999";
  }
  return `"${blobLiteral(value)}"`;
}

function jsonObject(names: readonly string[], values: readonly Value[]): string {
  return `{${values.map((value, i) => `${names[i]}:${jsonValue(value)}`).join(",")}}`;
}

function jsonPrinter(): Printer {
  let names: readonly string[] = [];
  let first = true;
  return {
    head: (columns) => {
      names = columns.map(jsonText);
      return "[";
    },
    row: (values) => {
      const separator = first ? "" : ",\n";
      first = false;
      return separator + jsonObject(names, values);
    },
    end: () => "]\n",
  };
}

function jsonLinesPrinter(): Printer {
  let names: readonly string[] = [];
  return {
    head: (columns) => {
      names = columns.map(jsonText);
      return "";
    },
    row: (values) => `${jsonObject(names, values)}\n`,
    end: () => "",
  };
}

function linePrinter(options: PrintOptions): Printer {
  let names: readonly string[] = [];
  let first = true;
  const shown = options.terminal ? printableKeepingLayout : (text: string) => text;
  return {
    head: (columns) => {
      const plain = columns.map(printable);
      const width = Math.max(5, ...plain.map(displayWidth));
      names = plain.map((name) => " ".repeat(width - displayWidth(name)) + name);
      return "";
    },
    row: (values) => {
      const separator = first ? "" : "\n";
      first = false;
      return (
        separator +
        values.map((value, i) => `${names[i]} = ${shown(valueText(value, options.nullText))}\n`).join("")
      );
    },
    end: () => "",
  };
}

function expandedPrinter(options: PrintOptions): Printer {
  let names: readonly string[] = [];
  let count = 0;
  return {
    head: (columns) => {
      const plain = columns.map(printable);
      const width = Math.max(0, ...plain.map(displayWidth));
      names = plain.map((name) => name + " ".repeat(width - displayWidth(name)));
      return "";
    },
    row: (values) => {
      count++;
      const lines = values.map(
        (value, i) => `${names[i]} | ${printable(valueText(value, options.nullText))}\n`,
      );
      return `-[ RECORD ${count} ]-\n${lines.join("")}`;
    },
    end: () => (count === 0 ? "(0 rows)\n" : ""),
  };
}

function insertPrinter(options: PrintOptions): Printer {
  const keyword = (word: string): boolean => RESERVED_WORDS.has(word.toUpperCase());
  const table = nameLiteral(options.tableName, keyword);
  const shown = options.terminal ? printableKeepingLayout : (text: string) => text;
  let columnList = "";
  return {
    head: (columns) => {
      if (options.header) columnList = `(${columns.map((name) => nameLiteral(name, keyword)).join(",")})`;
      return "";
    },
    // Values are spelled safely as it is; names are not.
    row: (values) =>
      shown(`INSERT INTO ${table}${columnList} VALUES(${values.map(sqlLiteral).join(",")});\n`),
    end: () => "",
  };
}

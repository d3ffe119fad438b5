/** What the shell's commands can change: how results look, and what happens after an error. */
import { DEFAULT_PRINT_OPTIONS, type Format, type PrintOptions } from "../format/printer.js";

export interface Settings {
  format: Format;
  header: boolean;
  nullText: string;
  separator: string;
  tableName: string;
  widths: number[];
  expanded: boolean;
  timing: boolean;
  changes: boolean;
  echo: boolean;
  stopOnError: boolean;
  pager: boolean;
  statementTimeoutMs: number;
}

/** A statement of the shell may take a while; one that takes longer says so, and `.timeout` raises it. */
export const DEFAULT_STATEMENT_TIMEOUT_MS = 60_000;

export function defaultSettings(): Settings {
  return {
    format: "table",
    header: true,
    nullText: "",
    separator: DEFAULT_PRINT_OPTIONS.separator,
    tableName: DEFAULT_PRINT_OPTIONS.tableName,
    widths: [],
    expanded: false,
    timing: false,
    changes: false,
    echo: false,
    stopOnError: false,
    pager: true,
    statementTimeoutMs: DEFAULT_STATEMENT_TIMEOUT_MS,
  };
}

export function printOptions(settings: Settings, terminal: boolean): PrintOptions {
  return {
    header: settings.header,
    nullText: settings.nullText,
    separator: settings.separator,
    tableName: settings.tableName,
    terminal,
    widths: settings.widths,
    expanded: settings.expanded,
  };
}

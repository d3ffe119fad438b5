/**
 * Reads sqllogictest files into records. The format is SQLite's: records end at a blank line (white space counts as
 * none), lines that begin with `#` are dropped wherever they stand, and `skipif`/`onlyif` lines in front of a record
 * say which engines it is for. This engine's name is `sqlite`.
 */
import { UserError } from "../../base/errors.js";

export type SortMode = "nosort" | "rowsort" | "valuesort";

interface RecordBase {
  /** Line of the record's first word, from 1. */
  readonly line: number;
  /** For another engine: not run. */
  readonly skipped: boolean;
}

export interface StatementRecord extends RecordBase {
  readonly kind: "statement";
  readonly expect: "ok" | "error";
  readonly sql: string;
}

export interface QueryRecord extends RecordBase {
  readonly kind: "query";
  /** One letter (T, I or R) per column. */
  readonly types: string;
  readonly sort: SortMode;
  readonly label: string | undefined;
  readonly sql: string;
  /** Lines after `----`; undefined when the record has no such line and only has to run. */
  readonly expected: readonly string[] | undefined;
}

export interface HaltRecord extends RecordBase {
  readonly kind: "halt";
}

export interface ThresholdRecord extends RecordBase {
  readonly kind: "hash-threshold";
  readonly threshold: number;
}

export type SltRecord = StatementRecord | QueryRecord | HaltRecord | ThresholdRecord;

const ENGINE = "sqlite";

interface Line {
  readonly text: string;
  readonly number: number;
}

/** All records of a file. Throws a UserError naming the line for what is none. */
export function parseSlt(text: string): SltRecord[] {
  const records: SltRecord[] = [];
  let block: Line[] = [];
  const flush = (): void => {
    if (block.length > 0) records.push(...parseBlock(block));
    block = [];
  };
  let number = 0;
  for (const raw of text.split("\n")) {
    number++;
    if (raw.startsWith("#")) continue;
    const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
    if (line.trim() === "") flush();
    else block.push({ text: line, number });
  }
  flush();
  return records;
}

function fail(line: number, message: string): never {
  throw new UserError("OSTRAKA_SLT", `line ${line}: ${message}`);
}

/** Directives of one line may stand directly above a record, so a block can hold several. */
function parseBlock(block: readonly Line[]): SltRecord[] {
  const records: SltRecord[] = [];
  let skipped = false;
  for (let i = 0; i < block.length; i++) {
    const { text, number } = block[i]!;
    const words = text.trim().split(/\s+/);
    const base = { line: number, skipped };
    switch (words[0]) {
      case "skipif":
        skipped ||= words[1]?.toLowerCase() === ENGINE;
        continue;
      case "onlyif":
        skipped ||= words[1]?.toLowerCase() !== ENGINE;
        continue;
      case "halt":
        records.push({ kind: "halt", ...base });
        break;
      case "hash-threshold":
        records.push({ kind: "hash-threshold", threshold: parseThreshold(words[1], number), ...base });
        break;
      case "statement":
        records.push(parseStatement(words, block.slice(i + 1), base));
        return records;
      case "query":
        records.push(parseQuery(words, block.slice(i + 1), base));
        return records;
      default:
        fail(number, `unknown record ${JSON.stringify(words[0])}`);
    }
    skipped = false;
  }
  return records;
}

function parseThreshold(word: string | undefined, line: number): number {
  if (word === undefined || !/^\d+$/.test(word)) fail(line, "hash-threshold needs a number");
  return Number(word);
}

function parseStatement(words: readonly string[], body: readonly Line[], base: RecordBase): StatementRecord {
  const expect = words[1];
  if (expect !== "ok" && expect !== "error") fail(base.line, "statement needs ok or error");
  return { kind: "statement", expect, sql: joined(body), ...base };
}

function parseQuery(words: readonly string[], body: readonly Line[], base: RecordBase): QueryRecord {
  const types = words[1] ?? "";
  if (!/^[TIR]+$/.test(types) && !base.skipped)
    fail(base.line, `column types ${JSON.stringify(types)} are not of T, I, R`);
  const sort = words[2] ?? "nosort";
  if (sort !== "nosort" && sort !== "rowsort" && sort !== "valuesort") {
    fail(base.line, `unknown sort mode ${JSON.stringify(sort)}`);
  }
  const rule = body.findIndex(({ text }) => text.trim() === "----");
  return {
    kind: "query",
    types,
    sort,
    label: words[3],
    sql: joined(rule < 0 ? body : body.slice(0, rule)),
    expected: rule < 0 ? undefined : body.slice(rule + 1).map(({ text }) => text),
    ...base,
  };
}

function joined(lines: readonly Line[]): string {
  return lines.map(({ text }) => text).join("\n");
}

/** How operations show what they were answered: a table for people, JSON for machines. */
import Table from "cli-table3";
import { printable } from "./format/width.js";

export type JsonRecord = Readonly<Record<string, unknown>>;

export function printJson(value: unknown): void {
  const text = JSON.stringify(
    value,
    (_, inner: unknown) => (typeof inner === "bigint" ? inner.toString() : inner),
    2,
  );
  process.stdout.write(`${text}\n`);
}

/** The named columns first, in that order; what else the records have, after them. */
export function printRecords(records: readonly JsonRecord[], first: readonly string[]): void {
  const others = new Set(records.flatMap((record) => Object.keys(record)));
  const columns = [
    ...first.filter((name) => others.has(name)),
    ...[...others].filter((name) => !first.includes(name)),
  ];
  const table = new Table({ head: columns, style: { head: [], border: [], compact: true } });
  for (const record of records) table.push(columns.map((name) => cell(record[name])));
  process.stdout.write(`${table.toString()}\n`);
}

function cell(value: unknown): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return printable(typeof value === "object" ? JSON.stringify(value) : String(value));
}

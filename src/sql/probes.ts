/**
 * Looks into indexes that can only make a statement succeed or fail: whether a UNIQUE key is taken, whether a parent row
 * is there. Where the program shows which values are looked for, only rows that have them matter, wherever they are; all
 * others of the table could not change what the statement does.
 *
 * The conditions let through at least those rows. They compare as the index does: by its collation, and a column's own
 * affinity is applied to the values as it was to what is stored.
 */
import type { SqlValue } from "../base/values.js";
import type { Frame } from "./program.js";
import { quoted } from "./pushdown-slices.js";
import type { KeyColumn, OpcodeRow } from "./types.js";

/** A value that is looked for: known, or that of a parameter. */
type Wanted = { readonly value: SqlValue } | { readonly parameter: number };

interface Term {
  readonly column: KeyColumn;
  /** It is one of these. */
  readonly wanted: readonly Wanted[];
}

/** Rows are looked for that meet all terms. */
export interface Probe {
  readonly table: string;
  readonly terms: readonly Term[];
}

export interface ProbeCondition {
  readonly sql: string;
  readonly params: readonly SqlValue[];
}

/** By table, lower-case: any row that meets none of the conditions cannot be found. Tables that are not named: any can. */
export type Probed = ReadonlyMap<string, readonly ProbeCondition[]>;

/** A longer list is no better than the whole table. */
const MAX_VALUES = 1000;

/** What the op at `at`, a probe of an index with these columns, looks for; undefined when that cannot be told. */
export function probeOf(
  frame: Frame,
  op: OpcodeRow,
  at: number,
  table: string,
  columns: readonly KeyColumn[],
): Probe | undefined {
  // How many registers hold the key; none when it is a record already.
  const count = Number(op.p4);
  if (!Number.isInteger(count) || count < 1 || count > columns.length) return undefined;
  const terms: Term[] = [];
  for (let i = 0; i < count; i++) {
    const column = columns[i]!;
    // An integer becomes another number where it is stored as a REAL.
    if (column.name === undefined || column.real) continue;
    const wanted = wantedBy(frame, op.p3 + i, at);
    if (wanted !== undefined && wanted.length <= MAX_VALUES) terms.push({ column, wanted });
  }
  return terms.length === 0 ? undefined : { table, terms };
}

function wantedBy(frame: Frame, register: number, at: number): Wanted[] | undefined {
  const wanted: Wanted[] = [];
  for (const origin of frame.values(register, at) ?? [undefined]) {
    if (origin === undefined) return undefined;
    if (origin.from === "integer" || origin.from === "text") wanted.push({ value: origin.value });
    else if (origin.from === "parameter") wanted.push({ parameter: origin.index });
    // NULL is nobody's equal.
    else if (origin.from !== "null" && origin.from !== "checked") return undefined;
  }
  return wanted;
}

/** Undefined when there is nothing that narrows. */
export function compileProbes(
  probes: readonly Probe[],
): ((params: readonly SqlValue[]) => Probed) | undefined {
  if (probes.length === 0) return undefined;
  return (params) => {
    const probed = new Map<string, ProbeCondition[]>();
    for (const { table, terms } of probes) {
      let conditions = probed.get(table);
      if (conditions === undefined) {
        conditions = [];
        probed.set(table, conditions);
      }
      const condition = conditionOf(terms, params);
      if (condition !== undefined) conditions.push(condition);
    }
    return probed;
  };
}

/** Undefined when no row can meet it. */
function conditionOf(terms: readonly Term[], params: readonly SqlValue[]): ProbeCondition | undefined {
  const values: SqlValue[] = [];
  const parts: string[] = [];
  for (const { column, wanted } of terms) {
    const from = values.length;
    for (const one of wanted) {
      const value = "value" in one ? one.value : (params[one.parameter] ?? null);
      if (value !== null) values.push(value);
    }
    if (values.length === from) return undefined;
    const left = `${quoted(column.name!)} COLLATE ${quoted(column.collation)}`;
    const numbers = values.slice(from).map((_, i) => `?${from + i + 1}`);
    parts.push(numbers.length === 1 ? `${left} = ${numbers[0]}` : `${left} IN (${numbers.join()})`);
  }
  return { sql: parts.join(" AND "), params: values };
}

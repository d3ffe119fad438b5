/**
 * Finds the date functions of a program that stand in an index, a generated column or a CHECK. SQLite lets them in and
 * refuses at run time to let them ask for the time; functions of ours, which it takes for deterministic, have to do that
 * themselves, and cannot see from where they are called. So the program is read once, when it is prepared.
 *
 * A function that the statement also calls elsewhere may ask for the time, unless the schema's own text asks for it: then
 * what the schema stores would depend on when it is computed, and the statement is refused.
 */
import type { OpcodeRow } from "../../sql/types.js";

const DATE = /^(date|time|datetime|julianday|unixepoch|strftime|timediff|current_(?:date|time|timestamp))\(/;
/**
 * Texts of schema objects that may hold one where it matters. DEFAULT is not such a place. Quotes and comments may stand
 * between a name and its parenthesis.
 */
const IN_SQL =
  /\b(?:date|time|datetime|julianday|unixepoch|strftime|timediff|current_(?:date|time|timestamp))\b/i;
const COMPUTED = /\b(?:check|as)\b/i;

/** SQLite's NC_IsCheck and NC_GenCol, as P5 of PureFunc tells them. */
const IN_CHECK = 0x04;
const IN_GENERATED = 0x08;

export function mayHoldPureDates(type: string, sql: string): boolean {
  return IN_SQL.test(sql) && (type === "index" || (type === "table" && COMPUTED.test(sql)));
}

/** By function, where it stands; undefined when there is nothing to refuse. */
export function pureDatesOf(program: readonly OpcodeRow[]): ReadonlyMap<string, string> | undefined {
  const elsewhere = new Set<string>();
  for (const op of program) {
    const name = op.opcode === "Function" ? nameOf(op) : undefined;
    if (name !== undefined) elsewhere.add(name);
  }
  const found = new Map<string, string>();
  program.forEach((op, at) => {
    const name = op.opcode === "PureFunc" ? nameOf(op) : undefined;
    if (name === undefined || (elsewhere.has(name) && !asksByItself(program, at, name))) return;
    const where =
      op.p5 & IN_CHECK ? "a CHECK constraint" : op.p5 & IN_GENERATED ? "a generated column" : "an index";
    found.set(name, where);
  });
  return found.size === 0 ? undefined : found;
}

function nameOf(op: OpcodeRow): string | undefined {
  return DATE.exec(op.p4 ?? "")?.[1];
}

/** No time value at all, or 'now' as a constant, loaded into the argument's register anywhere in the program. */
function asksByItself(program: readonly OpcodeRow[], at: number, name: string): boolean {
  const call = program[at]!;
  const count = Number(/\((\d+)\)$/.exec(call.p4 ?? "")?.[1] ?? -1);
  const first = name === "strftime" ? 1 : 0;
  if (name.startsWith("current_") || (count >= 0 && count <= first)) return true;
  const values = name === "timediff" ? 2 : 1;
  const from = call.p2 + first;
  return program.some(
    (op) => op.opcode === "String8" && op.p2 >= from && op.p2 < from + values && /^now$/i.test(op.p4 ?? ""),
  );
}

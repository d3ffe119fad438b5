/** What every machine knows of the ranges, in words: for the report of a world that went wrong. */
import { membersOf } from "../../../src/multiraft/host.js";
import type { RangeDescriptor } from "../../../src/placement/descriptor.js";
import type { Machine } from "./process.js";

export function describeRanges({ id, process }: Machine): readonly string[] {
  const hosting = process?.hosting;
  if (hosting === undefined) return [`n${id} is down`];
  const lines = hosting.view
    .directory()
    .ranges.map((known) => `n${id} knows ${describe(known)} on ${known.replicas.join(" ")}`);
  for (const { range, filled, handle, store, leadsHere } of hosting.ranges.all.values()) {
    const { applied, lastIndex, term } = handle.status();
    const where = `applied ${applied} of ${lastIndex}, term ${term}, members ${[...membersOf(handle.conf)].join(" ")}`;
    const what = filled ? describe(store.state().descriptor) : `${range} without a state`;
    const { frozenInto } = filled ? store.state() : {};
    const frozen = frozenInto === undefined ? "" : `, frozen into ${frozenInto}`;
    lines.push(`n${id} has ${what}, ${where}${frozen}${leadsHere ? ", leads" : ""}`);
  }
  return lines;
}

function describe({ range, start, end, generation }: Omit<RangeDescriptor, "replicas">): string {
  return `${range} [${printable(start)}, ${printable(end)}) generation ${generation}`;
}

function printable(key: string): string {
  return JSON.stringify(key).slice(1, -1);
}

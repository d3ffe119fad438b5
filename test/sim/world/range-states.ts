/** What every machine knows of the ranges, in words: for the report of a world that went wrong. */
import type { RangeDescriptor } from "../../../src/placement/descriptor.js";
import type { ConfState } from "../../../src/raft/types.js";
import type { Machine } from "./process.js";

export function describeRanges({ id, process }: Machine): readonly string[] {
  const hosting = process?.hosting;
  if (hosting === undefined) return [`n${id} is down`];
  const lines = hosting.view
    .directory()
    .ranges.map((known) => `n${id} knows ${describe(known)} on ${known.replicas.join(" ")}`);
  for (const { range, filled, handle, store } of hosting.ranges.all.values()) {
    const { applied, lastIndex, term, role, leader } = handle.status();
    const where = `applied ${applied} of ${lastIndex}, term ${term}, members ${describeConf(handle.conf)}`;
    const what = filled ? describe(store.state().descriptor) : `${range} without a state`;
    const { frozenInto } = filled ? store.state() : {};
    const frozen = frozenInto === undefined ? "" : `, frozen into ${frozenInto}`;
    const led = `${role} of ${leader}${handle.quiesced ? ", asleep" : ""}`;
    lines.push(`n${id} has ${what}, ${where}${frozen}, ${led}`);
  }
  return lines;
}

function describe({ range, start, end, generation }: Omit<RangeDescriptor, "replicas">): string {
  return `${range} [${printable(start)}, ${printable(end)}) generation ${generation}`;
}

function describeConf({ voters, votersOutgoing, learners }: ConfState): string {
  const outgoing = votersOutgoing.length === 0 ? "" : `, before ${votersOutgoing.join(" ")}`;
  return `${voters.join(" ")}${outgoing}${learners.length === 0 ? "" : `, learning ${learners.join(" ")}`}`;
}

function printable(key: string): string {
  return JSON.stringify(key).slice(1, -1);
}

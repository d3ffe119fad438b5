/** What every machine knows of the ranges, in words: for the report of a world that went wrong. */
import type { GroupHandle } from "../../../src/multiraft/types.js";
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
    const what = filled ? describe(store.state().descriptor) : `${range} without a state`;
    const { frozenInto } = filled ? store.state() : {};
    const frozen = frozenInto === undefined ? "" : `, frozen into ${frozenInto}`;
    lines.push(`n${id} has ${what}${frozen}, ${describeGroup(handle)}`);
  }
  const coordinator = hosting.coordinator?.handle;
  if (coordinator !== undefined) lines.push(`n${id} has the coordinator, ${describeGroup(coordinator)}`);
  return lines;
}

function describe({ range, start, end, generation }: Omit<RangeDescriptor, "replicas">): string {
  return `${range} [${printable(start)}, ${printable(end)}) generation ${generation}`;
}

function describeGroup(handle: GroupHandle): string {
  const { applied, lastIndex, term, role, leader, leaderReady } = handle.status();
  const where = `applied ${applied} of ${lastIndex}, term ${term}, members ${describeConf(handle.conf)}`;
  return `${where}, ${role} of ${leader}${leaderReady ? ", ready" : ""}${handle.quiesced ? ", asleep" : ""}`;
}

function describeConf({ voters, votersOutgoing, learners }: ConfState): string {
  const outgoing = votersOutgoing.length === 0 ? "" : `, before ${votersOutgoing.join(" ")}`;
  return `${voters.join(" ")}${outgoing}${learners.length === 0 ? "" : `, learning ${learners.join(" ")}`}`;
}

function printable(key: string): string {
  return JSON.stringify(key).slice(1, -1);
}

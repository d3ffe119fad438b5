/** The limits under which a gateway lets a statement run in a process of its own. */
import type { RunOptions, SystemTable } from "../machines/range/types.js";
import type { Deadline } from "./deadline.js";
import type { Replica } from "./replica.js";

export function runOptions(
  replica: Replica,
  deadline: Deadline,
  systemTables: readonly SystemTable[],
): RunOptions {
  return {
    systemTables,
    timeoutMs: deadline.remainingMs(),
    maxResultBytes: replica.limits.maxResultBytes,
    maxMemoryBytes: replica.limits.maxRunnerBytes,
    signal: deadline.signal,
  };
}

/** The limits under which a gateway lets a statement run in a process of its own. */
import type { RunOptions, SystemTable } from "../machines/range/types.js";
import type { Deadline } from "./deadline.js";
import type { GatewayParts } from "./replica.js";

export function runOptions(
  parts: GatewayParts,
  deadline: Deadline,
  systemTables: readonly SystemTable[],
): RunOptions {
  return {
    systemTables,
    timeoutMs: deadline.remainingMs(),
    maxResultBytes: parts.limits.maxResultBytes,
    maxMemoryBytes: parts.limits.maxRunnerBytes,
    signal: deadline.signal,
  };
}

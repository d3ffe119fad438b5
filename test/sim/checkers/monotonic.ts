/**
 * A register that one client at a time raises and everybody reads. Real time orders it wholly, so each read can be
 * judged alone: it shows at least what was acknowledged or read by anybody before it began, and at most what somebody
 * had begun to write before it ended. (The general checker, register.ts, needs a search; this one never gives up.)
 */
import { type Verdict, verdictOf } from "./verdict.js";

export interface MonotonicEvent {
  readonly kind: "write" | "read";
  readonly value: number;
  readonly startMs: number;
  /** Infinity for a write that was never answered. */
  readonly endMs: number;
  readonly client: string;
}

export function checkMonotonic(history: readonly MonotonicEvent[]): Verdict {
  const problems: string[] = [];
  const known = history.filter(({ endMs }) => endMs !== Number.POSITIVE_INFINITY);
  const ended = [...known].sort((a, b) => a.endMs - b.endMs);
  const begun = history.filter(({ kind }) => kind === "write").sort((a, b) => a.startMs - b.startMs);
  const reads = known.filter(({ kind }) => kind === "read");

  let at = 0;
  let floor: MonotonicEvent | undefined;
  for (const read of [...reads].sort((a, b) => a.startMs - b.startMs)) {
    for (; at < ended.length && ended[at]!.endMs < read.startMs; at++)
      if (floor === undefined || ended[at]!.value > floor.value) floor = ended[at]!;
    if (floor !== undefined && read.value < floor.value)
      problems.push(
        `${read.client} read ${read.value} from ${read.startMs.toFixed(1)} on; ${floor.client}'s ${floor.kind} of ${floor.value} had ended at ${floor.endMs.toFixed(1)}`,
      );
  }
  at = 0;
  let ceiling = Number.NEGATIVE_INFINITY;
  for (const read of [...reads].sort((a, b) => a.endMs - b.endMs)) {
    for (; at < begun.length && begun[at]!.startMs <= read.endMs; at++)
      ceiling = Math.max(ceiling, begun[at]!.value);
    if (read.value > ceiling) problems.push(`${read.client} read ${read.value} before anybody wrote it`);
  }
  return verdictOf(problems, reads.length);
}

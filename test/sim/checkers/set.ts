/**
 * The set checker: unique elements were added, and at the end all were read. Every acknowledged add is there exactly
 * once, every add that failed for sure is absent, nothing is there that nobody added. An add whose outcome stayed
 * unknown may be there or not, but not twice.
 */
import { type Verdict, verdictOf } from "./verdict.js";

export type AddOutcome = "acknowledged" | "failed" | "unknown";

export interface SetHistory<T> {
  readonly added: ReadonlyMap<T, AddOutcome>;
  /** All elements found at the end, as often as they were found. */
  readonly found: readonly T[];
}

export function checkSet<T>({ added, found }: SetHistory<T>): Verdict {
  const times = new Map<T, number>();
  for (const element of found) times.set(element, (times.get(element) ?? 0) + 1);
  const problems: string[] = [];
  for (const [element, count] of times) {
    const outcome = added.get(element);
    if (outcome === undefined) problems.push(`${String(element)} was found, and nobody added it`);
    else if (outcome === "failed") problems.push(`${String(element)} was found, and its add had failed`);
    if (count > 1) problems.push(`${String(element)} was found ${count} times`);
  }
  for (const [element, outcome] of added)
    if (outcome === "acknowledged" && !times.has(element))
      problems.push(`${String(element)} was acknowledged and is missing`);
  const acknowledged = [...added.values()].filter((outcome) => outcome === "acknowledged").length;
  return verdictOf(problems, acknowledged);
}

export interface CounterHistory {
  readonly acknowledged: number;
  readonly unknown: number;
  readonly value: number;
}

/** Increments by one: the value lies between the acknowledged ones and those with the unknown ones added. */
export function checkCounter({ acknowledged, unknown, value }: CounterHistory): Verdict {
  const problems: string[] = [];
  if (value < acknowledged)
    problems.push(`${acknowledged - value} of ${acknowledged} acknowledged increments are missing`);
  if (value > acknowledged + unknown)
    problems.push(`${value - acknowledged - unknown} increments more than were made`);
  return verdictOf(problems, acknowledged);
}

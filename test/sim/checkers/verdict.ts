/**
 * What a checker says of a history. "unknown" is for a history with nothing in it and for a search that was given up:
 * it is never a pass.
 */
export interface Verdict {
  readonly verdict: "valid" | "invalid" | "unknown";
  /** Why not valid, for people; the first few of many. */
  readonly problems: readonly string[];
}

const MAX_PROBLEMS = 20;

export function verdictOf(problems: readonly string[], checked: number): Verdict {
  if (problems.length > 0) {
    const more = problems.length - MAX_PROBLEMS;
    const told = problems.slice(0, MAX_PROBLEMS);
    return { verdict: "invalid", problems: more > 0 ? [...told, `… and ${more} more`] : told };
  }
  if (checked === 0) return { verdict: "unknown", problems: ["the history is empty"] };
  return { verdict: "valid", problems: [] };
}

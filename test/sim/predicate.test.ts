/** The predicate checker, tried on hand-made histories: one per anomaly, and some that are fine. */
import { describe, expect, it } from "vitest";
import { checkPredicates, type PredicateOperation, type PredicateTransaction } from "./checkers/predicate.js";

const add = (element: number, ...predicates: string[]): PredicateOperation => ({
  kind: "add",
  element,
  predicates,
});
const scan = (predicate: string, ...found: number[]): PredicateOperation => ({
  kind: "scan",
  predicate,
  found,
});

function transaction(
  startMs: number,
  endMs: number,
  operations: readonly PredicateOperation[],
  outcome: PredicateTransaction["outcome"] = "committed",
): PredicateTransaction {
  return { client: `c${startMs}`, operations, outcome, startMs, endMs };
}

const NEVER = Number.POSITIVE_INFINITY;

describe("predicates", () => {
  it("accepts transactions one after the other", () => {
    const history = [
      transaction(0, 1, [scan("a"), add(1, "a", "x")]),
      transaction(2, 3, [scan("a", 1), add(2, "a", "y"), scan("a", 1, 2), scan("x", 1)]),
      transaction(4, 5, [scan("a", 2, 1), scan("x", 1), scan("y", 2)]),
    ];
    expect(checkPredicates(history)).toEqual({ verdict: "valid", problems: [] });
  });

  it("accepts overlapping ones in either order, and unknown ones that happened or did not", () => {
    const history = [
      transaction(0, 10, [scan("a"), add(1, "a")]),
      transaction(0, 10, [scan("a", 1), add(2, "a")]),
      transaction(0, NEVER, [scan("a"), add(3, "a")], "unknown"),
      transaction(0, NEVER, [add(4, "a")], "unknown"),
      transaction(11, 12, [scan("a", 1, 2, 3)]),
    ];
    expect(checkPredicates(history).verdict).toBe("valid");
  });

  it("is not convinced by a history without scans", () => {
    expect(checkPredicates([transaction(0, 1, [add(1, "a")])]).verdict).toBe("unknown");
  });

  it.each<readonly [string, RegExp, readonly PredicateTransaction[]]>([
    [
      "a phantom between two transactions that looked for it",
      /rw a→.*rw a→/s,
      [
        transaction(0, 10, [scan("a"), add(1, "a")]),
        transaction(0, 10, [scan("a"), add(2, "a")]),
        transaction(11, 12, [scan("a", 1, 2)]),
      ],
    ],
    [
      "a phantom over two predicates (write skew)",
      /rw a→.*rw b→|rw b→.*rw a→/s,
      [
        transaction(0, 10, [scan("a"), add(1, "b")]),
        transaction(0, 10, [scan("b"), add(2, "a")]),
        transaction(11, 12, [scan("a", 2), scan("b", 1)]),
      ],
    ],
    [
      "a phantom between two scans of one transaction",
      /not serializable/,
      [transaction(0, 10, [add(1, "a")]), transaction(0, 10, [scan("a"), scan("a", 1)])],
    ],
    [
      "a scan that is older than an acknowledged add",
      /rw a→.*real time/s,
      [transaction(0, 1, [add(1, "a")]), transaction(2, 3, [scan("a")])],
    ],
    [
      "half of what was added at once",
      /not serializable/,
      [transaction(0, 10, [add(1, "a"), add(2, "a")]), transaction(0, 10, [scan("a", 1)])],
    ],
    [
      "half of it through another predicate",
      /not serializable/,
      [transaction(0, 10, [add(1, "a"), add(2, "b")]), transaction(0, 10, [scan("a", 1), scan("b")])],
    ],
    [
      "a long fork",
      /not serializable/,
      [
        transaction(0, 20, [add(1, "a")]),
        transaction(0, 20, [add(2, "a")]),
        transaction(5, 10, [scan("a", 1)]),
        transaction(5, 10, [scan("a", 2)]),
      ],
    ],
    [
      "an element of an aborted transaction",
      /of the aborted/,
      [transaction(0, 1, [add(1, "a")], "aborted"), transaction(2, 3, [scan("a", 1)])],
    ],
    ["an element twice", /twice/, [transaction(0, 1, [add(1, "a")]), transaction(2, 3, [scan("a", 1, 1)])]],
    ["an element from nowhere", /nobody added/, [transaction(0, 1, [scan("a", 7)])]],
    [
      "an element that does not belong",
      /is not of a/,
      [transaction(0, 1, [add(1, "b")]), transaction(2, 3, [scan("a", 1)])],
    ],
    ["a transaction that does not see its own add", /itself/, [transaction(0, 1, [add(1, "a"), scan("a")])]],
  ])("finds %s", (_, problem, history) => {
    const { verdict, problems } = checkPredicates(history);
    expect(verdict).toBe("invalid");
    expect(problems.join("\n")).toMatch(problem);
  });
});

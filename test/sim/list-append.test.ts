/** The list-append checker, tried on hand-made histories: one per anomaly, and some that are fine. */
import { describe, expect, it } from "vitest";
import { type AppendTransaction, checkListAppend, type MicroOperation } from "./checkers/list-append.js";

const append = (key: string, value: number): MicroOperation => ({ kind: "append", key, value });
const read = (key: string, ...list: number[]): MicroOperation => ({ kind: "read", key, list });

function transaction(
  startMs: number,
  endMs: number,
  operations: readonly MicroOperation[],
  outcome: AppendTransaction["outcome"] = "committed",
): AppendTransaction {
  return { client: `c${startMs}`, operations, outcome, startMs, endMs };
}

const NEVER = Number.POSITIVE_INFINITY;

describe("list-append", () => {
  it("accepts transactions one after the other", () => {
    const history = [
      transaction(0, 1, [append("x", 1)]),
      transaction(2, 3, [read("x", 1), append("x", 2), read("x", 1, 2), append("y", 3)]),
      transaction(4, 5, [read("x", 1, 2), read("y", 3)]),
    ];
    expect(checkListAppend(history)).toEqual({ verdict: "valid", problems: [] });
  });

  it("accepts concurrent transactions in either order, and unknown ones that happened or did not", () => {
    const history = [
      transaction(0, 10, [append("x", 1)]),
      transaction(0, 10, [append("x", 2)]),
      transaction(0, NEVER, [append("x", 3)], "unknown"),
      transaction(0, NEVER, [append("y", 4)], "unknown"),
      transaction(11, 12, [read("x", 2, 3, 1), read("y")]),
    ];
    expect(checkListAppend(history).verdict).toBe("valid");
  });

  it("is not convinced by a history without reads", () => {
    expect(checkListAppend([transaction(0, 1, [append("x", 1)])]).verdict).toBe("unknown");
  });

  it.each<readonly [string, RegExp, readonly AppendTransaction[]]>([
    [
      "a stale read in real time",
      /rw x→.*real time/s,
      [
        transaction(0, 1, [append("x", 1)]),
        transaction(2, 3, [read("x")]),
        transaction(4, 5, [read("x", 1)]),
      ],
    ],
    [
      "a lost update",
      /contradict|not serializable/,
      [
        transaction(0, 10, [read("x"), append("x", 1)]),
        transaction(0, 10, [read("x"), append("x", 2)]),
        transaction(11, 12, [read("x", 1, 2)]),
      ],
    ],
    ["a lost append", /is missing/, [transaction(0, 1, [append("x", 1)]), transaction(2, 3, [read("x")])]],
    [
      "write skew",
      /rw x→.*rw y→|rw y→.*rw x→/s,
      [
        transaction(0, 10, [read("x"), append("y", 1)]),
        transaction(0, 10, [read("y"), append("x", 2)]),
        transaction(11, 12, [read("x", 2), read("y", 1)]),
      ],
    ],
    [
      "a long fork",
      /not serializable/,
      [
        transaction(0, 20, [append("x", 1)]),
        transaction(0, 20, [append("y", 2)]),
        transaction(5, 10, [read("x", 1), read("y")]),
        transaction(5, 10, [read("x"), read("y", 2)]),
        transaction(21, 22, [read("x", 1), read("y", 2)]),
      ],
    ],
    [
      "a torn transaction",
      /not serializable/,
      [
        transaction(0, 20, [append("x", 1), append("y", 2)]),
        transaction(5, 10, [read("x", 1), read("y")]),
        transaction(21, 22, [read("x", 1), read("y", 2)]),
      ],
    ],
    [
      "writes that appear in another order than they were made in (causal reverse)",
      /not serializable/,
      [
        transaction(0, 1, [append("x", 1)]),
        transaction(2, 3, [append("y", 2)]),
        transaction(0, 10, [read("x"), read("y", 2)]),
        transaction(11, 12, [read("x", 1), read("y", 2)]),
      ],
    ],
    [
      "circular information flow",
      /wr x→.*wr y→|wr y→.*wr x→/s,
      [
        transaction(0, 10, [append("x", 1), read("y", 2)]),
        transaction(0, 10, [append("y", 2), read("x", 1)]),
      ],
    ],
    [
      "dirty writes",
      /ww x→.*ww y→|ww y→.*ww x→/s,
      [
        transaction(0, 10, [append("x", 1), append("y", 1)]),
        transaction(0, 10, [append("x", 2), append("y", 2)]),
        transaction(11, 12, [read("x", 1, 2), read("y", 2, 1)]),
      ],
    ],
    [
      "a value of an aborted transaction",
      /of the aborted/,
      [transaction(0, 1, [append("x", 1)], "aborted"), transaction(2, 3, [read("x", 1)])],
    ],
    [
      "an intermediate state",
      /an intermediate state/,
      [
        transaction(0, 10, [append("x", 1), append("x", 2)]),
        transaction(0, 10, [read("x", 1)]),
        transaction(11, 12, [read("x", 1, 2)]),
      ],
    ],
    ["a value twice", /twice/, [transaction(0, 1, [append("x", 1)]), transaction(2, 3, [read("x", 1, 1)])]],
    ["a value from nowhere", /nobody appended/, [transaction(0, 1, [read("x", 7)])]],
    [
      "lists that contradict one another",
      /contradict/,
      [
        transaction(0, 10, [append("x", 1)]),
        transaction(0, 10, [append("x", 2)]),
        transaction(11, 12, [read("x", 1, 2)]),
        transaction(11, 12, [read("x", 2, 1)]),
      ],
    ],
    [
      "a transaction that does not see its own append",
      /itself/,
      [transaction(0, 1, [append("x", 1), read("x")]), transaction(2, 3, [read("x", 1)])],
    ],
    [
      "a read that is not repeatable",
      /not serializable/,
      [transaction(0, 10, [append("x", 1)]), transaction(0, 10, [read("x"), read("x", 1)])],
    ],
  ])("finds %s", (_, problem, history) => {
    const { verdict, problems } = checkListAppend(history);
    expect(verdict).toBe("invalid");
    expect(problems.join("\n")).toMatch(problem);
  });
});

/**
 * Linearizability of registers (Herlihy and Wing), by the search of Wing and Gong with Lowe's memory of the
 * configurations seen: an order of the operations that respects real time and in which every read shows the last
 * value written. Keys are independent (linearizability is local), so each is searched alone.
 *
 * An operation with an unknown outcome may have happened at any time after its start, or never. One that failed for
 * sure must be left out by the caller. A search beyond `maxSteps` is "unknown".
 */
import { type Verdict, verdictOf } from "./verdict.js";

export type RegisterValue = string | number | null;

export type RegisterAction =
  | { readonly kind: "read"; readonly value: RegisterValue }
  | { readonly kind: "write"; readonly value: RegisterValue }
  /** Found something else than this. */
  | { readonly kind: "differs"; readonly value: RegisterValue }
  /** Succeeded in replacing `expected`. */
  | { readonly kind: "swap"; readonly expected: RegisterValue; readonly value: RegisterValue };

export interface RegisterOperation {
  readonly key: string;
  readonly client: string;
  readonly action: RegisterAction;
  readonly startMs: number;
  /** Infinity when the outcome is unknown. */
  readonly endMs: number;
}

export interface RegisterOptions {
  /** What every key holds at first. */
  readonly initial?: RegisterValue;
  readonly maxSteps?: number;
}

export function checkRegisters(
  history: readonly RegisterOperation[],
  options: RegisterOptions = {},
): Verdict {
  const keys = new Map<string, RegisterOperation[]>();
  for (const operation of history) {
    // A read without an answer says nothing.
    if (
      (operation.action.kind === "read" || operation.action.kind === "differs") &&
      operation.endMs === Number.POSITIVE_INFINITY
    )
      continue;
    const list = keys.get(operation.key);
    if (list === undefined) keys.set(operation.key, [operation]);
    else list.push(operation);
  }
  const problems: string[] = [];
  for (const [key, operations] of keys) {
    const search = new Search(operations, options);
    const answer = search.run();
    if (answer === "given up")
      return {
        verdict: "unknown",
        problems: [`key ${key}: the search was given up after ${search.steps} steps`],
      };
    if (answer === "impossible") problems.push(`key ${key} is not linearizable; ${search.explain()}`);
  }
  return verdictOf(problems, history.length);
}

/** The value after the action, or undefined where the action cannot happen at `value`. */
function apply(value: RegisterValue, action: RegisterAction): { value: RegisterValue } | undefined {
  switch (action.kind) {
    case "read":
      return action.value === value ? { value } : undefined;
    case "differs":
      return action.value === value ? undefined : { value };
    case "write":
      return { value: action.value };
    case "swap":
      return action.expected === value ? { value: action.value } : undefined;
  }
}

interface Frame {
  readonly before: RegisterValue;
  readonly operation: number;
}

/** Depth first over the orders of one key's operations, sorted by start. */
class Search {
  readonly #operations: readonly RegisterOperation[];
  readonly #maxSteps: number;
  readonly #done: Uint8Array;
  readonly #seen = new Set<string>();
  #left: number;
  #value: RegisterValue;
  #first = 0;
  #deepest: Frame[] = [];
  steps = 0;

  constructor(
    operations: readonly RegisterOperation[],
    { initial = null, maxSteps = 2_000_000 }: RegisterOptions,
  ) {
    this.#operations = [...operations].sort((a, b) => a.startMs - b.startMs);
    this.#maxSteps = maxSteps;
    this.#value = initial;
    this.#done = new Uint8Array(operations.length);
    this.#left = operations.filter(({ endMs }) => endMs !== Number.POSITIVE_INFINITY).length;
  }

  run(): "found" | "impossible" | "given up" {
    const stack: Frame[] = [];
    let next = this.#first;
    while (this.#left > 0) {
      if (++this.steps > this.#maxSteps) return "given up";
      const chosen = this.#choose(next);
      if (chosen !== undefined) {
        stack.push(this.#take(chosen));
        if (stack.length > this.#deepest.length) this.#deepest = [...stack];
        next = this.#first;
        continue;
      }
      const last = stack.pop();
      if (last === undefined) return "impossible";
      this.#undo(last);
      next = last.operation + 1;
    }
    return "found";
  }

  /** The next operation, from `from` on, that may come first of those left and leads to somewhere new. */
  #choose(from: number): number | undefined {
    let bound = Number.POSITIVE_INFINITY;
    for (let i = this.#first; i < this.#operations.length; i++) {
      const { startMs, endMs } = this.#operations[i]!;
      if (startMs > bound) break;
      if (this.#done[i] === 0) bound = Math.min(bound, endMs);
    }
    for (let i = Math.max(from, this.#first); i < this.#operations.length; i++) {
      const operation = this.#operations[i]!;
      if (operation.startMs > bound) return undefined;
      if (this.#done[i] === 1) continue;
      const after = apply(this.#value, operation.action);
      if (after === undefined) continue;
      this.#done[i] = 1;
      const configuration = `${JSON.stringify(after.value)} ${this.#configuration()}`;
      this.#done[i] = 0;
      if (this.#seen.has(configuration)) continue;
      this.#seen.add(configuration);
      return i;
    }
    return undefined;
  }

  /** Which operations are done: all before the first that is not, and some after it. */
  #configuration(): string {
    let first = this.#first;
    while (first < this.#done.length && this.#done[first] === 1) first++;
    let last = this.#done.length - 1;
    while (last > first && this.#done[last] === 0) last--;
    return `${first} ${this.#done.subarray(first, last + 1).join("")}`;
  }

  #take(operation: number): Frame {
    const frame = { before: this.#value, operation };
    const { action, endMs } = this.#operations[operation]!;
    this.#value = apply(this.#value, action)!.value;
    this.#done[operation] = 1;
    if (endMs !== Number.POSITIVE_INFINITY) this.#left--;
    while (this.#first < this.#done.length && this.#done[this.#first] === 1) this.#first++;
    return frame;
  }

  #undo({ before, operation }: Frame): void {
    this.#value = before;
    this.#done[operation] = 0;
    if (this.#operations[operation]!.endMs !== Number.POSITIVE_INFINITY) this.#left++;
    this.#first = Math.min(this.#first, operation);
  }

  /** The longest order found, its end, and what could not follow it. */
  explain(): string {
    const told = this.#deepest.slice(-5).map(({ operation }) => describe(this.#operations[operation]!));
    const done = new Set(this.#deepest.map(({ operation }) => operation));
    const stuck = this.#operations.filter((_, i) => !done.has(i)).slice(0, 3);
    return `after … ${told.join(" · ")} could not come ${stuck.map(describe).join(" nor ")}`;
  }
}

function describe({ client, action, startMs, endMs }: RegisterOperation): string {
  const what =
    action.kind === "swap"
      ? `swap ${String(action.expected)}→${String(action.value)}`
      : `${action.kind} ${String(action.value)}`;
  return `${client}: ${what} [${startMs.toFixed(1)}, ${endMs.toFixed(1)}]`;
}

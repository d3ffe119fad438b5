/**
 * Strict serializability of transactions that add elements and scan predicates ("all with team 3"): a scan tells not
 * only what it saw but also what was not there, so a phantom (an element that appears in the middle of a transaction
 * which has looked for it) is a cycle like any other.
 *
 * Elements are unique and never removed. Edges (graph.ts): wr (a scan saw the element), rw (a scan of a predicate that
 * the element satisfies did not see it). Besides cycles: elements of aborted transactions, elements twice, from nowhere,
 * of another predicate, and transactions that do not see what they added themselves.
 */
import { DependencyGraph, type Timed } from "./graph.js";
import { type Verdict, verdictOf } from "./verdict.js";

export type PredicateOperation =
  | { readonly kind: "add"; readonly element: number; readonly predicates: readonly string[] }
  | { readonly kind: "scan"; readonly predicate: string; readonly found: readonly number[] };

/** What a transaction with an unknown outcome saw is not known. */
export interface PredicateTransaction extends Timed {
  readonly client: string;
  readonly operations: readonly PredicateOperation[];
}

interface Added {
  readonly by: number;
  readonly nth: number;
  readonly predicates: readonly string[];
}

export function checkPredicates(history: readonly PredicateTransaction[]): Verdict {
  return new Predicates(history).check();
}

class Predicates {
  readonly #history: readonly PredicateTransaction[];
  readonly #problems: string[] = [];
  readonly #added = new Map<number, Added>();
  readonly #graph: DependencyGraph;

  constructor(history: readonly PredicateTransaction[]) {
    this.#history = history;
    this.#graph = new DependencyGraph(history, (at) => this.#name(at));
  }

  check(): Verdict {
    for (const [by, { operations }] of this.#history.entries())
      for (const [nth, operation] of operations.entries()) {
        if (operation.kind !== "add") continue;
        const { element, predicates } = operation;
        if (this.#added.has(element)) throw new Error(`element ${element} is added twice by the test itself`);
        this.#added.set(element, { by, nth, predicates });
      }
    let scans = 0;
    for (const [at, { operations, outcome }] of this.#history.entries()) {
      if (outcome !== "committed") continue;
      for (const [nth, operation] of operations.entries())
        if (operation.kind === "scan") {
          scans++;
          this.#scan(at, nth, operation.predicate, operation.found);
        }
    }
    if (this.#problems.length === 0) this.#problems.push(...this.#graph.cycles());
    return verdictOf(this.#problems, scans);
  }

  #name(at: number): string {
    const { client, operations, startMs, endMs } = this.#history[at]!;
    const told = operations.map((operation) =>
      operation.kind === "add"
        ? `+${operation.element} (${operation.predicates.join(" ")})`
        : `${operation.predicate}={… ${operation.found.slice(-4).join(" ")}}`,
    );
    return `${client} {${told.join(", ")}} [${startMs.toFixed(1)}, ${endMs.toFixed(1)}]`;
  }

  #scan(at: number, nth: number, predicate: string, found: readonly number[]): void {
    const seen = new Set(found);
    if (seen.size !== found.length) this.#problems.push(`${this.#name(at)} sees an element twice`);
    for (const element of seen) {
      const added = this.#added.get(element);
      if (added === undefined) this.#problems.push(`${this.#name(at)} sees ${element}, which nobody added`);
      else if (!added.predicates.includes(predicate))
        this.#problems.push(`${this.#name(at)} sees ${element}, which is not of ${predicate}`);
      else if (this.#history[added.by]!.outcome === "aborted")
        this.#problems.push(`${this.#name(at)} sees ${element} of the aborted ${this.#name(added.by)}`);
      else this.#graph.edge(added.by, at, "wr", predicate);
    }
    for (const [element, { by, nth: when, predicates }] of this.#added) {
      if (!predicates.includes(predicate) || seen.has(element)) continue;
      if (by !== at) this.#graph.edge(at, by, "rw", predicate);
      else if (when < nth)
        this.#problems.push(`${this.#name(at)} does not see ${element}, which it added itself`);
    }
  }
}

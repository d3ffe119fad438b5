/**
 * Strict serializability of transactions that append unique values to lists and read whole lists, after Elle
 * (Kingsbury and Alvaro 2020): a list tells the order in which it was written, so what each transaction saw and did
 * gives the dependencies between transactions; with real time added, they must have no cycle.
 *
 * Edges (graph.ts): ww (appended right after), wr (read what another appended last), rw (read a list that the other
 * extended next). Besides cycles: lists that contradict one another, values of aborted
 * transactions, values that appear twice or that nobody appended, intermediate states, and transactions that do not
 * see what they did themselves. With a last read of all lists, acknowledged appends that are missing are found too.
 */
import { DependencyGraph, type Timed } from "./graph.js";
import { type Verdict, verdictOf } from "./verdict.js";

export type MicroOperation =
  | { readonly kind: "append"; readonly key: string; readonly value: number }
  | { readonly kind: "read"; readonly key: string; readonly list: readonly number[] };

/** What a transaction with an unknown outcome read is not known either. */
export interface AppendTransaction extends Timed {
  readonly client: string;
  readonly operations: readonly MicroOperation[];
}

interface Appender {
  readonly transaction: number;
  /** The transaction appends to the same list again after this value. */
  readonly intermediate: boolean;
}

export function checkListAppend(history: readonly AppendTransaction[]): Verdict {
  return new ListAppend(history).check();
}

class ListAppend {
  readonly #history: readonly AppendTransaction[];
  readonly #problems: string[] = [];
  readonly #appenders = new Map<string, Appender>();
  readonly #graph: DependencyGraph;

  constructor(history: readonly AppendTransaction[]) {
    this.#history = history;
    this.#graph = new DependencyGraph(history, (at) => this.#name(at));
  }

  check(): Verdict {
    this.#learnAppenders();
    const reads = this.#history.flatMap((transaction, at) =>
      transaction.outcome === "committed"
        ? transaction.operations.flatMap((operation, nth) =>
            operation.kind === "read" ? [{ ...operation, at, nth }] : [],
          )
        : [],
    );
    const orders = this.#orders(reads);
    for (const [key, order] of orders) this.#writeEdges(key, order);
    for (const { at, nth, key, list } of reads) this.#readEdges(at, nth, key, list, orders.get(key) ?? []);
    if (this.#problems.length === 0) this.#problems.push(...this.#graph.cycles());
    return verdictOf(this.#problems, reads.length);
  }

  #name(at: number): string {
    const { client, startMs, endMs, operations } = this.#history[at]!;
    const told = operations.map((operation) =>
      operation.kind === "append"
        ? `${operation.key}+${operation.value}`
        : `${operation.key}=[${operation.list.slice(-4).join(" ")}]`,
    );
    return `${client} {${told.join(", ")}} [${startMs.toFixed(1)}, ${endMs.toFixed(1)}]`;
  }

  #learnAppenders(): void {
    for (const [at, { operations }] of this.#history.entries()) {
      const last = new Map<string, number>();
      for (const operation of operations)
        if (operation.kind === "append") last.set(operation.key, operation.value);
      for (const operation of operations) {
        if (operation.kind !== "append") continue;
        const id = `${operation.key}:${operation.value}`;
        if (this.#appenders.has(id)) throw new Error(`value ${id} is appended twice by the test itself`);
        const intermediate = last.get(operation.key) !== operation.value;
        this.#appenders.set(id, { transaction: at, intermediate });
      }
    }
  }

  /** The longest list read of each key; every other must be a beginning of it. */
  #orders(
    reads: readonly { readonly key: string; readonly list: readonly number[]; readonly at: number }[],
  ): Map<string, readonly number[]> {
    const orders = new Map<string, readonly number[]>();
    for (const { key, list } of reads)
      if (list.length > (orders.get(key)?.length ?? -1)) orders.set(key, list);
    for (const { key, list, at } of reads) {
      const order = orders.get(key)!;
      const differs = list.findIndex((value, i) => order[i] !== value);
      if (differs >= 0)
        this.#problems.push(
          `lists of ${key} contradict one another at ${differs}: ${this.#name(at)} and [… ${order.slice(Math.max(0, differs - 2), differs + 3).join(" ")} …]`,
        );
      this.#judgeValues(key, list, at);
    }
    return orders;
  }

  #judgeValues(key: string, list: readonly number[], at: number): void {
    if (new Set(list).size !== list.length)
      this.#problems.push(`${this.#name(at)} sees a value of ${key} twice`);
    for (const value of list) {
      const appender = this.#appenders.get(`${key}:${value}`);
      if (appender === undefined)
        this.#problems.push(`${this.#name(at)} sees ${key}:${value}, which nobody appended`);
      else if (this.#history[appender.transaction]!.outcome === "aborted")
        this.#problems.push(
          `${this.#name(at)} sees ${key}:${value} of the aborted ${this.#name(appender.transaction)}`,
        );
    }
    const last = list.at(-1);
    const appender = last === undefined ? undefined : this.#appenders.get(`${key}:${last}`);
    if (appender?.intermediate === true && appender.transaction !== at)
      this.#problems.push(
        `${this.#name(at)} sees an intermediate state of ${this.#name(appender.transaction)}`,
      );
  }

  #writeEdges(key: string, order: readonly number[]): void {
    for (let i = 1; i < order.length; i++) {
      const before = this.#appenders.get(`${key}:${order[i - 1]}`);
      const after = this.#appenders.get(`${key}:${order[i]}`);
      if (before !== undefined && after !== undefined)
        this.#graph.edge(before.transaction, after.transaction, "ww", key);
    }
  }

  #readEdges(at: number, nth: number, key: string, list: readonly number[], order: readonly number[]): void {
    const own = this.#history[at]!.operations.slice(0, nth).flatMap((operation) =>
      operation.kind === "append" && operation.key === key ? [operation.value] : [],
    );
    const tail = list.slice(list.length - own.length);
    if (own.length > list.length || own.some((value, i) => tail[i] !== value)) {
      this.#problems.push(`${this.#name(at)} does not see what it appended to ${key} itself`);
      return;
    }
    const seen = list.length - own.length;
    const last = seen === 0 ? undefined : this.#appenders.get(`${key}:${list[seen - 1]}`);
    if (last !== undefined) this.#graph.edge(last.transaction, at, "wr", key);
    const next = order[seen] === undefined ? undefined : this.#appenders.get(`${key}:${order[seen]}`);
    if (next !== undefined) this.#graph.edge(at, next.transaction, "rw", key);
    this.#missing(at, key, order);
  }

  /** An append that ended before a read began, and that no read of the key ever shows. */
  #missing(at: number, key: string, order: readonly number[]): void {
    const shown = new Set(order);
    const { startMs } = this.#history[at]!;
    for (const [i, transaction] of this.#history.entries()) {
      if (transaction.outcome !== "committed" || transaction.endMs >= startMs) continue;
      for (const operation of transaction.operations)
        if (operation.kind === "append" && operation.key === key && !shown.has(operation.value))
          this.#problems.push(`${this.#name(i)} was committed, and ${key}:${operation.value} is missing`);
    }
  }
}

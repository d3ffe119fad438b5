/**
 * Dependencies between transactions (Adya 1999): what must have come before what, by what they saw and did and by real
 * time. A history is strictly serializable only where they have no cycle.
 *
 * Edges: ww (written right after), wr (seen by), rw (not seen by one who read, so written after it) and real time (ended
 * before the other began).
 */
type EdgeKind = "ww" | "wr" | "rw" | "real time";

interface Edge {
  readonly to: number;
  readonly kind: EdgeKind;
  readonly key: string;
}

/** When something ran and what became of it. */
export interface Timed {
  readonly outcome: "committed" | "aborted" | "unknown";
  readonly startMs: number;
  /** Infinity when it was never answered. */
  readonly endMs: number;
}

export class DependencyGraph {
  readonly #history: readonly Timed[];
  readonly #name: (at: number) => string;
  readonly #edges: Edge[][];

  constructor(history: readonly Timed[], name: (at: number) => string) {
    this.#history = history;
    this.#name = name;
    this.#edges = history.map(() => []);
  }

  edge(from: number, to: number, kind: EdgeKind, key: string): void {
    if (from !== to) this.#edges[from]!.push({ to, kind, key });
  }

  /** Every knot of transactions that cannot be put in order, as one shortest cycle each; real time is added here. */
  cycles(): string[] {
    this.#realTime();
    return components(this.#edges)
      .filter((component) => component.length > 1)
      .map((component) => `not serializable: ${this.#describe(component)}`);
  }

  /** Only the latest of those that ended before: the others come before it, or are found through it. */
  #realTime(): void {
    const byEnd = this.#history
      .map(({ endMs, outcome }, at) => ({ endMs, at, outcome }))
      .filter(({ endMs, outcome }) => endMs !== Number.POSITIVE_INFINITY && outcome === "committed")
      .sort((a, b) => a.endMs - b.endMs);
    for (const [at, { startMs, outcome }] of this.#history.entries()) {
      if (outcome === "aborted") continue;
      // Of those that ended before this one began, those that began after another of them ended suffice.
      let newestStart = Number.NEGATIVE_INFINITY;
      for (let i = byEnd.length - 1; i >= 0; i--) {
        const before = byEnd[i]!;
        if (before.endMs >= startMs) continue;
        if (before.endMs < newestStart) break;
        newestStart = Math.max(newestStart, this.#history[before.at]!.startMs);
        this.edge(before.at, at, "real time", "");
      }
    }
  }

  /** A shortest cycle through the component's first transaction. */
  #describe(component: readonly number[]): string {
    const inside = new Set(component);
    const start = component[0]!;
    const cameBy = new Map<number, { readonly from: number; readonly edge: Edge }>();
    const queue = [start];
    for (const from of queue) {
      for (const edge of this.#edges[from]!) {
        if (!inside.has(edge.to) || cameBy.has(edge.to)) continue;
        cameBy.set(edge.to, { from, edge });
        queue.push(edge.to);
      }
      if (cameBy.has(start)) break;
    }
    const steps: string[] = [];
    for (let at = start; ; ) {
      const { from, edge } = cameBy.get(at)!;
      steps.unshift(`${this.#name(from)} —${edge.kind} ${edge.key}→`);
      at = from;
      if (at === start) break;
    }
    return `${steps.join(" ")} ${this.#name(start)}`;
  }
}

/** Strongly connected components (Tarjan), without recursion. */
function components(edges: readonly (readonly Edge[])[]): number[][] {
  const index = new Int32Array(edges.length).fill(-1);
  const low = new Int32Array(edges.length);
  const onStack = new Uint8Array(edges.length);
  const stack: number[] = [];
  const found: number[][] = [];
  let counter = 0;
  for (let root = 0; root < edges.length; root++) {
    if (index[root] !== -1) continue;
    const work: { node: number; next: number }[] = [{ node: root, next: 0 }];
    while (work.length > 0) {
      const frame = work[work.length - 1]!;
      const { node } = frame;
      if (frame.next === 0) {
        index[node] = low[node] = counter++;
        stack.push(node);
        onStack[node] = 1;
      }
      const edge = edges[node]![frame.next++];
      if (edge !== undefined) {
        if (index[edge.to] === -1) work.push({ node: edge.to, next: 0 });
        else if (onStack[edge.to] === 1) low[node] = Math.min(low[node]!, index[edge.to]!);
        continue;
      }
      work.pop();
      const parent = work[work.length - 1];
      if (parent !== undefined) low[parent.node] = Math.min(low[parent.node]!, low[node]!);
      if (low[node] !== index[node]) continue;
      const component: number[] = [];
      for (;;) {
        const member = stack.pop()!;
        onStack[member] = 0;
        component.push(member);
        if (member === node) break;
      }
      found.push(component);
    }
  }
  return found;
}

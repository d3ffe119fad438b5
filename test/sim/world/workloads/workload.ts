/**
 * What a workload is: tables of its own, operations that clients do on them again and again, a memory of what they
 * were told, and a judgement at the end. All workloads run at once on one database, so that every kind of statement
 * meets every other on its way; a new one is a file here and a line in index.ts.
 */
import type { Verdict } from "../../checkers/verdict.js";
import type { SimRandom } from "../../sim-random.js";
import type { Rows, SimClient, WriteEnd } from "../client.js";

export const NEVER = Number.POSITIVE_INFINITY;

export type Outcome = "committed" | "aborted" | "unknown";

/** What an operation works with: one client's. */
export interface Tools {
  readonly client: SimClient;
  readonly random: SimRandom;
  readonly nowMs: number;
  /** No more attempts: the run ends. */
  readonly stopped: boolean;
  /** A number that nobody else uses. */
  unique(): number;
  /** For people, should it never end. */
  doing(what: string): void;
  /** Tells once it is known what became of a write; what stays unknown is asked for at the end. */
  settle(end: WriteEnd, tell: (outcome: Outcome) => void): void;
}

export interface Operation {
  readonly weight: number;
  run(tools: Tools): Promise<unknown>;
}

/** The healed cluster, for the last reads. */
export interface LastReads {
  /** One client on every node. */
  readonly readers: readonly SimClient[];
  readonly nowMs: number;
  read(client: SimClient, sql: string): Promise<Rows>;
}

/** Where a table is likely to have rows: its keys are in [low, high), as numbers or as the words for them. */
export interface SplittableTable {
  readonly table: string;
  readonly low: number;
  readonly high: number;
  readonly word?: (key: number) => string;
}

export interface Workload {
  /** Schema and first rows, statement by statement. */
  readonly statements: readonly string[];
  readonly operations: readonly Operation[];
  /** Done by one client alone. */
  readonly soleOperations?: readonly Operation[];
  /** Its tables that can be divided into ranges. */
  readonly splittable?: readonly SplittableTable[];
  judge(last: LastReads): Promise<Readonly<Record<string, Verdict>>>;
}

export function times(count: number, row: (i: number) => string): string {
  return Array.from({ length: count }, (_, i) => row(i)).join(", ");
}

export function numbers(rows: Rows): number[] {
  return rows.map((row) => Number(row[0]));
}

/** Runs a transaction again while it is told to retry; answers what became of the last attempt. */
export async function retrying(
  tools: Tools,
  attempts: number,
  attempt: (retry: { readonly attempt: number; readonly ageMs: number } | undefined) => Promise<WriteEnd>,
): Promise<void> {
  const startedMs = tools.nowMs;
  for (let nth = 0; nth < attempts && !tools.stopped; nth++) {
    const end = await attempt(nth === 0 ? undefined : { attempt: nth, ageMs: tools.nowMs - startedMs });
    if (end.outcome !== "aborted") return;
    await tools.client.pause(5);
  }
}

export interface Answer {
  readonly columns: readonly string[];
  /** INTEGER as bigint, REAL as number. */
  readonly rows: readonly (readonly unknown[])[];
  readonly changes: number;
}
export interface TargetSession {
  run(sql: string, args?: unknown): Promise<Answer>;
  /** undefined where nobody can tell. */
  readonly inTransaction: boolean | undefined;
}
export interface Target {
  /** A session on an empty database. */
  reset(): Promise<TargetSession>;
  /** Another session on the same database. */
  reopen(): Promise<TargetSession>;
  close(): Promise<void>;
}
export interface Tally {
  equal: number;
  /** Ran without being compared. */
  ran: number;
  unsupported: number;
  affected: number;
  different: number;
  reasons: Record<string, number>;
  differences: { script: string; step: number; sql: string; different: string }[];
}
export interface Script {
  readonly name: string;
  readonly steps: readonly Readonly<Record<string, unknown>>[];
}
export interface Grammar {
  readonly setup: readonly string[];
  readonly cases: readonly Readonly<Record<string, unknown>>[];
}
export function newTally(): Tally;
export function readScript(file: string): Script;
export function replayScript(
  target: Target,
  script: Script,
  tally?: Tally,
  options?: { timed?: (step: { sql: string; k: string }, ms: number) => void },
): Promise<Tally>;
export function replayGrammar(target: Target, grammar: Grammar, tally?: Tally): Promise<Tally>;

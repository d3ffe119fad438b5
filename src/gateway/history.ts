/**
 * What an open transaction has done so far, as it would have to be done again: its write statements with their stamps
 * and the savepoints between them. Those that only wrote TEMP objects are done again too, and never proposed. Pure
 * bookkeeping; savepoint names compare as SQLite's do, without case.
 */
import { isWireError, UserError, type WireError } from "../base/errors.js";
import { MAX_TOLD_OUTCOMES } from "../machines/range/told.js";
import type { StampedStatement, StatementOutcome } from "../machines/range/types.js";
import { lowerAscii } from "../sql/tokenizer.js";
import type { SessionFlags } from "../sql/types.js";

export type HistoryEvent =
  | {
      readonly kind: "write" | "temp";
      readonly stamped: StampedStatement;
      readonly outcome: StatementOutcome | WireError;
      readonly ordinal: number;
    }
  | { readonly kind: "savepoint"; readonly name: string; readonly ordinal: number };

export class History {
  #events: HistoryEvent[] = [];
  #bytes = 0;
  #writes = 0;
  #flags: SessionFlags = 0;

  get events(): readonly HistoryEvent[] {
    return this.#events;
  }

  /** Of statements and parameters, about. */
  get bytes(): number {
    return this.#bytes;
  }

  get writes(): readonly StampedStatement[] {
    return this.#events.flatMap((event) => (event.kind === "write" ? [event.stamped] : []));
  }

  /** What the writes have told, as far as it is to be kept for a COMMIT that is sent again. */
  get outcomes(): readonly StatementOutcome[] {
    if (this.#writes > MAX_TOLD_OUTCOMES) return [];
    return this.#events.flatMap((event) =>
      event.kind === "write" && !isWireError(event.outcome) ? [event.outcome] : [],
    );
  }

  hasWrites(): boolean {
    return this.#writes > 0;
  }

  /** The flags that any of the writes ran under. */
  get flags(): SessionFlags {
    return this.#flags;
  }

  hasSavepoints(): boolean {
    return this.#events.some((event) => event.kind === "savepoint");
  }

  wrote(
    stamped: StampedStatement,
    outcome: StatementOutcome | WireError,
    ordinal: number,
    kind: "write" | "temp" = "write",
  ): void {
    this.#push({ kind, stamped, outcome, ordinal });
  }

  #push(event: HistoryEvent): void {
    this.#events.push(event);
    if (event.kind === "savepoint") return;
    this.#bytes += statementBytes(event.stamped.sql, event.stamped.params);
    if (event.kind !== "write") return;
    this.#writes++;
    this.#flags |= event.stamped.flags;
  }

  #keep(events: readonly HistoryEvent[]): void {
    this.#events = [];
    this.#bytes = this.#writes = this.#flags = 0;
    for (const event of events) this.#push(event);
  }

  /** The TEMP objects are lost. */
  forgetTemp(): void {
    this.#keep(this.#events.filter(({ kind }) => kind !== "temp"));
  }

  /** `ordinal`: statements the transaction had run at the leader when the savepoint was set. */
  savepoint(name: string, ordinal: number): void {
    this.#push({ kind: "savepoint", name: lowerAscii(name), ordinal });
  }

  /** Whether the savepoint was the first event of all. Throws when there is none of that name. */
  isOutermost(name: string): boolean {
    return this.#find(name) === 0;
  }

  /** Forgets the savepoint and those within it; what they did stays. */
  release(name: string): void {
    const at = this.#find(name);
    this.#events = this.#events.filter((event, i) => i < at || event.kind !== "savepoint");
  }

  /** Undoes what came after the savepoint, which stays. Answers the ordinal the leader goes back to. */
  rollbackTo(name: string): number {
    const at = this.#find(name);
    this.#keep(this.#events.slice(0, at + 1));
    return this.#events[at]!.ordinal;
  }

  #find(name: string): number {
    const lower = lowerAscii(name);
    for (let i = this.#events.length - 1; i >= 0; i--) {
      const event = this.#events[i]!;
      if (event.kind === "savepoint" && event.name === lower) return i;
    }
    throw new UserError("SQLITE_ERROR", `no such savepoint: ${name}`);
  }
}

export function statementBytes(sql: string, params: StampedStatement["params"]): number {
  let bytes = sql.length + 32;
  for (const value of params) {
    if (typeof value === "string") bytes += value.length;
    else if (value instanceof Uint8Array) bytes += value.length;
    else bytes += 9;
  }
  return bytes;
}

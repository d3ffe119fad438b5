/**
 * Rare things that happen to ranges and transactions across them, counted as they are first applied anywhere: a path
 * that is never reached has not been tried.
 */
import { decodeCommands } from "../../../src/machines/range/command.js";
import type { Command, CommandResult } from "../../../src/machines/range/types.js";
import type { Entry } from "../../../src/raft/types.js";

const FIRST_RANGE = "/ranges/3/range.db";
const REMEMBERED = 100_000;

interface Seen {
  upTo: number;
  /** Prepared, and not resolved. */
  readonly prepared: Set<string>;
  readonly resolved: Set<string>;
}

export class Sightings {
  readonly #note: (what: string) => void;
  readonly #openTransactions: () => number;
  readonly #ranges = new Map<string, Seen>();
  /** Transactions that some range has voted for, and those by whom it was split meanwhile. */
  #preparedSomewhere = 0;

  constructor(note: (what: string) => void, openTransactions: () => number) {
    this.#note = note;
    this.#openTransactions = openTransactions;
  }

  /** How many transactions wait for their decision in a range, by what was applied first anywhere. */
  prepared(range: number): number {
    return this.#ranges.get(`/ranges/${range}/range.db`)?.prepared.size ?? 0;
  }

  /** Entries of a range, and what they did, on any of its replicas. */
  applied(path: string, entries: readonly Entry[], results: readonly (readonly CommandResult[])[]): void {
    let seen = this.#ranges.get(path);
    if (seen === undefined) {
      seen = { upTo: 0, prepared: new Set(), resolved: new Set() };
      this.#ranges.set(path, seen);
    }
    for (const [i, { index, data }] of entries.entries()) {
      if (index <= seen.upTo || data.length === 0) continue;
      seen.upTo = index;
      const { commands } = decodeCommands(data);
      for (const [nth, command] of commands.entries()) {
        const result = results[i]![nth];
        if (result !== undefined) this.#command(path, seen, command, result);
      }
    }
  }

  #command(path: string, seen: Seen, command: Command, result: CommandResult): void {
    if (!result.ok) this.#refused(command, result);
    switch (command.kind) {
      case "prepare":
        if (result.ok && !result.repeated) this.#prepared(seen, command.prepared.transaction);
        if (result.ok && result.repeated) this.#note("a prepare came twice");
        break;
      case "resolve":
        this.#resolved(seen, command.transaction, command.decision);
        break;
      case "split":
      case "freeze":
      case "absorb":
        if (result.ok) this.#reshaped(path, command.kind);
        break;
      case "trim":
        if (result.ok && (result.outcomes[0]?.changes ?? 0) > 0) this.#note("rows of others were trimmed");
        break;
      default:
        if (path !== FIRST_RANGE && result.ok) this.#note("a write in a range that a split made");
    }
  }

  #refused({ kind }: Command, { error }: Extract<CommandResult, { ok: false }>): void {
    const [family, code] = error;
    if (code === "OSTRAKA_MOVE") this.#note("an append was sent away at apply");
    else if (family === "route") this.#note(`${kind} of another generation was refused at apply`);
    else if (kind === "prepare") this.#note(`a vote was no at apply (${code})`);
    else if (kind === "split" || kind === "freeze" || kind === "absorb")
      this.#note(`${kind} was refused at apply (${code})`);
  }

  #prepared(seen: Seen, transaction: string): void {
    seen.prepared.add(transaction);
    this.#preparedSomewhere++;
  }

  #resolved(seen: Seen, transaction: string, decision: string): void {
    if (seen.prepared.delete(transaction)) {
      this.#preparedSomewhere--;
      this.#note(`a range's part of a transaction was ${decision}`);
    } else if (seen.resolved.has(transaction)) this.#note("a resolve came twice");
    else this.#note(`a resolve came for what was never prepared (${decision})`);
    if (seen.resolved.size > REMEMBERED) seen.resolved.clear();
    seen.resolved.add(transaction);
  }

  #reshaped(path: string, kind: "split" | "freeze" | "absorb"): void {
    this.#note(`a range applied ${kind}`);
    if (kind === "split" && path !== FIRST_RANGE) this.#note("a child split in its turn");
    if (this.#openTransactions() > 0) this.#note(`${kind} while transactions are open`);
    if (this.#preparedSomewhere > 0) this.#note(`${kind} while something is prepared elsewhere`);
  }
}

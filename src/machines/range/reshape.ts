/**
 * Changes of the range itself, as commands in its log: split, trim, freeze, absorb.
 *
 * Invariants:
 * 1. A range that splits, is frozen or takes in another has nothing prepared: a transaction is resolved where it was
 *    prepared.
 * 2. Each such change counts the generation up, and is the last command of its entry: what was admitted before it and
 *    comes after it is refused, and the state as of the entry is the state as of the change.
 * 3. A frozen range never changes again, not even to be frozen for another one: an absorb finds the same in all of its
 *    replicas, however far they have come since.
 * 4. A range takes in its right neighbour only, which is known by its id: keys alone would fit again once what was taken in
 *    is split off at the same place.
 */
import type { OstrakaError } from "../../base/errors.js";
import { RetryError, RouteError, UserError } from "../../base/errors.js";
import { isRowKey, tableStart } from "../../base/keys.js";
import { isBefore } from "../../placement/descriptor.js";
import { absorbRange } from "./absorb.js";
import type { Answers, Transactions } from "./answers.js";
import { failure } from "./apply-errors.js";
import type { RangeConnection } from "./connection.js";
import type { PreparedTransactions } from "./prepared.js";
import type { SliceState } from "./slice-state.js";
import type { RangeState } from "./state.js";
import type { TableRegistry } from "./table-keys.js";
import type { Trimmer } from "./trim.js";
import type { Command, CommandResult, NewChild, RangeBeginning } from "./types.js";

type Split = Extract<Command, { kind: "split" }>;
type Freeze = Extract<Command, { kind: "freeze" }>;
type Absorb = Extract<Command, { kind: "absorb" }>;

export interface ReshaperParts {
  readonly connection: RangeConnection;
  readonly state: RangeState;
  readonly slice: SliceState;
  readonly tables: TableRegistry;
  readonly answers: Answers;
  readonly transactions: Transactions;
  readonly prepared: PreparedTransactions;
  readonly trimmer: Trimmer;
}

/** Where a command stands in the log. */
export interface LogPosition {
  readonly index: RangeBeginning["index"];
  readonly term: RangeBeginning["term"];
  /** Of its entry. */
  readonly last: boolean;
}

/** Meta has known for long what was taken in before these. */
const MAX_ABSORBED = 1_000;
const DONE: CommandResult = { ok: true, outcomes: [], repeated: false };
/** Keys of tables that can be split are not before this one. */
const FIRST_TABLE = tableStart(1);

export class Reshaper {
  readonly #parts: ReshaperParts;
  /** Made by the split just applied, and not taken yet. */
  #child: NewChild | undefined;

  constructor(parts: ReshaperParts) {
    this.#parts = parts;
  }

  /** What the command just applied split off. */
  takeChild(): NewChild | undefined {
    const child = this.#child;
    this.#child = undefined;
    return child;
  }

  split(command: Split, position: LogPosition): CommandResult {
    const { slice } = this.#parts;
    const { descriptor } = slice.state;
    const { at } = command;
    const refusal = this.#refusal(command.generation, position);
    if (refusal !== undefined) return failure(refusal);
    if (!(descriptor.start < at && isBefore(at, descriptor.end)))
      return failure(new RouteError("the key is not in the range", undefined));
    if (at < FIRST_TABLE || !isRowKey(at) || command.child === descriptor.range)
      return failure(new UserError("OSTRAKA_UNSUPPORTED", "a range cannot be split there"));
    const generation = descriptor.generation + 1;
    this.#child = {
      descriptor: { range: command.child, start: at, end: descriptor.end, generation },
      rightNeighbour: slice.state.rightNeighbour,
      parent: descriptor.range,
      index: position.index,
      term: position.term,
      conf: command.conf,
    };
    slice.change({ end: at, generation, untrimmed: true, rightNeighbour: command.child });
    return DONE;
  }

  trim({ maxRows }: Extract<Command, { kind: "trim" }>): CommandResult {
    const changes = this.#parts.trimmer.trim(Math.max(1, maxRows));
    const outcome = {
      columns: [],
      columnTypes: [],
      rows: new Uint8Array(0),
      rowCount: 0,
      changes,
      totalChanges: changes,
      lastInsertRowid: 0n,
    };
    return { ok: true, outcomes: [outcome], repeated: false };
  }

  freeze(command: Freeze, position: LogPosition): CommandResult {
    const refusal = this.#refusal(command.generation, position);
    if (refusal !== undefined) return failure(refusal);
    const { slice } = this.#parts;
    slice.change({ generation: slice.generation + 1, frozenInto: command.into });
    return DONE;
  }

  absorb(command: Absorb, position: LogPosition): CommandResult {
    const { slice } = this.#parts;
    const { right } = command;
    const { descriptor, absorbed, rightNeighbour } = slice.state;
    const refusal = this.#refusal(command.generation, position);
    if (refusal !== undefined) return failure(refusal);
    if (rightNeighbour !== right.range || descriptor.end !== right.start)
      return failure(new RouteError("the range to take in is not the right neighbour", undefined));
    const taken = absorbRange(this.#parts, right);
    if ("error" in taken) return failure(taken.error);
    slice.change({
      end: right.end,
      generation: Math.max(descriptor.generation, right.generation) + 1,
      absorbed: {
        ranges: [...absorbed, ...taken.absorbed, right.range].slice(-MAX_ABSORBED),
        at: position.index,
      },
      rightNeighbour: taken.rightNeighbour,
    });
    return DONE;
  }

  #refusal(generation: number, { last }: LogPosition): OstrakaError | undefined {
    const { slice, prepared } = this.#parts;
    if (generation !== slice.generation) return new RouteError("the range has changed", undefined);
    if (!last) return new RetryError("OSTRAKA_RETRY", "a range is changed by the last command of an entry");
    if (prepared.size > 0)
      return new RetryError("OSTRAKA_RETRY", "a transaction across ranges waits for its decision");
    return undefined;
  }
}

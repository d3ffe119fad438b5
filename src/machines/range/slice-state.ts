/**
 * What a range knows of itself, in one row of its own file (`_ostraka_range`): which slice of the keyspace is its own,
 * the generation that commands must have been admitted under, and how it came to be. A child's file begins as a copy
 * of its parent's, so this row is what makes it another range.
 *
 * Invariants:
 * 1. What is in memory is what is in the file, as of the batch under way; `load` after a batch was undone.
 * 2. `state` is another object whenever something of it has changed, and the same one otherwise.
 *
 * A new file is the whole keyspace, as the first range is; a replica that has yet to be sent a snapshot has applied
 * nothing, and what it says of itself means nothing.
 */
import type Database from "better-sqlite3";
import { FIRST_RANGE_GROUP, type GroupId, groupId, type LogIndex, logIndex, term } from "../../base/ids.js";
import { keyBytes, keyOf } from "../../base/keys.js";
import { isWhole } from "../../placement/descriptor.js";
import type { ConfState } from "../../raft/types.js";
import type { NewChild, RangeBeginning, RangeState } from "./types.js";

export const SLICE_SCHEMA = `
CREATE TABLE IF NOT EXISTS _ostraka_range(
  id INTEGER PRIMARY KEY CHECK (id = 1),
  range_id INTEGER NOT NULL,
  start_key BLOB NOT NULL,
  end_key BLOB NOT NULL,
  generation INTEGER NOT NULL,
  frozen_into INTEGER,
  untrimmed INTEGER NOT NULL,
  virtual_untrimmed INTEGER NOT NULL,
  next_table_id INTEGER NOT NULL,
  parent INTEGER,
  birth_index INTEGER,
  birth_term INTEGER,
  birth_conf TEXT,
  absorbed TEXT NOT NULL,
  absorbed_at INTEGER NOT NULL,
  right_neighbour INTEGER
);
INSERT OR IGNORE INTO _ostraka_range
VALUES (1, ${FIRST_RANGE_GROUP}, x'', x'', 1, NULL, 0, 0, 1, NULL, NULL, NULL, NULL, '[]', 0, NULL);`;

type Row = [
  range: number,
  start: Uint8Array,
  end: Uint8Array,
  generation: number,
  frozenInto: number | null,
  untrimmed: number,
  absorbed: string,
  absorbedAt: number,
  rightNeighbour: number | null,
];

/** What changes with splits and merges; what is left out stays. */
export interface SliceChange {
  readonly end?: string;
  readonly generation?: number;
  readonly frozenInto?: GroupId;
  readonly untrimmed?: boolean;
  readonly absorbed?: { readonly ranges: readonly GroupId[]; readonly at: LogIndex };
  /** Null: it ends with the keyspace. */
  readonly rightNeighbour?: GroupId | null;
}

export class SliceState {
  readonly #database: Database.Database;
  readonly #select: Database.Statement;
  state!: RangeState;
  /** It is the whole keyspace: nothing needs to be asked of keys. */
  whole = true;

  constructor(database: Database.Database) {
    this.#database = database;
    this.#select = database
      .prepare(
        `SELECT range_id, start_key, end_key, generation, frozen_into, untrimmed, absorbed,
           absorbed_at, right_neighbour FROM _ostraka_range`,
      )
      .raw(true)
      .safeIntegers(false);
    this.load();
  }

  get range(): GroupId {
    return this.state.descriptor.range;
  }

  get generation(): number {
    return this.state.descriptor.generation;
  }

  /** Back to what is in the file. */
  load(): void {
    const read = decode(this.#select.get() as Row);
    if (this.state === undefined || JSON.stringify(read) !== JSON.stringify(this.state)) this.state = read;
    this.whole = isWhole(this.state.descriptor);
  }

  change(change: SliceChange): void {
    const { descriptor, frozenInto, untrimmed, absorbed, absorbedAt, rightNeighbour } = this.state;
    this.#database
      .prepare(
        `UPDATE _ostraka_range SET end_key = ?, generation = ?, frozen_into = ?, untrimmed = ?, absorbed = ?,
           absorbed_at = ?, right_neighbour = ?`,
      )
      .run(
        keyBytes(change.end ?? descriptor.end),
        BigInt(change.generation ?? descriptor.generation),
        change.frozenInto ?? frozenInto ?? null,
        BigInt(change.untrimmed ?? untrimmed),
        JSON.stringify(change.absorbed?.ranges ?? absorbed),
        BigInt(change.absorbed?.at ?? absorbedAt),
        change.rightNeighbour === undefined ? (rightNeighbour ?? null) : change.rightNeighbour,
      );
    this.load();
  }

  /** The number of a table to be made. */
  nextTableId(): number {
    return this.#database
      .prepare("UPDATE _ostraka_range SET next_table_id = next_table_id + 1 RETURNING next_table_id - 1")
      .pluck(true)
      .safeIntegers(false)
      .get() as number;
  }

  /** Virtual tables still have the rows of the range that this one was split from. */
  get virtualUntrimmed(): boolean {
    return (
      this.#database
        .prepare("SELECT virtual_untrimmed FROM _ostraka_range")
        .pluck(true)
        .safeIntegers(false)
        .get() === 1
    );
  }

  virtualTrimmed(): void {
    this.#database.prepare("UPDATE _ostraka_range SET virtual_untrimmed = 0").run();
  }
}

/** How the range in this file began; undefined for the first one. */
export function readBeginning(database: Database.Database): RangeBeginning | undefined {
  const row = database
    .prepare(
      "SELECT parent, birth_index, birth_term, birth_conf FROM _ostraka_range WHERE parent IS NOT NULL",
    )
    .raw(true)
    .safeIntegers(false)
    .get() as [number, number, number, string] | undefined;
  if (row === undefined) return undefined;
  const [parent, index, atTerm, conf] = row;
  return {
    parent: groupId(parent),
    index: logIndex(index),
    term: term(atTerm),
    conf: JSON.parse(conf) as ConfState,
  };
}

/** Makes a copy of a parent's file the beginning of its child. */
export function writeBeginning(
  database: Database.Database,
  { descriptor, rightNeighbour, parent, index, term: atTerm, conf }: NewChild,
): void {
  database
    .prepare(
      `UPDATE _ostraka_range SET range_id = ?, start_key = ?, end_key = ?, generation = ?, frozen_into = NULL,
         untrimmed = 1, virtual_untrimmed = 1, parent = ?, birth_index = ?, birth_term = ?, birth_conf = ?, absorbed = '[]',
         absorbed_at = 0, right_neighbour = ?`,
    )
    .run(
      descriptor.range,
      keyBytes(descriptor.start),
      keyBytes(descriptor.end),
      descriptor.generation,
      parent,
      index,
      atTerm,
      JSON.stringify(conf),
      rightNeighbour ?? null,
    );
}

function decode([
  range,
  start,
  end,
  generation,
  frozenInto,
  untrimmed,
  absorbed,
  absorbedAt,
  rightNeighbour,
]: Row): RangeState {
  return {
    descriptor: { range: groupId(range), start: keyOf(start), end: keyOf(end), generation },
    frozenInto: frozenInto === null ? undefined : groupId(frozenInto),
    untrimmed: untrimmed === 1,
    absorbed: (JSON.parse(absorbed) as number[]).map(groupId),
    absorbedAt: logIndex(absorbedAt),
    rightNeighbour: rightNeighbour === null ? undefined : groupId(rightNeighbour),
  };
}

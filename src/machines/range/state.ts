/**
 * What a replica remembers about itself, inside its own SQLite file, so that it is one atomic write with the effects
 * of the entries: the applied index, how far it got in an entry that had to be applied in pieces, and what decides
 * how entries are applied.
 *
 * The apply version names everything that two replicas must have in common for the same entries to make the same
 * database. A file written under another version is refused: it must be rebuilt from a replica of the same version.
 */

import { endianness } from "node:os";
import type Database from "better-sqlite3";
import { FatalError } from "../../base/errors.js";
import { type LogIndex, logIndex } from "../../base/ids.js";
import { MAX_VALUE_BYTES } from "./functions.js";
import { PREPARED_SCHEMA } from "./prepared.js";
import { SLICE_SCHEMA } from "./slice-state.js";
import { TABLES_SCHEMA } from "./table-keys.js";
import { MAX_TOLD_OUTCOMES } from "./told.js";

/** Of the code in this folder: any change to what a command does to the database counts it up. */
const APPLY_CODE_VERSION = 10;

/** An answer with more bytes of rows than this is not kept; a repetition of its command learns only that the outcome is past telling. */
export const MAX_KEPT_ANSWER_BYTES = 16 * 1024;
/** Answers older than this go, and with them the promise to recognise the command. */
export const ANSWER_AGE_MS = 60 * 60 * 1000;
/** Log entries whose answers are kept, at most; the oldest go first. */
export const MAX_ANSWER_ROWS = 250_000;
/** Outcomes of transactions are kept longer: a client may ask late. */
export const TRANSACTION_AGE_MS = 24 * 60 * 60 * 1000;
export const MAX_TRANSACTION_ROWS = 100_000;
/** Rows returned by one statement at apply. */
export const MAX_APPLY_RESULT_BYTES = 64 * 1024 * 1024;
/** A command issued this far in the future of its stamp is refused: its age could not be judged. */
export const MAX_ISSUE_SKEW_MS = 60_000;

const HIDDEN_TABLES = `
CREATE TABLE IF NOT EXISTS _ostraka_state(
  id INTEGER PRIMARY KEY CHECK (id = 1),
  apply_version TEXT NOT NULL,
  applied_index INTEGER NOT NULL,
  term INTEGER NOT NULL,
  partial INTEGER NOT NULL,
  wall_ms INTEGER NOT NULL,
  schema_version INTEGER NOT NULL,
  answer_floor_ms INTEGER NOT NULL,
  transaction_floor_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS _ostraka_answers(
  log_index INTEGER PRIMARY KEY,
  age_ms INTEGER NOT NULL,
  answers BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS _ostraka_transactions(
  ordinal INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  committed INTEGER NOT NULL,
  wall_ms INTEGER NOT NULL
);
${TABLES_SCHEMA}
${SLICE_SCHEMA}
${PREPARED_SCHEMA}
`;

export interface FilePages {
  readonly all: number;
  readonly free: number;
}

export class RangeState {
  readonly #select: Database.Statement;
  readonly #update: Database.Statement;
  readonly #pageCount: Database.Statement;
  readonly #freePages: Database.Statement;
  #pages: FilePages | undefined;
  appliedIndex: LogIndex = logIndex(0);
  term = 0;
  /** Commands already applied of the entry after `appliedIndex` that is under way; 0 when none is. */
  partial = 0;
  /** The latest stamped wall time of any command. */
  wallMs = 0;
  /** Counts schema changes. */
  schemaVersion = 1;
  /** A command issued before this may have been applied and forgotten. */
  answerFloorMs = 0;
  /** The same for transactions. */
  transactionFloorMs = 0;

  constructor(database: Database.Database) {
    const version = applyVersion(database);
    const found = storedVersion(database);
    if (found !== undefined && found !== version)
      throw new FatalError(
        "OSTRAKA_APPLY_VERSION",
        `the replica was written under apply version ${found}; this program applies as ${version}`,
      );
    if (found === undefined) createTables(database, version);
    this.#select = database
      .prepare(
        `SELECT applied_index, term, partial, wall_ms, schema_version, answer_floor_ms, transaction_floor_ms
         FROM _ostraka_state`,
      )
      .raw(true)
      .safeIntegers(false);
    this.#update = database.prepare(
      `UPDATE _ostraka_state SET applied_index = ?, term = ?, partial = ?, wall_ms = ?, schema_version = ?,
         answer_floor_ms = ?, transaction_floor_ms = ?`,
    );
    this.#pageCount = database.prepare("PRAGMA main.page_count").pluck(true).safeIntegers(false);
    this.#freePages = database.prepare("PRAGMA main.freelist_count").pluck(true).safeIntegers(false);
    this.load();
  }

  /** Back to what is in the file. */
  load(): void {
    const row = this.#select.get() as number[];
    this.appliedIndex = logIndex(row[0]!);
    this.term = row[1]!;
    this.partial = row[2]!;
    this.wallMs = row[3]!;
    this.schemaVersion = row[4]!;
    this.answerFloorMs = row[5]!;
    this.transactionFloorMs = row[6]!;
    this.#pages = undefined;
  }

  /** Of the file, free ones among them. */
  pages(): FilePages {
    this.#pages ??= this.#countPages();
    return this.#pages;
  }

  #countPages(): FilePages {
    return { all: this.#pageCount.get() as number, free: this.#freePages.get() as number };
  }

  /** Inside the batch that the values describe, as the last of it. */
  store(): void {
    this.#update.run(
      BigInt(this.appliedIndex),
      BigInt(this.term),
      BigInt(this.partial),
      BigInt(this.wallMs),
      BigInt(this.schemaVersion),
      BigInt(this.answerFloorMs),
      BigInt(this.transactionFloorMs),
    );
    // Here, since outside a SQLite transaction each of the two would be one: more than all else that a small batch costs.
    this.#pages = this.#countPages();
  }

  /** Whether the file has applied this entry, all of it, and nothing after it. */
  static isAt(database: Database.Database, index: LogIndex): boolean {
    return (
      database
        .prepare("SELECT 1 FROM _ostraka_state WHERE applied_index = ? AND partial = 0")
        .get(BigInt(index)) !== undefined
    );
  }

  /** Whether the file has applied this entry, all of it. A file that has no state yet has applied nothing. */
  static reached(database: Database.Database, index: LogIndex): boolean {
    if (storedVersion(database) === undefined) return false;
    return RangeState.appliedIndexOf(database) >= index;
  }

  /** Read through any connection to the file, for pins. */
  static appliedIndexOf(database: Database.Database): LogIndex {
    return logIndex(
      Number(database.prepare("SELECT applied_index FROM _ostraka_state").pluck(true).get() as bigint),
    );
  }
}

function storedVersion(database: Database.Database): string | undefined {
  const exists = database
    .prepare("SELECT 1 FROM main.sqlite_schema WHERE name = '_ostraka_state'")
    .pluck(true)
    .get();
  if (exists === undefined) return undefined;
  return database.prepare("SELECT apply_version FROM _ostraka_state").pluck(true).get() as string | undefined;
}

function createTables(database: Database.Database, version: string): void {
  database.exec("BEGIN IMMEDIATE");
  database.exec(HIDDEN_TABLES);
  database.prepare("INSERT INTO _ostraka_state VALUES (1, ?, 0, 0, 0, 0, 1, 0, 0)").run(version);
  database.exec("COMMIT");
}

export function applyVersion(database: Database.Database): string {
  const source = database.prepare("SELECT sqlite_source_id()").pluck(true).get() as string;
  const limits = [
    MAX_KEPT_ANSWER_BYTES,
    MAX_TOLD_OUTCOMES,
    ANSWER_AGE_MS,
    MAX_ANSWER_ROWS,
    TRANSACTION_AGE_MS,
    MAX_TRANSACTION_ROWS,
    MAX_APPLY_RESULT_BYTES,
    MAX_ISSUE_SKEW_MS,
    MAX_VALUE_BYTES,
  ];
  return [APPLY_CODE_VERSION, source, process.arch, endianness(), ...limits].join("|");
}

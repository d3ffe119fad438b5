/**
 * A range's storage, all in the thread it is called in: the SQLite file with its one writer (apply, speculation) and
 * a reader. The worker thread runs it behind messages; simulation and the embedded database run it as it is.
 *
 * Invariants:
 * 1. Apply, reads and speculation are synchronous, so at any moment the file's last commit is `appliedIndex`.
 * 2. No checkpoint runs while a copy is made (files.ts), and a copy that takes in the log is only made while the log
 *    cannot start over.
 * 3. A store that rests has no connections and costs no memory to speak of; the next call that needs them opens them
 *    again. What is asked of it without them (indexes, sizes, its slice) is what they last said.
 * 4. After a FatalError nothing has been applied of the batch that met it. OSTRAKA_DISK_FULL may be tried again.
 */
import { mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { FatalError, RetryError } from "../../base/errors.js";
import { type GroupId, type LogIndex, logIndex, type TransactionId } from "../../base/ids.js";
import type { Timer } from "../../base/io.js";
import type { Key } from "../../base/keys.js";
import type { MachineSnapshot } from "../../multiraft/types.js";
import type { Entry } from "../../raft/types.js";
import type { Span } from "../../sql/types.js";
import { type Applied, Applier } from "./apply.js";
import { Children } from "./children.js";
import { openConnection, type RangeConnection } from "./connection.js";
import { digestDatabase, type StateDigest } from "./digest.js";
import {
  copyDatabase,
  diskTrouble,
  type FileWork,
  finishRestore,
  prepareRestore,
  removeLeftovers,
  SYSTEM_FILES,
} from "./files.js";
import { refuseAtRead } from "./guard.js";
import { LogExtent } from "./log-extent.js";
import { LogKeeper } from "./log-keeper.js";
import { MAKE_SEQUENCE } from "./oracle.js";
import { type CountedState, RowCounts } from "./row-counts.js";
import { readBeginning } from "./slice-state.js";
import { snapshotOfCopy } from "./snapshot-file.js";
import { Speculator } from "./speculation.js";
import { classifySqliteError } from "./sqlite-errors.js";
import { readTableKeys } from "./table-keys.js";
import type {
  BoundedRead,
  CommandResult,
  IdempotencyKey,
  NewChild,
  PreparedTransaction,
  RangeBeginning,
  RangeState,
  SchemaSnapshot,
  Speculation,
  SpeculationAnswer,
  SplitChild,
  StatementOutcome,
  StoreSize,
} from "./types.js";

/** A checkpoint is made whenever the log has grown by this much. */
const CHECKPOINT_BYTES = 16 * 1024 * 1024;
/** While readers keep the log from starting over, checkpoints are tried each time it has grown by this much more. */
const RETRY_BYTES = 4 * 1024 * 1024;
/** And where it does not grow any more, after this long. */
const RETRY_MS = 1_000;

export interface StoreOptions {
  /** For telling how long a replay took. */
  readonly monotonicMs: () => number;
  /** Lets others run between slices of long work. */
  readonly pause: () => Promise<void>;
  /** The system's, unless given. */
  readonly files?: FileWork;
  /** How many stores may have their files open at once. */
  readonly awake?: number;
  /** Runs something later: what nobody has used for a while closes its files. */
  readonly later?: (delayMs: number, run: () => void) => Timer;
}

interface Opened {
  readonly writer: RangeConnection;
  readonly applier: Applier;
  readonly speculator: Speculator;
}

interface Reading {
  readonly connection: RangeConnection;
  readonly rows: RowCounts;
  /** That the connection knows of; what an apply has done that failed further on counts too. */
  schemaVersion: number;
}

/** What a resting store still knows. */
interface Resting {
  readonly appliedIndex: LogIndex;
  readonly lastWallMs: number;
  readonly schemaVersion: number;
  readonly rangeState: RangeState;
  readonly size: StoreSize;
}

export interface PrivateCopy {
  readonly path: string;
  readonly appliedIndex: LogIndex;
}

export class StoreCore {
  readonly path: string;
  readonly #options: StoreOptions;
  readonly #files: FileWork;
  #opened: Opened | undefined;
  /** Opened by the first that reads: most ranges are only written to here. */
  #reading: Reading | undefined;
  #resting: Resting | undefined;
  /** The file was replaced, and there was no room to open it. */
  #unopened = false;
  /** Copies under way: no checkpoint may run. */
  readonly #copies = new Set<Promise<unknown>>();
  readonly #digests = new Set<Promise<unknown>>();
  readonly #children: Children;
  readonly #logExtent: LogExtent;
  #copyCount = 0;
  #nextCheckpointBytes = CHECKPOINT_BYTES;
  #pageBytes = 0;
  /** The last checkpoint moved all of the log into the file. */
  #logMayStartOver = true;
  /** And nothing was written since: of the log nothing is needed. */
  #logInFile = false;
  #checkpointing: Timer | undefined;
  #onNews: () => void = () => {};
  /** Until something changes it. */
  #size: StoreSize | undefined;
  #closing = false;

  constructor(path: string, options: StoreOptions) {
    this.path = path;
    this.#options = options;
    this.#files = options.files ?? SYSTEM_FILES;
    this.#logExtent = new LogExtent(path);
    this.#children = new Children(
      path,
      this.#files,
      (making) => this.#tracked(this.#copies, making),
      options.later,
    );
  }

  /** Called when a range that was split off has its file, or the log that had grown large is in the file. */
  set onNews(listener: () => void) {
    this.#onNews = () => {
      if ((this.#opened ?? this.#resting) !== undefined && !this.#closing) listener();
    };
    this.#children.onComplete = this.#onNews;
  }

  /** Ranges split off whose files are being made. */
  get making(): readonly GroupId[] {
    return this.#children.making;
  }

  /** Ranges split off whose files have become complete since the last call. */
  takeChildren(): SplitChild[] {
    return this.#children.takeComplete();
  }

  open(): LogIndex {
    mkdirSync(dirname(this.path), { recursive: true });
    removeLeftovers(this.path);
    this.#children.recover();
    finishRestore(this.path);
    return this.#open();
  }

  /** The latest stamped wall time applied. */
  get lastWallMs(): number {
    return this.#opened?.applier.state.wallMs ?? this.#resting?.lastWallMs ?? 0;
  }

  get appliedIndex(): LogIndex {
    return this.#opened?.applier.state.appliedIndex ?? this.#resting?.appliedIndex ?? logIndex(0);
  }

  /** Counts schema changes; equal on every replica at an equal applied index. */
  get schemaVersion(): number {
    return this.#opened?.applier.state.schemaVersion ?? this.#resting?.schemaVersion ?? 0;
  }

  /** The same object until it changes; undefined when the store is not open. */
  get rangeState(): RangeState | undefined {
    return this.#opened?.applier.slice.state ?? this.#resting?.rangeState;
  }

  beginning(): RangeBeginning | undefined {
    return readBeginning(this.#use().writer.database);
  }

  apply(entries: readonly Entry[], upTo: LogIndex): Applied {
    const { applier, speculator } = this.#use();
    speculator.close();
    this.#children.settle();
    this.#size = undefined;
    this.#logInFile = false;
    try {
      return applier.apply(entries, upTo);
    } catch (error) {
      throw fatal(classifySqliteError(error));
    }
  }

  /** Whatever keeps the files in shape and need not delay an answer; to be called after applying. */
  maintain(): void {
    if (this.#opened === undefined || this.#copies.size > 0) return;
    if (this.#children.pendingSince !== undefined) {
      this.#children.retry().catch(() => {});
      return;
    }
    if (this.size().walBytes < this.#nextCheckpointBytes) return;
    if (this.#checkpoint()) this.#onNews();
    else this.#checkpointLater();
  }

  /** Those who read now may be gone before anything is written again. */
  #checkpointLater(): void {
    this.#checkpointing ??= this.#options.later?.(RETRY_MS, () => {
      this.#checkpointing = undefined;
      if (this.#opened === undefined || this.#closing || this.#logInFile) return;
      try {
        const free = !this.#copying && !this.#opened.speculator.open;
        if (free && this.#checkpoint()) this.#onNews();
        else this.#checkpointLater();
      } catch {
        // SQLite reports the same trouble to the next apply or checkpoint.
      }
    });
  }

  read({ statement, maxBytes }: BoundedRead): StatementOutcome {
    const { connection } = this.#read();
    refuseAtRead(statement.sql);
    return connection.execute(statement, { maxBytes });
  }

  /** What is read may yet be changed here by decisions that were told already; undefined when nothing is prepared. */
  held(): readonly Span[] | undefined {
    return this.#use().applier.prepared.writes();
  }

  speculate(speculation: Speculation): SpeculationAnswer {
    const { speculator, applier } = this.#use();
    return speculator.speculate(speculation, applier.state.appliedIndex);
  }

  forget(transaction: TransactionId): void {
    this.#opened?.speculator.forget(transaction);
  }

  outcome(transaction: TransactionId): "committed" | "aborted" | undefined {
    const { applier, speculator } = this.#use();
    speculator.close();
    return applier.transactions.outcome(transaction);
  }

  answered(key: IdempotencyKey): CommandResult | undefined {
    const { applier, speculator } = this.#use();
    speculator.close();
    return applier.participant.answered(key);
  }

  prepared(): PreparedTransaction[] {
    const { applier, speculator } = this.#use();
    speculator.close();
    return applier.prepared.all();
  }

  rowCounts(): ReadonlyMap<string, number> {
    return this.#read().rows.counts(this.#countedState());
  }

  splitKey(): Key | undefined {
    return this.#read().rows.splitKey(this.#countedState());
  }

  #countedState(): CountedState {
    const { state, slice } = this.#use().applier;
    return {
      range: slice.state,
      appliedIndex: state.appliedIndex,
      schemaVersion: state.schemaVersion,
      databaseBytes: this.size().databaseBytes,
    };
  }

  schema(): SchemaSnapshot {
    const { applier, speculator, writer } = this.#use();
    speculator.close();
    return {
      version: applier.state.schemaVersion,
      statements: schemaStatements(writer),
      appliedIndex: applier.state.appliedIndex,
      tables: readTableKeys(writer.database),
    };
  }

  size(): StoreSize {
    if (this.#resting !== undefined) return this.#resting.size;
    if (this.#size === undefined) {
      const { all, free } = this.#use().applier.state.pages();
      this.#size = {
        databaseBytes: all * this.#pageBytes,
        walBytes: this.#logInFile ? 0 : fileSize(`${this.path}-wal`),
        liveBytes: (all - free) * this.#pageBytes,
      };
    }
    return this.#size;
  }

  /** What is applied now is durable when this resolves; but splits count as applied when their children are durable. */
  async checkpoint(): Promise<LogIndex> {
    this.#use();
    const applied = this.appliedIndex;
    if (this.#copying || !this.#checkpoint()) {
      // Not all of the log could be moved into the file; then the log itself is made durable.
      await this.#tracked(this.#copies, this.#files.sync(`${this.path}-wal`));
    }
    const { pendingSince = applied + 1 } = this.#children;
    const durable = logIndex(Math.min(applied, pendingSince - 1));
    this.#children.checkpointed(durable);
    return durable;
  }

  /** The file, and the log as far as it goes, must stay as they are. */
  get #copying(): boolean {
    return this.#copies.size > 0 || this.#children.pendingSince !== undefined;
  }

  /** Right after a split was committed: there is more in the log than in the file, or everything is in the file. */
  #splitOff(child: NewChild): void {
    let complete = false;
    try {
      complete = !this.#copying && this.#checkpoint();
    } catch {
      // Of a full disk, perhaps. The split is committed, and what the file lacks is in the log.
    }
    this.#children.begin(child, complete ? 0 : this.#committedLog());
  }

  async snapshot(): Promise<MachineSnapshot> {
    const { path, appliedIndex } = await this.copy();
    return snapshotOfCopy(path, appliedIndex, this.#files);
  }

  /** The caller removes the copy (`removeDatabase`). */
  async copy(): Promise<PrivateCopy> {
    this.#use();
    // A log that is in the file whole starts over with the next write: beside a copy that needs it, it must not be.
    while (this.#copying && this.#logMayStartOver) {
      await Promise.allSettled([...this.#copies]);
      this.#use();
      await this.#children.retry();
    }
    const { appliedIndex } = this;
    const path = `${this.path}.copy-${++this.#copyCount}`;
    const complete = !this.#copying && this.#checkpoint();
    const walBytes = complete ? 0 : this.#committedLog();
    await this.#tracked(this.#copies, copyDatabase(this.path, path, walBytes, this.#files));
    return { path, appliedIndex };
  }

  async restore(file: string): Promise<LogIndex> {
    this.#use();
    await prepareRestore(file, this.path, this.#files);
    // No copy may begin between the end of the last one and this.
    while (this.#busy) await this.#settled();
    this.#children.drop();
    this.#closeConnections();
    this.#unopened = true;
    finishRestore(this.path);
    return this.#open();
  }

  async digest(): Promise<StateDigest> {
    this.#use();
    return this.#tracked(this.#digests, digestDatabase(this.path, this.#options.pause));
  }

  async close(): Promise<void> {
    this.#closing = true;
    while (this.#busy) await this.#settled();
    this.#children.abandon();
    this.#closeConnections();
  }

  /** As if the process had died: the connections are gone, nothing is waited for or finished. */
  abandon(): void {
    this.#closing = true;
    this.#children.abandon();
    this.#closeConnections();
  }

  #open(): LogIndex {
    const writer = openConnection(this.path, { readonly: false, role: "apply" });
    try {
      const applier = new Applier(writer, {
        splitting: (child) => this.#children.announce(child),
        split: (child) => this.#splitOff(child),
      });
      const speculator = new Speculator(writer, this.#options.monotonicMs);
      this.#opened = { writer, applier, speculator };
      this.#unopened = false;
      this.#nextCheckpointBytes = CHECKPOINT_BYTES;
      this.#logInFile = false;
      this.#pageBytes = Number(writer.database.pragma("page_size", { simple: true }));
      this.#size = undefined;
      return applier.state.appliedIndex;
    } catch (error) {
      writer.close();
      throw classifySqliteError(error);
    }
  }

  /** Closes the connections until somebody needs them; false when something is under way. */
  rest(): boolean {
    if (this.#opened === undefined || this.#closing) return true;
    if (this.#copying || this.#digests.size > 0) return false;
    const { appliedIndex, lastWallMs, schemaVersion } = this;
    const resting = { appliedIndex, lastWallMs, schemaVersion, size: this.size() };
    const rangeState = this.#opened.applier.slice.state;
    this.#closeConnections();
    this.#resting = { ...resting, rangeState };
    return true;
  }

  #awaken({ appliedIndex, rangeState }: Resting): void {
    const found = this.#open();
    if (found !== appliedIndex)
      throw new FatalError("OSTRAKA_CORRUPT", `${this.path} had applied ${appliedIndex}, and now ${found}`);
    // The same object as before: nothing has changed.
    this.#opened!.applier.slice.state = rangeState;
    this.#resting = undefined;
  }

  #use(): Opened {
    if (this.#closing)
      throw new RetryError("OSTRAKA_UNAVAILABLE", `the range's storage ${this.path} is being closed`);
    if (this.#resting !== undefined) this.#awaken(this.#resting);
    if (this.#unopened) {
      finishRestore(this.path);
      this.#open();
    }
    if (this.#opened === undefined)
      throw new FatalError("OSTRAKA_CLOSED", `the range's storage ${this.path} is not open`);
    return this.#opened;
  }

  #read(): Reading {
    this.#use();
    if (this.#reading === undefined) {
      try {
        const connection = openConnection(this.path, { readonly: true, role: "read" });
        const { schemaVersion } = this;
        this.#reading = { connection, rows: new RowCounts(connection), schemaVersion };
      } catch (error) {
        throw classifySqliteError(error);
      }
    }
    if (this.#reading.schemaVersion !== this.schemaVersion) {
      this.#reading.schemaVersion = this.schemaVersion;
      this.#reading.connection.schemaChanged();
    }
    return this.#reading;
  }

  #closeConnections(): void {
    this.#resting = undefined;
    this.#checkpointing?.cancel();
    this.#checkpointing = undefined;
    if (this.#opened === undefined) return;
    const keeper = new LogKeeper();
    if (this.#children.pendingSince !== undefined) keeper.keep(this.path);
    this.#opened.speculator.close();
    this.#reading?.connection.close();
    this.#reading = undefined;
    this.#opened.writer.close();
    this.#opened = undefined;
    keeper.letGo();
  }

  #committedLog(): number {
    try {
      return this.#logExtent.committed();
    } catch (error) {
      throw diskTrouble(error);
    }
  }

  /** Moves the log into the file as far as readers allow; true when all of it is there, durably. */
  #checkpoint(): boolean {
    const { writer, speculator } = this.#use();
    speculator.close();
    this.#size = undefined;
    try {
      const [row] = writer.database.pragma("wal_checkpoint(PASSIVE)") as {
        busy: bigint;
        log: bigint;
        checkpointed: bigint;
      }[];
      const complete = row !== undefined && row.busy === 0n && row.log === row.checkpointed;
      this.#logMayStartOver = complete;
      this.#logInFile = complete;
      const walBytes = fileSize(`${this.path}-wal`);
      this.#nextCheckpointBytes = complete
        ? CHECKPOINT_BYTES
        : Math.max(CHECKPOINT_BYTES, walBytes + RETRY_BYTES);
      return complete;
    } catch (error) {
      throw fatal(classifySqliteError(error));
    }
  }

  async #tracked<T>(among: Set<Promise<unknown>>, running: Promise<T>): Promise<T> {
    among.add(running);
    try {
      return await running;
    } catch (error) {
      throw diskTrouble(error);
    } finally {
      among.delete(running);
    }
  }

  get #busy(): boolean {
    return this.#copies.size + this.#digests.size > 0;
  }

  #settled(): Promise<unknown> {
    return Promise.allSettled([...this.#copies, ...this.#digests]);
  }
}

function fileSize(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

function fatal(error: Error): Error {
  return error instanceof FatalError
    ? error
    : new FatalError("OSTRAKA_INTERNAL", error.message, { cause: error });
}

/** The user's schema in creation order, and what ANALYZE found, as statements that make an equal empty database. */
function schemaStatements(connection: RangeConnection): string[] {
  const { database } = connection;
  const objects = database
    .prepare(
      "SELECT sql FROM temp._ostraka_schema_view WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite~_%' ESCAPE '~'",
    )
    .pluck(true)
    .all() as string[];
  const sequence = database.prepare("SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence'").get();
  return [...(sequence === undefined ? [] : MAKE_SEQUENCE), ...objects, ...statistics(database)];
}

function statistics(database: RangeConnection["database"]): string[] {
  const tables = database
    .prepare("SELECT name FROM main.sqlite_schema WHERE name IN ('sqlite_stat1', 'sqlite_stat4')")
    .pluck(true)
    .all() as string[];
  if (tables.length === 0) return [];
  const dropped = ["sqlite_stat1", "sqlite_stat4"].filter((name) => !tables.includes(name));
  const drops = dropped.map((name) => `DROP TABLE ${name}`);
  if (dropped.includes("sqlite_stat1")) return ["ANALYZE sqlite_schema", ...drops];
  const rows = database
    .prepare(
      `SELECT 'INSERT INTO sqlite_stat1 VALUES(' || quote(tbl) || ',' || quote(idx) || ',' || quote(stat) || ')'
       FROM main.sqlite_stat1 ORDER BY rowid`,
    )
    .pluck(true)
    .all() as string[];
  return ["ANALYZE sqlite_schema", ...rows, ...drops];
}

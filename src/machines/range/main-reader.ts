/**
 * Point reads in the main thread, on a connection of its own: a look-up by key takes a few microseconds, less than
 * the way to the storage worker and back.
 *
 * Invariants:
 * 1. Only straight-line programs run here: no loop, no function, as many steps as ops (`isPointRead`). Everything else
 *    goes to the worker, and so does what is read after a slow slice, for a time: pages that must come from the disk,
 *    or rows of many of them, take the main thread's time at most one part in `REST_FACTOR`.
 * 2. A slice of reads is one SQLite read transaction, begun after they were asked for and ended before anything else
 *    runs: it sees at least what the worker had committed by then, so at least what it has told, and it pins the log
 *    no longer than that.
 * 3. It answers only while the file's schema is the one that the main thread was told of: the analysis of a statement
 *    and what is remembered of it here belong to the same schema.
 * 4. It answers only while nothing is prepared in the state that it sees: the worker can say what is held.
 * 5. The connection is closed before the worker replaces or closes the file (`pause`, `close`), and opened with the
 *    next read after that.
 *
 * Large numbers of reads are cut into slices with other work in between, so that answers of the first are on their
 * way, and at work elsewhere, while the next are read. Errors of a statement reject it; trouble of any other kind
 * sends it to the worker, which will meet it too and knows what to do.
 */
import type Database from "better-sqlite3";
import { UserError } from "../../base/errors.js";
import { type LogIndex, logIndex } from "../../base/ids.js";
import type { Timer } from "../../base/io.js";
import type { OpcodeRow } from "../../sql/types.js";
import { openConnection, type RangeConnection } from "./connection.js";
import { refuseAtRead } from "./guard.js";
import { bindArguments, planParameters } from "./parameters.js";
import type { BoundedRead, ReadAnswer } from "./types.js";

/**
 * Reads between which nothing else runs: a share of those that wait, so that the work here and that of whoever gets
 * the answers overlap, but not so few that sending them costs more than reading.
 */
const LEAST_SLICE_READS = 32;
const MOST_SLICE_READS = 128;
const SLICES = 4;
/** A slice that takes longer for each read was slow. */
const SLOW_READ_MS = 1;
/** After a slow slice reads go to the worker for this many times as long. */
const REST_FACTOR = 10;
/** Texts judged, at most. */
const MAX_JUDGED = 1024;
/**
 * Connections open at a time in one thread; the one used longest ago makes room, unless that was just now: opening costs
 * many times what reading does, and whoever finds no room is read for by the worker. One that nobody uses for a while is
 * closed, unless there are few.
 */
const MAX_OPEN = 1_024;
const KEPT_MS = 10_000;
const IDLE_MS = 60_000;
const FEW = 16;
/** So many may each have some megabytes of pages; more get by with little. */
const MAX_LARGE = 16;
const SMALL_CACHE_KIB = 512;

export interface WaitingRead {
  readonly read: BoundedRead;
  readonly resolve: (answer: ReadAnswer) => void;
  readonly reject: (error: unknown) => void;
}

export interface MainReaderParts {
  readonly monotonicMs: () => number;
  /** Runs something after the input that is there. */
  readonly defer: (run: () => void) => void;
  /** Without it connections are only closed for want of room. */
  readonly later?: (delayMs: number, run: () => void) => Timer;
  /** Connections open at a time. */
  readonly most?: number;
}

interface Opened {
  readonly connection: RangeConnection;
  readonly begin: Database.Statement;
  readonly end: Database.Statement;
  readonly state: Database.Statement;
}

/** The readers of a thread; in order of use, those with an open connection. */
export class MainReaders {
  readonly parts: MainReaderParts;
  readonly #open = new Set<MainReader>();
  #timer: Timer | undefined;

  constructor(parts: MainReaderParts) {
    this.parts = parts;
  }

  /** `elsewhere` takes the reads that are not for here. */
  reader(path: string, elsewhere: (waiting: WaitingRead) => void): MainReader {
    return new MainReader(path, this, elsewhere);
  }

  /** Connections open now. */
  get open(): number {
    return this.#open.size;
  }

  /** False when there is no room for one more. */
  admit(reader: MainReader, nowMs: number): boolean {
    if (!this.#open.delete(reader) && this.#open.size >= (this.parts.most ?? MAX_OPEN)) {
      const [oldest] = this.#open;
      if (nowMs - oldest!.usedMs < KEPT_MS) return false;
      oldest!.disconnect();
    }
    this.#open.add(reader);
    reader.usedMs = nowMs;
    if (this.#open.size > FEW) this.#timer ??= this.parts.later?.(IDLE_MS, () => this.#closeIdle());
    return true;
  }

  disconnected(reader: MainReader): void {
    this.#open.delete(reader);
    if (this.#open.size > 0) return;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #closeIdle(): void {
    this.#timer = undefined;
    const nowMs = this.parts.monotonicMs();
    for (const reader of this.#open) {
      if (this.#open.size <= FEW) return;
      const leftMs = reader.usedMs + IDLE_MS - nowMs;
      if (leftMs > 0) {
        this.#timer = this.parts.later?.(leftMs, () => this.#closeIdle());
        return;
      }
      reader.disconnect();
    }
  }
}

export class MainReader {
  readonly #path: string;
  readonly #readers: MainReaders;
  readonly #elsewhere: (waiting: WaitingRead) => void;
  readonly #run = (): void => this.#slice();
  /** Whether a text is a point read; undefined when it was not looked at yet. */
  readonly #judged = new Map<string, boolean>();
  #opened: Opened | undefined;
  /** As told; nothing is read before. */
  #schemaVersion: number | undefined;
  #generation: number | undefined;
  #state: "reading" | "paused" | "closed" = "reading";
  #waiting: WaitingRead[] = [];
  /** When its connection was used last. */
  usedMs = Number.NEGATIVE_INFINITY;
  #restUntilMs = Number.NEGATIVE_INFINITY;

  constructor(path: string, readers: MainReaders, elsewhere: (waiting: WaitingRead) => void) {
    this.#path = path;
    this.#readers = readers;
    this.#elsewhere = elsewhere;
  }

  /** The schema that the main thread knows from now on. */
  /** Which slice the file was last said to have: statements are routed by that. */
  generationTold(generation: number): void {
    this.#generation = generation;
  }

  schemaTold(version: number): void {
    this.#schemaVersion = version;
    this.#judged.clear();
    this.#opened?.connection.schemaChanged();
  }

  /** False when the read is not for here. Otherwise it is settled, here or elsewhere. */
  take(waiting: WaitingRead): boolean {
    if (this.#state !== "reading" || this.#schemaVersion === undefined) return false;
    if (this.#judged.get(waiting.read.statement.sql) === false) return false;
    this.#waiting.push(waiting);
    if (this.#waiting.length === 1) queueMicrotask(this.#run);
    return true;
  }

  /** The file is about to be replaced. */
  pause(): void {
    if (this.#state === "reading") this.#state = "paused";
    this.disconnect();
  }

  resume(): void {
    if (this.#state === "paused") this.#state = "reading";
  }

  /** For good. */
  close(): void {
    this.#state = "closed";
    this.disconnect();
  }

  disconnect(): void {
    this.#readers.disconnected(this);
    this.#opened?.connection.close();
    this.#opened = undefined;
  }

  #slice(): void {
    const { parts } = this.#readers;
    const startMs = parts.monotonicMs();
    const all = this.#waiting;
    const resting = startMs < this.#restUntilMs;
    const count = resting ? all.length : sliceOf(all.length);
    const slice = all.length <= count ? all : all.slice(0, count);
    this.#waiting = slice === all ? [] : all.slice(count);
    if (resting || this.#state !== "reading" || !this.#read(slice, startMs)) {
      for (const waiting of slice) this.#elsewhere(waiting);
    } else {
      const tookMs = parts.monotonicMs() - startMs;
      if (tookMs > SLOW_READ_MS * slice.length) this.#restUntilMs = startMs + tookMs * (REST_FACTOR + 1);
    }
    if (this.#waiting.length > 0) parts.defer(this.#run);
  }

  /** False when nothing could be read, and nothing was settled. */
  #read(slice: readonly WaitingRead[], nowMs: number): boolean {
    if (!this.#readers.admit(this, nowMs)) return false;
    try {
      const { connection, begin, end, state } = this.#open();
      begin.run();
      const [index, schemaVersion, generation, held] = state.get() as [number, number, number, number];
      const current = schemaVersion === this.#schemaVersion && generation === this.#generation && held === 0;
      if (current) for (const waiting of slice) this.#answer(connection, waiting, logIndex(index));
      end.run();
      return current;
    } catch {
      // Not the statements': those have been settled one by one.
      this.disconnect();
      return false;
    }
  }

  #answer(connection: RangeConnection, waiting: WaitingRead, appliedIndex: LogIndex): void {
    const { statement, maxBytes } = waiting.read;
    try {
      if (this.#judge(connection, statement.sql)) {
        const outcome = connection.execute(statement, { maxBytes, fewRows: true });
        waiting.resolve({ appliedIndex, outcome });
      } else this.#elsewhere(waiting);
    } catch (error) {
      if (error instanceof UserError) waiting.reject(error);
      else this.#elsewhere(waiting);
    }
  }

  #judge(connection: RangeConnection, sql: string): boolean {
    let judgement = this.#judged.get(sql);
    if (judgement === undefined) {
      judgement = isPointRead(explain(connection, sql));
      if (this.#judged.size >= MAX_JUDGED) this.#judged.clear();
      this.#judged.set(sql, judgement);
    }
    return judgement;
  }

  #open(): Opened {
    if (this.#opened !== undefined) return this.#opened;
    this.#opened = openReader(this.#path);
    if (this.#readers.open > MAX_LARGE)
      this.#opened.connection.database.pragma(`cache_size = -${SMALL_CACHE_KIB}`);
    return this.#opened;
  }
}

function sliceOf(waiting: number): number {
  return Math.max(LEAST_SLICE_READS, Math.min(MOST_SLICE_READS, Math.ceil(waiting / SLICES)));
}

function openReader(path: string): Opened {
  const connection = openConnection(path, { readonly: true, role: "read", busyMs: 0 });
  try {
    const { database } = connection;
    const state = database.prepare(
      `SELECT s.applied_index, s.schema_version, r.generation, EXISTS (SELECT 1 FROM main._ostraka_prepared)
       FROM main._ostraka_state s, main._ostraka_range r`,
    );
    return {
      connection,
      begin: database.prepare("BEGIN"),
      end: database.prepare("COMMIT"),
      state: state.raw(true).safeIntegers(false),
    };
  } catch (error) {
    connection.close();
    throw error;
  }
}

/** Throws what SQLite does where the statement does not compile; the worker will say it properly. */
function explain(connection: RangeConnection, sql: string): OpcodeRow[] {
  // Pragmas act as soon as they are prepared, in EXPLAIN too.
  refuseAtRead(sql);
  const plan = planParameters(sql);
  const rows = connection.database.prepare(`EXPLAIN ${plan.sql}`).safeIntegers(false);
  return rows.all(...bindArguments(plan, new Array<null>(plan.count).fill(null))) as OpcodeRow[];
}

/** Ops that take about constant time and go on to the next: moves between registers, columns of a row that was found. */
const STEPS = opcodes(
  "Transaction Halt OpenRead ReopenIdx Close Noop Explain ResultRow DeferredSeek FinishSeek SeekHit " +
    "Rowid IdxRowid NullRow Column Integer Int64 Real String String8 Null SoftNull Blob Variable " +
    "Move Copy SCopy IntCopy TypeCheck Affinity RealAffinity Cast Compare Permutation CollSeq MakeRecord " +
    "And Or Not IsTrue ZeroOrNull Add Subtract Multiply Divide Remainder BitAnd BitOr BitNot",
);
/** The same, of those that may go to the address in P2: searches by key, comparisons. */
const JUMPS = opcodes(
  "Init Goto SeekRowid NotExists SeekGE SeekGT SeekLE SeekLT IfNoHope NotFound Found NoConflict " +
    "IdxGE IdxGT IdxLE IdxLT MustBeInt Eq Ne Lt Le Gt Ge ElseEq IsNull NotNull If IfNot IsType " +
    "IfNullRow IfPos IfNotZero DecrJumpZero Once",
);

function opcodes(names: string): ReadonlySet<string> {
  return new Set(names.split(" "));
}

/** Whether no op of a program can run twice, and each takes about constant time. */
export function isPointRead(program: readonly OpcodeRow[]): boolean {
  return program.every(({ opcode, p2 }, at) => {
    // What is behind the end sets things up, and then goes to the start.
    if (opcode === "Goto" && at === program.length - 1) return p2 === 1;
    return STEPS.has(opcode) || (JUMPS.has(opcode) && p2 > at);
  });
}

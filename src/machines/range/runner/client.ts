/**
 * The main thread's end of a runner: turns calls into requests, watches statements for time and memory, and kills what
 * does not stop by itself. Works on any link: to a process, or to the same code in-process.
 *
 * Invariants:
 * 1. Every call settles: by its answer, by the verdict that stopped its statement, or by the runner's death.
 * 2. A statement that is to stop is asked first, so that the transaction and TEMP objects around it survive where
 *    they can; if it has not stopped after a short grace, the runner is killed. `dead` is true by the time the call
 *    rejects because of that.
 * 3. Memory beyond the limit kills at once.
 */
import { assert } from "../../../base/assert.js";
import { fromWireError, type OstrakaError, RetryError, UserError } from "../../../base/errors.js";
import { type LogIndex, logIndex } from "../../../base/ids.js";
import type { Clock, Timer } from "../../../base/io.js";
import { decodeChanges } from "../row-changes.js";
import type {
  RowChange,
  RowStream,
  Runner,
  RunOptions,
  SchemaSnapshot,
  SourceLoad,
  StampedStatement,
  StatementOutcome,
} from "../types.js";
import {
  type Answer,
  type AnswerValue,
  type Ending,
  fromEnd,
  Kind,
  Op,
  type Request,
  State,
  toWireLoad,
  toWireRun,
} from "./protocol.js";
import type { TableNames } from "./table-history.js";
import type { UniqueKeysOf } from "./unique-keys.js";

/** A way to reach the code that runs statements. */
export interface RunnerLink {
  send(request: Request): void;
  /** Ends it, whatever it does; `onDeath` need not be called for this. */
  kill(): void;
  /** Memory it holds now; undefined where that cannot be told. */
  memoryBytes(): number | undefined;
}

export interface LinkEvents {
  onAnswer(answer: Answer): void;
  /** It ended without having been killed. */
  onDeath(): void;
}

/** Statements that have run this long have their memory watched. */
const WATCH_AFTER_MS = 50;
const WATCH_EVERY_MS = 10;
/** How long a statement may take to notice that it is to stop, unless told otherwise. */
export const DEFAULT_GRACE_MS = 100;

interface Waiter {
  resolve(answer: Answer): void;
  reject(error: OstrakaError): void;
}

export class RunnerClient implements Runner {
  readonly #link: RunnerLink;
  readonly #clock: Clock;
  readonly #waiters = new Map<number, Waiter>();
  readonly #statements = new Map<number, RunningStatement>();
  readonly #onDead: (runner: RunnerClient) => void;
  /** What a statement needs of its runner. */
  readonly #host: StatementHost;
  #nextId = 1;
  #state = 0;
  #dead = false;
  #answered = false;
  #pinned: string | undefined;
  #pinnedAtMs = 0;
  #copy = false;
  /** Paths of its sources, each since when. */
  readonly #sources = new Map<string, number>();

  constructor(
    connect: (events: LinkEvents) => RunnerLink,
    clock: Clock,
    graceMs: number,
    onDead: (runner: RunnerClient) => void,
  ) {
    this.#clock = clock;
    this.#host = {
      request: (make) => this.#request(make),
      memoryBytes: () => this.#link.memoryBytes(),
      kill: () => this.kill(),
      gone: (id) => void this.#statements.delete(id),
      graceMs,
    };
    this.#onDead = onDead;
    this.#link = connect({ onAnswer: (answer) => this.#receive(answer), onDeath: () => this.#died() });
  }

  get dead(): boolean {
    return this.#dead;
  }

  get rolledBack(): boolean {
    return (this.#state & State.RolledBack) !== 0;
  }

  /** Whether anybody else may have it: nothing under way, no rows waiting, no copy, no TEMP objects. */
  get clean(): boolean {
    const idle = this.#waiters.size === 0 && this.#statements.size === 0;
    const held = this.#copy || this.#sources.size > 0 || (this.#state & State.HasTemp) !== 0;
    return !this.#dead && idle && !held;
  }

  get hasPin(): boolean {
    return this.#pinned !== undefined;
  }

  /** Since when it holds the WAL of this file, by its pin or a source; undefined when it does not. */
  pinnedSinceMs(path: string): number | undefined {
    if (this.#dead) return undefined;
    const source = this.#sources.get(path);
    if (this.#pinned !== path) return source;
    return source === undefined ? this.#pinnedAtMs : Math.min(source, this.#pinnedAtMs);
  }

  /** It has worked at least once. */
  get proven(): boolean {
    return this.#answered;
  }

  async pin(path: string): Promise<LogIndex> {
    this.#pinned = path;
    this.#pinnedAtMs = this.#clock.monotonicMs();
    try {
      return (await this.#value((id) => [id, Op.Pin, path])) as LogIndex;
    } catch (error) {
      this.#pinned = undefined;
      throw error;
    }
  }

  async unpin(how: Ending = "commit"): Promise<void> {
    await this.#value((id) => [id, Op.Unpin, how]);
    this.#pinned = undefined;
  }

  async openCopy(path: string): Promise<void> {
    await this.#value((id) => [id, Op.OpenCopy, path]);
    this.#pinned = undefined;
    this.#copy = true;
  }

  async openScratch(schema: SchemaSnapshot): Promise<void> {
    this.#copy = true;
    try {
      await this.#value((id) => [id, Op.OpenScratch, schema.version, schema.statements]);
      this.#pinned = undefined;
    } catch (error) {
      this.#copy = false;
      throw error;
    }
  }

  async addSource(path: string): Promise<{ readonly source: number; readonly appliedIndex: LogIndex }> {
    if (!this.#sources.has(path)) this.#sources.set(path, this.#clock.monotonicMs());
    const answer = await this.#value((id) => [id, Op.AddSource, path]);
    assert(Array.isArray(answer), "a source is answered by its number and applied index");
    return { source: answer[0], appliedIndex: logIndex(answer[1]) };
  }

  async load(loads: readonly SourceLoad[], maxBytes: number): Promise<{ readonly rows: number }> {
    const wire = loads.map(toWireLoad);
    return { rows: (await this.#value((id) => [id, Op.Load, wire, maxBytes])) as number };
  }

  scan(loads: readonly SourceLoad[], options: RunOptions): Promise<RowStream> {
    return this.#start(options, (id) => [id, Op.Scan, loads.map(toWireLoad), options.maxResultBytes]);
  }

  async fill(table: string, rows: Uint8Array, maxBytes: number): Promise<{ readonly rows: number }> {
    return { rows: (await this.#value((id) => [id, Op.Fill, table, rows, maxBytes])) as number };
  }

  async dropSources(): Promise<void> {
    await this.#value((id) => [id, Op.DropSources]);
    this.#sources.clear();
  }

  async closeCopy(how: Ending): Promise<void> {
    await this.#value((id) => [id, Op.CloseCopy, how]);
    this.#copy = false;
  }

  async capture(): Promise<void> {
    await this.#value((id) => [id, Op.Capture]);
  }

  async captured(): Promise<readonly RowChange[]> {
    return decodeChanges(await this.capturedBytes());
  }

  async capturedBytes(): Promise<Uint8Array> {
    const bytes = await this.#value((id) => [id, Op.Captured]);
    assert(bytes instanceof Uint8Array, "row changes come as bytes");
    return bytes;
  }

  async takeUniqueKeys(): Promise<UniqueKeysOf> {
    const answer = await this.#value((id) => [id, Op.TakeUniqueKeys]);
    assert(
      answer !== null && typeof answer === "object" && "uniqueKeys" in answer,
      "unique keys were asked for",
    );
    return answer.uniqueKeys;
  }

  async tableNames(): Promise<TableNames> {
    const answer = await this.#value((id) => [id, Op.TableNames]);
    assert(
      answer !== null && typeof answer === "object" && "tableNames" in answer,
      "names of tables were asked for",
    );
    return answer.tableNames;
  }

  run(statement: StampedStatement, options: RunOptions): Promise<RowStream> {
    return this.#start(options, (id) => [
      id,
      Op.Run,
      toWireRun(statement, options.maxResultBytes, options.systemTables),
    ]);
  }

  #start(options: RunOptions, make: (id: number) => Request): Promise<RowStream> {
    if (this.#dead) return Promise.reject(ended());
    if (options.signal?.aborted) return Promise.reject(interrupted());
    const id = this.#nextId++;
    const running = new RunningStatement(this.#host, id, options, this.#clock);
    this.#statements.set(id, running);
    this.#link.send(make(id));
    return running.started;
  }

  kill(): void {
    if (this.#dead) return;
    this.#link.kill();
    this.#died();
  }

  async #value(make: (id: number) => Request): Promise<AnswerValue> {
    const answer = await this.#request(make);
    assert(answer[1] === Kind.Ok, "a runner answered with something else than was asked");
    return answer[3];
  }

  #request(make: (id: number) => Request): Promise<Answer> {
    if (this.#dead) return Promise.reject(ended());
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiters.set(id, { resolve, reject });
      this.#link.send(make(id));
    });
  }

  #receive(answer: Answer): void {
    if (this.#dead) return;
    this.#answered = true;
    const id = answer[0];
    this.#state = answer[2];
    const waiter = this.#waiters.get(id);
    if (waiter === undefined) {
      this.#statements.get(id)?.receive(answer);
      return;
    }
    this.#waiters.delete(id);
    if (answer[1] === Kind.Error) waiter.reject(fromWireError(answer[3]));
    else waiter.resolve(answer);
  }

  #died(): void {
    if (this.#dead) return;
    this.#dead = true;
    const error = ended();
    for (const statement of [...this.#statements.values()]) statement.died(error);
    this.#statements.clear();
    for (const waiter of this.#waiters.values()) waiter.reject(error);
    this.#waiters.clear();
    this.#onDead(this);
  }
}

interface StatementHost {
  request(make: (id: number) => Request): Promise<Answer>;
  memoryBytes(): number | undefined;
  kill(): void;
  /** Nothing of the statement is left in the runner. */
  gone(id: number): void;
  readonly graceMs: number;
}

interface Chunk {
  readonly rows: Uint8Array;
  readonly count: number;
}

type Summary = Pick<StatementOutcome, "changes" | "totalChanges" | "lastInsertRowid">;

/** One statement from its request until its rows are fetched: watched while it runs, a RowStream for its reader. */
class RunningStatement implements RowStream {
  readonly started: Promise<RowStream>;
  columns: readonly string[] = [];
  columnTypes: readonly (string | null)[] = [];
  readonly #host: StatementHost;
  readonly #id: number;
  readonly #options: RunOptions;
  readonly #clock: Clock;
  readonly #startedMs: number;
  #timer: Timer | undefined;
  #settleStart: { resolve(stream: RowStream): void; reject(error: OstrakaError): void } | undefined;
  #running = true;
  /** Nothing more is to come: all rows are here, or `#error` says why not. */
  #ended = false;
  #closed = false;
  /** Why it was stopped from this side. */
  #verdict: OstrakaError | undefined;
  #error: OstrakaError | undefined;
  #summary: Summary | undefined;
  #first: Chunk | undefined;
  #ahead: Promise<Chunk | undefined> | undefined;

  constructor(host: StatementHost, id: number, options: RunOptions, clock: Clock) {
    this.#host = host;
    this.#id = id;
    this.#options = options;
    this.#clock = clock;
    this.#startedMs = clock.monotonicMs();
    this.started = new Promise((resolve, reject) => {
      this.#settleStart = { resolve, reject };
    });
    options.signal?.addEventListener("abort", this.#onAbort);
    this.#watch(WATCH_AFTER_MS);
  }

  receive(answer: Answer): void {
    if (answer[1] === Kind.Finished) this.#hasRun();
    else if (answer[1] === Kind.Error) this.#fail(fromWireError(answer[3]));
    else if (answer[1] === Kind.Started) {
      this.columns = answer[3];
      this.columnTypes = answer[4];
      this.#first = answer[5] === null ? undefined : { rows: answer[5], count: answer[6] };
      if (answer[7] !== null) this.#end(fromEnd(answer[7]));
      // Whoever stopped it meanwhile gets the verdict, not the rows.
      if (this.#verdict !== undefined) return;
      this.#settleStart?.resolve(this);
      this.#settleStart = undefined;
    }
  }

  /** The runner died, or was killed for this statement or another. */
  died(error: OstrakaError): void {
    this.#fail(this.#verdict ?? error);
  }

  async next(): Promise<Chunk | undefined> {
    if (this.#closed) return undefined;
    if (this.#error !== undefined) throw this.#error;
    const first = this.#first;
    if (first !== undefined) {
      this.#first = undefined;
      this.#fetchAhead();
      return first;
    }
    if (this.#ahead === undefined && this.#ended) return undefined;
    const chunk = await (this.#ahead ?? this.#fetch());
    this.#ahead = undefined;
    if (chunk !== undefined) this.#fetchAhead();
    return chunk;
  }

  summary(): Summary {
    assert(this.#summary !== undefined, "a statement's summary was asked for before its last row");
    return this.#summary;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#first = undefined;
    if (this.#ended) return;
    if (this.#running) await this.#stop(interrupted());
    else await this.#release();
  }

  readonly #onAbort = (): void => void this.#stop(interrupted());

  /** The next chunk is asked for while the reader works on this one; never more than one ahead. */
  #fetchAhead(): void {
    if (this.#ended) return;
    this.#ahead = this.#fetch();
    // Told to the reader by its next call; it may also never ask.
    this.#ahead.catch(() => {});
  }

  async #fetch(): Promise<Chunk | undefined> {
    let answer: Answer;
    try {
      answer = await this.#host.request((id) => [id, Op.Pull, this.#id]);
    } catch (error) {
      this.#fail(this.#verdict ?? (error as OstrakaError));
      throw this.#error;
    }
    assert(answer[1] === Kind.Chunk, "a request for rows was answered with something else");
    if (this.#error !== undefined) throw this.#error;
    const [, , , rows, count, end] = answer;
    if (end !== null) this.#end(fromEnd(end));
    return rows === null ? undefined : { rows, count };
  }

  /** Arms the timer for whatever is next: the statement's time, or a look at the memory. */
  #watch(delayMs: number): void {
    const { timeoutMs } = this.#options;
    const leftMs =
      timeoutMs === undefined
        ? Number.POSITIVE_INFINITY
        : timeoutMs - (this.#clock.monotonicMs() - this.#startedMs);
    this.#timer = this.#clock.setTimer(Math.max(0, Math.min(delayMs, leftMs)), () => this.#look());
  }

  #look(): void {
    if (!this.#running || this.#verdict !== undefined) return;
    const { timeoutMs, maxMemoryBytes } = this.#options;
    const elapsedMs = this.#clock.monotonicMs() - this.#startedMs;
    if (timeoutMs !== undefined && elapsedMs >= timeoutMs) {
      void this.#stop(
        new RetryError("OSTRAKA_TIMEOUT", `the statement ran for more than ${Math.ceil(timeoutMs)} ms`),
      );
      return;
    }
    if (elapsedMs >= WATCH_AFTER_MS && (this.#host.memoryBytes() ?? 0) > maxMemoryBytes) {
      this.#verdict = new UserError(
        "OSTRAKA_TOO_LARGE",
        `the statement needs more than ${maxMemoryBytes} bytes of memory`,
      );
      this.#host.kill();
      return;
    }
    this.#watch(WATCH_EVERY_MS);
  }

  async #stop(verdict: OstrakaError): Promise<void> {
    if (!this.#running || this.#verdict !== undefined) return;
    this.#verdict = verdict;
    this.#timer?.cancel();
    this.#timer = this.#clock.setTimer(this.#host.graceMs, () => this.#host.kill());
    await this.#release();
    this.#fail(verdict);
  }

  /** Frees what the runner holds of it. */
  async #release(): Promise<void> {
    try {
      await this.#host.request((id) => [id, Op.Close, this.#id]);
      this.#hasRun();
      this.#ended = true;
      this.#host.gone(this.#id);
    } catch {
      // The runner died, which frees everything too.
    }
  }

  #end(summary: Summary): void {
    this.#summary = summary;
    this.#ended = true;
    this.#hasRun();
    this.#host.gone(this.#id);
  }

  #fail(error: OstrakaError): void {
    this.#error ??= error;
    this.#ended = true;
    this.#hasRun();
    this.#host.gone(this.#id);
    this.#settleStart?.reject(this.#error);
    this.#settleStart = undefined;
  }

  #hasRun(): void {
    this.#running = false;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
  }
}

function ended(): RetryError {
  return new RetryError("OSTRAKA_UNAVAILABLE", "the process that ran the statement has ended");
}

function interrupted(): UserError {
  return new UserError("SQLITE_INTERRUPT", "interrupted");
}

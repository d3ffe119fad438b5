/**
 * Answers a runner's requests, one at a time and in order, on a session. Statements run in slices so that requests for
 * rows and to stop are heard in between; their rows are spooled at full speed, whatever the reader's pace.
 *
 * Fetching rows and stopping overtake everything else. All other requests wait until the running statement has run to
 * its end: letting the pin go is answered once the query is finished, even though its rows are still being fetched.
 */

import type { WireError } from "../../../base/errors.js";
import { RetryError, toWireError, UserError } from "../../../base/errors.js";
import { logIndex } from "../../../base/ids.js";
import type { RowCursor } from "../connection.js";
import { encodeChanges } from "../row-changes.js";
import type { SchemaSnapshot } from "../types.js";
import {
  type Answer,
  type AnswerValue,
  type End,
  fromWireLoad,
  fromWireRun,
  Kind,
  Op,
  type Request,
  State,
  toEnd,
} from "./protocol.js";
import { asRunnerError, RunnerSession } from "./session.js";
import { Spool } from "./spool.js";

export interface HostSettings {
  /** Runs a function after the events that have arrived were looked at. */
  readonly defer: (run: () => void) => void;
  /** Milliseconds, monotonic: how long a slice has taken. */
  readonly nowMs: () => number;
  readonly spoolMemoryBytes: number;
  readonly maxCapturedBytes: number;
  /** Makes the next scratch database ahead, after one was closed. */
  readonly preparesScratch: boolean;
}

export const DEFAULT_SPOOL_BYTES = 4 * 1024 * 1024;
export const DEFAULT_CAPTURED_BYTES = 64 * 1024 * 1024;
const SLICE_MS = 5;

/** A statement's rows, from its start until the reader has let them go. */
class Stream {
  readonly spool: Spool;
  cursor: RowCursor | undefined;
  columns: readonly string[] = [];
  columnTypes: readonly (string | null)[] = [];
  /** Set when the statement has run to its end. */
  end: End | undefined;
  error: WireError | undefined;
  /** The reader has been answered for the first time. */
  started = false;
  /** Id of the request for rows that waits for some. */
  pulling: number | undefined;

  constructor(
    readonly id: number,
    spoolMemoryBytes: number,
  ) {
    this.spool = new Spool(spoolMemoryBytes);
  }
}

export class RunnerHost {
  readonly #session = new RunnerSession();
  readonly #settings: HostSettings;
  readonly #answer: (answer: Answer) => void;
  readonly #waiting: Request[] = [];
  readonly #streams = new Map<number, Stream>();
  #running: Stream | undefined;
  /** The schema of the scratch database that was opened last. */
  #scratchSchema: SchemaSnapshot | undefined;
  #closed = false;

  constructor(settings: HostSettings, answer: (answer: Answer) => void) {
    this.#settings = settings;
    this.#answer = answer;
  }

  handle(request: Request): void {
    if (this.#closed) return;
    if (request[1] === Op.Pull) this.#pull(request[0], request[2]);
    else if (request[1] === Op.Close) this.#closeStream(request[0], request[2]);
    else if (this.#running !== undefined) this.#waiting.push(request);
    else this.#perform(request);
  }

  /** Ends everything: the connection is closed, spooled rows are gone. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#running?.cursor?.close();
    this.#running = undefined;
    for (const stream of this.#streams.values()) stream.spool.close();
    this.#streams.clear();
    this.#session.close();
  }

  #state(): number {
    return (this.#session.rolledBack ? State.RolledBack : 0) | (this.#session.hasTemp ? State.HasTemp : 0);
  }

  #perform(request: Request): void {
    const [id, op] = request;
    if (op === Op.Run) {
      const { statement, maxResultBytes, systemTables } = fromWireRun(request[2]);
      this.#start(id, () => this.#session.start(statement, maxResultBytes, systemTables));
      return;
    }
    if (op === Op.Scan) {
      const [, , loads, maxResultBytes] = request;
      this.#start(id, () => this.#session.scan(loads.map(fromWireLoad), maxResultBytes));
      return;
    }
    try {
      this.#answer([id, Kind.Ok, this.#state(), this.#execute(request)]);
    } catch (error) {
      this.#answer([id, Kind.Error, this.#state(), toWireError(asRunnerError(error))]);
    }
  }

  #execute(request: Request): AnswerValue {
    switch (request[1]) {
      case Op.Pin:
        return this.#session.pin(request[2]);
      case Op.Unpin:
        this.#session.unpin(request[2]);
        return null;
      case Op.OpenCopy:
        this.#session.openCopy(request[2]);
        return null;
      case Op.CloseCopy:
        this.#session.closeCopy(request[2]);
        this.#prepareScratch();
        return null;
      case Op.Capture:
        this.#session.capture();
        return null;
      case Op.Captured: {
        const { maxCapturedBytes } = this.#settings;
        return encodeChanges(
          this.#session.captured(),
          maxCapturedBytes,
          () =>
            new UserError(
              "OSTRAKA_TOO_LARGE",
              `the transaction's row changes are more than ${maxCapturedBytes} bytes`,
            ),
        );
      }
      default:
        return this.#executeScratch(request);
    }
  }

  #executeScratch(request: Request): AnswerValue {
    switch (request[1]) {
      case Op.OpenScratch: {
        const [, , version, statements] = request;
        const schema = { version, statements, appliedIndex: logIndex(0), tables: [] };
        this.#scratchSchema = schema;
        this.#session.openScratch(schema);
        return null;
      }
      case Op.AddSource: {
        const { source, appliedIndex } = this.#session.addSource(request[2]);
        return [source, appliedIndex];
      }
      case Op.Load:
        return this.#session.load(request[2].map(fromWireLoad), request[3]);
      case Op.Fill:
        return this.#session.fill(request[2], request[3], request[4]);
      case Op.TakeUniqueKeys:
        return { uniqueKeys: this.#session.takeUniqueKeys() };
      case Op.TableNames:
        return { tableNames: this.#session.tableNames() };
      case Op.DropSources:
        this.#session.dropSources();
        this.#prepareScratch();
        return null;
      default:
        return null;
    }
  }

  /** The next statement over several ranges is likely to be soon, and of the same schema. */
  #prepareScratch(): void {
    const schema = this.#scratchSchema;
    if (schema === undefined || !this.#settings.preparesScratch || !this.#session.idle) return;
    this.#scratchSchema = undefined;
    this.#settings.defer(() => {
      if (this.#closed || this.#running !== undefined) return;
      try {
        this.#session.prepareScratch(schema);
      } catch {
        // Whoever opens one meets the same error.
      }
    });
  }

  #start(id: number, start: () => RowCursor): void {
    const stream = new Stream(id, this.#settings.spoolMemoryBytes);
    try {
      stream.cursor = start();
      stream.columns = stream.cursor.columns;
      stream.columnTypes = stream.cursor.columnTypes;
    } catch (error) {
      this.#answer([id, Kind.Error, this.#state(), toWireError(asRunnerError(error))]);
      return;
    }
    this.#streams.set(id, stream);
    this.#running = stream;
    this.#slice(stream);
  }

  /** Steps the statement for a few milliseconds, then lets the reader have what there is. */
  #slice(stream: Stream): void {
    const cursor = stream.cursor;
    if (this.#closed || cursor === undefined) return;
    const untilMs = this.#settings.nowMs() + SLICE_MS;
    try {
      do {
        const chunk = cursor.next();
        if (chunk === undefined) {
          stream.end = toEnd(cursor.summary());
          break;
        }
        stream.spool.push(chunk);
      } while (this.#settings.nowMs() < untilMs);
    } catch (error) {
      this.#fail(stream, error);
    }
    if (stream.end === undefined && stream.error === undefined) {
      this.#serve(stream);
      this.#settings.defer(() => this.#slice(stream));
      return;
    }
    stream.cursor = undefined;
    this.#running = undefined;
    this.#serve(stream);
    if (this.#streams.has(stream.id)) this.#answer([stream.id, Kind.Finished, this.#state()]);
    this.#next();
  }

  #fail(stream: Stream, error: unknown): void {
    stream.cursor?.close();
    const full = error instanceof Error && (error as NodeJS.ErrnoException).code === "ENOSPC";
    stream.error = toWireError(
      full
        ? new RetryError("OSTRAKA_UNAVAILABLE", "no space left to spool the rows of a query")
        : asRunnerError(error),
    );
    stream.spool.close();
  }

  #next(): void {
    while (this.#running === undefined) {
      const request = this.#waiting.shift();
      if (request === undefined) return;
      this.#perform(request);
    }
  }

  /** Answers the start of a stream, or a request for rows that waits, if there is something to tell. */
  #serve(stream: Stream): void {
    if (stream.started && stream.pulling === undefined) return;
    if (stream.error !== undefined) {
      const id = stream.pulling ?? stream.id;
      if (stream.pulling !== undefined || !stream.started) this.#forget(stream);
      this.#answer([id, Kind.Error, this.#state(), stream.error]);
      return;
    }
    if (stream.spool.empty && stream.end === undefined) return;
    const chunk = stream.spool.shift();
    const end = stream.end !== undefined && stream.spool.empty ? stream.end : null;
    if (end !== null) this.#forget(stream);
    const rows = chunk?.rows ?? null;
    const count = chunk?.count ?? 0;
    if (stream.pulling !== undefined) {
      const id = stream.pulling;
      stream.pulling = undefined;
      this.#answer([id, Kind.Chunk, this.#state(), rows, count, end]);
      return;
    }
    stream.started = true;
    const { columns, columnTypes } = stream;
    this.#answer([stream.id, Kind.Started, this.#state(), columns, columnTypes, rows, count, end]);
  }

  #pull(id: number, streamId: number): void {
    const stream = this.#streams.get(streamId);
    if (stream === undefined) {
      this.#answer([id, Kind.Chunk, this.#state(), null, 0, null]);
      return;
    }
    stream.pulling = id;
    this.#serve(stream);
  }

  #closeStream(id: number, streamId: number): void {
    const stream = this.#streams.get(streamId);
    if (stream !== undefined) {
      this.#forget(stream);
      const interrupted = toWireError(new UserError("SQLITE_INTERRUPT", "interrupted"));
      if (stream.pulling !== undefined)
        this.#answer([stream.pulling, Kind.Error, this.#state(), interrupted]);
      if (this.#running === stream) {
        stream.cursor?.close();
        stream.cursor = undefined;
        this.#running = undefined;
      }
    } else {
      const at = this.#waiting.findIndex((request) => request[0] === streamId);
      if (at >= 0) this.#waiting.splice(at, 1);
    }
    this.#answer([id, Kind.Ok, this.#state(), null]);
    this.#next();
  }

  #forget(stream: Stream): void {
    stream.spool.close();
    this.#streams.delete(stream.id);
  }
}

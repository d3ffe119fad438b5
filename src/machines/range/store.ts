/**
 * A range's storage as the main thread sees it (RangeStore), over messages to whoever executes them: a worker thread
 * that may own several stores, or the same code in this thread (simulation, the embedded database).
 *
 * Requests of one turn leave in one message. A status and a changed schema reach their listeners before the answers
 * that came with them. Once the worker has died, everything rejects with its FatalError.
 */
import { Worker } from "node:worker_threads";
import { FatalError, fromWireError } from "../../base/errors.js";
import { IdTable } from "../../base/id-table.js";
import {
  FIRST_RANGE_GROUP,
  type GroupId,
  type LogIndex,
  logIndex,
  type TransactionId,
} from "../../base/ids.js";
import type { Clock } from "../../base/io.js";
import type { Key } from "../../base/keys.js";
import type { MachineSnapshot } from "../../multiraft/types.js";
import type { Entry } from "../../raft/types.js";
import { mostAwake } from "./awake.js";
import { type FileWork, removeDatabase, removeFolder, SYSTEM_FILES } from "./files.js";
import { LogKeeper } from "./log-keeper.js";
import { type MainReader, type MainReaderParts, MainReaders, type WaitingRead } from "./main-reader.js";
import { mayWait } from "./patience.js";
import { encodeReads, ReadAnswerReader } from "./read-batch.js";
import { snapshotOfCopy } from "./snapshot-file.js";
import {
  type AnswerValues,
  packEntries,
  type StoreCall,
  type StoreReply,
  type StoreRequest,
  type StoreStatus,
  unpack,
} from "./store-protocol.js";
import { StoreServer } from "./store-server.js";
import type {
  BoundedRead,
  CommandResult,
  IdempotencyKey,
  PreparedTransaction,
  RangeBeginning,
  RangeState,
  RangeStore,
  ReadAnswer,
  SchemaSnapshot,
  Speculation,
  SpeculationAnswer,
  SplitChild,
  StoreSize,
} from "./types.js";

/** Executes the requests of the stores made with it. */
export interface StoreWorker {
  /** A store over this file; nothing happens to it before `open()`. */
  store(path: string): RangeStore;
  /** Removes the folder of a store that is closed, or was never opened here, and all that is in it. */
  remove(path: string): Promise<void>;
  /** Closes what is still open, then the worker. */
  close(): Promise<void>;
}

/** A storage worker in a thread of its own. */
export function openStoreWorker(options: { readonly clock: Clock }): StoreWorker {
  const worker = new Worker(new URL("./store-worker.js", import.meta.url));
  const link = new StoreLink((requests, transfer) => worker.postMessage(requests, transfer), SYSTEM_FILES, {
    monotonicMs: () => options.clock.monotonicMs(),
    defer: setImmediate,
    later: (delayMs, run) => options.clock.setTimer(delayMs, run),
    most: mostAwake(),
  });
  let closing = false;
  worker.on("message", (reply: StoreReply) => link.receive(reply));
  worker.on("error", (error: Error) =>
    link.fail(
      new FatalError("OSTRAKA_WORKER", `the storage worker died: ${error.message}`, { cause: error }),
    ),
  );
  const exited = new Promise<void>((resolve) => {
    worker.once("exit", (code) => {
      link.fail(
        closing
          ? new FatalError("OSTRAKA_CLOSED", "the storage worker is closed")
          : new FatalError("OSTRAKA_WORKER", `the storage worker exited with code ${code}`),
      );
      resolve();
    });
  });
  return {
    store: (path) => link.store(path),
    remove: removeFolder,
    close: async () => {
      closing = true;
      await link.closeStores();
      worker.postMessage("close");
      await exited;
    },
  };
}

export interface LocalStoresOptions {
  readonly clock: Clock;
  /** Lets others run between slices of long work. */
  readonly pause?: () => Promise<void>;
  /** The way of a message to the worker, and of its answer back: in order, now or later. */
  readonly deliver?: (direction: "request" | "answer", run: () => void) => void;
  readonly files?: FileWork;
  /** How many stores may have their files open at once. */
  readonly awake?: number;
}

export interface LocalStores extends StoreWorker {
  /** As if the process had died: connections are closed, nothing is answered any more. */
  abandon(): void;
}

/** The same in this thread. */
export function openLocalStores(options: LocalStoresOptions): LocalStores {
  const {
    clock,
    pause = () => new Promise<void>((resolve) => setImmediate(resolve)),
    deliver = (_, run) => run(),
    files = SYSTEM_FILES,
  } = options;
  const link: StoreLink = new StoreLink(
    (requests) => deliver("request", () => server.handle(requests)),
    files,
    {
      monotonicMs: () => clock.monotonicMs(),
      defer: (run) => void pause().then(run),
      later: (delayMs, run) => clock.setTimer(delayMs, run),
    },
  );
  const server = new StoreServer(
    {
      monotonicMs: () => clock.monotonicMs(),
      pause,
      files,
      later: (delayMs, run) => clock.setTimer(delayMs, run),
      ...(options.awake && { awake: options.awake }),
    },
    (reply) => deliver("answer", () => link.receive(reply)),
  );
  return {
    store: (path) => link.store(path),
    remove: removeFolder,
    close: async () => {
      await link.closeStores();
      await server.close();
    },
    abandon: () => {
      link.closeReaders();
      server.abandon();
      link.letLogsGo();
    },
  };
}

interface Waiting {
  readonly resolve: (value: never) => void;
  readonly reject: (error: unknown) => void;
}

/** Numbers requests, batches them per turn, and matches answers. */
class StoreLink {
  readonly #post: (requests: StoreRequest[], transfer: ArrayBuffer[]) => void;
  readonly #waiting = new IdTable<Waiting>();
  readonly #stores = new Map<number, RemoteStore>();
  #requests: StoreRequest[] = [];
  #transfer: ArrayBuffer[] = [];
  #nextId = 1;
  #nextStore = 1;
  #failure: FatalError | undefined;

  readonly readers: MainReaders;

  constructor(
    post: (requests: StoreRequest[], transfer: ArrayBuffer[]) => void,
    readonly files: FileWork,
    reading: MainReaderParts,
  ) {
    this.#post = post;
    this.readers = new MainReaders(reading);
  }

  store(path: string): RangeStore {
    const id = this.#nextStore++;
    const store = new RemoteStore(this, id, path);
    this.#stores.set(id, store);
    return store;
  }

  /** It is closed: whoever had it may hold on to it, and nobody else. */
  forget(store: number): void {
    this.#stores.delete(store);
  }

  async closeStores(): Promise<void> {
    await Promise.allSettled([...this.#stores.values()].map((store) => store.close()));
  }

  call<O extends StoreCall["op"]>(
    store: number,
    call: Extract<StoreCall, { readonly op: O }>,
    transfer: ArrayBuffer[] = [],
  ): Promise<AnswerValues[O]> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      this.#waiting.set(id, { resolve, reject });
      if (this.#requests.length === 0) queueMicrotask(() => this.#flush());
      this.#requests.push({ id, store, call });
      this.#transfer.push(...transfer);
    });
  }

  receive({ statuses, answers }: StoreReply): void {
    for (const status of statuses) this.#stores.get(status.store)?.onStatus(status);
    for (const { id, value, error } of answers) {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error !== undefined) waiting?.reject(fromWireError(error));
      else waiting?.resolve(value as never);
    }
  }

  closeReaders(): void {
    for (const store of this.#stores.values()) store.closeReader();
  }

  /** The worker has no file open any more. */
  letLogsGo(): void {
    for (const store of this.#stores.values()) store.letLogGo();
  }

  fail(error: FatalError): void {
    this.#failure ??= error;
    this.closeReaders();
    this.letLogsGo();
    for (const waiting of this.#waiting.values()) waiting.reject(this.#failure);
    this.#waiting.clear();
  }

  #flush(): void {
    const requests = this.#requests;
    const transfer = this.#transfer;
    this.#requests = [];
    this.#transfer = [];
    if (this.#failure === undefined) this.#post(requests, transfer);
  }
}

const WHOLE: RangeState = {
  descriptor: { range: FIRST_RANGE_GROUP, start: "", end: "", generation: 1 },
  frozenInto: undefined,
  untrimmed: false,
  absorbed: [],
  absorbedAt: logIndex(0),
  rightNeighbour: undefined,
};

class RemoteStore implements RangeStore {
  readonly path: string;
  readonly #link: StoreLink;
  readonly #id: number;
  readonly #schemaListeners: ((schema: SchemaSnapshot) => void)[] = [];
  readonly #stateListeners: ((state: RangeState) => void)[] = [];
  readonly #splitListeners: ((child: SplitChild) => void)[] = [];
  #range: NonNullable<StoreStatus["range"]> = { state: WHOLE, beginning: undefined };
  #status: StoreStatus;
  #state: "new" | "open" | "closed" = "new";
  #reads: WaitingRead[] = [];
  /** Applies that have failed: those under way are refused behind the first, and what comes next is not. */
  #failures = 0;
  readonly #reader: MainReader;
  /** While a range that was split off is made: also where the process ends without closing anything in order. */
  readonly #logKeeper = new LogKeeper();

  constructor(link: StoreLink, id: number, path: string) {
    this.#link = link;
    this.#id = id;
    this.path = path;
    this.#reader = link.readers.reader(path, (waiting) => this.#readInWorker(waiting));
    this.#status = {
      store: id,
      appliedIndex: logIndex(0),
      lastWallMs: 0,
      databaseBytes: 0,
      walBytes: 0,
      liveBytes: 0,
    };
  }

  onStatus(status: StoreStatus): void {
    this.#status = status;
    if (status.making !== undefined && this.#state === "open") this.#keepLog();
    else this.letLogGo();
    if (status.range !== undefined) this.#reader.generationTold(status.range.state.descriptor.generation);
    if (status.schema !== undefined) {
      this.#reader.schemaTold(status.schema.version);
      for (const listener of this.#schemaListeners) listener(status.schema);
    }
    if (status.range !== undefined) {
      this.#range = status.range;
      for (const listener of this.#stateListeners) listener(status.range.state);
    }
    for (const child of status.children ?? []) for (const listener of this.#splitListeners) listener(child);
  }

  /** The worker does so as well when it closes the file, and says what is wrong if it cannot. */
  #keepLog(): void {
    try {
      this.#logKeeper.keep(this.path);
    } catch {
      // Not here then.
    }
  }

  closeReader(): void {
    this.#reader.close();
  }

  letLogGo(): void {
    this.#logKeeper.letGo();
  }

  open(): Promise<LogIndex> {
    this.#state = "open";
    return this.#link.call(this.#id, { op: "open", path: this.path });
  }

  async apply(entries: readonly Entry[], upTo: LogIndex): Promise<readonly Uint8Array[]> {
    const packed = packEntries(entries);
    const transfer = [packed.bytes.buffer as ArrayBuffer];
    const call = { op: "apply" as const, entries: packed, upTo, failures: this.#failures };
    try {
      return unpack(await this.#link.call(this.#id, call, transfer));
    } catch (error) {
      this.#failures++;
      throw error;
    }
  }

  mayWait(data: Uint8Array): boolean {
    return mayWait(data);
  }

  checkpoint(): Promise<LogIndex> {
    return this.#link.call(this.#id, { op: "checkpoint" });
  }

  async snapshot(): Promise<MachineSnapshot> {
    const { path, appliedIndex } = await this.#link.call(this.#id, { op: "copy" });
    return snapshotOfCopy(path, appliedIndex, this.#link.files);
  }

  async restore(file: string): Promise<LogIndex> {
    this.#reader.pause();
    try {
      return await this.#link.call(this.#id, { op: "restore", file });
    } finally {
      this.#reader.resume();
    }
  }

  digest(): Promise<{ readonly appliedIndex: LogIndex; readonly digest: string }> {
    return this.#link.call(this.#id, { op: "digest" });
  }

  async close(): Promise<void> {
    const wasOpen = this.#state === "open";
    this.#state = "closed";
    this.closeReader();
    if (!wasOpen) return;
    try {
      await this.#link.call(this.#id, { op: "close" });
    } finally {
      this.letLogGo();
      this.#link.forget(this.#id);
    }
  }

  appliedIndex(): LogIndex {
    return this.#status.appliedIndex;
  }

  lastWallMs(): number {
    return this.#status.lastWallMs;
  }

  size(): StoreSize {
    return this.#status;
  }

  read(read: BoundedRead): Promise<ReadAnswer> {
    return new Promise((resolve, reject) => {
      const waiting = { read, resolve, reject };
      if (read.mayBeAhead !== true || !this.#reader.take(waiting)) this.#readInWorker(waiting);
    });
  }

  #readInWorker(waiting: WaitingRead): void {
    this.#reads.push(waiting);
    if (this.#reads.length === 1) queueMicrotask(() => this.#sendReads());
  }

  /** All reads of a turn in one call. */
  #sendReads(): void {
    const gathered = this.#reads;
    this.#reads = [];
    const reads = encodeReads(gathered.map(({ read }) => read));
    this.#link.call(this.#id, { op: "reads", reads }, [reads.buffer as ArrayBuffer]).then(
      ({ appliedIndex, held, answers }) => {
        const reader = new ReadAnswerReader(answers);
        for (const { resolve, reject } of gathered) {
          const answer = reader.next();
          if (answer.ok) resolve({ appliedIndex, held, outcome: answer.outcome });
          else reject(fromWireError(answer.error));
        }
      },
      (error: unknown) => {
        for (const { reject } of gathered) reject(error);
      },
    );
  }

  speculate(speculation: Speculation): Promise<SpeculationAnswer> {
    return this.#link.call(this.#id, { op: "speculate", speculation });
  }

  outcome(transaction: TransactionId): Promise<"committed" | "aborted" | undefined> {
    return this.#link.call(this.#id, { op: "outcome", transaction });
  }

  answered(key: IdempotencyKey): Promise<CommandResult | undefined> {
    return this.#link.call(this.#id, { op: "answered", key });
  }

  forget(transaction: TransactionId): void {
    // A worker that is gone has forgotten; whoever needs it learns of its end by another call.
    this.#link.call(this.#id, { op: "forget", transaction }).catch(() => {});
  }

  schema(): Promise<SchemaSnapshot> {
    return this.#link.call(this.#id, { op: "schema" });
  }

  onSchema(listener: (schema: SchemaSnapshot) => void): void {
    this.#schemaListeners.push(listener);
  }

  async copy(): Promise<{
    readonly path: string;
    readonly appliedIndex: LogIndex;
    release(): Promise<void>;
  }> {
    const { path, appliedIndex } = await this.#link.call(this.#id, { op: "copy" });
    return { path, appliedIndex, release: () => removeDatabase(path, this.#link.files) };
  }

  state(): RangeState {
    return this.#range.state;
  }

  replayFloor(): LogIndex {
    return this.#range.state.absorbedAt;
  }

  beginning(): RangeBeginning | undefined {
    return this.#range.beginning;
  }

  making(): readonly GroupId[] {
    return this.#status.making ?? [];
  }

  onState(listener: (state: RangeState) => void): void {
    this.#stateListeners.push(listener);
  }

  onSplit(listener: (child: SplitChild) => void): void {
    this.#splitListeners.push(listener);
  }

  prepared(): Promise<readonly PreparedTransaction[]> {
    return this.#link.call(this.#id, { op: "prepared" });
  }

  rowCounts(): Promise<ReadonlyMap<string, number>> {
    return this.#link.call(this.#id, { op: "rowCounts" });
  }

  splitKey(): Promise<Key | undefined> {
    return this.#link.call(this.#id, { op: "splitKey" });
  }
}

/**
 * The serving side of a storage worker: owns the stores, executes a message's requests in order, and answers in one
 * message. Requests that take time (copies, digests, checkpoints that must wait for the disk) answer later.
 *
 * Applies of one store that come one after the other in a message become one batch. After one that failed, those that
 * were sent behind it are refused: they would leave a gap. What is sent once the failure is known follows on what is
 * applied, be it the same entries again, others with them, or what comes after a snapshot.
 */
import { RetryError, toWireError } from "../../base/errors.js";
import type { LogIndex } from "../../base/ids.js";
import { Awake } from "./awake.js";
import { decodeReads, ReadAnswerWriter } from "./read-batch.js";
import { StoreCore, type StoreOptions } from "./store-core.js";
import {
  type AnswerValues,
  pack,
  type StoreAnswer,
  type StoreCall,
  type StoreReply,
  type StoreRequest,
  type StoreStatus,
  unpackEntries,
} from "./store-protocol.js";
import type { RangeState } from "./types.js";

type ApplyRequest = StoreRequest & { readonly call: Extract<StoreCall, { op: "apply" }> };

/** Rows beyond this move between threads instead of being copied. */
const TRANSFER_BYTES = 16 * 1024;

export class StoreServer {
  readonly #options: StoreOptions;
  /** Stores whose last apply failed: what was sent before that was known is refused. */
  readonly #failed = new Map<number, { readonly failures: number; readonly error: unknown }>();
  readonly #post: (reply: StoreReply, transfer: ArrayBuffer[]) => void;
  readonly #stores = new Map<number, StoreCore>();
  /** Stores that end once what is under way in them has. */
  readonly #closing = new Set<number>();
  readonly #awake: Awake;
  readonly #schemaTold = new Map<number, number>();
  readonly #rangeTold = new Map<number, RangeState>();
  /** Stores whose status may have changed since it was last told. */
  readonly #touched = new Set<number>();
  readonly #answerWriter = new ReadAnswerWriter();
  #answers: StoreAnswer[] = [];
  #transfer: ArrayBuffer[] = [];
  #flushing = false;

  constructor(options: StoreOptions, post: (reply: StoreReply, transfer: ArrayBuffer[]) => void) {
    this.#options = options;
    this.#post = post;
    this.#awake = new Awake(options, options.awake);
  }

  handle(requests: readonly StoreRequest[]): void {
    const applied = new Set<StoreCore>();
    for (let i = 0; i < requests.length; i++) {
      const request = requests[i]!;
      if (request.call.op !== "apply") {
        this.#execute(request);
        continue;
      }
      const run: ApplyRequest[] = [];
      for (; isApplyOf(requests[i], request.store); i++) run.push(requests[i] as ApplyRequest);
      i--;
      this.#apply(run);
      const core = this.#stores.get(request.store);
      if (core !== undefined) applied.add(core);
    }
    this.#flush();
    for (const core of applied) this.#maintain(core);
  }

  async close(): Promise<void> {
    for (const core of this.#stores.values()) await core.close();
    this.#stores.clear();
    this.#awake.clear();
  }

  /** As if the process had died; for simulation. */
  abandon(): void {
    for (const core of this.#stores.values()) core.abandon();
    this.#stores.clear();
    this.#awake.clear();
  }

  /** A failure shows up again in the next request, which can be answered with it. */
  #maintain(core: StoreCore): void {
    try {
      core.maintain();
    } catch {
      // SQLite reports the same trouble to the next apply or checkpoint.
    }
  }

  #apply(run: readonly ApplyRequest[]): void {
    const { store, call } = run[0]!;
    this.#touched.add(store);
    const { failures } = call;
    const failed = this.#failed.get(store);
    if (failed !== undefined && failures <= failed.failures) {
      for (const { id } of run) this.#answers.push({ id, error: toWireError(failed.error) });
      return;
    }
    this.#failed.delete(store);
    try {
      const core = this.#store(run[0]!);
      const entries = run.map(({ call }) => unpackEntries(call.entries));
      const { results } = core.apply(entries.flat(), run.at(-1)!.call.upTo);
      let at = 0;
      run.forEach(({ id }, i) => {
        const value = pack(results.slice(at, at + entries[i]!.length));
        at += entries[i]!.length;
        this.#transfer.push(value.bytes.buffer as ArrayBuffer);
        this.#answers.push({ id, value });
      });
    } catch (error) {
      this.#failed.set(store, { failures, error });
      for (const { id } of run) this.#answers.push({ id, error: toWireError(error) });
    }
  }

  #execute(request: StoreRequest): void {
    const { id, call } = request;
    try {
      const value = this.#run(request);
      if (!(value instanceof Promise)) {
        this.#answers.push({ id, value });
        return;
      }
      value.then(
        (later: unknown) => this.#answerLater(request, { id, value: later }),
        (error: unknown) => this.#answerLater(request, { id, error: toWireError(error) }),
      );
    } catch (error) {
      if (call.op === "open") this.#stores.delete(request.store);
      this.#answers.push({ id, error: toWireError(error) });
    }
  }

  #answerLater({ store, call }: StoreRequest, answer: StoreAnswer): void {
    if (call.op === "restore") this.#touched.add(store);
    this.#answers.push(answer);
    this.#flushSoon();
  }

  #flushSoon(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => this.#flush());
  }

  #run(request: StoreRequest): unknown {
    const { call, store } = request;
    if (call.op === "open") {
      const core = new StoreCore(call.path, this.#options);
      core.onNews = () => {
        this.#touched.add(store);
        this.#flushSoon();
      };
      this.#stores.set(store, core);
      this.#touched.add(store);
      const applied = core.open();
      this.#awake.use(store, core);
      return applied;
    }
    const core = this.#store(request);
    switch (call.op) {
      case "reads":
        return this.#reads(core, call.reads);
      case "speculate": {
        const answer = core.speculate(call.speculation);
        if (answer.kind === "ran" && !Array.isArray(answer.outcome) && "rows" in answer.outcome)
          this.#transferRows(answer.outcome.rows);
        return answer;
      }
      case "forget":
        return core.forget(call.transaction);
      case "outcome":
        return core.outcome(call.transaction);
      case "answered":
        return core.answered(call.key);
      case "schema":
        return core.schema();
      case "prepared":
        return core.prepared();
      case "rowCounts":
        return core.rowCounts();
      case "splitKey":
        return core.splitKey();
      case "checkpoint":
        return core.checkpoint();
      case "copy":
        return core.copy();
      case "digest":
        return core.digest();
      case "restore":
        return core.restore(call.file);
      case "close":
        this.#awake.delete(store);
        this.#closing.add(store);
        return core.close().finally(() => this.#forget(store));
      default:
        throw new Error(`unknown request ${call.op}`);
    }
  }

  #reads(core: StoreCore, reads: Uint8Array): AnswerValues["reads"] {
    for (const read of decodeReads(reads)) {
      try {
        this.#answerWriter.ran(core.read(read));
      } catch (error) {
        this.#answerWriter.failed(toWireError(error));
      }
    }
    const answers = this.#answerWriter.take();
    this.#transfer.push(answers.buffer as ArrayBuffer);
    return { appliedIndex: core.appliedIndex, held: core.held(), answers };
  }

  #transferRows(rows: Uint8Array): void {
    if (rows.length >= TRANSFER_BYTES) this.#transfer.push(rows.buffer as ArrayBuffer);
  }

  #store({ store }: StoreRequest): StoreCore {
    const core = this.#stores.get(store);
    // The node is stopping, or the replica has left it; whoever asked can ask elsewhere.
    if (core === undefined || this.#closing.has(store))
      throw new RetryError("OSTRAKA_UNAVAILABLE", "the replica on this node has been closed");
    this.#awake.use(store, core);
    return core;
  }

  #forget(store: number): void {
    for (const known of [this.#stores, this.#closing, this.#failed, this.#schemaTold, this.#rangeTold])
      known.delete(store);
  }

  #flush(): void {
    this.#flushing = false;
    const statuses = [...this.#touched].flatMap((store) => this.#status(store));
    this.#touched.clear();
    const answers = this.#answers;
    const transfer = this.#transfer;
    this.#answers = [];
    this.#transfer = [];
    if (answers.length + statuses.length > 0) this.#post({ statuses, answers }, transfer);
  }

  #status(store: number): StoreStatus[] {
    const core = this.#stores.get(store);
    // What is being closed has nothing to say any more, and cannot be asked.
    if (core === undefined || this.#closing.has(store)) return [];
    const appliedIndex: LogIndex = core.appliedIndex;
    const children = core.takeChildren();
    const { making } = core;
    const status = {
      store,
      appliedIndex,
      lastWallMs: core.lastWallMs,
      ...core.size(),
      ...(making.length > 0 && { making }),
      ...(children.length > 0 && { children }),
    };
    const version = core.schemaVersion;
    const state = core.rangeState;
    if (this.#schemaTold.get(store) === version && this.#rangeTold.get(store) === state) return [status];
    const schema = this.#schemaTold.get(store) === version ? undefined : core.schema();
    const range =
      state === undefined || this.#rangeTold.get(store) === state
        ? undefined
        : { state, beginning: core.beginning() };
    this.#schemaTold.set(store, version);
    if (state !== undefined) this.#rangeTold.set(store, state);
    return [{ ...status, ...(schema && { schema }), ...(range && { range }) }];
  }
}

function isApplyOf(request: StoreRequest | undefined, store: number): request is ApplyRequest {
  return request?.call.op === "apply" && request.store === store;
}

/**
 * Keeps logs short: a group whose log has grown beyond its bounds, or that holds back the oldest segment of the
 * shared log, is checkpointed, and what the checkpoint covers is cut but for a tail that spares followers a snapshot.
 * So neither disk space nor the time to restart grows with the number of writes ever made.
 *
 * Invariants:
 * 1. Nothing is cut that the machine does not have durably: the cut is at or below what `checkpoint()` answered.
 * 2. One checkpoint at a time on a node: they compete for the same disk.
 * 3. What a snapshot on its way will need is kept, unless the log has grown to several times its bound.
 */
import { type LogIndex, logIndex } from "../base/ids.js";
import type { DurableLog } from "../log/types.js";
import { isDiskFull } from "../log/writer.js";
import type { HostLogger, HostOptions } from "./options.js";
import type { Replica } from "./replica.js";

/** Times `maxLogEntries` (or bytes) beyond which a slow snapshot or follower no longer holds the log back. */
const HARD_FACTOR = 4;
/** The part of its bound by which a log must have grown since the last checkpoint before the next. */
const REST_FACTOR = 8;

export interface CompactorHost {
  readonly log: DurableLog;
  readonly options: HostOptions;
  readonly logger: HostLogger;
  fail(error: unknown): void;
}

export class Compactor {
  readonly #host: CompactorHost;
  readonly #waiting = new Map<Replica, boolean>();
  #running: Promise<void> | undefined;
  #stopped = false;
  checkpoints = 0;

  constructor(host: CompactorHost) {
    this.#host = host;
  }

  /** Called when a group has applied something: cheap unless its log is due. */
  consider(replica: Replica): void {
    const { maxLogEntries, maxLogBytes } = this.#host.options;
    const applied = replica.applier.appliedIndex;
    const entries = applied - replica.log.base().index;
    if (entries < maxLogEntries && (replica.logBytes < maxLogBytes || entries <= 1)) return;
    // What was kept last time, for a snapshot on its way, may still be needed: not at every apply again.
    const { index, bytes } = replica.lastCheckpoint;
    const grown = replica.logBytes - bytes >= maxLogBytes / REST_FACTOR;
    if (applied - index < maxLogEntries / REST_FACTOR && !grown) return;
    this.#enqueue(replica, false);
  }

  /** Checkpoints a group now and leaves no tail; for the one that holds back the oldest segment. */
  force(replica: Replica): void {
    this.#enqueue(replica, true);
  }

  /** Starts nothing more; resolves once the checkpoint under way is done. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#waiting.clear();
    await this.#running;
  }

  #enqueue(replica: Replica, force: boolean): void {
    if (this.#stopped || replica.closed || replica.checkpointing) return;
    this.#waiting.set(replica, force || (this.#waiting.get(replica) ?? false));
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  async #run(): Promise<void> {
    // Let the turn that asked finish first.
    await Promise.resolve();
    for (;;) {
      const next = this.#waiting.entries().next();
      if (next.done || this.#stopped) return;
      const [replica, force] = next.value;
      this.#waiting.delete(replica);
      if (replica.closed) continue;
      replica.checkpointing = true;
      try {
        const checkpointed = await replica.machine.checkpoint();
        // The machine may have applied what this thread has not heard of, nor will while there is no disk space.
        const durable = logIndex(Math.min(checkpointed, replica.applier.appliedIndex));
        this.#cut(replica, durable, force);
        replica.lastCheckpoint = { index: durable, bytes: replica.logBytes };
        this.checkpoints++;
      } catch (error) {
        if (replica.closed) continue;
        if (!isDiskFull(error)) {
          this.#host.fail(error);
          return;
        }
        // Nothing was cut, so nothing is lost; tried again when the log has grown further.
        this.#host.logger.error(
          { group: replica.group, reason: error.message },
          "no disk space to checkpoint",
        );
        replica.lastCheckpoint = { index: replica.applier.appliedIndex, bytes: replica.logBytes };
      } finally {
        replica.checkpointing = false;
      }
    }
  }

  #cut(replica: Replica, durable: LogIndex, force: boolean): void {
    if (replica.closed) return;
    const base = replica.log.base().index;
    const at = this.#cutIndex(replica, durable, force);
    if (at <= base) return;
    const term = replica.log.term(at);
    // The log may have been replaced by a snapshot while the checkpoint ran.
    if (term === undefined) return;
    const entriesBefore = replica.log.lastIndex() - base;
    this.#host.log.compact(replica.group, { index: at, term, conf: replica.node.confAt(at) });
    const kept = replica.log.lastIndex() - at;
    replica.logBytes = entriesBefore > 0 ? Math.round((replica.logBytes * kept) / entriesBefore) : 0;
    this.#host.logger.debug({ group: replica.group, at, kept }, "log cut behind a checkpoint");
  }

  #cutIndex(replica: Replica, durable: LogIndex, force: boolean): LogIndex {
    const { maxLogEntries, maxLogBytes, tailEntries, tailBytes } = this.#host.options;
    const base = replica.log.base().index;
    const entries = Math.max(1, replica.log.lastIndex() - base);
    const overgrown = entries > maxLogEntries * HARD_FACTOR || replica.logBytes > maxLogBytes * HARD_FACTOR;
    let at: number = durable;
    if (!force) {
      const entryBytes = Math.max(1, replica.logBytes / entries);
      const tail = Math.min(
        tailEntries,
        maxLogEntries / 2,
        Math.min(tailBytes, maxLogBytes / 2) / entryBytes,
      );
      at = durable - Math.floor(tail);
    }
    const floor = replica.logFloor();
    if (floor !== undefined && !overgrown) at = Math.min(at, floor);
    return logIndex(Math.max(base, at));
  }
}

/**
 * What this node knows of the database's ranges, and how to reach their leaders: RangesView for the gateway.
 *
 * The directory is put together from three sources, of which the newest wins: this node's replica of meta, the
 * replicas of ranges on this node, and what ranges that were asked in vain have said (RouteError.moved).
 *
 * Invariant: the directory only learns; of each range it never goes back to an older generation.
 */
import { RetryError } from "../../base/errors.js";
import { type GroupId, type LogIndex, NO_NODE, type NodeId, type TransactionId } from "../../base/ids.js";
import type { Clock } from "../../base/io.js";
import { pause } from "../../base/waits.js";
import type { CoordinatorService, Decision } from "../../coordinator/types.js";
import { RangeClient } from "../../gateway/range-client.js";
import { type LocalRange, PATIENCE_MS, type RangesView } from "../../gateway/ranges.js";
import type { MetaMachine } from "../../machines/meta/meta.js";
import type { SchemaSnapshot } from "../../machines/range/types.js";
import type { RangeDescriptor } from "../../placement/descriptor.js";
import { RangeDirectory } from "../../placement/directory.js";
import { Schema } from "../../range/schema.js";
import type { RangeService } from "../../range/types.js";
import { anyIntersect, SCHEMA } from "../../txn/spans.js";
import type { MetaClient } from "../meta-client.js";
import type { HostedRange } from "./hosted-range.js";
import type { Ranges, RangesListener } from "./ranges.js";

const REFRESH_MS = 10_000;
const REFRESH_PAUSE_MS = 25;
/** How long the count of who leads how many ranges stays good. */
const COUNT_LEADERS_MS = 1000;

export interface ViewOptions {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly graceMs: number;
  readonly ranges: Ranges;
  readonly meta: MetaMachine;
  readonly metaClient: Pick<MetaClient, "catchUp">;
  readonly remote: (node: NodeId, range: GroupId) => RangeService;
  /** Asks a node who leads a range as far as it knows. */
  readonly askLeader: (node: NodeId, range: GroupId) => Promise<NodeId>;
  readonly coordinator: CoordinatorService;
  /** See RangesView. */
  readonly calm: (ms: number) => void;
}

export class NodeRangesView implements RangesView, RangesListener {
  readonly #options: ViewOptions;
  readonly #clients = new Map<GroupId, RangeClient>();
  /** Replicas that their range's client knows of. */
  readonly #attached = new WeakSet<HostedRange>();
  readonly #listeners = new Set<(directory: RangeDirectory) => void>();
  #directory = new RangeDirectory([]);
  /** Meta's descriptors as taken in last; those that are the same objects bring nothing new. */
  #fromMeta: ReadonlySet<RangeDescriptor> = new Set();
  #refreshing: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #mainLeader: NodeId | undefined;
  #countedMs = Number.NEGATIVE_INFINITY;
  /** Where no replica is here. */
  #remoteSchema: Schema | undefined;
  readonly coordinator: CoordinatorService;

  constructor(options: ViewOptions) {
    this.#options = options;
    this.coordinator = options.coordinator;
    options.ranges.listen(this);
    for (const hosted of options.ranges.all.values()) if (hosted.filled) this.changed(hosted);
    options.meta.onChange(() => this.#takeMeta());
    this.#takeMeta();
  }

  // --- the directory ------------------------------------------------------------------------------------------------

  directory(): RangeDirectory {
    return this.#directory;
  }

  learn(moved: string): void {
    const descriptors = parseMoved(moved);
    if (descriptors.length > 0) this.#merge(descriptors);
  }

  onChange(listener: (directory: RangeDirectory) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #takeMeta(): void {
    const { ranges } = this.#options.meta.state;
    const fresh = ranges.filter((range) => !this.#fromMeta.has(range));
    this.#fromMeta = new Set(ranges);
    if (fresh.length > 0) this.#merge(fresh);
  }

  #merge(descriptors: readonly RangeDescriptor[]): void {
    const { meta } = this.#options;
    const directory = this.#directory.with(descriptors.filter(({ range }) => !meta.isMerged(range)));
    if (directory === this.#directory) return;
    for (const range of this.#clients.keys()) if (meta.isMerged(range)) this.#clients.delete(range);
    this.#become(directory);
  }

  #become(directory: RangeDirectory): void {
    this.#directory = directory;
    for (const listener of this.#listeners) listener(directory);
  }

  refresh(): Promise<void> {
    // Whoever asks while a round is under way needs one that begins after; all of those share the next.
    if (this.#refreshing !== undefined) {
      this.#next ??= this.#refreshing.catch(() => undefined).then(() => this.#startRefresh());
      return this.#next;
    }
    return this.#startRefresh();
  }

  #startRefresh(): Promise<void> {
    this.#next = undefined;
    const round = this.#refresh().finally(() => {
      this.#refreshing = undefined;
    });
    this.#refreshing = round;
    return round;
  }

  async #refresh(): Promise<void> {
    const { clock, metaClient } = this.#options;
    const untilMs = clock.monotonicMs() + REFRESH_MS;
    for (;;) {
      const leftMs = untilMs - clock.monotonicMs();
      if (leftMs <= 0)
        throw new RetryError("OSTRAKA_UNAVAILABLE", "where all of the ranges are could not be found out");
      await metaClient.catchUp(leftMs).catch((error: unknown) => {
        throw new RetryError("OSTRAKA_UNAVAILABLE", `meta does not answer: ${String(error)}`, {
          cause: error,
        });
      });
      this.#takeMeta();
      // One half of a split may be reported before the other.
      if (this.#directory.complete) return;
      // While ranges split all the time there may be no moment at which it is.
      if (leftMs < REFRESH_MS - PATIENCE_MS) this.calm(leftMs);
      await pause(clock, REFRESH_PAUSE_MS);
    }
  }

  calm(ms: number): void {
    this.#options.calm(ms);
  }

  // --- replicas here ------------------------------------------------------------------------------------------------

  opened(hosted: HostedRange): void {
    if (hosted.filled) this.changed(hosted);
  }

  changed(hosted: HostedRange): void {
    const client = this.#clients.get(hosted.range);
    if (client !== undefined && !this.#attached.has(hosted)) this.#attach(client, hosted);
    const { descriptor, frozenInto } = hosted.store.state();
    if (frozenInto !== undefined) {
      this.#inherit(hosted);
      return;
    }
    // Of who has a replica, one that hears no leader may be the last to know.
    const known = this.#directory.get(hosted.range)?.generation ?? 0;
    if (descriptor.generation > known || hosted.handle.leader !== NO_NODE) this.#merge([hosted.descriptor()]);
  }

  closed(hosted: HostedRange): void {
    const { meta } = this.#options;
    if (hosted.filled) this.#inherit(hosted);
    this.#clients.get(hosted.range)?.detach();
    // Where the others are, a replica that has left was the last to know; and meta says nothing twice.
    const known = meta.directory.get(hosted.range);
    if (known !== undefined) this.#merge([known]);
    // Another object: who has looked up what is here looks again.
    this.#become(new RangeDirectory(this.#directory.ranges));
  }

  local(range: GroupId): LocalRange | undefined {
    const hosted = this.#options.ranges.get(range);
    return hosted?.filled ? hosted : undefined;
  }

  // --- leaders ------------------------------------------------------------------------------------------------------

  #attach(client: RangeClient, hosted: HostedRange): void {
    this.#attached.add(hosted);
    client.attach({ handle: hosted.handle, service: hosted.leader });
  }

  mainLeader(): NodeId | undefined {
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs >= this.#countedMs + COUNT_LEADERS_MS) {
      this.#countedMs = nowMs;
      this.#mainLeader = this.#countLeaders();
    }
    return this.#mainLeader;
  }

  #countLeaders(): NodeId | undefined {
    const led = new Map<NodeId, number>();
    const { ranges } = this.#directory;
    for (const { range } of ranges) {
      const leader = this.client(range).leader ?? NO_NODE;
      if (leader !== NO_NODE) led.set(leader, (led.get(leader) ?? 0) + 1);
    }
    for (const [node, count] of led) if (count * 4 >= ranges.length * 3) return node;
    return undefined;
  }

  client(range: GroupId): RangeClient {
    let client = this.#clients.get(range);
    if (client === undefined) {
      const { self, clock, graceMs, ranges, remote, askLeader } = this.#options;
      client = new RangeClient({
        range,
        self,
        clock,
        graceMs,
        hosted: undefined,
        candidates: () => this.#directory.get(range)?.replicas ?? [],
        remote: (node) => remote(node, range),
        ask: (node) => askLeader(node, range),
      });
      this.#clients.set(range, client);
      const hosted = ranges.get(range);
      if (hosted?.filled) this.#attach(client, hosted);
    }
    return client;
  }

  /** Tells a range what became of a transaction; one that was merged away had nothing prepared. */
  async resolve(range: GroupId, transaction: TransactionId, decision: Decision): Promise<void> {
    if (this.#options.meta.isMerged(range)) return;
    await this.client(range).resolve(transaction, decision);
  }

  // --- the schema ---------------------------------------------------------------------------------------------------

  /** A range that takes part in every change of the schema: one that is frozen does not any more. */
  #informed(): HostedRange | undefined {
    for (const hosted of this.#options.ranges.all.values())
      if (hosted.filled && hosted.store.state().frozenInto === undefined) return hosted;
    return undefined;
  }

  schema(): Schema {
    const hosted = this.#informed();
    if (hosted !== undefined) return hosted.schema;
    if (this.#remoteSchema === undefined)
      throw new RetryError("OSTRAKA_UNAVAILABLE", "the schema is not known yet on this node");
    return this.#remoteSchema;
  }

  /** What a replica knew that hears of no more changes is known here still, should no other be left. */
  #inherit({ schema: { snapshot, version } }: HostedRange): void {
    if (version > (this.#remoteSchema?.version ?? -1)) this.#learnSchema(snapshot);
  }

  #learnSchema(snapshot: SchemaSnapshot): void {
    if (this.#remoteSchema === undefined)
      this.#remoteSchema = Schema.of(snapshot, this.#options.ranges.schemas);
    else this.#remoteSchema.update(snapshot);
  }

  async refreshSchema(): Promise<void> {
    const hosted = this.#informed();
    if (hosted !== undefined) return this.#catchUp(hosted);
    const [first] = this.#directory.ranges;
    if (first === undefined) throw new RetryError("OSTRAKA_UNAVAILABLE", "no range is known yet");
    const client = this.client(first.range);
    await readPoint(client);
    this.#learnSchema(await client.schema());
  }

  async #catchUp({ range, handle }: HostedRange): Promise<void> {
    return handle.waitApplied(await readPoint(this.client(range)));
  }
}

/** A point behind every change of the schema that was decided, and perhaps told, before the call. */
async function readPoint(client: RangeService): Promise<LogIndex> {
  for (;;) {
    const { index, held } = await client.readPoint();
    if (held === undefined || !anyIntersect(held, [SCHEMA])) return index;
    await client.awaitHolds([SCHEMA]);
  }
}

/** Whatever is not a list of descriptors counts as none. */
function parseMoved(moved: string): RangeDescriptor[] {
  try {
    const descriptors = JSON.parse(moved) as unknown;
    return Array.isArray(descriptors) ? descriptors.filter(isDescriptor) : [];
  } catch {
    return [];
  }
}

function isDescriptor(value: unknown): value is RangeDescriptor {
  const { range, start, end, generation, replicas } = (value ?? {}) as Partial<RangeDescriptor>;
  return (
    Number.isSafeInteger(range) &&
    typeof start === "string" &&
    typeof end === "string" &&
    Number.isSafeInteger(generation) &&
    Array.isArray(replicas) &&
    replicas.every((node) => Number.isSafeInteger(node))
  );
}

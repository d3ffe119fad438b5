/**
 * One consistent snapshot over several ranges, pinned in a runner. Each range's leader fences the spans (no new write
 * enters, everything in flight is applied), the ranges are pinned as of then, and only when all are pinned are the
 * fences released; every release confirms, by a quorum, that its fence stood all the time. So there was a moment at
 * which all pins were the current state. Writers wait a round trip; whoever reads then reads as long as it likes.
 *
 * A transaction that is validated whole before anything of it is told needs no such moment (`fenced: false`): each range is
 * pinned as of some moment after the transaction was opened there, and nobody waits for that.
 *
 * Invariants:
 * 1. A pin counts only where the range was still what the directory said (same generation), and had the schema that
 *    statements are analysed by; without fences the commit is refused where it has got another since.
 * 2. Nothing of a snapshot with fences that was not confirmed whole is ever read.
 */
import { RetryError, RouteError } from "../base/errors.js";
import type { GroupId, LogIndex, Term, TransactionId } from "../base/ids.js";
import type { Runner, SchemaSnapshot } from "../machines/range/types.js";
import type { RangeDescriptor } from "../placement/descriptor.js";
import type { PinPoint, ReadPoint } from "../range/types.js";
import type { Span } from "../sql/types.js";
import { EVERYTHING, SCHEMA } from "../txn/spans.js";
import { type GatewayDatabase, moved } from "./database.js";
import type { Deadline } from "./deadline.js";
import { PATIENCE_MS } from "./ranges.js";
import { type Replica, reach } from "./replica.js";
import type { RemoteSource } from "./sources.js";

/** How long fences stand for the answers' way and the process, and for each range that is to be pinned meanwhile. */
const FENCE_MS = 1_000;
const PIN_MS = 10;

export interface PinnedRange {
  readonly descriptor: RangeDescriptor;
  readonly index: LogIndex;
  readonly term: Term;
  /** The runner's number of the source, or a pin on another node. */
  readonly source: number | RemoteSource;
}

export interface SnapshotOptions {
  /** The spans to be read, so far as they are known. */
  readonly spans: readonly Span[];
  /** Pins every range, whatever the spans. */
  readonly everywhere: boolean;
  /**
   * Opens this transaction at the leaders first, so that what is read can be validated when it commits; `begun` gets the
   * ranges of those that may know of it.
   */
  readonly transaction?:
    | {
        readonly id: TransactionId;
        readonly ageMs: number;
        readonly begun: Set<GroupId>;
        readonly fenced: boolean;
      }
    | undefined;
}

export interface Snapshot {
  readonly pins: ReadonlyMap<GroupId, PinnedRange>;
  readonly schema: SchemaSnapshot;
  /** The latest of the leaders' clocks. */
  readonly wallMs: number;
}

/** The process for the pins, as an attempt has it that is not waited for any more when it is stopped. */
interface Lent {
  readonly runner: Runner;
  givenUp: boolean;
  /** The attempt may have pins there. */
  inUse: boolean;
}

/**
 * Takes a snapshot; the runner holds its pins as sources until `dropSources`. When it fails, nothing of it is left, and
 * nothing more of it reaches the runner: what others pin there would be dropped, or taken for something else.
 */
export async function takeSnapshot(
  db: GatewayDatabase,
  runner: Runner,
  options: SnapshotOptions,
  deadline: Deadline,
): Promise<Snapshot> {
  const lent: Lent = { runner, givenUp: false, inUse: false };
  const startedMs = db.clock.monotonicMs();
  const take = (tries: number): Promise<Snapshot> => {
    const beforeMs = options.everywhere ? (options.transaction?.ageMs ?? 0) : 0;
    const triedMs = beforeMs + db.clock.monotonicMs() - startedMs;
    // Ranges change all the time, and it takes longer than from one change to the next.
    if (triedMs >= PATIENCE_MS) db.ranges.calm(2 * triedMs);
    return attempt(db, lent, options, deadline, tries).catch((error: unknown) => {
      throw runner.dead ? new WithoutProcess(error) : error;
    });
  };
  try {
    return await db.persist(deadline, take, undefined, ({ pins }) => closeSources(pins));
  } catch (error) {
    lent.givenUp = true;
    if (lent.inUse) runner.kill();
    const cause = error instanceof WithoutProcess ? error.cause : error;
    // Nobody asks elsewhere any more: where to go instead is not for the user.
    throw cause instanceof RouteError
      ? new RetryError("OSTRAKA_UNAVAILABLE", cause.message, { cause })
      : cause;
  }
}

/** The process has died: another attempt would find it so, and whoever takes another process may have one. */
class WithoutProcess extends Error {
  constructor(cause: unknown) {
    super("the process for the pins has died", { cause });
  }
}

function closeSources(pins: ReadonlyMap<GroupId, PinnedRange>): void {
  for (const { source } of pins.values()) if (typeof source !== "number") source.close();
}

async function attempt(
  db: GatewayDatabase,
  lent: Lent,
  options: SnapshotOptions,
  deadline: Deadline,
  tries: number,
): Promise<Snapshot> {
  const schema = db.ranges.schema().snapshot;
  const touched = options.everywhere ? db.ranges.directory().ranges : db.rangesOf(options.spans);
  const ranges = touched.length === 0 ? [db.first] : touched;
  const { transaction } = options;
  if (transaction !== undefined) {
    const { id, ageMs: age, begun, fenced } = transaction;
    for (const { range } of ranges) begun.add(range);
    const begin = { reserve: undefined, age };
    const points = await Promise.all(ranges.map(({ range }) => db.client(range).begin(id, begin)));
    if (!fenced) {
      await checkSchema(db, points, schema);
      return pinEach(db, lent, ranges, points, schema, deadline);
    }
  }
  const id = `${Array.from(db.random.bytes(9), (byte) => byte.toString(16).padStart(2, "0")).join("")}-${tries}`;
  const rows = options.spans.filter((span) => span.table !== SCHEMA.table);
  // A change of the schema that is decided, and told, may not be applied everywhere yet.
  const spans = options.everywhere ? [EVERYTHING] : [SCHEMA, ...rows];
  const standMs = FENCE_MS + PIN_MS * ranges.length;
  const fences = await Promise.allSettled(
    ranges.map(({ range, generation }) => db.client(range).fence(id, spans, generation, standMs)),
  );
  const pins = new Map<GroupId, PinnedRange>();
  try {
    for (const fence of fences) if (fence.status === "rejected") throw fence.reason;
    const points = fences.map((fence) => (fence as PromiseFulfilledResult<PinPoint>).value);
    await checkSchema(db, points, schema);
    if (lent.givenUp) throw deadline.reason();
    lent.inUse = true;
    await pinAll(db, lent.runner, ranges, points, pins, deadline);
    const stood = await Promise.all(
      ranges.map(({ range }, i) => db.client(range).release(id, points[i]!.term)),
    );
    if (stood.includes(false)) throw new RetryError("OSTRAKA_UNAVAILABLE", "a range's leader changed");
    return { pins, schema, wallMs: latest(points) };
  } catch (error) {
    for (const [i, fence] of fences.entries()) {
      if (fence.status === "fulfilled")
        void db
          .client(ranges[i]!.range)
          .release(id, fence.value.term)
          .catch(() => {});
    }
    await unpin(lent, pins);
    throw error;
  }
}

/** Each as of its own point or later. */
async function pinEach(
  db: GatewayDatabase,
  lent: Lent,
  ranges: readonly RangeDescriptor[],
  points: readonly ReadPoint[],
  schema: SchemaSnapshot,
  deadline: Deadline,
): Promise<Snapshot> {
  const pins = new Map<GroupId, PinnedRange>();
  if (lent.givenUp) throw deadline.reason();
  lent.inUse = true;
  try {
    await pinAll(db, lent.runner, ranges, points, pins, deadline);
    return { pins, schema, wallMs: latest(points) };
  } catch (error) {
    await unpin(lent, pins);
    throw error;
  }
}

async function checkSchema(
  db: GatewayDatabase,
  points: readonly PinPoint[],
  schema: SchemaSnapshot,
): Promise<void> {
  if (points.every(({ schemaVersion }) => schemaVersion === schema.version)) return;
  await db.ranges.refreshSchema();
  throw new RetryError("OSTRAKA_UNAVAILABLE", "the schema has changed meanwhile");
}

function latest(points: readonly ReadPoint[]): number {
  return Math.max(...points.map(({ wallMs }) => wallMs));
}

async function unpin(lent: Lent, pins: ReadonlyMap<GroupId, PinnedRange>): Promise<void> {
  closeSources(pins);
  if (lent.inUse && !lent.runner.dead) await lent.runner.dropSources();
  lent.inUse = false;
}

/** Here what lies here, and the rest on other nodes meanwhile: the fences stand as long as the slower of both takes. */
async function pinAll(
  db: GatewayDatabase,
  runner: Runner,
  ranges: readonly RangeDescriptor[],
  points: readonly ReadPoint[],
  pins: Map<GroupId, PinnedRange>,
  deadline: Deadline,
): Promise<void> {
  const replicas = ranges.map(({ range }) => db.replica(range));
  const here = ranges.map(async (descriptor, i): Promise<void> => {
    const replica = replicas[i];
    if (replica !== undefined)
      pins.set(descriptor.range, await pinHere(runner, replica, descriptor, points[i]!, deadline));
  });
  const elsewhere = async (): Promise<void> => {
    const wanted = ranges.flatMap((descriptor, i) =>
      replicas[i] === undefined ? [{ descriptor, index: points[i]!.index }] : [],
    );
    if (wanted.length === 0) return;
    const sources = await db.sources.open(wanted, deadline);
    for (const [i, descriptor] of ranges.entries()) {
      const source = sources.get(descriptor.range);
      if (source !== undefined)
        pins.set(descriptor.range, { descriptor, term: points[i]!.term, index: source.appliedIndex, source });
    }
  };
  // None goes on behind the back of whoever cleans up after the others.
  for (const end of await Promise.allSettled([...here, elsewhere()]))
    if (end.status === "rejected") throw end.reason;
}

async function pinHere(
  runner: Runner,
  replica: Replica,
  descriptor: RangeDescriptor,
  { term, index }: ReadPoint,
  deadline: Deadline,
): Promise<PinnedRange> {
  await reach(replica, index, deadline);
  const { source, appliedIndex } = await runner.addSource(replica.store.path);
  // What the pin shows may be newer than what this thread knows of the range.
  await reach(replica, appliedIndex, deadline);
  if (replica.store.state().descriptor.generation !== descriptor.generation) throw moved();
  return { descriptor, term, index: appliedIndex, source };
}

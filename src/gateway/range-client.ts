/**
 * The range's leader as seen from any node, with or without a replica of the range: group-route.ts finds it.
 *
 * Read points asked for while a round is under way share the next one: only who asked before a round began may use it.
 */
import type { GroupId, NodeId, Term, TransactionId } from "../base/ids.js";
import type { Key } from "../base/keys.js";
import type { CommandResult, IdempotencyKey, SchemaSnapshot } from "../machines/range/types.js";
import type { RangeDescriptor } from "../placement/descriptor.js";
import type {
  CopyCommit,
  LocalRead,
  PinPoint,
  PrepareRequest,
  RangeService,
  RangeStatus,
  ReadPoint,
  TransactionStatement,
  TransactionStatementAnswer,
  Vote,
  WriteRequest,
} from "../range/types.js";
import type { Span } from "../sql/types.js";
import { GroupRoute, type GroupRouteOptions, type Hosted } from "./group-route.js";

/** Makes a RangeService that forwards to a node. */
export type RemoteRange = (node: NodeId) => RangeService;

export interface RangeClientOptions extends Omit<GroupRouteOptions<RangeService>, "remote"> {
  readonly range: GroupId;
  readonly remote: RemoteRange;
}

export class RangeClient implements RangeService {
  readonly group: GroupId;
  readonly #route: GroupRoute<RangeService>;
  /** The round that has not begun: whoever asks now shares it. */
  #gathering: Promise<ReadPoint> | undefined;
  /** Settles when the round under way has ended, however. */
  #running: Promise<void> | undefined;

  constructor(options: RangeClientOptions) {
    this.group = options.range;
    this.#route = new GroupRoute(options);
  }

  /** A replica of the range is on this node from now on. */
  attach(hosted: Hosted<RangeService>): void {
    this.#route.attach(hosted);
  }

  /** The replica was moved away. */
  detach(): void {
    this.#route.detach();
  }

  /** As far as this node knows. */
  get leader(): NodeId | undefined {
    return this.#route.leader;
  }

  #call<T>(work: (leader: RangeService) => Promise<T>): Promise<T> {
    return this.#route.call(work);
  }

  readPoint(): Promise<ReadPoint> {
    this.#gathering ??= (this.#running ?? Promise.resolve()).then(() => {
      const round = this.#call((leader) => leader.readPoint());
      this.#gathering = undefined;
      const running = round.then(ignore, ignore).then(() => {
        if (this.#running === running) this.#running = undefined;
      });
      this.#running = running;
      return round;
    });
    return this.#gathering;
  }

  write(request: WriteRequest) {
    const here = this.#route.leadingHere;
    if (here !== undefined) return here.write(request);
    return this.#call((leader) => leader.write(request));
  }

  batch(request: Parameters<RangeService["batch"]>[0]) {
    return this.#call((leader) => leader.batch(request));
  }

  begin(transaction: TransactionId, options: Parameters<RangeService["begin"]>[1]): Promise<PinPoint> {
    return this.#call((leader) => leader.begin(transaction, options));
  }

  run(statement: TransactionStatement): Promise<TransactionStatementAnswer> {
    return this.#call((leader) => leader.run(statement));
  }

  recheck(transaction: TransactionId, ordinal: number): Promise<void> {
    return this.#call((leader) => leader.recheck(transaction, ordinal));
  }

  truncate(transaction: TransactionId, ordinal: number): Promise<void> {
    return this.#call((leader) => leader.truncate(transaction, ordinal));
  }

  commit(
    transaction: TransactionId,
    key: IdempotencyKey,
    reads: readonly LocalRead[],
    ran?: number,
  ): Promise<CommandResult> {
    return this.#call((leader) => leader.commit(transaction, key, reads, ran));
  }

  commitCopy(commit: CopyCommit, reads: readonly LocalRead[]): Promise<CommandResult> {
    return this.#call((leader) => leader.commitCopy(commit, reads));
  }

  rollback(transaction: TransactionId): Promise<void> {
    return this.#call((leader) => leader.rollback(transaction));
  }

  outcome(transaction: TransactionId, generation: number): Promise<"committed" | "aborted" | "unknown"> {
    return this.#call((leader) => leader.outcome(transaction, generation));
  }

  answered(key: IdempotencyKey, generation: number): Promise<CommandResult | undefined> {
    return this.#call((leader) => leader.answered(key, generation));
  }

  setPragma(
    name: "user_version" | "application_id",
    value: number,
    key: IdempotencyKey,
  ): Promise<CommandResult> {
    return this.#call((leader) => leader.setPragma(name, value, key));
  }

  read(request: Parameters<RangeService["read"]>[0]) {
    return this.#call((leader) => leader.read(request));
  }

  awaitHolds(spans: readonly Span[]): Promise<void> {
    return this.#call((leader) => leader.awaitHolds(spans));
  }

  prepare(request: PrepareRequest): Promise<Vote> {
    return this.#call((leader) => leader.prepare(request));
  }

  resolve(transaction: TransactionId, decision: "committed" | "aborted"): Promise<void> {
    return this.#call((leader) => leader.resolve(transaction, decision));
  }

  fence(id: string, spans: readonly Span[], generation: number, standMs: number): Promise<PinPoint> {
    return this.#call((leader) => leader.fence(id, spans, generation, standMs));
  }

  release(id: string, term: Term): Promise<boolean> {
    return this.#call((leader) => leader.release(id, term));
  }

  split(at: Key | undefined, child: GroupId): Promise<RangeDescriptor> {
    return this.#call((leader) => leader.split(at, child));
  }

  freeze(into: GroupId): Promise<RangeDescriptor> {
    return this.#call((leader) => leader.freeze(into));
  }

  absorb(right: RangeDescriptor, ready: readonly NodeId[]): Promise<RangeDescriptor> {
    return this.#call((leader) => leader.absorb(right, ready));
  }

  describe(): Promise<RangeStatus> {
    return this.#call((leader) => leader.describe());
  }

  schema(): Promise<SchemaSnapshot> {
    return this.#call((leader) => leader.schema());
  }
}

function ignore(): void {}

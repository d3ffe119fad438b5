/**
 * The range's leader as seen from any node: calls go to the local leader directly, or over the peer connection to the
 * node believed to lead. A RouteError's hint is remembered; trying again is the caller's business (Deadline.persist).
 *
 * A leader that hangs would keep its callers waiting long after others have replaced it. Once this node knows of
 * another leader, calls to the old one are given up after a grace in which a live one answers (it waits that long
 * itself for the log to tell what became of its proposals); the caller tries again, writes under their keys.
 *
 * Read points asked for while a round is under way share the next one: only who asked before a round began may use it.
 */

import { AmbiguousError, RouteError } from "../base/errors.js";
import { type GroupId, NO_NODE, type NodeId, type Term, type TransactionId } from "../base/ids.js";
import type { Clock } from "../base/io.js";
import type { Key } from "../base/keys.js";
import type { CommandResult, IdempotencyKey, SchemaSnapshot } from "../machines/range/types.js";
import type { GroupHandle } from "../multiraft/types.js";
import type { RangeDescriptor } from "../placement/descriptor.js";
import type {
  CopyCommit,
  FencePoint,
  LocalRead,
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

/** Makes a RangeService that forwards to a node. */
export type RemoteRange = (node: NodeId) => RangeService;

export class RangeClient implements RangeService {
  readonly group: GroupId;
  readonly #self: NodeId;
  readonly #local: RangeService;
  readonly #handle: GroupHandle;
  readonly #remote: RemoteRange;
  readonly #remotes = new Map<NodeId, RangeService>();
  #hint: NodeId | undefined;
  /** The round that has not begun: whoever asks now shares it. */
  #gathering: Promise<ReadPoint> | undefined;
  /** Settles when the round under way has ended, however. */
  #running: Promise<void> | undefined;
  /** Calls to other nodes that wait for an answer: how to give each up. */
  readonly #waiting = new Map<NodeId, Set<(error: AmbiguousError) => void>>();
  readonly #clock: Clock;
  readonly #graceMs: number;

  constructor(
    self: NodeId,
    local: RangeService,
    handle: GroupHandle,
    remote: RemoteRange,
    patience: { readonly clock: Clock; readonly graceMs: number },
  ) {
    this.#clock = patience.clock;
    this.#graceMs = patience.graceMs;
    handle.onChange(({ leader }) => this.#replaced(leader));
    this.group = local.group;
    this.#self = self;
    this.#local = local;
    this.#handle = handle;
    this.#remote = remote;
  }

  #target(): NodeId {
    const known = this.#handle.leader;
    const leader = known !== 0 ? known : this.#hint;
    if (leader === undefined) throw new RouteError("no leader is known", undefined);
    return leader;
  }

  #service(leader: NodeId): RangeService {
    if (leader === this.#self) return this.#local;
    let remote = this.#remotes.get(leader);
    if (remote === undefined) {
      remote = this.#remote(leader);
      this.#remotes.set(leader, remote);
    }
    return remote;
  }

  /** Leads this node, calls go straight through: its RouteErrors bring no hint that its status does not have. */
  get #leadsHere(): boolean {
    return this.#handle.leader === this.#self;
  }

  async #call<T>(work: (leader: RangeService) => Promise<T>): Promise<T> {
    try {
      const leader = this.#target();
      const answer = work(this.#service(leader));
      return await (leader === this.#self ? answer : this.#unlessReplaced(leader, answer));
    } catch (error) {
      if (error instanceof RouteError) this.#hint = error.leader;
      throw error;
    }
  }

  async #unlessReplaced<T>(leader: NodeId, answer: Promise<T>): Promise<T> {
    const waiting = this.#waiting.get(leader) ?? new Set();
    this.#waiting.set(leader, waiting);
    let giveUp!: (error: AmbiguousError) => void;
    const replaced = new Promise<never>((_, reject) => {
      giveUp = reject;
    });
    waiting.add(giveUp);
    try {
      return await Promise.race([answer, replaced]);
    } finally {
      waiting.delete(giveUp);
    }
  }

  #replaced(leader: NodeId): void {
    if (leader === NO_NODE) return;
    for (const [node, waiting] of this.#waiting) {
      if (node === leader || waiting.size === 0) continue;
      const before = [...waiting];
      this.#clock.setTimer(this.#graceMs, () => {
        const error = new AmbiguousError(
          `node ${node} was replaced as leader and does not answer`,
          undefined,
        );
        for (const giveUp of before) if (waiting.has(giveUp)) giveUp(error);
      });
    }
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
    if (this.#leadsHere) return this.#local.write(request);
    return this.#call((leader) => leader.write(request));
  }

  batch(request: Parameters<RangeService["batch"]>[0]) {
    return this.#call((leader) => leader.batch(request));
  }

  begin(transaction: TransactionId, options: Parameters<RangeService["begin"]>[1]): Promise<ReadPoint> {
    return this.#call((leader) => leader.begin(transaction, options));
  }

  run(statement: TransactionStatement): Promise<TransactionStatementAnswer> {
    return this.#call((leader) => leader.run(statement));
  }

  truncate(transaction: TransactionId, ordinal: number): Promise<void> {
    return this.#call((leader) => leader.truncate(transaction, ordinal));
  }

  commit(
    transaction: TransactionId,
    key: IdempotencyKey,
    reads: readonly LocalRead[],
  ): Promise<CommandResult> {
    return this.#call((leader) => leader.commit(transaction, key, reads));
  }

  commitCopy(commit: CopyCommit, reads: readonly LocalRead[]): Promise<CommandResult> {
    return this.#call((leader) => leader.commitCopy(commit, reads));
  }

  rollback(transaction: TransactionId): Promise<void> {
    return this.#call((leader) => leader.rollback(transaction));
  }

  outcome(transaction: TransactionId): Promise<"committed" | "aborted" | "unknown"> {
    return this.#call((leader) => leader.outcome(transaction));
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

  fence(id: string, spans: readonly Span[], generation: number): Promise<FencePoint> {
    return this.#call((leader) => leader.fence(id, spans, generation));
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

  absorb(right: RangeDescriptor): Promise<RangeDescriptor> {
    return this.#call((leader) => leader.absorb(right));
  }

  describe(): Promise<RangeStatus> {
    return this.#call((leader) => leader.describe());
  }

  schema(): Promise<SchemaSnapshot> {
    return this.#call((leader) => leader.schema());
  }
}

function ignore(): void {}

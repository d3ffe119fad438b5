/**
 * The coordinator's group without Raft: one committed log, nodes that apply it at their own pace, a leader whose entries
 * commit after a while, and leadership that ends in every way Raft lets it end. What was in flight then survives up to
 * some entry and is overwritten behind it; its proposers are told the truth or are left in doubt.
 */
import { AmbiguousError, RouteError } from "../../../src/base/errors.js";
import {
  type LogIndex,
  logIndex,
  NO_NODE,
  type NodeId,
  nodeId,
  type Term,
  term,
} from "../../../src/base/ids.js";
import type { Clock } from "../../../src/base/io.js";
import { CoordinatorMachine } from "../../../src/machines/coordinator/coordinator.js";
import type { Committed, GroupHandle, GroupStatus } from "../../../src/multiraft/types.js";
import { COORDINATOR_BOUNDS, type CoordinatorBounds } from "../../../src/txn/coordinator.js";

export const COORDINATOR = 2;

interface InFlight {
  readonly data: Uint8Array;
  readonly resolve: (committed: Committed) => void;
  readonly reject: (error: Error) => void;
}

interface GroupDoubleOptions {
  readonly clock: Clock;
  readonly nodes: number;
  readonly bounds?: CoordinatorBounds;
  /** How long an entry takes to commit; undefined: until `commit`. */
  readonly commitMs?: () => number;
}

export class GroupDouble {
  readonly log: Uint8Array[] = [];
  readonly nodes: readonly NodeDouble[];
  readonly bounds: CoordinatorBounds;
  readonly #options: GroupDoubleOptions;
  leader: NodeDouble | undefined;
  term = 1;
  #inFlight: InFlight[] = [];
  /** Entries that were proposed, whatever became of them. */
  proposed = 0;

  constructor(options: GroupDoubleOptions) {
    this.#options = options;
    this.bounds = options.bounds ?? COORDINATOR_BOUNDS;
    this.nodes = Array.from({ length: options.nodes }, (_, n) => new NodeDouble(this, nodeId(n + 1)));
  }

  get inFlight(): number {
    return this.#inFlight.length;
  }

  propose(data: Uint8Array): Promise<Committed> {
    this.proposed++;
    return new Promise((resolve, reject) => {
      const entry = { data, resolve, reject };
      this.#inFlight.push(entry);
      const { clock, commitMs } = this.#options;
      if (commitMs === undefined) return;
      clock.setTimer(commitMs(), () => {
        const at = this.#inFlight.indexOf(entry);
        if (at >= 0) this.commit(at + 1);
      });
    });
  }

  /** The first entries in flight commit, are applied by the leader, and answered. */
  commit(count = this.#inFlight.length): void {
    for (const entry of this.#inFlight.splice(0, count)) {
      this.log.push(entry.data);
      const index = logIndex(this.log.length);
      const results = this.leader!.catchUp();
      entry.resolve({ index, term: term(this.term), result: results.at(-1)! });
    }
  }

  /**
   * `node` leads in a new term (undefined: nobody does, for now). The first `survive` entries in flight are in its log.
   * Of what became of each, `inDoubt` decides who is left without knowing.
   */
  elect(node: NodeDouble | undefined, survive: number, inDoubt: () => boolean): void {
    const old = this.leader;
    const entries = this.#inFlight;
    this.#inFlight = [];
    this.term++;
    this.leader = undefined;
    entries.slice(0, survive).forEach((entry) => {
      this.log.push(entry.data);
    });
    const results = old?.up ? old.catchUp() : [];
    entries.forEach((entry, n) => {
      const result = n < survive ? results[results.length - survive + n] : undefined;
      if (inDoubt() || (n < survive && result === undefined))
        entry.reject(new AmbiguousError("leadership was lost", undefined));
      else if (n < survive)
        entry.resolve({ index: logIndex(this.log.length), term: term(this.term - 1), result: result! });
      else entry.reject(new RouteError("the entry was overwritten", node?.id));
    });
    node?.catchUp();
    this.leader = node;
    for (const each of this.nodes) each.tell();
  }
}

/** One replica; also its GroupHandle, as far as the coordinator uses one. */
export class NodeDouble {
  readonly group = COORDINATOR;
  machine: CoordinatorMachine;
  applied: LogIndex = logIndex(0);
  up = true;
  #checkpoint: { readonly applied: LogIndex; readonly bytes: Uint8Array } | undefined;
  readonly #listeners = new Set<(status: GroupStatus) => void>();

  constructor(
    readonly double: GroupDouble,
    readonly id: NodeId,
  ) {
    this.machine = new CoordinatorMachine(double.bounds);
  }

  get handle(): GroupHandle {
    return this as unknown as GroupHandle;
  }

  get leader(): NodeId {
    return this.double.leader?.id ?? NO_NODE;
  }

  status(): GroupStatus {
    const leads = this.double.leader === this;
    return {
      role: leads ? "leader" : "follower",
      leader: this.leader,
      term: term(this.double.term),
      leaderReady: leads,
    } as GroupStatus;
  }

  async propose(data: Uint8Array, { onlyInTerm }: { onlyInTerm?: Term } = {}): Promise<Committed> {
    if (this.double.leader !== this || (onlyInTerm !== undefined && onlyInTerm !== this.double.term))
      throw new RouteError("not the leader", this.leader === NO_NODE ? undefined : this.leader);
    return this.double.propose(data);
  }

  onChange(listener: (status: GroupStatus) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  tell(): void {
    for (const listener of this.#listeners) listener(this.status());
  }

  /** Applies the committed log up to `upTo`; answers the results. */
  catchUp(upTo = this.double.log.length): readonly Uint8Array[] {
    const entries = this.double.log
      .slice(this.applied, upTo)
      .map((data, n) => ({ index: this.applied + n + 1, data }));
    if (entries.length === 0) return [];
    this.applied = logIndex(Math.max(this.applied, upTo));
    return this.machine.apply(entries);
  }

  checkpoint(): void {
    this.#checkpoint = { applied: this.applied, bytes: this.machine.snapshot() };
  }

  /** Power off and on: what is left is the last checkpoint, and the log. Whoever used the node makes its parts anew. */
  restart(): void {
    this.#listeners.clear();
    this.machine = new CoordinatorMachine(this.double.bounds);
    this.applied = this.#checkpoint?.applied ?? logIndex(0);
    if (this.#checkpoint !== undefined) this.machine.restore(this.#checkpoint.bytes);
  }
}

/**
 * The coordinator's group on this node, if it has a replica of it: as with ranges, replicas come when a leader asks for
 * one and go when they belong here no longer.
 */

import { join } from "node:path";
import { RetryError } from "../../base/errors.js";
import { COORDINATOR_GROUP, type NodeId, type TransactionId } from "../../base/ids.js";
import type { Clock, Disk } from "../../base/io.js";
import { atMost } from "../../base/waits.js";
import { CoordinatorLeader, DEFAULT_COORDINATOR_LIMITS } from "../../coordinator/leader.js";
import type { Resolve } from "../../coordinator/outbox.js";
import { CoordinatorClient } from "../../gateway/coordinator-client.js";
import { remoteCoordinator, serveCoordinator } from "../../gateway/coordinator-rpc.js";
import type { DurableLog } from "../../log/types.js";
import { CoordinatorMachine } from "../../machines/coordinator/coordinator.js";
import { MemoryMachine } from "../../machines/memory-machine.js";
import type { GroupConfig } from "../../multiraft/group-start.js";
import type { MultiRaft } from "../../multiraft/host.js";
import type { GroupHandle } from "../../multiraft/types.js";
import type { LogEnd } from "../../raft/types.js";
import type { TransactionTrace } from "../../txn/trace.js";
import { emptyDirectory } from "../empty-directory.js";
import type { NodeCalls } from "../network.js";
import type { DepartedRanges } from "./departed.js";

const STOP_MS = 5_000;

export interface CoordinatorHostOptions {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly disk: Disk;
  readonly directory: string;
  readonly host: MultiRaft;
  readonly log: DurableLog;
  readonly departed: DepartedRanges;
  readonly calls: NodeCalls;
  readonly graceMs: number;
  readonly resolve: Resolve;
  /** See CoordinatorDependencies. */
  readonly delivered: ((transaction: TransactionId) => Promise<boolean>) | undefined;
  /** Nodes that may have a replica. */
  readonly candidates: () => readonly NodeId[];
  readonly askLeader: (node: NodeId) => Promise<NodeId>;
  readonly trace: TransactionTrace;
}

export class CoordinatorHost {
  readonly #options: CoordinatorHostOptions;
  readonly client: CoordinatorClient;
  #local: { readonly handle: GroupHandle; readonly leader: CoordinatorLeader } | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  /** What is on the disk is open. */
  #complete = false;
  #stopped = false;

  constructor(options: CoordinatorHostOptions) {
    this.#options = options;
    const { self, clock, graceMs, calls, candidates, askLeader } = options;
    this.client = new CoordinatorClient({
      self,
      clock,
      graceMs,
      hosted: undefined,
      candidates,
      remote: (node) => remoteCoordinator(calls, node),
      ask: askLeader,
    });
    serveCoordinator(calls, () => this.#local?.leader);
  }

  get handle(): GroupHandle | undefined {
    return this.#local?.handle;
  }

  get leader(): CoordinatorLeader | undefined {
    return this.#local?.leader;
  }

  /** At start: what the log has, or the first membership. */
  async open(first: Pick<GroupConfig, "bootstrap">): Promise<void> {
    const { log, departed } = this.#options;
    const logged = log.groups().includes(COORDINATOR_GROUP);
    const departure = departed.get(COORDINATOR_GROUP);
    if (departure?.back === false) {
      if (logged) await log.removeGroup(COORDINATOR_GROUP);
      await this.#removeFiles();
    } else if (logged) await this.#open(departed.returning(COORDINATOR_GROUP));
    else if (departure === undefined && first.bootstrap !== undefined) await this.#open(first);
    this.#complete = true;
  }

  /** Makes an empty replica that waits for a leader's snapshot, unless there is one. */
  makeReplica(): Promise<void> {
    return this.#exclusively(async () => {
      if (this.#local !== undefined) return;
      // One that is yet to be opened must not be taken for one that is missing, and its files be removed.
      if (!this.#complete)
        throw new RetryError("OSTRAKA_UNAVAILABLE", "the node has not opened yet what it has");
      const { departed } = this.#options;
      await departed.back(COORDINATOR_GROUP);
      await this.#removeFiles();
      await this.#open(departed.returning(COORDINATOR_GROUP));
    });
  }

  /** Ends the replica for good, if `still` is so once nothing can come between. `committed` as for ranges. */
  leave(still: (handle: GroupHandle) => boolean, committed: LogEnd | undefined): Promise<void> {
    return this.#exclusively(async () => {
      const local = this.#local;
      if (local === undefined || !still(local.handle)) return;
      this.#local = undefined;
      this.client.detach();
      local.leader.close();
      const { host, departed } = this.#options;
      await host.removeGroup(COORDINATOR_GROUP, (promised) =>
        departed.left(COORDINATOR_GROUP, promised, committed),
      );
      await this.#removeFiles();
    });
  }

  /** Nothing is opened or removed any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await atMost(this.#options.clock, STOP_MS, this.#turn);
    this.#local?.leader.close();
  }

  async #open(config: Omit<GroupConfig, "group" | "machine">): Promise<void> {
    const { host, disk, clock, resolve, delivered, trace } = this.#options;
    const machine = new CoordinatorMachine();
    const hosted = new MemoryMachine({ machine, disk, directory: this.#directory() });
    const handle = await host.addGroup({ group: COORDINATOR_GROUP, machine: hosted, ...config });
    const leader = new CoordinatorLeader({
      handle,
      machine,
      clock,
      resolve,
      delivered,
      limits: DEFAULT_COORDINATOR_LIMITS,
      trace,
    });
    this.#local = { handle, leader };
    this.client.attach({ handle, service: leader });
  }

  #directory(): string {
    return join(this.#options.directory, "coordinator");
  }

  /** For good: a state that came back would not be that of a new replica's log. */
  #removeFiles(): Promise<void> {
    return emptyDirectory(this.#options.disk, this.#directory());
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn
      .catch(() => undefined)
      .then(() => {
        if (this.#stopped) throw new RetryError("OSTRAKA_UNAVAILABLE", "the node is stopping");
        return work();
      });
    this.#turn = turn;
    return turn;
  }
}

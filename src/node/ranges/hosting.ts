/**
 * All of the database that is on this node, put together: its ranges, the coordinator's group, what the node knows of
 * the ranges elsewhere, and what keeps these in line with meta.
 */

import { FatalError } from "../../base/errors.js";
import {
  COORDINATOR_GROUP,
  FIRST_RANGE_GROUP,
  type GroupId,
  META_GROUP,
  NO_NODE,
  type NodeId,
} from "../../base/ids.js";
import type { Clock, Disk, Random } from "../../base/io.js";
import { remoteRange, serveRanges } from "../../gateway/range-rpc.js";
import type { DurableLog } from "../../log/types.js";
import type { MetaMachine } from "../../machines/meta/meta.js";
import type { StoreWorker } from "../../machines/range/store.js";
import type { GroupConfig } from "../../multiraft/group-start.js";
import type { MultiRaft } from "../../multiraft/host.js";
import type { LeaderLimits } from "../../range/leader.js";
import type { TransactionTrace } from "../../txn/trace.js";
import type { Logger } from "../logger.js";
import type { MetaClient } from "../meta-client.js";
import type { NodeCalls } from "../network.js";
import { Changes } from "../placement/changes.js";
import { PlacementDriver } from "../placement/driver.js";
import { NodeFactsKeeper } from "../placement/facts.js";
import { Calm } from "./calm.js";
import { CoordinatorHost } from "./coordinator-host.js";
import { isDelivered } from "./delivered.js";
import { DepartedRanges } from "./departed.js";
import { Farewell } from "./farewell.js";
import { MissingReplicas } from "./missing.js";
import { Ranges } from "./ranges.js";
import { RangeReports } from "./reports.js";
import { RowCounts } from "./row-counts.js";
import { RangeSplitter } from "./splitter.js";
import { NodeRangesView } from "./view.js";

const ASK_MS = 1_000;
/** Times the patience with a leader, and at least so long, after which a silent node counts as down. */
const SILENT_GRACES = 3;
const MIN_SILENT_MS = 2_000;

export interface HostingOptions {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
  readonly logger: Logger;
  readonly directory: string;
  readonly host: MultiRaft;
  readonly log: DurableLog;
  readonly workers: readonly StoreWorker[];
  readonly calls: NodeCalls;
  readonly meta: MetaMachine;
  readonly metaClient: MetaClient;
  readonly leaderLimits: LeaderLimits;
  /** How long a leader may be silent before others are looked for. */
  readonly graceMs: number;
  /** The first membership, on a founder; empty on a node that joined. */
  readonly first: Pick<GroupConfig, "bootstrap">;
  /** See RangesOptions. */
  readonly lost: ReadonlySet<number>;
  readonly trace: TransactionTrace;
  readonly onFatal: (error: unknown) => void;
}

export class RangeHosting {
  readonly ranges: Ranges;
  readonly coordinator: CoordinatorHost;
  readonly view: NodeRangesView;
  readonly rowCounts = new RowCounts();
  readonly calm: Calm;
  readonly splitter: RangeSplitter;
  readonly changes: Changes;
  readonly facts: NodeFactsKeeper;
  readonly #departed: DepartedRanges;
  readonly #reports: RangeReports;
  readonly #farewell: Farewell;
  readonly #missing: MissingReplicas;
  readonly #driver: PlacementDriver;

  private constructor(options: HostingOptions, departed: DepartedRanges) {
    const { self, clock, calls, meta, metaClient, graceMs, host } = options;
    this.#departed = departed;
    const calm = new Calm(clock);
    this.calm = calm;
    const askForCalm = (ms: number): void => {
      // What this node was asked for, or refused, all were.
      if (calm.leftMs >= ms / 2 || !calm.ask(ms)) return;
      for (const { id, state } of meta.state.nodes)
        if (id !== self && state !== "removed")
          calls.call(id as NodeId, "ranges.calm", [ms], { timeoutMs: ASK_MS }).catch(() => undefined);
    };
    const ask = async (node: NodeId, group: GroupId): Promise<NodeId> =>
      (await calls.call(node, "ranges.leader", [group], { timeoutMs: ASK_MS })) as NodeId;
    this.ranges = new Ranges({
      ...options,
      departed,
      limits: options.leaderLimits,
      inquire: (_, transaction) => this.coordinator.client.inquire(transaction),
    });
    this.coordinator = new CoordinatorHost({
      ...options,
      departed,
      resolve: (range, transaction, decision) => this.view.resolve(range, transaction, decision),
      delivered:
        options.lost.size === 0
          ? undefined
          : (transaction) => isDelivered(this.ranges.all.values(), transaction),
      candidates: () => meta.state.nodes.map(({ id }) => id as NodeId),
      askLeader: (node) => ask(node, COORDINATOR_GROUP),
    });
    this.view = new NodeRangesView({
      self,
      clock,
      graceMs,
      ranges: this.ranges,
      meta,
      metaClient,
      remote: (node, range) => remoteRange(calls, node, range),
      askLeader: ask,
      coordinator: this.coordinator.client,
      calm: askForCalm,
    });
    this.#reports = new RangeReports(clock, this.ranges, meta, metaClient, options.logger);
    const care = { self, clock, ranges: this.ranges, coordinator: this.coordinator, meta, calls };
    this.#farewell = new Farewell(care);
    this.#missing = new MissingReplicas(care);
    this.splitter = new RangeSplitter({
      self,
      clock,
      logger: options.logger,
      ranges: this.ranges,
      meta,
      metaClient,
      rowCounts: this.rowCounts,
      calm,
    });
    const changed = (): void => this.facts.changed();
    this.changes = new Changes({ self, clock, host, ranges: this.ranges, calls, changed, calm });
    this.facts = new NodeFactsKeeper(host, this.ranges, this.coordinator, options.random, (group) =>
      this.changes.isBusy(group),
    );
    this.#driver = new PlacementDriver({
      self,
      clock,
      logger: options.logger,
      handle: host.group(META_GROUP),
      meta,
      metaClient,
      calls,
      facts: this.facts,
      changes: this.changes,
      silentMs: Math.max(MIN_SILENT_MS, graceMs * SILENT_GRACES),
    });
    this.changes.serve();
    calls.serve("ranges.calm", async ([ms]) => void calm.ask(Number(ms)));
    calls.serve("node.removed", async () => {
      options.onFatal(new FatalError("OSTRAKA_REMOVED", `node ${self} was removed from the cluster`));
    });
    calls.serve("placement.facts", async ([known]) =>
      this.facts.facts(known === undefined ? undefined : String(known)),
    );
    this.ranges.serve(calls, () => this.coordinator.makeReplica());
    calls.serve("ranges.leader", async ([group]) => host.findGroup(group as GroupId)?.leader ?? NO_NODE);
    serveRanges(calls, (range) => this.ranges.get(range)?.leader);
  }

  /** Opens what is here. */
  static async open(options: HostingOptions): Promise<RangeHosting> {
    const departed = await DepartedRanges.open(options.disk, options.directory, options.clock);
    options.host.tellCommitted((group) => {
      const departure = departed.get(group);
      return departure?.back === false ? departure.committed : undefined;
    });
    const hosting = new RangeHosting(options, departed);
    const { first } = options;
    await hosting.coordinator.open(first);
    await hosting.ranges.open(
      first.bootstrap === undefined ? undefined : { range: FIRST_RANGE_GROUP, config: first },
    );
    return hosting;
  }

  /** Where meta is led: ranges that wait to be taken in by another. */
  frozenRanges(): ReadonlySet<GroupId> {
    return this.#driver.frozenRanges();
  }

  /** Once the groups run. */
  start(): void {
    this.#reports.start();
    this.#farewell.start();
    this.#missing.start();
    this.splitter.start();
    this.#driver.start();
  }

  /** Begins nothing more; resolves once what is under way is done. */
  async stop(): Promise<void> {
    this.#driver.stop();
    this.#departed.stop();
    this.splitter.stop();
    this.#reports.stop();
    this.#farewell.stop();
    this.#missing.stop();
    await Promise.all([this.coordinator.stop(), this.ranges.stop()]);
  }
}

/**
 * One node, put together: configuration in, a serving node out. The only place that knows all the parts; everything
 * real (clock, disk, sockets, threads, processes) is made here and handed down.
 *
 * Order of the start: lock the directory · listen (peers only) · find out who we are · open the log · host the groups ·
 * make ourselves known to meta · wait until a read goes through · serve clients.
 */

import { join } from "node:path";
import { FatalError, OstrakaError, RetryError } from "../base/errors.js";
import { FIRST_RANGE_GROUP, META_GROUP, type NodeId, nodeId } from "../base/ids.js";
import type { Clock, Disk, Random } from "../base/io.js";
import { atMost, pause } from "../base/waits.js";
import { GatewayDatabase } from "../gateway/database.js";
import { Deadline } from "../gateway/deadline.js";
import { NodeGateway } from "../gateway/gateway.js";
import { DEFAULT_LIMITS, type GatewayLimits, type GatewayParts } from "../gateway/replica.js";
import { RunningStatements } from "../gateway/running.js";
import { SourceServer } from "../gateway/source-server.js";
import { RemoteSources } from "../gateway/sources.js";
import { MemoryMachine } from "../machines/memory-machine.js";
import { type ClusterSettings, DEFAULT_SETTINGS, MetaMachine } from "../machines/meta/meta.js";
import type { StoreWorker } from "../machines/range/store.js";
import type { RangeStore, RunnerPool } from "../machines/range/types.js";
import { AgreedClock } from "../multiraft/agreed-clock.js";
import type { MultiRaft } from "../multiraft/host.js";
import type { HostOptions } from "../multiraft/options.js";
import { DEFAULT_LEADER_LIMITS, type LeaderLimits } from "../range/leader.js";
import { TransactionTrace } from "../txn/trace.js";
import { type Address, advertisedAddress, formatAddress, loadSecrets, type NodeConfig } from "./config.js";
import { bootstrap, type Engine, handOver, openEngine } from "./engine.js";
import { resolveIdentity } from "./founding.js";
import { type HttpServer, startHttp } from "./http.js";
import type { DirectoryLock, Identity } from "./identity.js";
import type { Logger } from "./logger.js";
import { MetaClient } from "./meta-client.js";
import { createMetrics } from "./metrics.js";
import type { NodeNetwork } from "./network.js";
import type { ClusterView } from "./operations/cluster-view.js";
import { MergeKeeper } from "./operations/merge-keeper.js";
import { operations, serveOperations } from "./operations/operations.js";
import { systemTables } from "./operations/system-tables.js";
import { RangeHosting } from "./ranges/hosting.js";
import type { Ranges } from "./ranges/ranges.js";
import { WalGuard } from "./wal-guard.js";

export interface RunningNode {
  readonly nodeId: number;
  readonly clusterId: string;
  /** HOST:PORT as bound; `http` is "off" where there is none. */
  readonly grpc: string;
  readonly http: string;
  /** Resolves with the reason should the node have to stop by itself. */
  readonly failed: Promise<OstrakaError>;
  /** Hands leadership away and ends everything; idempotent. */
  stop(): Promise<void>;
}

/** What a node is made of. Real parts come from real-parts.ts; simulation brings its own. */
export interface NodeParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
  readonly logger: Logger;
  readonly network: NodeNetwork;
  readonly openStores: () => StoreWorker;
  /** Among which the ranges are divided; one if not given. */
  readonly storeWorkers?: number;
  /** Processes for single statements, those that sessions hold on to, those in which single ones gather rows, and those that serve other nodes' snapshots. */
  readonly openRunners: (purpose: RunnerPurpose) => RunnerPool;
  /** Keeps a second process out of the data directory; undefined where there cannot be one. */
  readonly lock: DirectoryLock | undefined;
  /** Runs a callback once the input that is already there has been read. */
  readonly defer: (run: () => void) => void;
  /** Bounds other than the defaults; tests reach rare paths sooner with small ones. */
  readonly tuning?: NodeTuning;
  /** Told of the hosting of groups once it exists: simulation looks at the invariants of what is in it. */
  readonly onHost?: (host: MultiRaft) => void;
  /** The same for the ranges and the coordinator, once they are open. */
  readonly onHosting?: (hosting: RangeHosting) => void;
}

export type RunnerPurpose = "statements" | "sessions" | "gathering" | "sources";

export interface NodeTuning {
  readonly segmentBytes?: number;
  readonly host?: Partial<HostOptions>;
  readonly gateway?: Partial<GatewayLimits>;
  readonly leader?: Partial<LeaderLimits>;
}

/** Starts a node from its parts; resolves when it serves SQL. */
export async function assembleNode(config: NodeConfig, parts: NodeParts): Promise<RunningNode> {
  const node = new NodeAssembly(config, parts);
  try {
    // What ends a node may come while it still waits for others.
    return await Promise.race([node.start(), node.failed.then((error) => Promise.reject(error))]);
  } catch (error) {
    await node.stop();
    throw error;
  }
}

/** How long a node that starts waits for the database at a time, and between two times. */
const SERVING_MS = 5_000;
const SERVING_PAUSE_MS = 50;
/** What sessions run when the node is to stop has so long to end; then it is stopped. */
const LAST_STATEMENTS_MS = 2_000;
/** A database's write-ahead log beyond which the oldest snapshots in use are given up. */
const MAX_WAL_BYTES = 256 * 1024 * 1024;

class NodeAssembly {
  readonly #config: NodeConfig;
  readonly #parts: NodeParts;
  readonly #logger: Logger;
  readonly #clock: AgreedClock;
  readonly #random: Random;
  readonly #disk: Disk;
  readonly #network: NodeNetwork;
  readonly #meta = new MetaMachine();
  readonly #trace: TransactionTrace;
  readonly failed: Promise<OstrakaError>;
  #fail!: (error: OstrakaError) => void;
  #engine: Engine | undefined;
  #workers: readonly StoreWorker[] = [];
  #hosting: RangeHosting | undefined;
  #pools: { close(): Promise<void> }[] = [];
  #gateway: NodeGateway | undefined;
  #sources: SourceServer | undefined;
  #http: HttpServer | undefined;
  #walGuard: WalGuard | undefined;
  #mergeKeeper: MergeKeeper | undefined;
  #spools = 0;
  #stopping: Promise<void> | undefined;

  constructor(config: NodeConfig, parts: NodeParts) {
    this.#parts = parts;
    this.#config = config;
    this.#logger = parts.logger;
    this.#clock = new AgreedClock(parts.clock);
    this.#trace = new TransactionTrace(this.#clock);
    this.#random = parts.random;
    this.#disk = parts.disk;
    this.#network = parts.network;
    this.failed = new Promise((resolve) => {
      this.#fail = resolve;
    });
  }

  async start(): Promise<RunningNode> {
    const config = this.#config;
    const network = this.#network;
    await network.listen();
    // Founders are reached at what --initial-cluster says, wherever they listen (0.0.0.0, behind a name or a proxy).
    const told = config.advertise ?? config.initialCluster;
    const address = told === undefined ? network.address : formatAddress(advertisedAddress(config));
    const http = config.http === undefined ? "off" : formatAddress(config.http);
    const identity = await resolveIdentity({
      config,
      disk: this.#disk,
      clock: this.#clock,
      random: this.#random,
      logger: this.#logger,
      strangers: network,
      address,
      http,
    });
    network.identify(identity, this.#meta);
    void network.refused?.then((reason) => this.#stopFor(reason));
    const self = nodeId(identity.nodeId);

    const host = await this.#openHost(self, network);
    const meta = await this.#addMeta(host, identity, network);
    const hosting = await this.#openRanges(host, identity, network, meta);
    this.#parts.onHosting?.(hosting);
    const db = this.#database(hosting, network, self);
    const running = new RunningStatements(this.#clock);
    const view: ClusterView = {
      self,
      clock: this.#clock,
      meta: this.#meta,
      metaClient: meta,
      host,
      hosting,
      calls: network.calls,
      running,
      settings: () => this.#settings(),
      statements: db.counts,
      trace: this.#trace,
    };
    serveOperations(view);
    meta.serve();
    const gateway = new NodeGateway({
      db,
      systemTables: systemTables(view),
      running,
      admin: operations(view),
    });
    this.#gateway = gateway;
    host.start();
    this.#http =
      config.http === undefined
        ? undefined
        : await this.#startHttp(config.http, loadSecrets(config).authToken, hosting, view, host);
    hosting.start();
    this.#mergeKeeper = new MergeKeeper(view, this.#logger);
    this.#mergeKeeper.start();
    await meta.introduce(
      identity,
      { address, http: this.#http?.address ?? "off" },
      () => this.#stopping !== undefined,
    );
    await this.#untilServing(hosting);
    if (identity.recoveredFrom !== undefined) this.#compareSchemas(hosting);
    network.serveClients(gateway, this.#meta.state.clusterId || identity.clusterId, self);
    return {
      nodeId: identity.nodeId,
      clusterId: this.#meta.state.clusterId || identity.clusterId,
      grpc: network.address,
      http: this.#http?.address ?? "off",
      failed: this.failed,
      stop: () => this.stop(),
    };
  }

  #stopFor(error: OstrakaError): void {
    this.#logger.error({ code: error.code, reason: error.message }, "the node stops");
    this.#fail(error);
  }

  #temporaryDirectory(): string {
    return join(this.#config.dataDirectory, "tmp");
  }

  /** What a crash left there belongs to nobody. */
  async #clearTemporaryDirectory(): Promise<void> {
    await this.#disk.makeDirectory(this.#temporaryDirectory());
    for (const name of await this.#disk.list(this.#temporaryDirectory())) {
      await this.#disk.remove(join(this.#temporaryDirectory(), name));
    }
  }

  async #openHost(self: NodeId, network: NodeNetwork): Promise<MultiRaft> {
    const { dataDirectory, electionTimeoutMs } = this.#config;
    await this.#clearTemporaryDirectory();
    this.#engine = await openEngine({
      self,
      directory: dataDirectory,
      electionTimeoutMs,
      clock: this.#clock,
      random: this.#random,
      disk: this.#disk,
      logger: this.#logger,
      transport: network.transport,
      defer: this.#parts.defer,
      onFatal: (error) => this.#stopFor(error),
      segmentBytes: this.#parts.tuning?.segmentBytes,
      host: this.#parts.tuning?.host,
    });
    this.#parts.onHost?.(this.#engine.host);
    return this.#engine.host;
  }

  async #addMeta(host: MultiRaft, identity: Identity, network: NodeNetwork): Promise<MetaClient> {
    const machine = new MemoryMachine({
      machine: this.#meta,
      disk: this.#disk,
      directory: join(this.#config.dataDirectory, "meta"),
    });
    const handle = await host.addGroup({ group: META_GROUP, machine, ...bootstrap(identity) });
    const replicas = [...(bootstrap(identity).bootstrap?.voters ?? [])];
    return new MetaClient({
      clock: this.#clock,
      logger: this.#logger,
      handle,
      machine: this.#meta,
      network,
      clusterId: identity.clusterId,
      founding: {
        settings: clusterSettings(this.#config),
        ranges: [{ range: FIRST_RANGE_GROUP, start: "", end: "", generation: 1, replicas }],
      },
    });
  }

  async #openRanges(
    host: MultiRaft,
    identity: Identity,
    network: NodeNetwork,
    metaClient: MetaClient,
  ): Promise<RangeHosting> {
    const { tuning, storeWorkers = 1, openStores } = this.#parts;
    this.#workers = Array.from({ length: storeWorkers }, openStores);
    this.#hosting = await RangeHosting.open({
      self: host.nodeId,
      clock: this.#clock,
      random: this.#random,
      disk: this.#disk,
      logger: this.#logger,
      directory: this.#config.dataDirectory,
      host,
      log: this.#engine!.log,
      workers: this.#workers,
      calls: network.calls,
      meta: this.#meta,
      metaClient,
      leaderLimits: { ...DEFAULT_LEADER_LIMITS, ...tuning?.leader },
      graceMs: this.#config.electionTimeoutMs,
      first: bootstrap(identity),
      lost: new Set(identity.recoveredFrom?.lost ?? []),
      trace: this.#trace,
      onFatal: (error) =>
        this.#stopFor(
          error instanceof OstrakaError ? error : new FatalError("OSTRAKA_INTERNAL", String(error)),
        ),
    });
    return this.#hosting;
  }

  #database({ view, ranges }: RangeHosting, network: NodeNetwork, self: NodeId): GatewayDatabase {
    const runners = this.#parts.openRunners("statements");
    const heldRunners = this.#parts.openRunners("sessions");
    const gatherRunners = this.#parts.openRunners("gathering");
    const sourceRunners = this.#parts.openRunners("sources");
    this.#pools = [runners, heldRunners, gatherRunners, sourceRunners];
    this.#walGuard = new WalGuard(
      this.#clock,
      () => storesOf(ranges),
      [heldRunners, gatherRunners, sourceRunners, runners],
      MAX_WAL_BYTES,
      this.#logger,
    );
    this.#walGuard.start();
    const parts: GatewayParts = {
      clock: this.#clock,
      random: this.#random,
      limits: { ...DEFAULT_LIMITS, ...this.#parts.tuning?.gateway },
      runners,
      heldRunners,
      gatherRunners,
    };
    this.#sources = new SourceServer(parts, sourceRunners, (range) => view.local(range));
    this.#sources.serve(network.calls);
    return new GatewayDatabase({
      ...parts,
      ranges: view,
      trace: this.#trace,
      space: {
        disk: this.#disk,
        temporaryPath: () => join(this.#temporaryDirectory(), `spool-${++this.#spools}`),
        maxResultBytes: DEFAULT_LIMITS.maxResultBytes,
      },
      sources: new RemoteSources(network.calls, self, parts),
    });
  }

  // --- serving --------------------------------------------------------------------------------------------------

  async #untilServing(hosting: RangeHosting): Promise<void> {
    for (;;) {
      if (this.#stopping !== undefined) throw new RetryError("OSTRAKA_UNAVAILABLE", "the node is stopping");
      const serves =
        (await this.#unhealthy(hosting, SERVING_MS)) === undefined &&
        (await hosting.view.refreshSchema().then(
          () => true,
          () => false,
        ));
      if (serves) return;
      // What fails may fail at once.
      await pause(this.#clock, SERVING_PAUSE_MS);
    }
  }

  /** After a recovery: what this node had not heard of when the others were lost, it lacks in some ranges for good. */
  #compareSchemas({ ranges }: RangeHosting): void {
    const versions = [...ranges.all.values()].map(({ range, schema }) => ({
      range,
      version: schema.version,
    }));
    if (versions.some(({ version }) => version !== versions[0]?.version))
      this.#logger.error(
        { versions },
        "ranges here know different versions of the schema, and cannot be used together: recover another node's data",
      );
  }

  /** The first range answers, and a replica of it here keeps up: the node can serve SQL. */
  async #unhealthy({ view }: RangeHosting, withinMs: number): Promise<string | undefined> {
    const deadline = new Deadline(this.#clock, withinMs, withinMs, { signal: undefined });
    try {
      const point = await deadline.persist(() => view.client(FIRST_RANGE_GROUP).readPoint());
      const local = view.local(FIRST_RANGE_GROUP);
      if (local !== undefined) await deadline.race(local.handle.waitApplied(point.index));
      else await deadline.race(view.refreshSchema());
      return undefined;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    } finally {
      deadline.dispose();
    }
  }

  #startHttp(
    address: Address,
    authToken: string | undefined,
    hosting: RangeHosting,
    view: ClusterView,
    host: MultiRaft,
  ): Promise<HttpServer> {
    const registry = createMetrics({
      groups: () => host.groups(),
      stores: () => storesOf(hosting.ranges),
      log: this.#engine!.log,
      hostStats: () => host.stats(),
      clockCorrectionMs: () => this.#clock.correctionMs(),
      clients: () => this.#network.clientCount ?? 0,
      statements: view.statements,
      coordinator: () => hosting.coordinator.leader,
      trace: this.#trace,
    });
    return startHttp({
      address,
      authToken,
      registry,
      unhealthy: async () => host.diskFull ?? (await this.#unhealthy(hosting, 2_000)),
      describe: () => ({ node: view.self, clusterId: this.#meta.state.clusterId }),
    });
  }

  #settings(): ReadonlyMap<string, string> {
    const { replicas, rangeMaxBytes, rangeMaxRows, nodeDeadMs } = this.#meta.state.settings;
    return new Map(
      Object.entries({
        replicas: String(replicas),
        "range-max-bytes": String(rangeMaxBytes),
        "range-max-rows": rangeMaxRows === 0 ? "off" : String(rangeMaxRows),
        "node-dead-ms": String(nodeDeadMs),
        "election-timeout-ms": String(this.#config.electionTimeoutMs),
        "max-statement-bytes": String(DEFAULT_LIMITS.maxStatementBytes),
        "max-transaction-bytes": String(DEFAULT_LIMITS.maxTransactionBytes),
        "idle-transaction-ms": String(DEFAULT_LIMITS.idleTransactionMs),
      }),
    );
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    this.#mergeKeeper?.stop();
    this.#walGuard?.stop();
    const host = this.#engine?.host;
    if (host !== undefined) await handOver(host.nodeId, host.groups(), this.#clock);
    const sessionsClosed = this.#gateway?.close() ?? Promise.resolve();
    await atMost(this.#clock, LAST_STATEMENTS_MS, sessionsClosed);
    this.#sources?.close();
    this.#network.stopClients();
    await sessionsClosed;
    await this.#http?.close();
    await this.#hosting?.stop();
    await host?.stop();
    for (const pool of this.#pools) await pool.close();
    for (const worker of this.#workers) await worker.close();
    await this.#network.close();
    await this.#engine?.closeLog();
    this.#parts.lock?.release();
  }
}

/** What a cluster begins with. */
function clusterSettings({ replicas, rangeMaxBytes, rangeMaxRows, nodeDeadMs }: NodeConfig): ClusterSettings {
  return {
    replicas,
    rangeMaxBytes,
    rangeMaxRows: rangeMaxRows ?? 0,
    nodeDeadMs: nodeDeadMs ?? DEFAULT_SETTINGS.nodeDeadMs,
  };
}

function* storesOf(ranges: Ranges): Generator<RangeStore> {
  for (const { store } of ranges.all.values()) yield store;
}

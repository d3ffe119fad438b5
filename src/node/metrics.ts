/** Prometheus metrics, read from the parts of the node when they are scraped: nothing is counted twice. */
import { collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { CoordinatorLeader } from "../coordinator/leader.js";
import type { StatementCounts } from "../gateway/database.js";
import type { DurableLog } from "../log/types.js";
import type { RangeStore, StoreSize } from "../machines/range/types.js";
import type { HostStats } from "../multiraft/host.js";
import type { GroupHandle } from "../multiraft/types.js";
import type { TransactionTrace } from "../txn/trace.js";

export interface MetricSources {
  readonly groups: () => Iterable<GroupHandle>;
  readonly stores: () => Iterable<RangeStore>;
  readonly log: DurableLog;
  readonly clockCorrectionMs: () => number;
  readonly hostStats: () => HostStats;
  readonly clients: () => number;
  readonly statements: Readonly<StatementCounts>;
  /** Undefined on a node without a replica of the coordinator. */
  readonly coordinator: () => Pick<CoordinatorLeader, "counts" | "gauges"> | undefined;
  readonly trace: TransactionTrace;
}

/** Seconds. */
const PHASE_BUCKETS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10];
const COORDINATED = {
  registered: "registered",
  committed: "decided as committed",
  aborted: "decided as aborted",
  byRecovery: "aborted because nobody came to decide",
  delivered: "decisions delivered to a range",
} as const;

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

export function createMetrics(sources: MetricSources): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, prefix: "ostraka_" });
  const gauge = (name: string, help: string, read: () => number): void => {
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(read());
      },
    });
  };
  const perGroup = (name: string, help: string, read: (handle: GroupHandle) => number): void => {
    new Gauge({
      name,
      help,
      labelNames: ["group"],
      registers: [registry],
      collect() {
        this.reset();
        for (const handle of sources.groups()) this.set({ group: String(handle.group) }, read(handle));
      },
    });
  };
  perGroup("ostraka_raft_term", "Current term of the group's replica here", (handle) => handle.status().term);
  perGroup(
    "ostraka_raft_commit_index",
    "Highest committed index known here",
    (handle) => handle.status().commit,
  );
  perGroup("ostraka_raft_applied_index", "Highest applied index", (handle) => handle.status().applied);
  perGroup("ostraka_raft_is_leader", "1 where this node leads the group", (handle) =>
    handle.status().role === "leader" ? 1 : 0,
  );
  gauge(
    "ostraka_clock_correction_milliseconds",
    "What is added to this node's wall clock, which is not its peers'; 0 while it is near theirs",
    sources.clockCorrectionMs,
  );
  new Gauge({
    name: "ostraka_statements",
    help: "Statements since the start: at one range (single), over several that each do a part (pushdown), or on all their rows (gather)",
    labelNames: ["kind"],
    registers: [registry],
    collect() {
      for (const [kind, count] of Object.entries(sources.statements)) this.set({ kind }, count);
    },
  });
  const phases = new Histogram({
    name: "ostraka_transaction_phase_seconds",
    help: "Commits over several ranges: until all have voted (prepare), until the decision is logged (decide), from a range's vote until it has applied the decision (hold)",
    labelNames: ["phase"],
    buckets: PHASE_BUCKETS,
    registers: [registry],
  });
  sources.trace.observed = (phase, ms) => phases.observe({ phase }, ms / 1000);
  for (const count of ["registered", "committed", "aborted", "byRecovery", "delivered"] as const)
    gauge(
      `ostraka_coordinator_${snakeCase(count)}`,
      `Transactions over several ranges: ${COORDINATED[count]}, by this node as the coordinator's leader since its start`,
      () => sources.coordinator()?.counts()[count] ?? 0,
    );
  for (const [gaugeName, help] of [
    ["inDoubt", "Transactions that are registered and not decided"],
    ["undelivered", "Decisions that a range has yet to be told"],
  ] as const)
    gauge(
      `ostraka_coordinator_${snakeCase(gaugeName)}`,
      `${help}, as this node knows`,
      () => sources.coordinator()?.gauges()[gaugeName] ?? 0,
    );
  gauge("ostraka_clients", "Connected clients", sources.clients);
  gauge("ostraka_log_bytes", "Bytes of the durable log on disk", () => sources.log.usage().bytes);
  gauge("ostraka_log_segments", "Segments of the durable log", () => sources.log.usage().segments);
  const allStores = (read: (size: StoreSize) => number): number => {
    let sum = 0;
    for (const store of sources.stores()) sum += read(store.size());
    return sum;
  };
  gauge("ostraka_ranges", "Ranges that have a replica here", () => allStores(() => 1));
  gauge("ostraka_database_bytes", "Bytes of the ranges' SQLite databases here", () =>
    allStores(({ databaseBytes }) => databaseBytes),
  );
  gauge("ostraka_wal_bytes", "Bytes of the ranges' SQLite WALs here", () =>
    allStores(({ walBytes }) => walBytes),
  );
  for (const name of [
    "awake",
    "leading",
    "ticks",
    "turns",
    "appends",
    "framesSent",
    "stalls",
    "checkpoints",
    "snapshotsSent",
    "snapshotsInstalled",
  ] as const) {
    gauge(
      `ostraka_host_${snakeCase(name)}`,
      `Hosting: ${name} since the start`,
      () => sources.hostStats()[name],
    );
  }
  return registry;
}

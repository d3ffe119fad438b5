/** Prometheus metrics, read from the parts of the node when they are scraped: nothing is counted twice. */
import { collectDefaultMetrics, Gauge, Registry } from "prom-client";
import type { StatementCounts } from "../gateway/database.js";
import type { DurableLog } from "../log/types.js";
import type { RangeStore, StoreSize } from "../machines/range/types.js";
import type { HostStats } from "../multiraft/host.js";
import type { GroupHandle } from "../multiraft/types.js";

export interface MetricSources {
  readonly groups: () => Iterable<GroupHandle>;
  readonly stores: () => Iterable<RangeStore>;
  readonly log: DurableLog;
  readonly hostStats: () => HostStats;
  readonly clients: () => number;
  readonly statements: Readonly<StatementCounts>;
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
  new Gauge({
    name: "ostraka_statements",
    help: "Statements since the start: at one range (single), over several that each do a part (pushdown), or on all their rows (gather)",
    labelNames: ["kind"],
    registers: [registry],
    collect() {
      for (const [kind, count] of Object.entries(sources.statements)) this.set({ kind }, count);
    },
  });
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
      `ostraka_host_${name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`,
      `Hosting: ${name} since the start`,
      () => sources.hostStats()[name],
    );
  }
  return registry;
}

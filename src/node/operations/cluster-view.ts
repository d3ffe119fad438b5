/** What operations have of this node and, through it, of the cluster. */

import { COORDINATOR_GROUP, type GroupId, META_GROUP, type NodeId, nodeId } from "../../base/ids.js";
import type { Clock } from "../../base/io.js";
import { atMost } from "../../base/waits.js";
import type { StatementCounts } from "../../gateway/database.js";
import type { RunningStatements } from "../../gateway/running.js";
import type { MetaMachine } from "../../machines/meta/meta.js";
import type { MultiRaft } from "../../multiraft/host.js";
import type { GroupHandle } from "../../multiraft/types.js";
import { EVERYTHING } from "../../txn/spans.js";
import type { TransactionTrace } from "../../txn/trace.js";
import type { MetaClient } from "../meta-client.js";
import type { NodeCalls } from "../network.js";
import type { HostedRange } from "../ranges/hosted-range.js";
import type { RangeHosting } from "../ranges/hosting.js";

export const ASK_MS = 2_000;
/** How long a transaction that is prepared keeps rows from being counted. */
const DECIDED_MS = 500;

export interface ClusterView {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly meta: MetaMachine;
  readonly metaClient: MetaClient;
  readonly host: MultiRaft;
  readonly hosting: RangeHosting;
  readonly calls: NodeCalls;
  readonly running: RunningStatements;
  readonly settings: () => ReadonlyMap<string, string>;
  /** How statements have run on this node's gateway. */
  readonly statements: Readonly<StatementCounts>;
  /** Of transactions that this node had a part in. */
  readonly trace: TransactionTrace;
}

export interface GroupReport {
  readonly group: number;
  readonly kind: string;
  readonly role: string;
  readonly leader: number;
  readonly term: number;
  readonly applied: number;
  readonly commit: number;
  readonly lastIndex: number;
  readonly voters: readonly number[];
  readonly learners: readonly number[];
  /** Of the database file of a range, and of it without free pages. */
  readonly bytes?: number;
  readonly liveBytes?: number;
  /** Rows that are another range's are left in the file. */
  readonly untrimmed?: boolean;
  /** Counted only where the range is led, and only when asked for. */
  readonly rows?: number;
}

export interface NodeReport {
  readonly node: number;
  readonly clusterId: string;
  /** There is no disk space: what is committed may not be applied. */
  readonly diskFull: boolean;
  readonly groups: readonly GroupReport[];
  readonly statements: Readonly<StatementCounts>;
}

function kindOf(group: GroupId): string {
  return group === META_GROUP ? "meta" : group === COORDINATOR_GROUP ? "coordinator" : "range";
}

export interface ReportOptions {
  /** Rows of ranges are counted where they are led. */
  readonly rows?: boolean;
  /** Tells of these alone: what a report of a thousand groups takes is not for who asks of two. */
  readonly groups?: readonly number[];
}

export async function localReport(view: ClusterView, options: ReportOptions = {}): Promise<NodeReport> {
  const { host, self, meta } = view;
  const groups = host
    .groups()
    .filter(({ group }) => options.groups?.includes(group) ?? true)
    .sort((a, b) => a.group - b.group);
  return {
    node: self,
    clusterId: meta.state.clusterId,
    diskFull: host.diskFull !== undefined,
    statements: view.statements,
    groups: await Promise.all(groups.map((handle) => groupReport(view, handle, options.rows === true))),
  };
}

async function groupReport(
  { hosting, self, clock }: ClusterView,
  handle: GroupHandle,
  withRows: boolean,
): Promise<GroupReport> {
  const { conf, ...status } = handle.status();
  const hosted = hosting.ranges.get(handle.group);
  const counts = withRows && hosted !== undefined && status.leaderReady;
  // What is decided, and may have been told, but has not come here yet counts.
  if (counts) await atMost(clock, DECIDED_MS, hosted.leader.awaitHolds([EVERYTHING]));
  // A range that is being closed has no rows to tell of.
  const rows = counts ? await hosting.rowCounts.of(hosted).catch(() => undefined) : undefined;
  return {
    group: status.group,
    kind: kindOf(status.group),
    role: conf.learners.includes(self) ? "learner" : status.role,
    leader: status.leader,
    term: status.term,
    applied: status.applied,
    commit: status.commit,
    lastIndex: status.lastIndex,
    voters: conf.voters,
    learners: conf.learners,
    ...(hosted === undefined ? {} : sizeOf(hosted)),
    ...(rows === undefined ? {} : { rows }),
  };
}

function sizeOf({ store }: HostedRange): Pick<GroupReport, "bytes" | "liveBytes" | "untrimmed"> {
  const { databaseBytes, liveBytes } = store.size();
  return { bytes: databaseBytes, liveBytes, untrimmed: store.state().untrimmed };
}

/** The report of one node; rejects when it does not answer. */
export async function reportOf(
  view: ClusterView,
  node: NodeId,
  options: ReportOptions = {},
): Promise<NodeReport> {
  if (node === view.self) return localReport(view, options);
  const timeoutMs = options.rows === true ? 10 * ASK_MS : ASK_MS;
  return (await view.calls.call(node, "node.report", [options], { timeoutMs })) as NodeReport;
}

/** The reports of all nodes that answer. */
export async function allReports(
  view: ClusterView,
  options: ReportOptions = {},
): Promise<ReadonlyMap<number, NodeReport>> {
  const nodes = view.meta.state.nodes.filter(({ state }) => state !== "removed");
  const answers = await Promise.all(
    nodes.map(({ id }) => reportOf(view, nodeId(id), options).catch(() => undefined)),
  );
  return new Map(answers.flatMap((report) => (report === undefined ? [] : [[report.node, report] as const])));
}

/** Of each group what its leader says; of several that call themselves so, the one of the highest term. */
export function leaderReports(
  reports: ReadonlyMap<number, NodeReport>,
): ReadonlyMap<number, GroupReport & { readonly node: number }> {
  const leaders = new Map<number, GroupReport & { readonly node: number }>();
  for (const [node, { groups }] of reports)
    for (const group of groups)
      if (group.role === "leader" && (leaders.get(group.group)?.term ?? -1) < group.term)
        leaders.set(group.group, { ...group, node });
  return leaders;
}

/**
 * Operations behind `ostraka node`, `ostraka check` and the ostraka_* tables: what this node knows of the cluster and
 * what it asks the others.
 */

import { UserError } from "../base/errors.js";
import { COORDINATOR_GROUP, type GroupId, META_GROUP, type NodeId, nodeId } from "../base/ids.js";
import type { Clock } from "../base/io.js";
import type { SqlValue } from "../base/values.js";
import type { AdminVerb } from "../gateway/gateway.js";
import type { RunningStatements } from "../gateway/running.js";
import type { SystemTables } from "../gateway/system-tables.js";
import type { MetaMachine, MetaNode } from "../machines/meta/meta.js";
import type { MultiRaft } from "../multiraft/host.js";
import type { GroupHandle } from "../multiraft/types.js";
import type { NodeCalls } from "./network.js";
import type { Ranges } from "./ranges/ranges.js";

const ASK_MS = 2_000;
/** How long `check` waits for replicas to meet at one applied index. */
const CHECK_MS = 30_000;

export interface ClusterView {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly meta: MetaMachine;
  readonly host: MultiRaft;
  readonly ranges: Ranges;
  readonly calls: NodeCalls;
  readonly running: RunningStatements;
  readonly settings: () => ReadonlyMap<string, string>;
}

interface GroupReport {
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
}

interface ReplicaDigest {
  readonly node: number;
  readonly appliedIndex?: number;
  readonly digest?: string;
  readonly error?: string;
}

export function localReport(view: ClusterView): Record<string, unknown> {
  const groups: GroupReport[] = view.host.groups().map((handle) => {
    const { conf, ...status } = handle.status();
    return {
      group: status.group,
      kind: kindOf(status.group),
      role: conf.learners.includes(view.self) ? "learner" : status.role,
      leader: status.leader,
      term: status.term,
      applied: status.applied,
      commit: status.commit,
      lastIndex: status.lastIndex,
      voters: conf.voters,
      learners: conf.learners,
    };
  });
  return { node: view.self, clusterId: view.meta.state.clusterId, groups };
}

/** What other nodes ask this one for. */
export function serveOperations(view: ClusterView): void {
  view.calls.serve("node.report", async () => localReport(view));
  view.calls.serve("node.statements", async () => view.running.list());
  view.calls.serve("node.digest", async ([group]) => digestOf(view, group as GroupId));
}

async function digestOf(
  view: ClusterView,
  group: GroupId,
): Promise<{ appliedIndex: number; digest: string }> {
  const handle = view.host.findGroup(group);
  if (handle === undefined)
    throw new UserError("OSTRAKA_UNSUPPORTED", `node ${view.self} has no replica of group ${group}`);
  return handle.digest();
}

export function operations(view: ClusterView): Record<string, AdminVerb> {
  return {
    "node.list": () => listNodes(view),
    "node.status": async ({ node }) => {
      const asked = node === undefined ? view.self : nodeId(Number(node));
      if (asked === view.self) return localReport(view);
      if (view.meta.node(asked) === undefined)
        throw new UserError("OSTRAKA_NO_SUCH_NODE", `there is no node ${String(node)}`);
      return view.calls.call(asked, "node.report", [], { timeoutMs: ASK_MS });
    },
    check: () => checkDigests(view),
  };
}

async function isUp(view: ClusterView, node: MetaNode): Promise<boolean> {
  if (node.id === view.self) return true;
  return view.calls.call(nodeId(node.id), "node.report", [], { timeoutMs: ASK_MS }).then(
    () => true,
    () => false,
  );
}

async function listNodes(view: ClusterView) {
  const voters = new Set<number>(view.host.groups().flatMap((group) => [...group.status().conf.voters]));
  return Promise.all(
    view.meta.state.nodes.map(async (node) => ({
      id: node.id,
      address: node.address,
      http: node.http,
      status: (await isUp(view, node)) ? "up" : "down",
      voter: voters.has(node.id),
      incarnation: node.incarnation,
    })),
  );
}

async function checkDigests(view: ClusterView) {
  const groups = await Promise.all(view.host.groups().map((handle) => checkGroup(view, handle)));
  return { equal: groups.every((group) => group.equal), groups };
}

/** Asks every replica until all have answered at one applied index (writes may go on meanwhile), or time is up. */
async function checkGroup(view: ClusterView, handle: GroupHandle) {
  const { conf } = handle.status();
  const members = [...new Set([...conf.voters, ...conf.votersOutgoing, ...conf.learners])].sort(
    (a, b) => a - b,
  );
  const startedMs = view.clock.monotonicMs();
  const seen = new Map<number, Map<number, string>>();
  for (;;) {
    const replicas = await Promise.all(members.map((member) => askDigest(view, member, handle)));
    for (const { node, appliedIndex, digest } of replicas) {
      if (appliedIndex === undefined || digest === undefined) continue;
      const at = seen.get(appliedIndex) ?? new Map<number, string>();
      seen.set(appliedIndex, at.set(node, digest));
    }
    const answered = replicas.filter((replica) => replica.error === undefined).length;
    const met = [...seen].find(([, digests]) => digests.size === members.length);
    const differing = [...seen].find(([, digests]) => new Set(digests.values()).size > 1);
    const decisive = differing ?? met;
    if (
      decisive !== undefined ||
      answered < members.length ||
      view.clock.monotonicMs() - startedMs > CHECK_MS
    ) {
      const equal = decisive !== undefined && new Set(decisive[1].values()).size === 1;
      return {
        group: handle.group,
        index: decisive?.[0] ?? 0,
        equal,
        replicas:
          decisive === undefined
            ? replicas
            : members.map((node) => ({ node, appliedIndex: decisive[0], digest: decisive[1].get(node) })),
      };
    }
    await new Promise<void>((resolve) => view.clock.setTimer(20, resolve));
  }
}

async function askDigest(view: ClusterView, member: NodeId, handle: GroupHandle): Promise<ReplicaDigest> {
  try {
    const { appliedIndex, digest } =
      member === view.self
        ? await handle.digest()
        : ((await view.calls.call(member, "node.digest", [handle.group], { timeoutMs: CHECK_MS })) as {
            appliedIndex: number;
            digest: string;
          });
    return { node: member, appliedIndex, digest };
  } catch (error) {
    return { node: member, error: error instanceof Error ? error.message : String(error) };
  }
}

/** The ostraka_* tables of a cluster whose one range holds everything. */
export function systemTables(view: ClusterView): SystemTables {
  const table =
    (name: string, columns: readonly string[], rows: () => Promise<readonly (readonly SqlValue[])[]>) =>
    async () => ({ name, columns, rows: await rows() });
  return {
    ostraka_nodes: table(
      "ostraka_nodes",
      ["node_id", "address", "http", "status", "voter", "incarnation"],
      async () =>
        (await listNodes(view)).map((node) => [
          BigInt(node.id),
          node.address,
          node.http,
          node.status,
          node.voter ? 1n : 0n,
          node.incarnation,
        ]),
    ),
    ostraka_ranges: table(
      "ostraka_ranges",
      [
        "range_id",
        "table_name",
        "start_key",
        "end_key",
        "leader_node",
        "replicas",
        "row_count",
        "byte_size",
        "applied_index",
        "term",
        "generation",
      ],
      async () => view.meta.state.ranges.map((range) => rangeRow(view, range.range, range.generation)),
    ),
    ostraka_transactions: table(
      "ostraka_transactions",
      ["transaction_id", "state", "age_ms"],
      async () => [],
    ),
    ostraka_outbox: table("ostraka_outbox", ["id", "destination", "kind", "created_ms"], async () => []),
    ostraka_statements: table(
      "ostraka_statements",
      ["node_id", "statement_id", "kind", "statement", "running_ms"],
      async () => listStatements(view),
    ),
    ostraka_settings: table("ostraka_settings", ["name", "value"], async () =>
      [...view.settings()].map(([name, value]) => [name, value]),
    ),
  };
}

/** The statements that run on any node that answers. */
async function listStatements(view: ClusterView): Promise<readonly (readonly SqlValue[])[]> {
  const perNode = await Promise.all(
    view.meta.state.nodes.map(async ({ id }) => {
      const statements = id === view.self ? view.running.list() : await askStatements(view, nodeId(id));
      return statements.map((item) => [
        BigInt(id),
        BigInt(item.id),
        item.kind,
        item.sql,
        Math.round(item.runningMs),
      ]);
    }),
  );
  return perNode.flat();
}

function askStatements(view: ClusterView, node: NodeId): Promise<ReturnType<RunningStatements["list"]>> {
  const asked = view.calls.call(node, "node.statements", [], { timeoutMs: ASK_MS });
  return asked.then((answer) => answer as ReturnType<RunningStatements["list"]>).catch(() => []);
}

function rangeRow(view: ClusterView, range: number, generation: number): readonly SqlValue[] {
  const hosted = view.ranges.get(range as GroupId);
  const status = hosted?.handle.status();
  return [
    BigInt(range),
    null,
    null,
    null,
    BigInt(status?.leader ?? 0),
    (status?.conf.voters ?? []).join(","),
    null,
    BigInt(hosted?.store.size().databaseBytes ?? 0),
    BigInt(status?.applied ?? 0),
    BigInt(status?.term ?? 0),
    BigInt(generation),
  ];
}

function kindOf(group: GroupId): string {
  return group === META_GROUP ? "meta" : group === COORDINATOR_GROUP ? "coordinator" : "range";
}

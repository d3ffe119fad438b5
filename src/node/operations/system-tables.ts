/** The ostraka_* tables: the cluster as SQL sees it, gathered when a statement reads them. */
import { nodeId } from "../../base/ids.js";
import type { SqlValue } from "../../base/values.js";
import { Deadline } from "../../gateway/deadline.js";
import type { SystemTables } from "../../gateway/system-tables.js";
import { ASK_MS, type ClusterView } from "./cluster-view.js";
import { listNodes } from "./nodes.js";
import { listRanges } from "./ranges.js";

const COORDINATOR_MS = 5_000;

type Rows = readonly (readonly SqlValue[])[];

export function systemTables(view: ClusterView): SystemTables {
  const table = (name: string, columns: readonly string[], rows: () => Promise<Rows>) => async () => ({
    name,
    columns,
    rows: await rows(),
  });
  return {
    ostraka_nodes: table(
      "ostraka_nodes",
      [
        "node_id",
        "address",
        "http",
        "status",
        "voter",
        "incarnation",
        "state",
        "range_count",
        "leader_count",
      ],
      () => nodeRows(view),
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
      () => rangeRows(view),
    ),
    ostraka_transactions: table(
      "ostraka_transactions",
      ["transaction_id", "state", "age_ms", "participants", "pending"],
      () => transactionRows(view),
    ),
    ostraka_outbox: table(
      "ostraka_outbox",
      ["id", "destination", "kind", "created_ms", "transaction_id"],
      () => outboxRows(view),
    ),
    ostraka_statements: table(
      "ostraka_statements",
      ["node_id", "statement_id", "kind", "statement", "running_ms"],
      () => statementRows(view),
    ),
    ostraka_trace: table(
      "ostraka_trace",
      ["transaction_id", "at_ms", "node_id", "range_id", "step", "detail"],
      () => traceRows(view),
    ),
    ostraka_settings: table("ostraka_settings", ["name", "value"], async () =>
      [...view.settings()].map(([name, value]) => [name, value]),
    ),
  };
}

async function nodeRows(view: ClusterView): Promise<Rows> {
  const nodes = await listNodes(view);
  return nodes.map(({ id, address, http, status, voter, incarnation, state, ranges, leads }) => [
    BigInt(id),
    address,
    http,
    status,
    voter ? 1n : 0n,
    incarnation,
    state,
    BigInt(ranges),
    BigInt(leads),
  ]);
}

async function rangeRows(view: ClusterView): Promise<Rows> {
  const ranges = await listRanges(view);
  return ranges.map((range) => [
    BigInt(range.rangeId),
    range.table,
    range.startKey,
    range.endKey,
    BigInt(range.leader),
    range.replicas.join(","),
    range.rows === null ? null : BigInt(range.rows),
    range.bytes === null ? null : BigInt(range.bytes),
    BigInt(range.appliedIndex),
    BigInt(range.term),
    BigInt(range.generation),
  ]);
}

async function transactionRows(view: ClusterView): Promise<Rows> {
  const transactions = await atCoordinator(view, () => view.hosting.coordinator.client.list());
  const nowMs = view.clock.wallMs();
  return transactions.map(({ transaction, state, registeredMs, participants, pending }) => [
    transaction,
    state,
    BigInt(Math.max(0, Math.round(nowMs - registeredMs))),
    participants.join(","),
    pending.join(","),
  ]);
}

async function outboxRows(view: ClusterView): Promise<Rows> {
  const rows = await atCoordinator(view, () => view.hosting.coordinator.client.outbox());
  return rows.map(({ id, destination, decision, createdMs, transaction }) => [
    BigInt(id),
    BigInt(destination),
    decision,
    BigInt(Math.round(createdMs)),
    transaction,
  ]);
}

function atCoordinator<T>({ clock }: ClusterView, ask: () => Promise<T>): Promise<T> {
  return new Deadline(clock, undefined, COORDINATOR_MS, { signal: undefined }).persist(ask);
}

/** The statements that run on any node that answers. */
async function statementRows(view: ClusterView): Promise<Rows> {
  const perNode = await onEveryNode(view, "node.statements", view.running.list());
  return perNode.flatMap(({ id, answer }) =>
    answer.map(({ id: statement, kind, sql, runningMs }) => [
      BigInt(id),
      BigInt(statement),
      kind,
      sql,
      BigInt(Math.round(runningMs)),
    ]),
  );
}

/** The steps of transactions that any node that answers remembers. */
async function traceRows(view: ClusterView): Promise<Rows> {
  const perNode = await onEveryNode(view, "node.trace", view.trace.steps());
  return perNode
    .flatMap(({ id, answer }) => answer.map((traced) => ({ id, ...traced })))
    .sort((a, b) => a.atMs - b.atMs)
    .map(({ id, transaction, atMs, range, step, detail }) => [
      transaction,
      BigInt(Math.round(atMs)),
      BigInt(id),
      range === undefined ? null : BigInt(range),
      step,
      detail,
    ]);
}

/** What every node that answers says; this one's answer is `own`. */
async function onEveryNode<T>(
  view: ClusterView,
  method: string,
  own: readonly T[],
): Promise<{ readonly id: number; readonly answer: readonly T[] }[]> {
  const nodes = view.meta.state.nodes.filter(({ state }) => state !== "removed");
  const ask = (id: number): Promise<readonly T[]> =>
    view.calls.call(nodeId(id), method, [], { timeoutMs: ASK_MS }).then(
      (answer) => answer as readonly T[],
      () => [],
    );
  return Promise.all(nodes.map(async ({ id }) => ({ id, answer: id === view.self ? own : await ask(id) })));
}

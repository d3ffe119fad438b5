/** `ostraka node list|status|drain|remove`. */
import { RetryError, UserError } from "../../base/errors.js";
import { META_GROUP, nodeId } from "../../base/ids.js";
import { pause } from "../../base/waits.js";
import type { AdminVerb } from "../../gateway/gateway.js";
import type { MetaNode, NodeState } from "../../machines/meta/meta.js";
import { allReports, type ClusterView, leaderReports, localReport, reportOf } from "./cluster-view.js";

/** How long a node is waited for to be empty, or gone. */
const EMPTY_MS = 30 * 60_000;
const PAUSE_MS = 200;

export interface NodeRow {
  readonly id: number;
  readonly address: string;
  readonly http: string;
  readonly status: "up" | "down";
  readonly state: NodeState;
  readonly voter: boolean;
  /** Replicas of ranges, and how many of them lead. */
  readonly ranges: number;
  readonly leads: number;
  readonly incarnation: string;
}

/** All nodes but those that were removed. */
export async function listNodes(view: ClusterView): Promise<NodeRow[]> {
  const reports = await allReports(view);
  const leaders = [...leaderReports(reports).values()];
  return view.meta.state.nodes
    .filter(({ state }) => state !== "removed")
    .map(({ id, address, http, state, incarnation }) => ({
      id,
      address,
      http,
      status: reports.has(id) ? "up" : "down",
      state,
      voter: leaders.some(({ voters }) => voters.includes(id)),
      ranges: leaders.filter(
        ({ kind, voters, learners }) => kind === "range" && (voters.includes(id) || learners.includes(id)),
      ).length,
      leads: leaders.filter(({ kind, node }) => kind === "range" && node === id).length,
      incarnation,
    }));
}

export function nodeOperations(view: ClusterView): Record<string, AdminVerb> {
  return {
    "node.list": () => listNodes(view),
    "node.status": ({ node }) =>
      node === undefined ? localReport(view) : reportOf(view, nodeId(known(view, node).id)),
    "node.drain": ({ node, undo, wait }) => drain(view, known(view, node), undo === true, wait !== false),
    "node.remove": ({ node, wait }) => remove(view, known(view, node), wait !== false),
  };
}

function known({ meta }: ClusterView, node: unknown): MetaNode {
  const found = meta.node(Number(node));
  if (found === undefined) throw new UserError("OSTRAKA_NO_SUCH_NODE", `there is no node ${String(node)}`);
  return found;
}

async function drain(view: ClusterView, { id }: MetaNode, undo: boolean, wait: boolean) {
  await view.metaClient.command({ kind: "node", id, state: undo ? "live" : "draining" });
  if (undo) return { node: id, state: "live" };
  if (!wait) return { node: id, state: "draining", empty: false };
  await until(view, `node ${id} holds nothing`, async () => {
    const leaders = leaderReports(await allReports(view));
    // Who has replicas of a range that nobody is known to lead cannot be told.
    if (view.meta.state.ranges.some(({ range }) => !leaders.has(range))) return false;
    return [...leaders.values()].every(
      ({ group, voters, learners }) =>
        !voters.includes(id) && (group === META_GROUP || !learners.includes(id)),
    );
  });
  return { node: id, state: "draining", empty: true };
}

async function remove(view: ClusterView, node: MetaNode, wait: boolean) {
  const { id } = node;
  if (node.state === "removed") return { node: id, state: "removed" };
  // It ends as soon as it is removed, and could not answer.
  if (id === view.self && wait)
    throw new UserError("OSTRAKA_REFUSED", `node ${id} cannot be removed through itself: ask another node`);
  await view.metaClient.command({ kind: "node", id, state: "removing" });
  if (!wait) return { node: id, state: "removing" };
  await until(view, `node ${id} is removed`, async () => view.meta.node(id)?.state === "removed");
  return { node: id, state: "removed" };
}

async function until(view: ClusterView, what: string, so: () => Promise<boolean>): Promise<void> {
  const { clock } = view;
  const untilMs = clock.monotonicMs() + EMPTY_MS;
  while (!(await so())) {
    if (clock.monotonicMs() > untilMs)
      throw new RetryError("OSTRAKA_TIMEOUT", `after ${EMPTY_MS / 60_000} minutes still not so: ${what}`);
    await pause(clock, PAUSE_MS);
  }
}

/** What this node is asked by `ostraka node`, `ostraka range` and `ostraka check`, and by other nodes on their behalf. */
import type { AdminVerb } from "../../gateway/gateway.js";
import { checkDigests, serveDigests } from "./checks.js";
import { type ClusterView, localReport, type ReportOptions } from "./cluster-view.js";
import { serveMerges } from "./merge.js";
import { nodeOperations } from "./nodes.js";
import { rangeOperations } from "./ranges.js";

/** What other nodes ask this one for. */
export function serveOperations(view: ClusterView): void {
  view.calls.serve("node.report", ([options]) => localReport(view, options as ReportOptions | undefined));
  view.calls.serve("node.statements", async () => view.running.list());
  view.calls.serve("node.trace", async () => view.trace.steps());
  serveDigests(view);
  serveMerges(view);
}

export function operations(view: ClusterView): Record<string, AdminVerb> {
  return {
    ...nodeOperations(view),
    ...rangeOperations(view),
    check: () => checkDigests(view),
  };
}

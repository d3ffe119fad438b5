/** A node as a library: what `ostraka start` runs. */
export { type NodeConfig, parseNodeConfig } from "./config.js";
export type { RunningNode } from "./node.js";
export { startNode } from "./real-parts.js";

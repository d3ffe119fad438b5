/** A node as a library: what `ostraka start` and `ostraka recover` run. */
export { recoverDirectory, startNode } from "./real-parts.js";

/** A node as a library: what `ostraka start` runs. */
export { startNode } from "./real-parts.js";

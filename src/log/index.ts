/** The node's durable log. */
export { openLog } from "./durable-log.js";
export type { DurableLog, GroupAppend, GroupLog } from "./types.js";

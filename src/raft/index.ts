/**
 * The agreement engine: opaque bytes in, one order out. A pure implementation of Raft (Ongaro, "Consensus: Bridging
 * Theory and Practice", 2014) with pre-vote, check-quorum, pipelined appends, learners, joint consensus, leadership
 * transfer and batched ReadIndex. It knows nothing of what it orders, of disks, networks or clocks.
 */
export { changeConf, EMPTY_CONF, isVoter, membersOf } from "./conf-change.js";
export { decodeConfChange, encodeConfChange } from "./conf-codec.js";
export { RaftNode } from "./node.js";
export * from "./types.js";

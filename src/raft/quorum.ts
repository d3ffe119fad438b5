/**
 * Quorum arithmetic over a membership. One rule serves commit, read rounds, votes and activity: while joint, a thing
 * holds only if it holds in a majority of both voter sets (thesis, section 4.3).
 *
 * Leaves out: who the voters are and when that changes (membership.ts).
 */
import type { NodeId } from "../base/ids.js";
import type { ConfState } from "./types.js";

export type VoteOutcome = "won" | "lost" | "pending";

/** The highest value that a majority of `voters` has reached; Infinity for an empty set, which constrains nothing. */
function majorityReached(voters: readonly NodeId[], reached: (voter: NodeId) => number): number {
  if (voters.length === 0) return Number.POSITIVE_INFINITY;
  const values = voters.map(reached);
  values.sort((a, b) => b - a);
  return values[Math.floor(voters.length / 2)]!;
}

/** The highest value reached by a quorum of the whole membership. */
export function quorumReached(conf: ConfState, reached: (voter: NodeId) => number): number {
  return Math.min(majorityReached(conf.voters, reached), majorityReached(conf.votersOutgoing, reached));
}

function majorityVote(voters: readonly NodeId[], vote: (voter: NodeId) => boolean | undefined): VoteOutcome {
  if (voters.length === 0) return "won";
  let granted = 0;
  let missing = 0;
  for (const voter of voters) {
    const answer = vote(voter);
    if (answer === undefined) missing++;
    else if (answer) granted++;
  }
  const needed = Math.floor(voters.length / 2) + 1;
  if (granted >= needed) return "won";
  return granted + missing >= needed ? "pending" : "lost";
}

/** Where a ballot stands: `vote` answers undefined for those not heard yet. */
export function quorumVote(conf: ConfState, vote: (voter: NodeId) => boolean | undefined): VoteOutcome {
  const incoming = majorityVote(conf.voters, vote);
  const outgoing = majorityVote(conf.votersOutgoing, vote);
  if (incoming === "lost" || outgoing === "lost") return "lost";
  return incoming === "won" && outgoing === "won" ? "won" : "pending";
}

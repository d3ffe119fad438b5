/**
 * The rules of the transaction protocol, each of which the model can leave out; the numbers are those of the design.
 * Some have several parts, of which every one matters.
 *
 * That PREPARE counts as a write at its index as well as COMMIT makes no difference here: whoever validates has waited
 * for what is held, and so for the COMMIT. Together they are needed.
 */
export const RULES = [
  // 1
  "no wait across ranges is unbounded",
  // 2
  "a fence waits for what is held on its spans",
  "a fence waits for what is in flight on its spans",
  // 3
  "no release before the last pin",
  "a release is confirmed by a quorum after it arrived",
  "a release fails if the fence has expired",
  "a fence that was ended never stands again",
  // 4
  "a new leader serves after every inherited entry is applied",
  // 5
  "waiting comes before validation, with no pause after it",
  // 6
  "COMMIT counts as a write at its index",
  "PREPARE or COMMIT counts as a write at its index",
  "a PREPARE in flight is held",
  "a commit on one range waits for what is held of what it read",
  // 7
  "a commit in flight is not validated again",
  // 8
  "a tombstone defeats a later decision",
  // 9
  "nobody who waits is overtaken for ever",
  // Of reads on a replica
  "a read at a later state looks at what is prepared there",
  // Of the keyspace: holds have both sides
  "what is held as read keeps writers waiting",
] as const;

export type Rule = (typeof RULES)[number];

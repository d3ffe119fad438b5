/**
 * What a leader knows of one peer's log, and how it sends to it:
 *
 * - probe: where the logs meet is unknown; one Append at a time, until a response or a heartbeat's response.
 * - replicate: Appends are pipelined within a window, `next` runs ahead of what is acknowledged.
 * - snapshot: the entries it needs are compacted; nothing is sent until the snapshot is reported or acknowledged.
 *
 * Invariants: match < next; match never decreases within a leadership; only acknowledgements raise match.
 * The leader keeps one for itself too, whose match is its own durable index.
 */
import { assert } from "../base/assert.js";
import { Inflights } from "./inflights.js";
import type { RaftConfig } from "./types.js";

export type ProgressState = "probe" | "replicate" | "snapshot";

export class Progress {
  match = 0;
  next: number;
  /**
   * Nothing below was sent, so nothing below is acknowledged: an answer that says so was given by a replica of this node
   * that has left since, and may have taken its log along.
   */
  floor: number;
  state: ProgressState = "probe";
  /** In probe: an Append is out and unanswered. */
  paused = false;
  /** In replicate: send an Append even without entries, to find out whether earlier ones were lost. */
  pingDue = false;
  /** The highest commit index this peer was told; only spares messages, never trusted. */
  sentCommit = 0;
  /** Somebody there waits for news of commits up to here. */
  askedCommit = 0;
  /** Appends left for it since the last heartbeats: they serve as one. */
  sentSinceHeartbeat = false;
  /** The commit index the peer itself reported last. */
  ackedCommit = 0;
  /** In snapshot: the peer's log is expected to reach at least here afterwards. */
  pendingSnapshot = 0;
  /** Heard from since the last check of the quorum. */
  recentActive: boolean;
  /** What `recentActive` was at that check. */
  activeBefore = false;
  /** That it is active was taken for granted when the group woke. */
  assumed = false;
  /** The newest read round it answered. */
  ackedRound = 0;
  readonly inflights: Inflights;

  /** `since`: the index of the change that made it a member, 0 if it was one when the leadership began. */
  constructor(config: RaftConfig, next: number, recentActive: boolean, since = 0) {
    this.next = next;
    this.floor = since;
    this.recentActive = recentActive;
    this.inflights = new Inflights(config.maxInflightMessages, config.maxInflightBytes);
  }

  becomeProbe(): void {
    // After a snapshot that is believed to have arrived, probing starts behind it.
    const from = this.state === "snapshot" ? this.pendingSnapshot : 0;
    this.#enter("probe");
    this.next = Math.max(this.match, from) + 1;
    this.sentCommit = Math.min(this.sentCommit, this.next - 1);
  }

  becomeReplicate(): void {
    this.#enter("replicate");
    this.next = this.match + 1;
  }

  becomeSnapshot(index: number): void {
    this.#enter("snapshot");
    this.pendingSnapshot = index;
  }

  #enter(state: ProgressState): void {
    this.state = state;
    this.paused = false;
    this.pingDue = false;
    this.pendingSnapshot = 0;
    this.inflights.reset();
  }

  /** Takes an acknowledgement; false if it tells nothing new. */
  maybeUpdate(index: number): boolean {
    if (index <= this.match || index < this.floor) return false;
    this.match = index;
    this.next = Math.max(this.next, index + 1);
    this.paused = false;
    return true;
  }

  /** Takes a rejection of an Append at `rejected`; false if it is stale (46). */
  maybeDecrement(rejected: number, hint: number): boolean {
    if (this.state === "snapshot") return false;
    if (this.state === "replicate") {
      if (rejected <= this.match) return false;
      this.becomeProbe();
      return true;
    }
    if (this.next - 1 !== rejected) return false;
    this.next = Math.max(Math.min(rejected, hint + 1), this.match + 1);
    this.sentCommit = Math.min(this.sentCommit, this.next - 1);
    this.paused = false;
    return true;
  }

  /** Records an Append of `count` entries that left for this peer. */
  sent(count: number, bytes: number, commit: number): void {
    const last = this.next - 1 + count;
    this.floor = Math.min(this.floor, this.next - 1);
    this.pingDue = false;
    this.sentSinceHeartbeat = true;
    this.sentCommit = Math.max(this.sentCommit, Math.min(commit, last));
    if (this.state === "probe") {
      this.paused = true;
      return;
    }
    assert(this.state === "replicate", "an Append was sent to a peer that waits for a snapshot");
    if (count === 0) return;
    this.next = last + 1;
    this.inflights.add(last, bytes);
  }
}

/**
 * Who is down, and who is dead, by what the leader of meta hears. It asks every node now and then; a node that has not
 * answered for a while is recorded as down (in meta's log, with the wall time), so that the next leader of meta need
 * not begin to count anew. Dead is one that has been down for long.
 *
 * Invariant: nobody is called dead by a leader that has not itself missed it for as long as it takes to call it down:
 * wall clocks jump, and a recorded time alone proves nothing.
 */
import type { NodeId } from "../base/ids.js";

export interface Hearing {
  readonly id: NodeId;
  /** When it answered last, by this leader's monotonic clock; undefined if it never has. */
  readonly heardMs: number | undefined;
  /** As recorded, by the wall clock. */
  readonly downSinceMs: number | undefined;
}

export interface LivenessTimes {
  readonly nowMs: number;
  /** Since when this leader has been asking. */
  readonly sinceMs: number;
  readonly wallMs: number;
  /** Silence after which a node is down. */
  readonly silentMs: number;
  /** Time for which a node must be down to be dead. */
  readonly deadMs: number;
}

export interface Liveness {
  /** To be recorded as down, or as heard again. */
  readonly down: readonly NodeId[];
  readonly up: readonly NodeId[];
  readonly dead: ReadonlySet<NodeId>;
  readonly silent: ReadonlySet<NodeId>;
}

export function judge(hearings: readonly Hearing[], times: LivenessTimes): Liveness {
  const { nowMs, sinceMs, wallMs, silentMs, deadMs } = times;
  const down: NodeId[] = [];
  const up: NodeId[] = [];
  const dead = new Set<NodeId>();
  const silent = new Set<NodeId>();
  for (const { id, heardMs, downSinceMs } of hearings) {
    const missed = nowMs - (heardMs ?? sinceMs) >= silentMs;
    if (missed) {
      silent.add(id);
      if (downSinceMs === undefined) down.push(id);
      else if (wallMs - downSinceMs >= deadMs) dead.add(id);
    } else if (heardMs !== undefined && downSinceMs !== undefined) up.push(id);
    else if (downSinceMs !== undefined) silent.add(id);
  }
  return { down, up, dead, silent };
}

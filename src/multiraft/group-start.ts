/** How a group begins on this node, and how one that has been here is opened. */
import { assert } from "../base/assert.js";
import { FatalError } from "../base/errors.js";
import { type GroupId, type LogIndex, logIndex, NO_NODE, type Term, term as toTerm } from "../base/ids.js";
import type { GroupAppend, GroupLog } from "../log/types.js";
import type { ConfState } from "../raft/types.js";
import type { HostLogger } from "./options.js";
import { BOOTSTRAP_INDEX } from "./replica.js";
import type { SnapshotReceiver } from "./snapshot-receiver.js";
import type { GroupMachine, Promised } from "./types.js";

export interface GroupConfig {
  readonly group: GroupId;
  readonly machine: GroupMachine;
  /** The members that all start with; ignored where data exists. Without it the group waits for a leader's snapshot. */
  readonly bootstrap?: ConfState;
  /**
   * Where the log of a group that bootstraps begins, the same at all members: what its machine has applied when it is
   * opened first. An empty machine's begins at BOOTSTRAP_INDEX in term 1.
   */
  readonly begins?: { readonly index: LogIndex; readonly term: Term };
  /**
   * What a replica of the group on this node had promised before it was removed, at every start since. A node that comes
   * back to a group must not vote again in a term in which it has, nor for a log that lacks what it had acknowledged.
   */
  readonly promised?: Promised;
}

/** What the log of a group that it does not have begins with; undefined where its state is yet to come. */
export function firstRecord({
  group,
  bootstrap,
  begins,
  promised,
}: Omit<GroupConfig, "machine">): GroupAppend | undefined {
  if (bootstrap !== undefined) {
    assert(promised === undefined, `group ${group} was here before and cannot begin anew`);
    // At index 1, not 0: whoever joins later with an empty log then needs a snapshot, which has the membership.
    const { index, term } = begins ?? { index: BOOTSTRAP_INDEX, term: toTerm(1) };
    return {
      group,
      hardState: { term, vote: NO_NODE, commit: index },
      entries: [],
      snapshot: { index, term, conf: bootstrap },
    };
  }
  if (promised === undefined) return undefined;
  const hardState = { term: promised.term, vote: promised.vote, commit: logIndex(0) };
  return { group, hardState, entries: [], snapshot: undefined };
}

/** Finishes a snapshot's installation if one was cut short; answers the applied index. */
export async function openMachine(
  group: GroupId,
  machine: GroupMachine,
  log: GroupLog,
  receiver: SnapshotReceiver,
  logger: HostLogger,
): Promise<LogIndex> {
  let applied = await machine.open();
  const base = log.base();
  if (applied < base.index) {
    const file = await receiver.pending(group, base.index, base.term);
    if (file !== undefined) {
      logger.info({ group, index: base.index }, "installing a snapshot that a crash left half-way");
      applied = await machine.restore(file);
    } else if (base.index === BOOTSTRAP_INDEX && applied === 0) {
      await machine.apply([], BOOTSTRAP_INDEX);
      applied = BOOTSTRAP_INDEX;
    }
    if (applied < base.index)
      throw new FatalError(
        "OSTRAKA_CORRUPT",
        `group ${group}: the log begins at ${base.index}, the state is that of ${applied}, and the snapshot between is missing`,
      );
  }
  if (applied > log.lastIndex())
    throw new FatalError(
      "OSTRAKA_CORRUPT",
      `group ${group}: the state is that of ${applied}, but the log ends at ${log.lastIndex()}`,
    );
  await receiver.discard(group);
  return applied;
}

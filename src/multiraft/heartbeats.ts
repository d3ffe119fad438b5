/**
 * Heartbeats of all groups to one peer travel as four numbers a row instead of a message each: a thousand groups
 * cost one small frame. A row is [group, term, commit, context]; a response has the group negated. Only the fields
 * listed here are carried, so a heartbeat that has anything else must travel as a message (`isPlain`).
 */
import { type GroupId, groupId, logIndex, type NodeId, type Term, term as toTerm } from "../base/ids.js";
import { type Message, MessageType } from "../raft/types.js";

export const HEARTBEAT_COLUMNS = 4;
export const QUIESCE_COLUMNS = 3;
const NO_ENTRIES: Message["entries"] = [];

export function isPlainHeartbeat(message: Message): boolean {
  return (
    (message.type === MessageType.Heartbeat || message.type === MessageType.HeartbeatResponse) &&
    !message.reject &&
    message.index === 0 &&
    message.logTerm === 0 &&
    message.entries.length === 0 &&
    message.snapshot === undefined
  );
}

export function pushHeartbeat(columns: number[], group: GroupId, message: Message): void {
  const signed = message.type === MessageType.Heartbeat ? group : -group;
  columns.push(signed, message.term, message.commit, message.context);
}

/** Rebuilds the messages of a frame's columns; a frame cut to an odd length loses only its last row. */
export function* readHeartbeats(
  columns: readonly number[],
  from: NodeId,
  to: NodeId,
): Generator<{ group: GroupId; message: Message }> {
  for (let at = 0; at + HEARTBEAT_COLUMNS <= columns.length; at += HEARTBEAT_COLUMNS) {
    const signed = columns[at] as number;
    yield {
      group: groupId(Math.abs(signed)),
      message: {
        type: signed > 0 ? MessageType.Heartbeat : MessageType.HeartbeatResponse,
        from,
        to,
        term: toTerm(columns[at + 1] as number) as Term,
        index: logIndex(0),
        logTerm: toTerm(0),
        entries: NO_ENTRIES,
        commit: logIndex(columns[at + 2] as number),
        reject: false,
        rejectHint: logIndex(0),
        context: columns[at + 3] as number,
        snapshot: undefined,
      },
    };
  }
}

/** How golden scripts show messages, entries and states: short, one line each, only what is not nothing. */
import {
  type ConfState,
  decodeConfChange,
  type Entry,
  EntryKind,
  encodeConfChange,
  type Message,
  MessageType,
  type RaftStatus,
} from "../../../src/raft/index.js";

const NAMES = new Map<number, string>(Object.entries(MessageType).map(([name, type]) => [type, name]));
const SIGNS = { voter: "+", learner: "~", remove: "-" } as const;

export const list = { encodeChange: encodeConfChange };

/** Entries as index/term and their text, runs of plain ones shortened. */
export function formatEntries(entries: readonly Entry[]): string {
  return entries.map((entry) => `${entry.index}/${entry.term}${formatData(entry)}`).join(" ");
}

function formatData(entry: Entry): string {
  if (entry.kind === EntryKind.ConfChange) {
    const { changes } = decodeConfChange(entry.data);
    if (changes.length === 0) return "[leave]";
    return `[${changes.map(({ kind, node }) => `${SIGNS[kind]}${node}`).join(" ")}]`;
  }
  if (entry.data.length === 0) return "";
  const text = String.fromCharCode(...entry.data);
  return `:${text.length > 12 ? `${text.slice(0, 4)}…${text.length}` : text}`;
}

export function formatMessage(message: Message): string {
  const { type, index, logTerm, commit, reject, rejectHint, context, entries, snapshot } = message;
  const head = `${message.from}->${message.to} ${NAMES.get(type)} term ${message.term}`;
  const tail = context > 0 ? ` context ${context}` : "";
  switch (type) {
    case MessageType.PreVote:
    case MessageType.Vote:
      return `${head} last ${index}/${logTerm}${tail}`;
    case MessageType.PreVoteResponse:
    case MessageType.VoteResponse:
      return `${head} ${reject ? "rejected" : "granted"}${commit > 0 ? ` commit ${commit}/${logTerm}` : ""}${tail}`;
    case MessageType.Append:
      return `${head} after ${index}/${logTerm} commit ${commit} [${formatEntries(entries)}]`;
    case MessageType.AppendResponse:
      return reject
        ? `${head} rejected ${index} hint ${rejectHint}/${logTerm}${tail}`
        : `${head} acknowledged ${index}`;
    case MessageType.Heartbeat:
    case MessageType.HeartbeatResponse:
      return `${head} commit ${commit}${tail}`;
    case MessageType.Snapshot:
      return `${head} ${snapshot!.index}/${snapshot!.term} ${formatConf(snapshot!.conf)}`;
    default:
      return head;
  }
}

export function formatConf(conf: ConfState): string {
  let text = `(${conf.voters.join(" ")})`;
  if (conf.votersOutgoing.length > 0) text += `&(${conf.votersOutgoing.join(" ")})`;
  if (conf.learners.length > 0) text += ` learners (${conf.learners.join(" ")})`;
  if (conf.learnersNext.length > 0) text += ` next (${conf.learnersNext.join(" ")})`;
  return text;
}

export function formatStatus(status: RaftStatus): string {
  const { id, role, term, vote, leader, commit, applied, lastIndex, durableIndex, conf, progress } = status;
  const lines = [
    `${id}: ${role}${leader > 0 && leader !== id ? ` of ${leader}` : ""} term ${term} vote ${vote} ` +
      `commit ${commit} applied ${applied} last ${lastIndex}` +
      `${durableIndex < lastIndex ? ` durable ${durableIndex}` : ""} ${formatConf(conf)}`,
  ];
  for (const [peer, { match, next, state, recentActive, inflight }] of [...progress].sort(
    ([a], [b]) => a - b,
  )) {
    if (peer === id) continue;
    lines.push(
      `   ${peer}: ${state} match ${match} next ${next}${inflight > 0 ? ` inflight ${inflight}` : ""}` +
        `${recentActive ? "" : " silent"}`,
    );
  }
  return lines.join("\n");
}

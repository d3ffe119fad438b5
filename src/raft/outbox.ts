/**
 * What the core has to say until the host takes the next ready: messages that may leave at once, messages that must
 * wait for the disk (votes and acknowledgements: 8, 9, 35), finished and dropped reads, peers in need of a snapshot.
 */
import { type LogIndex, logIndex, type NodeId, type Term, term } from "../base/ids.js";
import type { Message, MessageType, Ready } from "./types.js";

const NOTHING = {
  index: logIndex(0),
  logTerm: term(0),
  entries: [],
  commit: logIndex(0),
  reject: false,
  rejectHint: logIndex(0),
  context: 0,
  snapshot: undefined,
} as const;

/** The fields of a message that are not nothing. */
export type Draft = Pick<Message, "type" | "to"> & Partial<Omit<Message, "from">>;

export class Outbox {
  readonly #from: NodeId;
  now: Message[] = [];
  afterDisk: Message[] = [];
  readStates: { readonly context: number; readonly index: LogIndex }[] = [];
  droppedReads: number[] = [];
  snapshotsNeeded: NodeId[] = [];

  constructor(from: NodeId) {
    this.#from = from;
  }

  send(ownTerm: Term, draft: Draft): void {
    this.now.push(this.#message(ownTerm, draft));
  }

  sendAfterDisk(ownTerm: Term, draft: Draft): void {
    this.afterDisk.push(this.#message(ownTerm, draft));
  }

  #message(ownTerm: Term, draft: Draft): Message {
    // Spelled out so that every message has the same hidden class.
    return {
      type: draft.type as MessageType,
      from: this.#from,
      to: draft.to,
      term: draft.term ?? ownTerm,
      index: draft.index ?? NOTHING.index,
      logTerm: draft.logTerm ?? NOTHING.logTerm,
      entries: draft.entries ?? NOTHING.entries,
      commit: draft.commit ?? NOTHING.commit,
      reject: draft.reject ?? false,
      rejectHint: draft.rejectHint ?? NOTHING.rejectHint,
      context: draft.context ?? 0,
      snapshot: draft.snapshot,
    };
  }

  /** A new term makes waiting votes and acknowledgements worthless, and what they acknowledge may be replaced. */
  dropOlder(newTerm: Term): void {
    this.now = this.now.filter((message) => message.term >= newTerm);
    this.afterDisk = this.afterDisk.filter((message) => message.term >= newTerm);
    this.snapshotsNeeded = [];
  }

  get empty(): boolean {
    return (
      this.now.length === 0 &&
      this.afterDisk.length === 0 &&
      this.readStates.length === 0 &&
      this.droppedReads.length === 0 &&
      this.snapshotsNeeded.length === 0
    );
  }

  /** Empties all but `afterDisk`, which the caller attaches to an append. */
  take(): { messages: Message[] } & Pick<Ready, "readStates" | "droppedReads" | "snapshotsNeeded"> {
    const taken = {
      messages: this.now,
      readStates: this.readStates,
      droppedReads: this.droppedReads,
      snapshotsNeeded: this.snapshotsNeeded,
    };
    this.now = [];
    this.readStates = [];
    this.droppedReads = [];
    this.snapshotsNeeded = [];
    return taken;
  }
}

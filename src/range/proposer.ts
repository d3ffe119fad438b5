/**
 * Turns commands into log entries: all commands that one turn of the event loop gathered become one entry, so that
 * Raft, the log and the apply batch pay per turn and not per command. Answers come back as one encoded list an entry.
 *
 * Invariants:
 * 1. Commands of one proposer enter the log in the order they were queued, or not at all.
 * 2. A batch is proposed in the term its commands were admitted in, or refused whole (RouteError): what was validated
 *    by a leader is never appended by another.
 */
import type { LogIndex, Term } from "../base/ids.js";
import { decodeResults, encodeCommands } from "../machines/range/command.js";
import type { Command, CommandResult } from "../machines/range/types.js";
import type { GroupHandle } from "../multiraft/types.js";

/** Commands beyond this share of an entry start the next one. */
const MAX_ENTRY_COMMANDS = 512;

export interface Admitted {
  readonly result: CommandResult;
  readonly index: LogIndex;
}

interface Waiting {
  readonly command: Command;
  readonly resolve: (admitted: Admitted) => void;
  readonly reject: (error: unknown) => void;
}

export class Proposer {
  readonly #handle: GroupHandle;
  #queue: Waiting[] = [];
  #queueTerm: Term | undefined;

  constructor(handle: GroupHandle) {
    this.#handle = handle;
  }

  /** Queues a command admitted in `term`; resolves once it is applied on this node. */
  submit(command: Command, term: Term): Promise<Admitted> {
    if (this.#queueTerm !== term) this.#flush();
    if (this.#queue.length === 0) {
      this.#queueTerm = term;
      queueMicrotask(() => this.#flush());
    }
    return new Promise((resolve, reject) => {
      this.#queue.push({ command, resolve, reject });
      if (this.#queue.length >= MAX_ENTRY_COMMANDS) this.#flush();
    });
  }

  #flush(): void {
    const waiting = this.#queue;
    if (waiting.length === 0 || this.#queueTerm === undefined) return;
    this.#queue = [];
    const data = encodeCommands(waiting.map((item) => item.command));
    this.#handle.propose(data, { onlyInTerm: this.#queueTerm }).then(
      ({ index, result }) => {
        const results = decodeResults(result);
        for (let i = 0; i < waiting.length; i++) waiting[i]!.resolve({ result: results[i]!, index });
      },
      (error: unknown) => {
        for (const item of waiting) item.reject(error);
      },
    );
  }
}

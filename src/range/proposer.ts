/**
 * Turns commands into log entries: all commands that one turn of the event loop gathered become one entry, so that
 * Raft, the log and the apply batch pay per turn and not per command. Answers come back as one encoded list an entry.
 *
 * Invariants:
 * 1. Commands of one proposer enter the log in the order they were queued, or not at all.
 * 2. A batch is proposed in the term its commands were admitted in, or refused whole (RouteError): what was validated
 *    by a leader is never appended by another. All of a batch were admitted under one generation of the range.
 */
import type { LogIndex, Term } from "../base/ids.js";
import { decodeResults, encodeCommands } from "../machines/range/command.js";
import type { Command, CommandResult } from "../machines/range/types.js";
import type { GroupHandle } from "../multiraft/types.js";

/** Commands beyond this share of an entry start the next one. */
const MAX_ENTRY_COMMANDS = 512;
/**
 * What many commands take together; a single one may take more. Whatever kept many large writes waiting lets them go in
 * one turn, and an entry that is too large for a frame would reach no follower, ever.
 */
const MAX_ENTRY_BYTES = 16 * 1024 * 1024;

/** A command on its way through the log. */
export interface Proposal<C = Command, R = CommandResult> {
  readonly command: C;
  /** Called once, before the result is told: the command is in the log at `index`, or (undefined) may not be. */
  settled(index: LogIndex | undefined, result: R | undefined): void;
  /** What to tell instead of the machine's result; throws what to reject with. */
  answer?(result: R): R;
}

/** The bytes of an entry of many commands, and those of its result. */
export interface BatchCodec<C, R> {
  encode(commands: readonly C[], generation: number): Uint8Array;
  decode(results: Uint8Array): readonly R[];
}

interface Waiting<P, R> {
  readonly proposal: P;
  readonly resolve: (result: R) => void;
  readonly reject: (error: unknown) => void;
}

/** For any machine whose entries are batches of commands; a range's own is below. */
export class BatchProposer<P extends Proposal<C, R>, C, R> {
  readonly #handle: GroupHandle;
  readonly #codec: BatchCodec<C, R>;
  #queue: Waiting<P, R>[] = [];
  #queueTerm: Term | undefined;
  #queueGeneration = 0;
  readonly #proposed = new Set<readonly Waiting<P, R>[]>();
  readonly #flushQueue = (): void => this.flush();

  constructor(handle: GroupHandle, codec: BatchCodec<C, R>) {
    this.#handle = handle;
    this.#codec = codec;
  }

  /**
   * Queues a command admitted in `term`, under that generation of what the group holds (0 where there is no such thing);
   * resolves once it is applied on this node.
   */
  submit(proposal: P, term: Term, generation = 0): Promise<R> {
    if (this.#queueTerm !== term || this.#queueGeneration !== generation) this.flush();
    if (this.#queue.length === 0) {
      this.#queueTerm = term;
      this.#queueGeneration = generation;
      queueMicrotask(this.#flushQueue);
    }
    return new Promise((resolve, reject) => {
      this.#queue.push({ proposal, resolve, reject });
      if (this.#queue.length >= MAX_ENTRY_COMMANDS) this.flush();
    });
  }

  /** Everything queued or proposed and not settled, in log order. */
  *onTheirWay(): Generator<P> {
    for (const batch of this.#proposed) for (const { proposal } of batch) yield proposal;
    for (const { proposal } of this.#queue) yield proposal;
  }

  /** Proposes what is queued; what comes after it goes into another entry. */
  flush(): void {
    const waiting = this.#queue;
    if (waiting.length === 0 || this.#queueTerm === undefined) return;
    this.#queue = [];
    this.#propose(waiting, this.#queueTerm, this.#queueGeneration);
  }

  #propose(waiting: readonly Waiting<P, R>[], term: Term, generation: number): void {
    const data = this.#codec.encode(
      waiting.map(({ proposal }) => proposal.command),
      generation,
    );
    if (data.length > MAX_ENTRY_BYTES && waiting.length > 1) {
      const half = waiting.length >>> 1;
      this.#propose(waiting.slice(0, half), term, generation);
      this.#propose(waiting.slice(half), term, generation);
      return;
    }
    this.#proposed.add(waiting);
    this.#handle.propose(data, { onlyInTerm: term }).then(
      ({ index, result }) => {
        this.#proposed.delete(waiting);
        const results = this.#codec.decode(result);
        waiting.forEach(({ proposal }, i) => {
          proposal.settled(index, results[i]);
        });
        for (let i = 0; i < waiting.length; i++) tell(waiting[i]!, results[i]!);
      },
      (error: unknown) => {
        this.#proposed.delete(waiting);
        for (const { proposal } of waiting) proposal.settled(undefined, undefined);
        for (const item of waiting) item.reject(error);
      },
    );
  }
}

function tell<C, R>({ proposal, resolve, reject }: Waiting<Proposal<C, R>, R>, result: R): void {
  try {
    resolve(proposal.answer === undefined ? result : proposal.answer(result));
  } catch (error) {
    reject(error);
  }
}

const RANGE_CODEC: BatchCodec<Command, CommandResult> = {
  encode: encodeCommands,
  decode: decodeResults,
};

export class Proposer<P extends Proposal> extends BatchProposer<P, Command, CommandResult> {
  constructor(handle: GroupHandle) {
    super(handle, RANGE_CODEC);
  }
}

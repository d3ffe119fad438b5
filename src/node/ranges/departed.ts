/**
 * The replicas that once were on this node: what they had promised when they left. Kept on the node's own disk for
 * ever (a few bytes a range), for three reasons.
 *
 * A group does not count a node's promises out when the node leaves: should it come back, its votes of before still
 * bind it, and so does what it had acknowledged, which somebody who was away may still count. And a range must not rise
 * again: a crash may make a node apply its parent's split once more, and the child that this makes would begin as if
 * nobody had ever left it, with members that may be elsewhere by now. And those that have crashed since may not know that
 * this node's removal was committed, and wait for its vote: they are told.
 *
 * Invariants:
 * 1. A replica is recorded as "left" before anything of it is deleted, and as "back" before it is made anew.
 * 2. What is recorded of a range never becomes unknown again, and its term never goes back.
 */
import { join } from "node:path";
import { FatalError, RetryError } from "../../base/errors.js";
import { type GroupId, groupId, type LogIndex, type NodeId, type Term } from "../../base/ids.js";
import type { Clock, Disk } from "../../base/io.js";
import { pause } from "../../base/waits.js";
import { isDiskFull } from "../../log/writer.js";
import type { Promised } from "../../multiraft/types.js";
import type { LogEnd } from "../../raft/types.js";

const FORMAT = 1;
const RETRY_MS = 500;
export const DEPARTED_FILE = "departed.json";

export interface Departure {
  readonly promised: Promised;
  /** An entry that its group has committed, as the leader said on whose word it left: whoever has it may know that. */
  readonly committed?: LogEnd | undefined;
  /** The node was asked to hold it again. */
  readonly back: boolean;
}

interface DepartedFile {
  readonly format: number;
  /**
   * Range, term, vote, 1 when it is back, the index and term that its log ended with, and of the entry that is known to
   * be committed (0 for none).
   */
  readonly ranges: readonly (readonly [number, number, number, number, number?, number?, number?, number?])[];
}

export class DepartedRanges {
  readonly #disk: Disk;
  readonly #path: string;
  readonly #clock: Clock;
  readonly #ranges: Map<GroupId, Departure>;
  /** Writes one after the other. */
  #writing: Promise<void> = Promise.resolve();
  #stopped = false;

  private constructor(disk: Disk, path: string, clock: Clock, ranges: Map<GroupId, Departure>) {
    this.#disk = disk;
    this.#path = path;
    this.#clock = clock;
    this.#ranges = ranges;
  }

  static async open(disk: Disk, directory: string, clock: Clock): Promise<DepartedRanges> {
    const path = join(directory, DEPARTED_FILE);
    const ranges = (await disk.exists(path)) ? read(path, await disk.readFile(path)) : new Map();
    return new DepartedRanges(disk, path, clock, ranges);
  }

  get(range: GroupId): Departure | undefined {
    return this.#ranges.get(range);
  }

  /** How the group of a range is opened here: with what its last replica had promised, if there was one. */
  returning(range: GroupId): { readonly promised?: Promised } {
    const promised = this.#ranges.get(range)?.promised;
    return promised === undefined ? {} : { promised };
  }

  /** Those that left and are not back. */
  gone(): GroupId[] {
    return [...this.#ranges].filter(([, { back }]) => !back).map(([range]) => range);
  }

  /**
   * Durable when it resolves. Waits for disk space, since the replica has ended already: only what is recorded is
   * forgotten by the log.
   */
  async left(range: GroupId, promised: Promised, committed?: LogEnd): Promise<void> {
    const before = this.#ranges.get(range);
    const newest = before === undefined ? promised : both(before.promised, promised);
    const departure = { promised: newest, committed: committed ?? before?.committed, back: false };
    for (;;) {
      try {
        return await this.#record(range, departure);
      } catch (error) {
        if (!isDiskFull(error)) throw error;
      }
      await pause(this.#clock, RETRY_MS);
      if (this.#stopped) throw new RetryError("OSTRAKA_UNAVAILABLE", "the node is stopping");
    }
  }

  /** Nothing is waited for any more. */
  stop(): void {
    this.#stopped = true;
  }

  /** Durable when it resolves. */
  back(range: GroupId): Promise<void> {
    const departure = this.#ranges.get(range);
    if (departure === undefined || departure.back) return Promise.resolve();
    return this.#record(range, { ...departure, back: true });
  }

  async #record(range: GroupId, departure: Departure): Promise<void> {
    const before = this.#ranges.get(range);
    this.#ranges.set(range, departure);
    const write = (): Promise<void> => this.#disk.writeFile(this.#path, this.#encode());
    this.#writing = this.#writing.then(write, write);
    try {
      await this.#writing;
    } catch (error) {
      // What is not on the disk is not so: whoever tries again has to write again.
      if (this.#ranges.get(range) === departure) {
        if (before === undefined) this.#ranges.delete(range);
        else this.#ranges.set(range, before);
      }
      throw error;
    }
  }

  #encode(): Uint8Array {
    const file: DepartedFile = {
      format: FORMAT,
      ranges: [...this.#ranges]
        .sort(([a], [b]) => a - b)
        .map(
          ([
            range,
            {
              promised: { term, vote, log },
              committed,
              back,
            },
          ]) => {
            const end = [log.index, log.term, committed?.index ?? 0, committed?.term ?? 0] as const;
            return [range, term, vote, back ? 1 : 0, ...end];
          },
        ),
    };
    return new TextEncoder().encode(`${JSON.stringify(file)}\n`);
  }
}

/** What binds a node that has left twice; it may have had less the second time, or nothing. */
function both(a: Promised, b: Promised): Promised {
  const { term, vote } = a.term > b.term ? a : b;
  const further = a.log.term > b.log.term || (a.log.term === b.log.term && a.log.index > b.log.index);
  return { term, vote, log: further ? a.log : b.log };
}

function read(path: string, bytes: Uint8Array): Map<GroupId, Departure> {
  try {
    const { format, ranges } = JSON.parse(new TextDecoder().decode(bytes)) as DepartedFile;
    if (format !== FORMAT) throw new Error(`format ${format}; this version reads ${FORMAT}`);
    return new Map(
      // Where the log's end was not noted yet, it may be anything of its term.
      ranges.map(
        ([range, term, vote, back, index = Number.MAX_SAFE_INTEGER, logTerm = term, at = 0, of = 0]) => [
          groupId(range),
          {
            committed: at === 0 ? undefined : { index: at as LogIndex, term: of as Term },
            promised: {
              term: term as Term,
              vote: vote as NodeId,
              log: { index: index as LogIndex, term: logTerm as Term },
            },
            back: back === 1,
          },
        ],
      ),
    );
  } catch (error) {
    throw new FatalError("OSTRAKA_CORRUPT", `${path} is damaged: ${String(error)}`, { cause: error });
  }
}

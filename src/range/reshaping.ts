/**
 * Changes of the range itself: splits, the two halves of a merge, and the deletion of rows that a split has left behind.
 *
 * Invariants:
 * 1. Nothing is prepared when the range changes: first no PREPARE is let in, then what is prepared is waited for.
 * 2. While the command is in flight no writer and no fence is let in; all that was admitted is in front of it in the log.
 * 3. No fence has stood through a change. A transaction that has touched what is not in the slice any more is closed.
 * 4. One change at a time.
 * 5. What takes in its neighbour has on every member a replica of it to take in: no member comes between the look at who
 *    has one and the command's being applied, and no such replica leaves before (src/node/ranges/farewell.ts).
 * 6. A child's members are the parent's as of the split's entry: were some of them to leave in front of it, they would
 *    never make the child, and perhaps be all that it has for voters.
 */
import { fromWireError, RetryError, RouteError, UserError } from "../base/errors.js";
import type { GroupId, NodeId } from "../base/ids.js";
import type { Timer } from "../base/io.js";
import { isRowKey, type Key } from "../base/keys.js";
import type { Command, CommandResult } from "../machines/range/types.js";
import { isBefore, type RangeDescriptor } from "../placement/descriptor.js";
import { FIRST_SPLIT_KEY } from "../placement/route.js";
import type { LeaderContext, Leadership } from "./leadership.js";
import type { OpenTransactions } from "./open-transactions.js";

/** After a trim that was refused (a full queue, a full disk). */
const TRIM_AGAIN_MS = 1_000;

export class Reshaping {
  readonly #context: LeaderContext;
  readonly #leadership: Leadership;
  readonly #open: OpenTransactions;
  #changing = false;
  #timer: Timer | undefined;
  #trimming = false;

  constructor(context: LeaderContext, leadership: Leadership, open: OpenTransactions) {
    this.#context = context;
    this.#leadership = leadership;
    this.#open = open;
    this.trimSoon();
  }

  end(): void {
    this.#timer?.cancel();
  }

  // --- split and merge ------------------------------------------------------------------------------------------

  async split(at: Key | undefined, child: GroupId): Promise<RangeDescriptor> {
    const known = this.#context.children.find(({ range }) => range === child);
    if (known !== undefined) return known;
    const key = at ?? (await this.#context.deps.store.splitKey());
    if (key === undefined)
      throw new UserError("OSTRAKA_UNSUPPORTED", "the range has no key at which it could be split");
    if (key < FIRST_SPLIT_KEY || !isRowKey(key))
      throw new UserError("OSTRAKA_UNSUPPORTED", "a range cannot be split there");
    this.#checkInside(key);
    const { handle } = this.#context.deps;
    let release = (): void => {};
    return this.#change(
      (generation) => {
        this.#checkInside(key);
        release = handle.holdMembership();
        const { conf } = handle.status();
        return { kind: "split", generation, at: key, child, conf, ...this.#own() };
      },
      (before) => {
        const { generation, replicas } = this.#context.descriptor();
        const descriptor = { range: child, start: key, end: before.end, generation, replicas };
        this.#context.children.push(descriptor);
        this.#open.closeOutside(this.#leadership);
        return descriptor;
      },
    ).finally(() => release());
  }

  #checkInside(key: Key): void {
    const { start, end } = this.#context.state.descriptor;
    if (key <= start || !isBefore(key, end)) throw this.#context.movedError();
  }

  async freeze(into: GroupId): Promise<RangeDescriptor> {
    // For whomever: it may have been taken in already, and a node that has yet to do so must find it as it was.
    if (this.#context.state.frozenInto !== undefined) return this.#context.descriptor();
    return this.#change(
      (generation) => ({ kind: "freeze", generation, into, ...this.#own() }),
      () => {
        this.#open.closeAll(this.#leadership);
        return this.#context.descriptor();
      },
    );
  }

  /** Invariant 5. */
  async absorb(right: RangeDescriptor, ready: readonly NodeId[]): Promise<RangeDescriptor> {
    const { state, deps } = this.#context;
    if (state.absorbed.includes(right.range)) return this.#context.descriptor();
    if (state.rightNeighbour !== right.range) throw this.#context.movedError();
    const release = deps.handle.holdMembership();
    try {
      const { voters, learners } = deps.handle.conf;
      const lacking = [...voters, ...learners].filter((node) => !ready.includes(node));
      if (lacking.length > 0)
        throw new RetryError(
          "OSTRAKA_UNAVAILABLE",
          `node ${lacking.join(", ")} has no frozen replica of ${right.range}`,
        );
      return await this.#change(
        (generation) => ({ kind: "absorb", generation, right, ...this.#own() }),
        () => {
          this.#leadership.tookInAt = this.#leadership.sliceSince;
          return this.#context.descriptor();
        },
      );
    } finally {
      release();
    }
  }

  #own(): Pick<Command, "key" | "wallMs"> {
    return { key: this.#context.ownKey(this.#leadership.term), wallMs: this.#context.wallMs() };
  }

  async #change(
    command: (generation: number) => Command,
    changed: (before: RangeDescriptor) => RangeDescriptor,
  ): Promise<RangeDescriptor> {
    if (this.#changing) throw new RetryError("OSTRAKA_RETRY", "the range is being changed already");
    const { admission } = this.#leadership;
    const { clock, limits } = this.#context.deps;
    this.#context.leading();
    this.#changing = true;
    admission.gate.close("to prepares");
    try {
      const before = this.#context.descriptor();
      const untilMs = clock.monotonicMs() + limits.reshapeWaitMs;
      const result = await admission.pass({ kind: "drain", untilMs }, (passage) => {
        if (passage !== "go")
          throw new RetryError("OSTRAKA_RETRY", "a transaction across ranges does not come to its end");
        const proposal = command(this.#context.generation);
        admission.gate.close("to writers");
        return this.#context.submitAlone(proposal, this.#leadership);
      });
      return this.#accepted(result, before, changed);
    } finally {
      this.#changing = false;
      admission.gate.open();
      admission.settle();
    }
  }

  /** Before anybody is let in again. */
  #accepted(
    result: CommandResult,
    before: RangeDescriptor,
    changed: (before: RangeDescriptor) => RangeDescriptor,
  ): RangeDescriptor {
    if (!result.ok) throw fromWireError(result.error);
    this.#leadership.sliceSince = this.#context.deps.store.appliedIndex();
    this.#leadership.admission.gate.fences.endAll();
    return changed(before);
  }

  // --- trimming -------------------------------------------------------------------------------------------------

  /** Rows outside the slice are deleted little by little, as long as there are any. */
  trimSoon(delayMs = this.#context.deps.limits.trimPauseMs): void {
    if (this.#timer !== undefined || this.#trimming || this.#leadership.ended) return;
    const { untrimmed, frozenInto } = this.#context.state;
    if (!untrimmed || frozenInto !== undefined) return;
    this.#timer = this.#context.deps.clock.setTimer(delayMs, () => {
      this.#timer = undefined;
      this.#trim();
    });
  }

  async #trim(): Promise<void> {
    this.#trimming = true;
    let againMs: number | undefined;
    try {
      againMs = await this.#trimOnce();
    } catch (error) {
      // Another leader goes on with it; or it was too early.
      if (error instanceof RetryError) againMs = TRIM_AGAIN_MS;
      else if (error instanceof RouteError && this.#context.current === this.#leadership)
        againMs = TRIM_AGAIN_MS;
    }
    this.#trimming = false;
    if (againMs !== undefined) this.trimSoon(againMs);
  }

  /** When to go on; undefined when nothing is left. */
  async #trimOnce(): Promise<number | undefined> {
    const { trimRows, trimPauseMs } = this.#context.deps.limits;
    if (this.#changing) return TRIM_AGAIN_MS;
    const command: Command = { kind: "trim", maxRows: trimRows, ...this.#own() };
    const result = await this.#context.submit(command, this.#leadership, () => [], false);
    if (!result.ok) throw fromWireError(result.error);
    // Not by how many rows went: of an entry that came to its end at the second try nobody knows.
    return this.#context.state.untrimmed ? trimPauseMs : undefined;
  }
}

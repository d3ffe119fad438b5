/**
 * A write that is sent again under its key when the schema has changed since it was first sent.
 *
 * Where a write goes is a matter of the schema: once its table was renamed and another one has taken the name, the same
 * text leads to other ranges, and those know nothing of the key. So before it is executed under another schema than it
 * was first sent under, all ranges are asked whether any of them has executed it (`done`).
 *
 * That is enough, because a change of the schema is prepared in every range before it is decided: whatever a range
 * executes under the schema before comes before that in its log, and is seen by whoever knows of the change and asks.
 * What is executed under the schema of now goes where this attempt goes, and the key is recognised there. Hence the
 * attempt has to be executed under the schema that was known when the ranges were asked, or an older one, which ranges
 * refuse: transactions say which one they have seen, and other writes name it (`schemaVersion`).
 */
import { AmbiguousError, fromWireError } from "../base/errors.js";
import type { CommandResult, IdempotencyKey } from "../machines/range/types.js";
import { byKey } from "./attempts.js";
import type { GatewayDatabase } from "./database.js";
import type { Deadline } from "./deadline.js";

export class Resend {
  readonly #db: GatewayDatabase;
  readonly key: IdempotencyKey;
  readonly #sentBefore: boolean;
  #version: number;
  #again: boolean;

  /** `sentUnder`: the version of the schema when it was first sent; undefined when that is now. */
  constructor(db: GatewayDatabase, key: IdempotencyKey, sentUnder: number | undefined) {
    this.#db = db;
    this.key = key;
    this.#version = sentUnder ?? db.ranges.schema().version;
    this.#sentBefore = sentUnder !== undefined;
    this.#again = this.#sentBefore;
  }

  /** Another gateway may be running it. Where one range has everything that is no matter: it knows of both. */
  get unsettled(): boolean {
    return this.#sentBefore && this.#db.whole === undefined;
  }

  /** Whether ranges that the statement does not lead to any more may have executed it. */
  get elsewhere(): boolean {
    return this.#db.whole === undefined && this.#db.ranges.schema().version !== this.#version;
  }

  /** Whether it may have been executed by an attempt before the next one. */
  get again(): boolean {
    return this.#again;
  }

  /** Begins an attempt; the one version of the schema that it may be executed under, undefined: whichever it is. */
  attempt(): number | undefined {
    const version = this.#again && this.#db.whole === undefined ? this.#version : undefined;
    this.#again = true;
    return version;
  }

  /** What was done under the key, wherever that was; undefined: nothing was, and the attempt may be executed. */
  async done(deadline: Deadline): Promise<Extract<CommandResult, { ok: true }> | undefined> {
    if (!this.elsewhere) return undefined;
    const { version } = this.#db.ranges.schema();
    for (const answered of await this.#db.answered(this.key, deadline)) {
      if (answered.ok) return answered;
      // Of what failed, or was never to be, nothing is left.
      const error = fromWireError(answered.error);
      if (error instanceof AmbiguousError) throw byKey(error, this.key);
    }
    this.#version = version;
    return undefined;
  }
}

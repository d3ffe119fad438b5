/**
 * The idempotency key of one write, until nobody will send the write again or ask for it.
 *
 * Invariant: what may have been applied is sent again under the key it had; what surely was not, and never will be, goes
 * by a new one, as the names that the attempts under the old key had at the nodes are used up.
 */
import type { WireKey } from "../rpc/protocol.js";
import type { Link } from "./link.js";
import type { Pool } from "./pool.js";

export class WriteKey {
  readonly #pool: Pool;
  #sequence: number;
  /** When it was first sent, undefined before, and the version of the schema that was known then. */
  #issuedMs: number | undefined;
  #issuedUnder = 0;

  constructor(pool: Pool) {
    this.#pool = pool;
    this.#sequence = pool.newSequence();
  }

  /** To be called before the write is sent over `link`. */
  issue(link: Link): void {
    if (this.#issuedMs !== undefined) return;
    this.#issuedMs = this.#pool.issueMs();
    this.#issuedUnder = link.schemaVersion;
  }

  /** Once issued. `again`: the write may have been applied when it was sent before. */
  wire(again: boolean): WireKey {
    return this.#pool.key(this.#sequence, this.#issuedMs ?? 0, again ? this.#issuedUnder : undefined);
  }

  /** What the write's outcome is asked for by, once issued. */
  get name(): string {
    return this.#pool.nameOf(this.#sequence, this.#issuedMs ?? 0);
  }

  /** The write has surely not been applied under this key, nor ever will be. */
  renew(): void {
    this.#pool.answered(this.#sequence);
    this.#sequence = this.#pool.newSequence();
    this.#issuedMs = undefined;
  }

  /** The write is over. `doubted`: its caller was told that its outcome is unknown, and may ask. */
  release(doubted: boolean): void {
    if (doubted) this.#pool.doubted(this.#sequence);
    else this.#pool.answered(this.#sequence);
  }
}

/**
 * One request of a session to the node the session lives on. Unlike a RetriedCall it is sent once: whether it may be
 * sent again depends on what the session would lose, which the session knows.
 */
import type { WireError } from "../base/errors.js";
import { ServerOp, type SessionState } from "../rpc/protocol.js";
import { errorFromWire, type OstrakaError, timedOut } from "./errors.js";
import type { Link } from "./link.js";
import type { Pool, PooledCall } from "./pool.js";

/** How a request to a session ended. */
export type SessionAnswer<T> =
  | { readonly kind: "value"; readonly value: T }
  | { readonly kind: "error"; readonly error: OstrakaError; readonly state: SessionState }
  /** Thrown while taking the answer: it came, and the user's settings refuse it. */
  | { readonly kind: "unfit"; readonly error: unknown }
  | { readonly kind: "lost"; readonly reason: string }
  | { readonly kind: "overdue" }
  | { readonly kind: "closed"; readonly error: OstrakaError };

export class SessionCall<T> implements PooledCall {
  id = 0;
  place = -1;
  #end: ((answer: SessionAnswer<T>) => void) | undefined;

  constructor(
    private readonly pool: Pool,
    readonly deadlineMs: number,
    readonly bytes: number,
    private readonly build: (id: number) => readonly unknown[],
    private readonly takeAnswer: (message: readonly unknown[], call: PooledCall) => T | undefined,
  ) {}

  run(link: Link): Promise<SessionAnswer<T>> {
    return new Promise((resolve) => {
      this.#end = (answer) => {
        this.#end = undefined;
        link.forget(this);
        this.pool.done(this);
        resolve(answer);
      };
      try {
        this.pool.begin(this);
      } catch (error) {
        this.abandon(error as OstrakaError);
        return;
      }
      if (link.isDown) this.lost(link, "it was down already");
      else link.send(this);
    });
  }

  message(id: number): readonly unknown[] {
    return this.build(id);
  }

  receive(message: readonly unknown[]): boolean {
    if (message[0] === ServerOp.Error) {
      const error = errorFromWire(message[2] as WireError);
      this.#end?.({ kind: "error", error, state: message[3] as SessionState });
      return true;
    }
    try {
      const value = this.takeAnswer(message, this);
      if (value === undefined) return false;
      this.#end?.({ kind: "value", value });
    } catch (error) {
      this.#end?.({ kind: "unfit", error });
    }
    return true;
  }

  lost(_link: Link, reason: string): void {
    this.#end?.({ kind: "lost", reason });
  }

  expire(overdue: boolean): boolean {
    if (!overdue) return false;
    this.#end?.({ kind: "overdue" });
    return true;
  }

  abandon(error: OstrakaError): void {
    this.#end?.({ kind: "closed", error });
  }
}

/** What is never sent, and waits for something until a deadline. */
abstract class Wait<T> implements PooledCall {
  id = 0;
  place = -1;
  readonly bytes = 0;
  #reject: ((error: OstrakaError) => void) | undefined;

  constructor(
    protected readonly pool: Pool,
    readonly deadlineMs: number,
    private readonly late: () => OstrakaError,
  ) {}

  /** Calls `come` with what is waited for. */
  protected abstract await(come: (value: T) => void): void;

  run(): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      try {
        this.pool.begin(this);
      } catch (error) {
        reject(error);
        return;
      }
      this.await((value) => {
        if (this.#reject === undefined) return;
        this.#reject = undefined;
        this.pool.done(this);
        resolve(value);
      });
    });
  }

  message(): readonly unknown[] {
    throw new Error("a wait is never sent");
  }

  receive(): boolean {
    return true;
  }

  lost(): void {}

  expire(): boolean {
    this.abandon(this.late());
    return true;
  }

  abandon(error: OstrakaError): void {
    const reject = this.#reject;
    this.#reject = undefined;
    this.pool.done(this);
    reject?.(error);
  }
}

/** For a link. */
export class LinkWait extends Wait<Link> {
  protected await(come: (link: Link) => void): void {
    this.pool.withLink(this, come);
  }
}

/** For what is before it in its session. */
export class TurnWait extends Wait<void> {
  constructor(
    pool: Pool,
    deadlineMs: number,
    private readonly before: Promise<void>,
  ) {
    super(pool, deadlineMs, () => timedOut("what was asked of the session before took too long"));
  }

  protected await(come: () => void): void {
    void this.before.then(come);
  }
}

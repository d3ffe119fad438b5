/**
 * The way from this node to the leader of a group, wherever it is. Calls go to the local leader directly, or over the
 * peer connection to the node believed to lead.
 *
 * On a node that has a replica of the group, the replica knows the leader. A call is one attempt: trying again is the
 * caller's business (Deadline.persist); the hint of a RouteError is for the next one.
 *
 * On a node without a replica, the last node that answered as the leader is asked, then whoever it names, then the
 * others that are said to have a replica, each once: what they refuse by RouteError was not done. Anything else is the
 * caller's to judge.
 *
 * A leader that hangs would keep its callers waiting long after others have replaced it. Once this node knows of
 * another leader, calls to the old one are given up after a grace in which a live one answers (it waits that long
 * itself for the log to tell what became of its proposals). A node without a replica learns of another leader from
 * answers, and asks around when a call has waited for a grace.
 */
import { AmbiguousError, RetryError, RouteError } from "../base/errors.js";
import { NO_NODE, type NodeId } from "../base/ids.js";
import type { Clock, Timer } from "../base/io.js";
import type { GroupHandle } from "../multiraft/types.js";

/** A group's replica on this node, and what its leader offers if it is here. */
export interface Hosted<S> {
  readonly handle: GroupHandle;
  readonly service: S;
}

export interface GroupRouteOptions<S> {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly graceMs: number;
  /** Undefined on a node without a replica; see `attach`. */
  readonly hosted: Hosted<S> | undefined;
  /** Nodes that are said to have a replica; asked again for each search. */
  readonly candidates: () => readonly NodeId[];
  readonly remote: (node: NodeId) => S;
  /** Asks a node who leads as far as it knows, NO_NODE for nobody; without it, nobody is asked around. */
  readonly ask?: ((node: NodeId) => Promise<NodeId>) | undefined;
}

interface WaitingCall {
  readonly sinceMs: number;
  giveUp(error: AmbiguousError): void;
}

export class GroupRoute<S> {
  readonly #options: GroupRouteOptions<S>;
  #hosted: Hosted<S> | undefined;
  #unsubscribe: (() => void) | undefined;
  readonly #remotes = new Map<NodeId, S>();
  /** Believed to lead: it answered as the leader, or was named by the last that refused. */
  #hint: NodeId | undefined;
  /** The leader by the local replica that named another one: the replica is behind. */
  #disowned: NodeId | undefined;
  /** Where the next search among the candidates begins. */
  #turn = 0;
  /** Calls to other nodes that wait for an answer. */
  readonly #waiting = new Map<NodeId, Set<WaitingCall>>();
  #asking: Timer | undefined;

  constructor(options: GroupRouteOptions<S>) {
    this.#options = options;
    if (options.hosted !== undefined) this.attach(options.hosted);
  }

  /** A replica of the group is on this node from now on. */
  attach(hosted: Hosted<S>): void {
    this.detach();
    this.#hosted = hosted;
    this.#unsubscribe = hosted.handle.onChange(({ leader }) => {
      this.#disowned = undefined;
      this.#replaced(leader);
    });
  }

  /** The replica was moved away. */
  detach(): void {
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
    this.#hosted = undefined;
    this.#disowned = undefined;
  }

  /** The service of this node while it leads: its RouteErrors bring no hint that its status does not have. */
  get leadingHere(): S | undefined {
    const hosted = this.#hosted;
    return hosted !== undefined && hosted.handle.leader === this.#options.self ? hosted.service : undefined;
  }

  /** As far as this node knows; undefined while it knows of none. */
  get leader(): NodeId | undefined {
    const known = this.#hosted?.handle.leader ?? NO_NODE;
    return known !== NO_NODE && known !== this.#disowned ? known : this.#hint;
  }

  call<T>(work: (leader: S) => Promise<T>): Promise<T> {
    return this.#hosted === undefined ? this.#search(work) : this.#callKnown(this.#hosted, work);
  }

  async #callKnown<T>({ service }: Hosted<S>, work: (leader: S) => Promise<T>): Promise<T> {
    const { self } = this.#options;
    const { leader } = this;
    if (leader === undefined) throw new RouteError("no leader is known", undefined);
    try {
      return await (leader === self ? work(service) : this.#ask(leader, work));
    } catch (error) {
      if (error instanceof RouteError && error.moved === undefined) {
        this.#hint = error.leader;
        this.#disowned = error.leader !== undefined && error.leader !== leader ? leader : undefined;
      }
      throw error;
    }
  }

  // --- without a replica --------------------------------------------------------------------------------------------

  async #search<T>(work: (leader: S) => Promise<T>): Promise<T> {
    const asked = new Set<NodeId>();
    let refused: RouteError | undefined;
    for (;;) {
      const node = this.#next(asked);
      if (node === undefined)
        throw refused ?? new RouteError("no node is known that has a replica of the group", undefined);
      asked.add(node);
      try {
        const answer = await this.#ask(node, work);
        this.#ledBy(node);
        return answer;
      } catch (error) {
        if (!(error instanceof RouteError)) {
          this.#failed(node, error);
          throw error;
        }
        if (error.moved !== undefined) throw error;
        refused = error;
        this.#hint = error.leader;
      }
    }
  }

  #next(asked: ReadonlySet<NodeId>): NodeId | undefined {
    const { self, candidates } = this.#options;
    const eligible = (node: NodeId): boolean => node !== self && !asked.has(node);
    if (this.#hint !== undefined && eligible(this.#hint)) return this.#hint;
    const nodes = candidates();
    for (let i = 0; i < nodes.length; i++) {
      const node = nodes[(this.#turn + i) % nodes.length];
      if (node !== undefined && eligible(node)) return node;
    }
    return undefined;
  }

  #failed(node: NodeId, error: unknown): void {
    const lost =
      error instanceof AmbiguousError ||
      (error instanceof RetryError && error.code === "OSTRAKA_UNAVAILABLE");
    if (!lost) {
      // Any other refusal is a leader's answer.
      this.#ledBy(node);
      return;
    }
    if (this.#hint === node) this.#hint = undefined;
    this.#turn++;
  }

  #ledBy(node: NodeId): void {
    if (this.#hint === node) return;
    this.#hint = node;
    this.#replaced(node);
  }

  // --- calls to other nodes -----------------------------------------------------------------------------------------

  #service(node: NodeId): S {
    let remote = this.#remotes.get(node);
    if (remote === undefined) {
      remote = this.#options.remote(node);
      this.#remotes.set(node, remote);
    }
    return remote;
  }

  async #ask<T>(node: NodeId, work: (leader: S) => Promise<T>): Promise<T> {
    const answer = work(this.#service(node));
    const waiting = this.#waiting.get(node) ?? new Set();
    this.#waiting.set(node, waiting);
    let call!: WaitingCall;
    const replaced = new Promise<never>((_, giveUp) => {
      call = { sinceMs: this.#options.clock.monotonicMs(), giveUp };
    });
    waiting.add(call);
    this.#watch();
    try {
      return await Promise.race([answer, replaced]);
    } finally {
      waiting.delete(call);
    }
  }

  #replaced(leader: NodeId): void {
    if (leader === NO_NODE) return;
    for (const [node, waiting] of this.#waiting) {
      if (node === leader || waiting.size === 0) continue;
      const before = [...waiting];
      this.#options.clock.setTimer(this.#options.graceMs, () => {
        const error = new AmbiguousError(
          `node ${node} was replaced as leader and does not answer`,
          undefined,
        );
        for (const call of before) call.giveUp(error);
      });
    }
  }

  /** Without a replica nobody tells this node of another leader. */
  #watch(): void {
    const { ask, clock, graceMs } = this.#options;
    if (ask === undefined || this.#hosted !== undefined || this.#asking !== undefined) return;
    this.#asking = clock.setTimer(graceMs, () => {
      this.#asking = undefined;
      void this.#askAround(ask);
    });
  }

  async #askAround(ask: (node: NodeId) => Promise<NodeId>): Promise<void> {
    const { clock, graceMs, candidates, self } = this.#options;
    const slow = this.#oldest((call) => clock.monotonicMs() - call.sinceMs >= graceMs);
    if (slow !== undefined) {
      const others = candidates().filter((node) => node !== self && node !== slow);
      const other = others[this.#turn++ % Math.max(1, others.length)];
      const leader = other === undefined ? NO_NODE : await ask(other).catch(() => NO_NODE);
      if (leader !== NO_NODE && leader !== slow && leader !== self) {
        this.#hint = leader;
        this.#replaced(leader);
      }
    }
    if (this.#oldest(() => true) !== undefined) this.#watch();
  }

  /** The node with a waiting call that meets the condition; of each node only the oldest call is looked at. */
  #oldest(condition: (call: WaitingCall) => boolean): NodeId | undefined {
    for (const [node, [call]] of this.#waiting) if (call !== undefined && condition(call)) return node;
    return undefined;
  }
}

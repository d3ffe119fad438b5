/**
 * Going over to the node that leads what a client writes, when the node in use says that it passes the writes on
 * (ServerOp.Prefer). Only hosts of the URL are gone to; which of them is that node is learned from their welcomes, and
 * one whose welcome is another node's than expected is left alone.
 *
 * The link in use carries everything until the new one is welcome, and keeps what it carries then.
 */
import type { Clock, Timer } from "../base/io.js";
import { type Dial, Link, type LinkOwner } from "./link.js";

export interface MoveOptions {
  readonly hosts: readonly string[];
  readonly dial: (host: string) => Dial;
  readonly clock: Clock;
  /** A host that takes the connection and says nothing is let go after this. */
  readonly welcomeMs: number;
  /** The wanted node said welcome. Its link has this owner still. */
  readonly arrived: (link: Link) => void;
}

export class Move implements LinkOwner {
  readonly #options: MoveOptions;
  /** Node ids by host, as their last welcome said. */
  readonly #nodes = new Map<string, number>();
  #wanted = 0;
  #untried: string[] = [];
  #trying: { readonly link: Link; readonly timer: Timer } | undefined;

  constructor(options: MoveOptions) {
    this.#options = options;
  }

  /** Looks for `node` among the hosts, unless that is going on; `from` is the link in use. */
  begin(node: number, from: Link): void {
    if (this.#trying !== undefined) return;
    this.#nodes.set(from.host, from.server!.nodeId);
    this.#wanted = node;
    const expected = (host: string): boolean => (this.#nodes.get(host) ?? node) === node;
    const hosts = this.#options.hosts.filter((host) => host !== from.host && expected(host));
    const known = (host: string): number => (this.#nodes.has(host) ? 0 : 1);
    this.#untried = hosts.sort((a, b) => known(a) - known(b));
    this.#next();
  }

  #next(): void {
    const host = this.#untried.shift();
    if (host === undefined) return;
    const { dial, clock, welcomeMs } = this.#options;
    const link = new Link(host, dial(host), this);
    const timer = clock.setTimer(welcomeMs, () => link.close("it took the connection and said nothing"));
    this.#trying = { link, timer };
  }

  #end(): void {
    this.#trying?.timer.cancel();
    this.#trying = undefined;
  }

  ready(link: Link): void {
    this.#end();
    const { nodeId } = link.server!;
    this.#nodes.set(link.host, nodeId);
    if (nodeId === this.#wanted) {
      this.#untried = [];
      this.#options.arrived(link);
    } else {
      link.close("another node was wanted");
      this.#next();
    }
  }

  down(link: Link): void {
    if (this.#trying?.link !== link) return;
    this.#end();
    this.#nodes.delete(link.host);
    this.#next();
  }

  prefer(): void {}

  close(): void {
    this.#untried = [];
    this.#trying?.link.close("the database was closed");
  }
}

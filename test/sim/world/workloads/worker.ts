/** One client's work: operations one after the other until told to stop. */
import type { SimRandom } from "../../sim-random.js";
import type { SimClient, WriteEnd } from "../client.js";
import type { History } from "./index.js";
import type { Operation, Outcome, Tools } from "./workload.js";

/** After so many operations clients take their time: what grows for as long as they work costs more and more to run. */
const BUSY = 400;
const SLOWER = 20;

export class Worker implements Tools {
  readonly client: SimClient;
  readonly random: SimRandom;
  readonly #history: History;
  readonly #operations: readonly Operation[];
  #next = 0;
  stopped = false;
  busy = "";

  constructor(client: SimClient, history: History, random: SimRandom, sole: boolean) {
    this.client = client;
    this.random = random;
    this.#history = history;
    // A client has a character: some kinds of work it never does.
    const all = history.operations;
    const liked = all.filter(() => random.chance(0.7));
    this.#operations = [...(liked.length > 0 ? liked : all), ...(sole ? history.soleOperations : [])];
  }

  get nowMs(): number {
    return this.client.world.clock.monotonicMs();
  }

  unique(): number {
    return this.client.id * 100_000 + ++this.#next;
  }

  doing(what: string): void {
    this.busy = what;
  }

  settle(end: WriteEnd, tell: (outcome: Outcome) => void): void {
    if (end.outcome !== "unknown") tell(end.outcome);
    else if (end.id === "") tell("unknown");
    else this.#history.doubted.push({ id: end.id, resolve: tell });
  }

  async run(): Promise<void> {
    const thinkMs = this.random.pick([2, 20, 100]);
    while (!this.stopped) {
      const patience = this.#history.begun < BUSY ? 1 : SLOWER;
      await this.client.pause(this.random.float() * 2 * thinkMs * patience);
      if (this.stopped) break;
      if (this.random.chance(0.1)) this.client.moveOn();
      this.#history.begun++;
      await this.#pick().run(this);
      this.busy = "";
    }
  }

  #pick(): Operation {
    const total = this.#operations.reduce((sum, { weight }) => sum + weight, 0);
    let drawn = this.random.float() * total;
    for (const operation of this.#operations) {
      drawn -= operation.weight;
      if (drawn < 0) return operation;
    }
    return this.#operations[0]!;
  }
}

/** What the clients do, what they were told, and what the checkers say of it at the end. */
import type { Verdict } from "../../checkers/verdict.js";
import type { SimRandom } from "../../sim-random.js";
import type { SimClient } from "../client.js";
import { check } from "../invariants.js";
import { Bank } from "./bank.js";
import { Batches } from "./batches.js";
import { Counters } from "./counters.js";
import { Fork } from "./fork.js";
import { Ledger } from "./ledger.js";
import { Lists } from "./lists.js";
import { Orphans } from "./orphans.js";
import { Predicates } from "./predicates.js";
import { Registers } from "./registers.js";
import { Steps } from "./steps.js";
import { Tables } from "./tables.js";
import { Tokens } from "./tokens.js";
import { Unique } from "./unique.js";
import { Wide } from "./wide.js";
import type { LastReads, Operation, Outcome, SplittableTable, Workload } from "./workload.js";

/** Of a last read: what a node that died has left at others may be in its way for a while. */
const MOST_TRIES = 10;

interface Doubted {
  readonly id: string;
  readonly resolve: (outcome: Outcome) => void;
}

/**
 * Each run has some of them: what meets seldom where all are about meets often where few are (swarm testing, Groce et
 * al. 2012).
 */
const WORKLOADS: readonly (new () => Workload)[] = [
  Tokens,
  Unique,
  Counters,
  Bank,
  Lists,
  Registers,
  Predicates,
  Wide,
];

/** For databases of many ranges. A new one goes to the end: worlds without it stay what they were for their seeds. */
const WIDE_WORKLOADS: readonly (new () => Workload)[] = [
  Ledger,
  Fork,
  Batches,
  Orphans,
  Tables,
  ...WORKLOADS,
  Steps,
];

/** Everything the clients were told. */
export class History {
  readonly #workloads: readonly Workload[];
  /** Outcomes to be asked for once the cluster is well. */
  readonly doubted: Doubted[] = [];
  /** Operations so far. */
  begun = 0;
  /** The last read under way. */
  reading = "";

  constructor(random: SimRandom, manyRanges = false) {
    const all = manyRanges ? WIDE_WORKLOADS : WORKLOADS;
    const chosen = all.filter(() => random.chance(manyRanges ? 0.25 : 0.4));
    const first = random.pick(all);
    this.#workloads = (chosen.length > 0 ? chosen : [first]).map((Workload) => new Workload());
  }

  get statements(): readonly string[] {
    return this.#workloads.flatMap(({ statements }) => statements);
  }

  get operations(): readonly Operation[] {
    return this.#workloads.flatMap(({ operations }) => operations);
  }

  get splittable(): readonly SplittableTable[] {
    return this.#workloads.flatMap(({ splittable }) => splittable ?? []);
  }

  get soleOperations(): readonly Operation[] {
    return this.#workloads.flatMap(({ soleOperations }) => soleOperations ?? []);
  }

  /** Reads everything a last time, on every node, and has the checkers judge. */
  async judge(readers: readonly SimClient[], nowMs: () => number): Promise<Map<string, Verdict>> {
    const last: LastReads = {
      readers,
      get nowMs() {
        return nowMs();
      },
      read: async (client, sql) => {
        this.reading = `${client.name}: ${sql}`;
        let rows = await client.read(sql);
        for (let tries = 0; rows === undefined && tries < MOST_TRIES; tries++) rows = await client.read(sql);
        check(rows !== undefined, () => `a healed cluster does not answer ${sql}`);
        return rows;
      },
    };
    const verdicts = new Map<string, Verdict>();
    for (const workload of this.#workloads)
      for (const [name, verdict] of Object.entries(await workload.judge(last))) verdicts.set(name, verdict);
    return verdicts;
  }
}

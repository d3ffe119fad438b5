/** Seeds of one kind of world as tests: what they reach is counted, and what goes wrong told with how to see it again. */
import { describeFault } from "./faults.js";
import { type RunReport, type RunSettings, runSeed } from "./world.js";

export type Kind = Pick<RunSettings, "manyRanges" | "members" | "long">;

/** How to run a seed again, with its trace. */
export function replay(seed: number, { manyRanges, members, long }: Kind): string {
  const flags = [members ? "--members" : manyRanges && "--ranges", long && "--long"].filter(Boolean);
  return `SEED=${seed} npm run sim${flags.length > 0 ? ` -- ${flags.join(" ")}` : ""}`;
}

export class Seeds {
  readonly #kind: Kind;
  readonly #sometimes = new Map<string, number>();

  constructor(kind: Kind) {
    this.#kind = kind;
  }

  /** Answers what failed beside the report. */
  async run(seed: number, kind = this.#kind): Promise<RunReport & { readonly failure: string | undefined }> {
    const report = await runSeed({ seed, ...kind });
    for (const [what, count] of report.sometimes) this.#sometimes.set(what, this.reached(what) + count);
    const { violation, faults } = report;
    const told = `seed ${seed}: ${violation}\nfaults:\n  ${faults.map(describeFault).join("\n  ")}\nreplay: ${replay(seed, kind)}`;
    return { ...report, failure: violation === undefined ? undefined : told };
  }

  /** Others than ever before, for so long; answers the first failure. */
  async fresh(forMs: number): Promise<string | undefined> {
    const untilMs = performance.now() + forMs;
    for (let seed = freshSeed(); performance.now() < untilMs; seed++) {
      const { failure } = await this.run(seed);
      if (failure !== undefined) return failure;
    }
    return undefined;
  }

  /** How often that was so, in all runs. */
  reached(what: string): number {
    return this.#sometimes.get(what) ?? 0;
  }
}

/** Another one each second. */
export function freshSeed(): number {
  return (Math.floor(Date.now() / 1000) % 4_000_000) * 1000;
}

/** Claims on few keys of a unique index: each goes to one owner at most, and to whom it was acknowledged. */
import { type AddOutcome, checkSet } from "../../checkers/set.js";
import { addOutcome } from "./tokens.js";
import type { LastReads, Tools, Workload } from "./workload.js";

const KEYS = 24;

interface Claim {
  readonly k: number;
  readonly owner: number;
  outcome: AddOutcome;
}

export class Unique implements Workload {
  readonly statements = [
    "CREATE TABLE uniq(id INTEGER PRIMARY KEY, k INTEGER NOT NULL UNIQUE, owner INTEGER NOT NULL)",
  ];
  readonly splittable = [{ table: "uniq", low: 1, high: KEYS }];
  readonly operations = [{ weight: 2, run: (tools: Tools) => this.#claim(tools) }];
  readonly #claims: Claim[] = [];

  async #claim(tools: Tools): Promise<void> {
    const { random, client } = tools;
    const claim: Claim = { k: random.below(KEYS), owner: tools.unique(), outcome: "unknown" };
    tools.doing(`claim ${claim.k}`);
    this.#claims.push(claim);
    const orIgnore = random.chance(0.3);
    // Some say where the row is to lie, which may be taken.
    const id = claim.owner % 3 === 0 ? 1 + ((claim.owner * 31) % (2 * KEYS)) : null;
    const end = await client.write(
      `INSERT ${orIgnore ? "OR IGNORE " : ""}INTO uniq(id, k, owner) VALUES (?, ?, ?)`,
      [id, claim.k, claim.owner],
    );
    tools.settle(end, (outcome) => {
      claim.outcome = addOutcome(outcome);
      // Ignored is committed and did nothing; without the answer it cannot be told.
      if (!orIgnore || outcome !== "committed") return;
      const changes = end.outcome === "committed" ? end.answer?.changes : undefined;
      claim.outcome = changes === undefined ? "unknown" : changes === 1 ? "acknowledged" : "failed";
    });
  }

  async judge({ readers, read }: LastReads) {
    const owners = await read(readers[0]!, "SELECT k, owner FROM uniq");
    return {
      unique: checkSet({
        added: new Map(this.#claims.map(({ k, owner, outcome }) => [`${k}:${owner}`, outcome])),
        found: owners.map(([k, owner]) => `${String(k)}:${String(owner)}`),
      }),
    };
  }
}

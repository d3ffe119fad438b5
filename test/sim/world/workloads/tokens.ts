/** Unique rows, added one by one; at the end every acknowledged one is there, once. */
import { type AddOutcome, checkSet } from "../../checkers/set.js";
import { type LastReads, numbers, type Outcome, type Tools, type Workload } from "./workload.js";

export class Tokens implements Workload {
  readonly statements = [
    "CREATE TABLE tokens(id INTEGER PRIMARY KEY, token INTEGER NOT NULL, at TEXT DEFAULT CURRENT_TIMESTAMP, dice INTEGER DEFAULT (random()))",
  ];
  readonly splittable = [{ table: "tokens", low: 1, high: 60 }];
  readonly operations = [{ weight: 4, run: (tools: Tools) => this.#add(tools) }];
  readonly #added = new Map<number, AddOutcome>();

  async #add(tools: Tools): Promise<void> {
    const token = tools.unique();
    tools.doing(`token ${token}`);
    this.#added.set(token, "unknown");
    const sql = tools.random.pick([
      "INSERT INTO tokens(token) VALUES (?)",
      "INSERT INTO tokens(token) VALUES (?) RETURNING id, dice",
      "INSERT INTO tokens(token) SELECT ?",
    ]);
    const end = await tools.client.write(sql, [token]);
    tools.settle(end, (outcome) => this.#added.set(token, addOutcome(outcome)));
  }

  async judge({ readers, read }: LastReads) {
    const found = numbers(await read(readers[0]!, "SELECT token FROM tokens"));
    return { tokens: checkSet({ added: this.#added, found }) };
  }
}

export function addOutcome(outcome: Outcome): AddOutcome {
  return outcome === "committed" ? "acknowledged" : outcome === "aborted" ? "failed" : "unknown";
}

/** Parents and children in two tables of many ranges: nobody ever sees a child whose parent is gone. */
import { type AddOutcome, checkSet } from "../../checkers/set.js";
import { check } from "../invariants.js";
import { addOutcome } from "./tokens.js";
import { type LastReads, numbers, retrying, type Tools, times, type Workload } from "./workload.js";

const PARENTS = 8;
const ORPHANS = "SELECT c.id FROM kids AS c LEFT JOIN parents AS p ON p.id = c.parent WHERE p.id IS NULL";

export class Orphans implements Workload {
  readonly statements = [
    "CREATE TABLE parents(id INTEGER PRIMARY KEY)",
    "CREATE TABLE kids(id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES parents(id), n INTEGER)",
    `INSERT INTO parents(id) VALUES ${times(PARENTS, (i) => `(${i})`)}`,
  ];
  readonly splittable = [
    { table: "parents", low: 0, high: PARENTS },
    { table: "kids", low: 1, high: 60 },
  ];
  readonly operations = [
    { weight: 4, run: (tools: Tools) => this.#bear(tools) },
    { weight: 2, run: (tools: Tools) => this.#leave(tools) },
    { weight: 2, run: (tools: Tools) => this.#look(tools) },
  ];
  readonly #born = new Map<number, AddOutcome>();
  /** Perhaps deleted, with their parent. */
  readonly #gone = new Set<number>();

  async #bear(tools: Tools): Promise<void> {
    const { random, client } = tools;
    const parent = random.below(PARENTS);
    const n = tools.unique();
    tools.doing(`bear ${n}`);
    this.#born.set(n, "unknown");
    const end = await client.write("INSERT INTO kids(parent, n) VALUES (?, ?)", [parent, n]);
    tools.settle(end, (outcome) => {
      if (!this.#gone.has(n)) this.#born.set(n, addOutcome(outcome));
    });
  }

  /** A parent goes, with all children or only if there are none, and comes back. */
  async #leave(tools: Tools): Promise<void> {
    const { random, client } = tools;
    const parent = random.below(PARENTS);
    tools.doing(`parent ${parent} leaves`);
    if (random.chance(0.5)) {
      await client.write("DELETE FROM parents WHERE id = ?", [parent]);
      await client.write("INSERT OR IGNORE INTO parents(id) VALUES (?)", [parent]);
      return;
    }
    let gone: number[] = [];
    await retrying(tools, 3, async (retry) => {
      const { end } = await client.transaction(
        "BEGIN",
        async (run) => {
          gone = numbers(await run("DELETE FROM kids WHERE parent = ? RETURNING n", [parent]));
          await run("DELETE FROM parents WHERE id = ?", [parent]);
          await run("INSERT INTO parents(id) VALUES (?)", [parent]);
        },
        retry,
      );
      if (end.outcome === "aborted") return end;
      for (const n of gone) {
        this.#gone.add(n);
        this.#born.set(n, "unknown");
      }
      return end;
    });
  }

  async #look(tools: Tools): Promise<void> {
    tools.doing("look for orphans");
    const rows = await tools.client.read(ORPHANS);
    if (rows !== undefined) check(rows.length === 0, () => `orphans: ${numbers(rows).join(", ")}`);
  }

  async judge({ readers, read }: LastReads) {
    const orphans = await read(readers[0]!, ORPHANS);
    check(orphans.length === 0, () => `orphans: ${numbers(orphans).join(", ")}`);
    const found = numbers(await read(readers.at(-1)!, "SELECT n FROM kids"));
    return { kids: checkSet({ added: this.#born, found }) };
  }
}

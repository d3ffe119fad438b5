/**
 * Tables that come up while others write: once a CREATE TABLE or CREATE INDEX was acknowledged, everybody can use it, on
 * every node, whatever becomes of the ranges; and rows that were acknowledged are found by way of the index too.
 */
import { type AddOutcome, checkSet } from "../../checkers/set.js";
import { check } from "../invariants.js";
import { addOutcome } from "./tokens.js";
import { type LastReads, numbers, type Tools, type Workload } from "./workload.js";

const MOST = 5;

interface Made {
  readonly name: string;
  readonly added: Map<number, AddOutcome>;
  /** Acknowledged. */
  known: boolean;
}

export class Tables implements Workload {
  readonly statements = ["CREATE TABLE made_0(id INTEGER PRIMARY KEY, v INTEGER NOT NULL)"];
  readonly splittable = Array.from({ length: MOST }, (_, i) => ({ table: `made_${i}`, low: 1, high: 30 }));
  readonly operations = [
    { weight: 4, run: (tools: Tools) => this.#insert(tools) },
    { weight: 1, run: (tools: Tools) => this.#insertInTwo(tools) },
    { weight: 2, run: (tools: Tools) => this.#look(tools) },
  ];
  readonly soleOperations = [{ weight: 1, run: (tools: Tools) => this.#make(tools) }];
  readonly #made: Made[] = [{ name: "made_0", added: new Map(), known: true }];

  async #make(tools: Tools): Promise<void> {
    const { client, random } = tools;
    if (random.chance(0.5)) {
      const { name } = random.pick(this.#known);
      tools.doing(`index ${name}`);
      await client.write(`CREATE INDEX IF NOT EXISTS ${name}_v ON ${name}(v)`, []);
      return;
    }
    if (this.#made.length >= MOST || !this.#made.at(-1)!.known) return;
    const made: Made = { name: `made_${this.#made.length}`, added: new Map(), known: false };
    tools.doing(`create ${made.name}`);
    const end = await client.write(
      `CREATE TABLE ${made.name}(id INTEGER PRIMARY KEY AUTOINCREMENT, v INTEGER NOT NULL)`,
      [],
    );
    if (end.outcome === "aborted") return;
    this.#made.push(made);
    made.known = end.outcome === "committed";
  }

  get #known(): readonly Made[] {
    return this.#made.filter(({ known }) => known);
  }

  async #insert(tools: Tools): Promise<void> {
    const { name, added } = tools.random.pick(this.#known);
    const v = tools.unique();
    tools.doing(`insert into ${name}`);
    added.set(v, "unknown");
    const end = await tools.client.write(`INSERT INTO ${name}(v) VALUES (?)`, [v]);
    tools.settle(end, (outcome) => added.set(v, addOutcome(outcome)));
  }

  async #insertInTwo(tools: Tools): Promise<void> {
    const { random, client } = tools;
    const into = [random.pick(this.#known), random.pick(this.#known)];
    const v = tools.unique();
    tools.doing(`insert into ${into.map(({ name }) => name).join(" and ")}`);
    if (into[0] === into[1]) return;
    for (const { added } of into) added.set(v, "unknown");
    const { end } = await client.transaction(
      "BEGIN",
      async (run) => {
        for (const { name } of into) await run(`INSERT INTO ${name}(v) VALUES (?)`, [v]);
      },
      undefined,
    );
    tools.settle(end, (outcome) => {
      for (const { added } of into) added.set(v, addOutcome(outcome));
    });
  }

  async #look(tools: Tools): Promise<void> {
    const { name, added } = tools.random.pick(this.#known);
    tools.doing(`look into ${name}`);
    const before = [...added].filter(([, outcome]) => outcome === "acknowledged");
    const rows = await tools.client.read(`SELECT v FROM ${name} WHERE v > 0`);
    if (rows === undefined) return;
    const found = new Set(numbers(rows));
    for (const [v] of before) check(found.has(v), () => `${v} was acknowledged and is missing in ${name}`);
  }

  async judge({ readers, read }: LastReads) {
    const verdicts: Record<string, ReturnType<typeof checkSet>> = {};
    for (const { name, added } of this.#known) {
      const plain = numbers(await read(readers[0]!, `SELECT v FROM ${name} ORDER BY id`));
      const indexed = numbers(await read(readers.at(-1)!, `SELECT v FROM ${name} WHERE v > 0 ORDER BY v`));
      check(
        plain.length === indexed.length,
        () => `${name} has ${plain.length} rows, and ${indexed.length} by its index`,
      );
      verdicts[name] = checkSet({ added, found: plain });
    }
    return verdicts;
  }
}

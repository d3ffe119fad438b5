/**
 * A schema and rows that go on together: one client makes a view anew, with the next number in its text, and gives all
 * rows that number, in one transaction. Whoever reads the view finds one number, never an old one after a newer has been
 * acknowledged or seen; and a view that was acknowledged is there for everybody at once.
 */
import type { Rows } from "../client.js";
import { check } from "../invariants.js";
import { Raised } from "./raised.js";
import { type LastReads, numbers, type Tools, times, type Workload } from "./workload.js";

const KEYS = 6;
const MOST_NAMES = 12;
const VIEW = "SELECT named, n FROM step";

export class Steps implements Workload {
  readonly statements = [
    "CREATE TABLE steps(id INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
    `INSERT INTO steps(id, n) VALUES ${times(KEYS, (i) => `(${i}, 0)`)}`,
    "CREATE TABLE stepped(id INTEGER PRIMARY KEY, named INTEGER NOT NULL, n INTEGER NOT NULL)",
    viewOf(0),
  ];
  readonly splittable = [
    { table: "steps", low: 0, high: KEYS },
    { table: "stepped", low: 1, high: 30 },
  ];
  readonly operations = [
    { weight: 3, run: (tools: Tools) => this.#look(tools) },
    { weight: 1, run: (tools: Tools) => this.#lookTwice(tools) },
    { weight: 1, run: (tools: Tools) => this.#lookByName(tools) },
    { weight: 1, run: (tools: Tools) => this.#record(tools) },
  ];
  readonly soleOperations = [
    { weight: 2, run: (tools: Tools) => this.#step(tools) },
    { weight: 1, run: (tools: Tools) => this.#name(tools) },
  ];
  readonly #steps = new Raised();
  #next = 0;
  /** Views that were acknowledged. */
  readonly #names: string[] = [];

  async #step(tools: Tools): Promise<void> {
    const n = ++this.#next;
    tools.doing(`step ${n}`);
    const startMs = tools.nowMs;
    const { end } = await tools.client.transaction(
      "BEGIN",
      async (run) => {
        const statements = ["DROP VIEW step", viewOf(n), `UPDATE steps SET n = ${n}`];
        // The rows before the schema or after it.
        if (tools.random.chance(0.5)) statements.unshift(statements.pop()!);
        for (const sql of statements) await run(sql);
      },
      undefined,
    );
    this.#steps.wrote(tools, n, startMs, end);
    if (end.outcome !== "committed") return;
    tools.client.moveOn();
    await this.#look(tools);
  }

  async #name(tools: Tools): Promise<void> {
    if (this.#names.length >= MOST_NAMES) return;
    const name = `steps_${tools.unique()}`;
    tools.doing(`create ${name}`);
    const end = await tools.client.write(`CREATE VIEW ${name} AS ${VIEW}`, []);
    if (end.outcome !== "committed") return;
    this.#names.push(name);
    tools.client.moveOn();
    await this.#lookByName(tools);
  }

  #look(tools: Tools): Promise<void> {
    return this.#read(tools, VIEW);
  }

  async #lookByName(tools: Tools): Promise<void> {
    const name = this.#names.at(-1);
    if (name !== undefined) await this.#read(tools, `SELECT named, n FROM ${name}`);
  }

  async #read(tools: Tools, sql: string): Promise<void> {
    tools.doing("look at steps");
    const startMs = tools.nowMs;
    const rows = await tools.client.read(sql);
    if (rows !== undefined) this.#steps.saw(tools, stepOf(rows), startMs);
  }

  async #lookTwice(tools: Tools): Promise<void> {
    tools.doing("look at steps twice");
    const startMs = tools.nowMs;
    const { end, value } = await tools.client.transaction(
      tools.random.pick(["BEGIN", "BEGIN READ ONLY"]),
      async (run) => [await run(VIEW), await run(VIEW)],
      undefined,
    );
    if (end.outcome !== "committed") return;
    const [first, second] = value!.map(stepOf) as [number, number];
    check(first === second, () => `one transaction saw step ${first} and then ${second}`);
    this.#steps.saw(tools, first, startMs);
  }

  async #record(tools: Tools): Promise<void> {
    const id = tools.random.below(KEYS);
    tools.doing(`record step of ${id}`);
    await tools.client.write("INSERT INTO stepped(named, n) SELECT named, n FROM step WHERE id = ?", [id]);
  }

  async judge(last: LastReads) {
    for (const client of last.readers) {
      const startMs = last.nowMs;
      this.#steps.saw({ client, nowMs: last.nowMs }, stepOf(await last.read(client, VIEW)), startMs);
    }
    const torn = numbers(await last.read(last.readers[0]!, "SELECT id FROM stepped WHERE named <> n"));
    check(torn.length === 0, () => `rows ${torn.join()} of stepped were read between two steps`);
    return { steps: this.#steps.verdict() };
  }
}

function viewOf(n: number): string {
  return `CREATE VIEW step AS SELECT ${n} AS named, id, n FROM steps`;
}

/** The number in the view's text and in all rows. */
function stepOf(rows: Rows): number {
  const seen = new Set(rows.flat().map(Number));
  check(rows.length === KEYS && seen.size === 1, () => `the view shows ${rows.join(" ")}`);
  return Number(rows[0]![0]);
}

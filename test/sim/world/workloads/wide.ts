/** A table that gets more columns all the time, by one client, while others write to it and read it. */
import { check } from "../invariants.js";
import { Raised } from "./raised.js";
import type { Tools, Workload } from "./workload.js";

export class Wide implements Workload {
  readonly statements = ["CREATE TABLE wide(id INTEGER PRIMARY KEY, base INTEGER)"];
  readonly splittable = [{ table: "wide", low: 1, high: 200 }];
  readonly operations = [
    { weight: 1, run: (tools: Tools) => this.#insert(tools) },
    { weight: 1, run: (tools: Tools) => this.#readSchema(tools) },
    { weight: 0.4, run: (tools: Tools) => this.#bulk(tools) },
  ];
  readonly soleOperations = [{ weight: 1, run: (tools: Tools) => this.#alter(tools) }];
  readonly #schema = new Raised();
  /** Columns added, undefined once it is not known. */
  #columns: number | undefined = 0;

  async #alter(tools: Tools): Promise<void> {
    const { client, random } = tools;
    if (this.#columns === undefined) return;
    const value = this.#columns + 1;
    tools.doing(`alter ${value}`);
    const startMs = tools.nowMs;
    const end = await client.write(`ALTER TABLE wide ADD COLUMN c${value} INTEGER DEFAULT ${value}`, []);
    this.#schema.wrote(tools, value, startMs, end);
    // What is not known is not repeated under the same name: the next one looks.
    this.#columns = end.outcome === "committed" ? value : await this.#columnsSeen(tools);
    if (random.chance(0.3))
      await client.write(
        random.pick(["CREATE INDEX IF NOT EXISTS wide_base ON wide(base)", "DROP INDEX IF EXISTS wide_base"]),
        [],
      );
  }

  async #columnsSeen({ client }: Tools): Promise<number | undefined> {
    const rows = await client.read("SELECT count(*) - 2 FROM pragma_table_info('wide')");
    return rows === undefined ? undefined : Number(rows[0]![0]);
  }

  async #readSchema(tools: Tools): Promise<void> {
    tools.doing("read schema");
    const startMs = tools.nowMs;
    const value = await this.#columnsSeen(tools);
    if (value !== undefined) this.#schema.saw(tools, value, startMs);
  }

  async #insert(tools: Tools): Promise<void> {
    tools.doing("insert wide");
    await tools.client.write("INSERT INTO wide(base) VALUES (?)", [tools.unique()]);
    const rows = await tools.client.read("SELECT * FROM wide ORDER BY id LIMIT 3");
    for (const row of rows ?? [])
      for (const [at, value] of row.entries())
        check(at < 2 || Number(value) === at - 1, () => `column ${at} of wide holds ${String(value)}`);
  }

  /** Many rows at once, and then fewer: snapshots and checkpoints have something to carry. */
  async #bulk(tools: Tools): Promise<void> {
    tools.doing("bulk");
    const count = tools.random.between(20, 200);
    await tools.client.write(
      `WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < ${count}) INSERT INTO wide(base) SELECT i FROM r`,
      [],
    );
    if (tools.random.chance(0.5)) await tools.client.write("DELETE FROM wide WHERE id % 3 = 0", []);
  }

  async judge() {
    return { schema: this.#schema.verdict() };
  }
}

/**
 * Registers that are written, read and swapped (checkers/register.ts), often through one node right after the other:
 * what was acknowledged on one must be seen on every other at once.
 */
import { checkRegisters, type RegisterAction, type RegisterOperation } from "../../checkers/register.js";
import { type LastReads, NEVER, type Tools, times, type Workload } from "./workload.js";

const REGISTERS = 4;
const SEARCH_STEPS = 200_000;

export class Registers implements Workload {
  readonly statements = [
    "CREATE TABLE registers(id INTEGER PRIMARY KEY, v INTEGER NOT NULL)",
    `INSERT INTO registers(id, v) VALUES ${times(REGISTERS, (i) => `(${i}, 0)`)}`,
  ];
  readonly splittable = [{ table: "registers", low: 0, high: REGISTERS }];
  readonly operations = [
    { weight: 2, run: (tools: Tools) => this.#writeAndLook(tools) },
    { weight: 3, run: (tools: Tools) => this.#read(tools, tools.random.below(REGISTERS)) },
    { weight: 1, run: (tools: Tools) => this.#swap(tools) },
  ];
  readonly #history: RegisterOperation[] = [];

  #record(tools: Tools, id: number, action: RegisterAction, startMs: number, endMs = tools.nowMs): void {
    this.#history.push({ key: String(id), client: tools.client.name, action, startMs, endMs });
  }

  async #write(tools: Tools, id: number): Promise<boolean> {
    const value = tools.unique();
    tools.doing(`write register ${id}`);
    const startMs = tools.nowMs;
    const end = await tools.client.write("UPDATE registers SET v = ? WHERE id = ?", [value, id]);
    const endMs = end.outcome === "unknown" ? NEVER : tools.nowMs;
    tools.settle(end, (outcome) => {
      if (outcome !== "aborted") this.#record(tools, id, { kind: "write", value }, startMs, endMs);
    });
    return end.outcome === "committed";
  }

  async #read(tools: Tools, id: number): Promise<number | undefined> {
    tools.doing(`read register ${id}`);
    const startMs = tools.nowMs;
    const rows = await tools.client.read("SELECT v FROM registers WHERE id = ?", [id]);
    if (rows === undefined) return undefined;
    const value = Number(rows[0]![0]);
    this.#record(tools, id, { kind: "read", value }, startMs);
    return value;
  }

  async #writeAndLook(tools: Tools): Promise<void> {
    const id = tools.random.below(REGISTERS);
    for (let nth = tools.random.between(1, 4); nth > 0 && !tools.stopped; nth--) {
      if (!(await this.#write(tools, id))) return;
      tools.client.moveOn();
      await this.#read(tools, id);
    }
  }

  async #swap(tools: Tools): Promise<void> {
    const id = tools.random.below(REGISTERS);
    const expected = await this.#read(tools, id);
    if (expected === undefined) return;
    const value = tools.unique();
    tools.doing(`swap register ${id}`);
    const startMs = tools.nowMs;
    const end = await tools.client.write("UPDATE registers SET v = ? WHERE id = ? AND v = ?", [
      value,
      id,
      expected,
    ]);
    const endMs = tools.nowMs;
    const changes = end.outcome === "committed" ? end.answer?.changes : undefined;
    if (changes === 0) this.#record(tools, id, { kind: "differs", value: expected }, startMs, endMs);
    else if (changes === 1) this.#record(tools, id, { kind: "swap", expected, value }, startMs, endMs);
    // Committed without its answer: it may have swapped, or found something else.
    else if (end.outcome !== "aborted")
      this.#record(tools, id, { kind: "swap", expected, value }, startMs, NEVER);
  }

  async judge(last: LastReads) {
    for (const reader of last.readers) {
      const startMs = last.nowMs;
      const rows = await last.read(reader, "SELECT id, v FROM registers");
      const endMs = last.nowMs;
      for (const [id, v] of rows) {
        const action: RegisterAction = { kind: "read", value: Number(v) };
        this.#history.push({ key: String(id), client: reader.name, action, startMs, endMs });
      }
    }
    return { registers: checkRegisters(this.#history, { initial: 0, maxSteps: SEARCH_STEPS }) };
  }
}

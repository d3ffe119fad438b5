/** `\trace`: the life of one transaction that crossed ranges, step by step, from all nodes. */
import { printTable } from "./describe.js";
import type { MetaCommand } from "./meta.js";
import { MetaError, type Shell } from "./shell.js";

const STEPS = `SELECT at_ms, node_id, range_id, step, detail FROM ostraka_trace WHERE transaction_id = ? ORDER BY at_ms`;
const NEWEST = "SELECT transaction_id FROM ostraka_trace ORDER BY at_ms DESC LIMIT 1";

async function trace(shell: Shell, args: readonly string[]): Promise<void> {
  const id = args[0] ?? (await shell.query(NEWEST))[0]?.map(String)[0];
  if (id === undefined) throw new MetaError("no node remembers a transaction that crossed ranges");
  const steps = await shell.query(STEPS, [id]);
  if (steps.length === 0) throw new MetaError(`no node remembers transaction ${id}`);
  const beganMs = Number(steps[0]![0]);
  await shell.output.write(`Transaction ${id}\n`);
  await printTable(
    shell,
    ["ms", "Node", "Range", "Step", "Detail"],
    steps.map(([atMs, ...rest]) => [String(Number(atMs) - beganMs), ...rest]),
  );
}

export const traceCommand: MetaCommand = {
  names: ["\\trace"],
  usage: "\\trace [ID]",
  help: "What became of a transaction over several ranges, by the nodes' clocks; without ID of the last one",
  run: trace,
};

/** docs/protocol.md, which other drivers are written from, has every message of the protocol. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { ClientOp, ServerOp } from "../../../src/rpc/protocol.js";

const text = readFileSync(new URL("../../../docs/protocol.md", import.meta.url), "utf8");
const tables = text
  .split("\n\n")
  .filter((block) => block.startsWith("| op | message |"))
  .map((block) => block.split("\n").slice(2));

it.each([
  ["requests", ClientOp, 0],
  ["answers", ServerOp, 1],
] as const)("names all %s", (_, ops, table) => {
  const rows = tables[table]!.map((row) => row.split("|").map((cell) => cell.trim()));
  expect(rows.map(([, op]) => op)).toEqual(Object.entries(ops).map(([name, op]) => `${op} ${name}`));
  for (const [, op, message] of rows) expect(message).toMatch(new RegExp(`^\`\\[${op!.split(" ")[0]}\\b`));
});

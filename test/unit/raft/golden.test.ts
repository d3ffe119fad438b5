/**
 * The golden scripts beside this file (*.txt); see golden.ts for their form. GOLDEN_REWRITE=1 writes what comes out
 * into the scripts instead of comparing: read the difference before committing it.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { GoldenGroup } from "./golden.js";

const directory = dirname(fileURLToPath(import.meta.url));
const scripts = readdirSync(directory).filter((name) => name.endsWith(".txt"));
const rewrite = process.env.GOLDEN_REWRITE !== undefined;

/** Runs a script and answers it with what came out in the place of what was expected. */
function play(text: string): string {
  const group = new GoldenGroup();
  const out: string[] = [];
  let commands: string[] = [];
  const lines = text.split("\n");
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i]!;
    out.push(line);
    if (line === "----") {
      try {
        out.push(group.run(commands));
      } catch (error) {
        throw new Error(`line ${i + 1}: ${(error as Error).message}`, { cause: error });
      }
      commands = [];
      while (i + 1 < lines.length && lines[i + 1] !== "") i++;
    } else if (line !== "" && !line.startsWith("#")) commands.push(line);
  }
  if (commands.length > 0) throw new Error(`commands without ---- at the end: ${commands.join("; ")}`);
  return out.join("\n");
}

test("there are scripts", () => {
  expect(scripts.length).toBeGreaterThan(5);
});

test.each(scripts)("%s", (name) => {
  const path = join(directory, name);
  const text = readFileSync(path, "utf8");
  expect(text, "a script names what it pins").toMatch(/^# pins: [\d ]+$/m);
  const played = play(text);
  if (rewrite) writeFileSync(path, played);
  else expect(played).toBe(text);
});

/**
 * Which items of checklist.md are pinned by a test: a line "pins: 1 2 3" in a comment of any test, golden scripts
 * included, or [1] before a test's name says so. Prints those that none pins. The bugs that others shipped are named with their test there.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const here = dirname(fileURLToPath(import.meta.url));
const tests = join(here, "..", "..");

/** Leases, which it has not got. */
const OTHERS = new Set([86]);

function checklist(): Map<number, string> {
  const items = new Map<number, string>();
  for (const line of readFileSync(join(here, "checklist.md"), "utf8").split("\n")) {
    if (!/^\d+\. /.test(line)) continue;
    for (const item of line.split(/(?<=\.) (?=\d+\. )/)) {
      const [, number, text] = /^(\d+)\. (.*)$/.exec(item)!;
      items.set(Number(number), text!);
    }
  }
  return items;
}

function pinned(): Map<number, string[]> {
  const found = new Map<number, string[]>();
  for (const name of readdirSync(tests, { recursive: true, encoding: "utf8" })) {
    if (!/\.(txt|ts)$/.test(name)) continue;
    const text = readFileSync(join(tests, name), "utf8");
    const pins = [...text.matchAll(/^\W*pins: ([\d ]+)$/gm)].flatMap(([, numbers]) =>
      numbers!.trim().split(/ +/),
    );
    // Or in the names of tests, in brackets.
    const named = [...text.matchAll(/^\s*(?:test|it)\(\s*["'`]((?:\[\d+\] ?)+)/gm)].flatMap(
      ([, numbers]) => numbers!.match(/\d+/g) ?? [],
    );
    for (const number of [...pins, ...named].map(Number))
      found.set(number, [...(found.get(number) ?? []), name]);
  }
  return found;
}

test("every behaviour of the agreement engine is pinned by a test", () => {
  const items = checklist();
  expect([...items.keys()]).toEqual(Array.from({ length: 94 }, (_, i) => i + 1));
  const found = pinned();
  const missing = [...items].filter(([number]) => !found.has(number));
  for (const [number, text] of missing) process.stdout.write(`not pinned: ${number}. ${text}\n`);
  expect(missing.map(([number]) => number).filter((number) => !OTHERS.has(number))).toEqual([]);
  expect([...found.keys()].filter((number) => !items.has(number))).toEqual([]);
});

test("every bug that others shipped has a test", () => {
  const [, table = ""] = readFileSync(join(here, "checklist.md"), "utf8").split("## Bugs others shipped");
  const rows = [...table.matchAll(/^\| ([^|]+) \| ([^|]+) \|$/gm)].slice(2);
  expect(rows.length).toBeGreaterThan(20);
  for (const [, bug = "", where = ""] of rows) {
    if (where.trim() === "no range splits yet") continue;
    const [, file, words] = /^`([^`]+)`: (.+)$/.exec(where.trim())!;
    expect(readFileSync(join(tests, "..", file!), "utf8"), bug.trim()).toContain(words);
  }
});

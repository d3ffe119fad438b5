/**
 * Every planted bug (scripts/mutants) still has its place in the code: one that has lost it plants nothing. And whoever is
 * said to catch one is there.
 */
import { existsSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";

interface Place {
  readonly file: string;
  readonly find: string;
}

type Mutant = Place & { readonly name: string; readonly also?: Place; readonly rule?: number };

// Not a part of the program, and so without types.
const lists = ["list", "commits", "ranges"].map(
  (name) => new URL(`../../scripts/mutants/${name}.mjs`, import.meta.url),
);

async function loadMutants(): Promise<Mutant[]> {
  const loaded = await Promise.all(
    lists.map(async ({ href }) => (await import(href)) as Record<string, Mutant[]>),
  );
  return loaded.flatMap((module) => Object.values(module).flat());
}

it("planted bugs are found in the text, once", async () => {
  const mutants = await loadMutants();
  expect(mutants.length).toBeGreaterThan(70);
  const lost = mutants.filter(({ file, find, also }) =>
    [{ file, find }, also].some(
      (place) =>
        place !== undefined &&
        readFileSync(new URL(`../../${place.file}`, import.meta.url), "utf8").split(place.find).length !== 2,
    ),
  );
  expect(lost.map(({ name }) => name)).toEqual([]);
});

it("planted bugs have names of their own, and of every rule of the protocol one is planted", async () => {
  const mutants = await loadMutants();
  const names = mutants.map(({ name }) => name);
  expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
  const rules = new Set(mutants.map(({ rule }) => rule));
  expect([1, 2, 3, 4, 5, 6, 7, 8, 9].filter((rule) => !rules.has(rule))).toEqual([]);
});

it("tests that are known to catch planted bugs exist", async () => {
  const names = new Set((await loadMutants()).map(({ name }) => name));
  const root = new URL("../../", import.meta.url);
  const killers = JSON.parse(readFileSync(new URL("scripts/mutants/killers.json", root), "utf8")) as Record<
    string,
    { readonly file?: string }
  >;
  for (const [name, { file }] of Object.entries(killers)) {
    expect(names).toContain(name);
    if (file !== undefined) expect(existsSync(new URL(file, root)), file).toBe(true);
  }
});

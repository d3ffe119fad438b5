/** Every planted bug (scripts/mutants) still has its place in the code: one that has lost it plants nothing. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";

interface Place {
  readonly file: string;
  readonly find: string;
}

type Mutant = Place & { readonly name: string; readonly also?: Place };

// Not a part of the program, and so without types.
const lists = ["list", "ranges"].map((name) => new URL(`../../scripts/mutants/${name}.mjs`, import.meta.url));

it("planted bugs are found in the text, once", async () => {
  const loaded = await Promise.all(
    lists.map(async ({ href }) => (await import(href)) as Record<string, Mutant[]>),
  );
  const mutants = loaded.flatMap((module) => Object.values(module).flat());
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

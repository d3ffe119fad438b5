/**
 * The protocol of protocol.ts over many seeds, and with planted bugs, each of which must be found. `SEED=n` runs one seed,
 * `RUNS=n` the first n.
 */
import { expect, it } from "vitest";
import { type Bug, Protocol } from "./protocol.js";

async function run(seed: number, bug?: Bug): Promise<{ wrong: string[]; protocol: Protocol }> {
  const protocol = new Protocol(seed, bug);
  await protocol.run();
  return { wrong: protocol.check(), protocol };
}

const only = process.env.SEED;
const runs = Number(process.env.RUNS ?? 40);
const SEEDS = only === undefined ? Array.from({ length: runs }, (_, n) => n + 1) : [Number(only)];

/** Rare paths that these seeds have to reach. */
const SOMETIMES = [
  "told committed",
  "told aborted",
  "told unknown",
  "registering answered registered",
  "registering answered aborted",
  "registering answered unknown",
  "register registered",
  "register committed",
  "register aborted",
  "register unknown",
  "decide committed",
  "decide aborted",
  "decide unknown",
  "acknowledge acknowledged",
  "a participant in doubt is told unknown",
  "aborted by recovery",
];

it("decides once, tells everybody, and forgets nothing too soon", async () => {
  const seen = new Set<string>();
  for (const seed of SEEDS) {
    const { wrong, protocol } = await run(seed);
    expect(wrong, `SEED=${seed}`).toEqual([]);
    for (const what of protocol.seen.keys()) seen.add(what);
  }
  if (only === undefined) expect(SOMETIMES.filter((what) => !seen.has(what))).toEqual([]);
});

const BUGS: readonly Bug[] = [
  "commit without registration",
  "answer an inquiry without logging",
  "acknowledge before delivery",
  "forget the outbox of an earlier leader",
  "answer as soon as it is proposed",
];

for (const bug of BUGS)
  it(`finds this bug: ${bug}`, async () => {
    for (let seed = 1; seed <= 40; seed++) if ((await run(seed, bug)).wrong.length > 0) return;
    expect.fail("no seed found it");
  });

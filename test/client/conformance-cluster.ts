/** The built product, one node, for tests that compare it with plain SQLite; and where the recorded material lies. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Tally, Target } from "../../scripts/conformance/replay.mjs";
import { clusterTarget, ownCluster } from "../../scripts/conformance/targets.mjs";
import { connect } from "../../src/driver/index.js";

const SHARED = fileURLToPath(new URL("../../../shared/", import.meta.url));

/** The whole of the material instead of a part small enough for every run. */
export const WHOLE = process.env.OSTRAKA_CONFORMANCE === "whole";

/** Undefined, with a word on the terminal, where the material is absent. */
export function shared(path: string): string | undefined {
  const full = SHARED + path;
  if (existsSync(full)) return full;
  process.stderr.write(`SKIPPED: ${full} is absent, so nothing was compared with plain SQLite\n`);
  return undefined;
}

/** An evenly spread part; the same every time. */
export function part<T>(all: readonly T[], every: number): T[] {
  return WHOLE ? [...all] : all.filter((_, i) => i % every === 0);
}

export async function oneNode(): Promise<Target & { readonly url: string }> {
  const cluster = await ownCluster(1);
  const url = await cluster.fresh();
  const target = await clusterTarget(connect, url, cluster.fresh);
  return { ...target, url, close: () => target.close().then(cluster.stop) };
}

/** What the README says is refused; anything else has to come out as in SQLite. */
const UNSUPPORTED: readonly RegExp[] = [
  /^(ATTACH|DETACH) is not supported/,
  /^root pages are not the same on every replica/,
  /^rowid of sqlite_schema cannot be used beside \*/,
  /^pragma_\w+ may differ between replicas: it cannot feed a write/,
];

/**
 * Differences that stay: the rows of pragma_function_list, where ours stand beside SQLite's; and changes() in a trigger
 * that has not changed anything itself yet, which tells of the session's last statement in SQLite. INSERT … SELECT *
 * between tables with equal generated columns, which only SQLite's transfer optimization lets pass, is refused as SQLite
 * refuses it otherwise wherever row changes are captured.
 */
const KNOWN: ReadonlySet<string> = new Set([
  "pragma5 0",
  "changes 139",
  "changes 158",
  "changes 167",
  "changes 176",
  "gencol1 3",
  "gencol1 4",
]);

/** What a tally holds that nobody has accounted for. */
export function unaccounted(tally: Tally): string[] {
  const refused = Object.keys(tally.reasons).filter((reason) => !UNSUPPORTED.some((one) => one.test(reason)));
  const different = tally.differences.filter(({ script, step }) => !KNOWN.has(`${script} ${step}`));
  return [
    ...refused.map((reason) => `refused: ${reason}`),
    ...different.map(({ script, step, sql, different: how }) => `${script}, step ${step}: ${sql}\n${how}`),
  ];
}

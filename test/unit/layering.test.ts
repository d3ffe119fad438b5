/** Imports point one way: a folder may import those before it in this list, and nothing after. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, test } from "vitest";

const LAYERS = [
  "base",
  "raft",
  "sql",
  "txn",
  "placement",
  "log",
  "multiraft",
  "machines",
  "range",
  "coordinator",
  "rpc",
  "gateway",
  "node",
  "driver",
  "embedded",
  "cli",
];
const PURE = new Set(["base", "raft", "sql", "txn", "placement"]);
/** The client library knows the wire and the language, never the server's inside. */
const DRIVER_MAY = new Set(["base", "sql", "rpc", "driver"]);
const SRC = join(import.meta.dirname, "../../src");

interface Import {
  readonly file: string;
  readonly from: string;
  readonly target: string;
  readonly typeOnly: boolean;
}

function modules(): string[] {
  return readdirSync(SRC, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ts"));
}

function importsOf(file: string): Import[] {
  const text = readFileSync(join(SRC, file), "utf8");
  const from = file.split("/")[0]!;
  return [...text.matchAll(/^(import|export)\s+(type\s)?[^;]*?from\s+"([^"]+)"/gm)].map((match) => ({
    file,
    from,
    target: match[3]!,
    typeOnly: match[2] !== undefined,
  }));
}

const all = modules().flatMap(importsOf);

describe("layering", () => {
  test("there are modules and imports to look at", () => {
    expect(modules().length).toBeGreaterThan(50);
    expect(all.length).toBeGreaterThan(200);
  });

  test("no folder imports one that comes after it", () => {
    const wrong = all.filter(({ file, from, target }) => {
      if (!target.startsWith(".")) return false;
      const to = relative(SRC, resolve(SRC, dirname(file), target)).split("/")[0]!;
      if (to === from) return false;
      if (from === "driver") return !DRIVER_MAY.has(to);
      return LAYERS.indexOf(to) === -1 || LAYERS.indexOf(to) > LAYERS.indexOf(from);
    });
    expect(wrong).toEqual([]);
  });

  test("pure folders import no module of the platform and no package", () => {
    const wrong = all.filter(({ from, target }) => PURE.has(from) && !target.startsWith("."));
    expect(wrong).toEqual([]);
  });

  test("files stay short", () => {
    const long = modules().filter((file) => readFileSync(join(SRC, file), "utf8").split("\n").length > 620);
    expect(long).toEqual([]);
  });
});

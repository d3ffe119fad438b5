/**
 * README.md is true: its ```sh and ```js blocks run as they stand, and say what the README says they say.
 *
 * The sh blocks of a section are one bash script in a directory of its own, with `ostraka` as in a checkout; every
 * line of the section's ```text blocks must be in its output, in order. A js block runs as a module of its own beside
 * a node on port 7400; `console.log(…); // a / b` must have printed those lines. Ports are replaced by free ones.
 * ```console blocks are not run: they install, or build what this test runs.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, describe, expect, test } from "vitest";
import { freePorts } from "../../src/cli/free-ports.js";
import { assertBuilt, MAIN } from "./cli-run.js";

const ROOT = resolve(import.meta.dirname, "../..");
const README = readFileSync(join(ROOT, "README.md"), "utf8");
const LIMIT_MS = 110_000;

interface Section {
  readonly title: string;
  readonly blocks: readonly { readonly language: string; readonly text: string }[];
}

function sections(): Section[] {
  return README.split(/^## /m).map((part) => ({
    title: part.split("\n", 1)[0]!.trim(),
    blocks: [...part.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language, text]) => ({
      language: language!,
      text: text!,
    })),
  }));
}

const blocksOf = (section: Section, language: string): string[] =>
  section.blocks.filter((block) => block.language === language).map(({ text }) => text);

const scratch = mkdtempSync(join(tmpdir(), "ostraka-readme-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Replaces the ports of loopback addresses by free ones, the same for the same. */
async function portsOf(text: string): Promise<(part: string) => string> {
  const found = [...text.matchAll(/127\.0\.0\.1:(\d{4})\b/g)].map((match) => match[1]!);
  const named = [...new Set([...found, "7400"])];
  const free = await freePorts(named.length);
  const map = new Map(named.map((port, i) => [port, String(free[i])]));
  return (part) =>
    part
      // A loop over 1 2 3: 7411, 7412, 7413.
      .replace(/127\.0\.0\.1:741\$n/g, () => {
        const cases = [1, 2, 3].map((n) => `${n}) echo ${map.get(`741${n}`)};;`).join(" ");
        return `127.0.0.1:$(case $n in ${cases} esac)`;
      })
      .replace(/127\.0\.0\.1:(\d{4})\b(?!\d)/g, (whole, port: string) =>
        whole.replace(port, map.get(port) ?? port),
      );
}

interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function finished(child: ChildProcess): Promise<Ran> {
  let stdout = "";
  let stderr = "";
  child.stdout!.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr!.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const timer = setTimeout(() => child.kill("SIGTERM"), LIMIT_MS);
  const [code] = (await once(child, "close")) as [number | null];
  clearTimeout(timer);
  return { code, stdout, stderr };
}

/** Ours, without what would say where the database is. */
function environment(extra: Record<string, string>): NodeJS.ProcessEnv {
  const { OSTRAKA_AUTH_TOKEN_FILE: _, ...env } = process.env;
  return { ...env, OSTRAKA_URL: "", ...extra };
}

function runScript(script: string, directory: string, port: string): Promise<Ran> {
  const whole = `set -euo pipefail
ostraka() { '${process.execPath}' '${MAIN}' "$@"; }
end() { for job in $(jobs -p); do pkill -TERM -P "$job" || kill "$job" || true; done 2>/dev/null; wait; }
trap end EXIT
${script}`;
  const env = environment({ OSTRAKA_URL: `ostraka://127.0.0.1:${port}` });
  return finished(spawn("bash", ["-c", whole], { cwd: directory, env, stdio: ["ignore", "pipe", "pipe"] }));
}

function directoryFor(name: string): string {
  const directory = join(scratch, name.replace(/\W+/g, "-"));
  mkdirSync(join(directory, "node_modules"), { recursive: true });
  symlinkSync(ROOT, join(directory, "node_modules", "ostraka"), "dir");
  // A package of its own, whatever lies in the folders above.
  writeFileSync(join(directory, "package.json"), '{ "name": "example", "private": true }');
  return directory;
}

/** What the comments behind console.log say, in order. */
function printedLines(source: string): string[] {
  return [...source.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm)].flatMap((match) => match[1]!.split(" / "));
}

describe("README", () => {
  test("has sections to run", () => {
    assertBuilt();
    const all = sections();
    expect(all.flatMap((section) => blocksOf(section, "sh")).length).toBeGreaterThanOrEqual(5);
    expect(all.flatMap((section) => blocksOf(section, "js")).length).toBeGreaterThanOrEqual(3);
    const languages = new Set(all.flatMap(({ blocks }) => blocks.map(({ language }) => language)));
    expect([...languages].sort()).toEqual(["console", "js", "sh", "text"]);
  });

  for (const section of sections()) {
    const scripts = blocksOf(section, "sh");
    for (const [i, script] of scripts.entries()) {
      test(`${section.title}: shell ${i + 1}`, async () => {
        const replace = await portsOf(script);
        const port = replace("127.0.0.1:7400").split(":")[1]!;
        const ran = await runScript(replace(script), directoryFor(`${section.title} sh ${i}`), port);
        expect(ran, ran.stderr).toMatchObject({ code: 0 });
        const next = section.blocks[section.blocks.findIndex(({ text }) => text === script) + 1];
        if (next?.language !== "text") return;
        let from = 0;
        for (const line of replace(next.text)
          .split("\n")
          .filter((text) => text !== "")) {
          const at = ran.stdout.indexOf(line, from);
          expect(at, `${line}\nin\n${ran.stdout}`).toBeGreaterThanOrEqual(0);
          from = at + line.length;
        }
      });
    }

    for (const [i, source] of blocksOf(section, "js").entries()) {
      test(`${section.title}: JavaScript ${i + 1}`, async () => {
        const replace = await portsOf(source);
        const directory = directoryFor(`${section.title} js ${i}`);
        const file = join(directory, "example.mjs");
        writeFileSync(file, replace(source));
        const node = source.includes("127.0.0.1:7400")
          ? await startNode(replace("127.0.0.1:7400"), directory)
          : undefined;
        const ran = await finished(
          spawn(process.execPath, [file], {
            cwd: directory,
            env: environment({}),
            stdio: ["ignore", "pipe", "pipe"],
          }),
        );
        if (node !== undefined) {
          node.kill("SIGTERM");
          await once(node, "close");
        }
        expect(ran, ran.stderr).toMatchObject({ code: 0 });
        const printed = printedLines(source);
        expect(printed.length).toBeGreaterThan(0);
        expect(ran.stdout.trimEnd().split("\n")).toEqual(printed);
      });
    }
  }
});

async function startNode(address: string, directory: string): Promise<ChildProcess> {
  const flags = [
    "--data",
    join(directory, "node"),
    "--listen",
    address,
    "--http",
    "off",
    "--log-level",
    "error",
  ];
  const node = spawn(process.execPath, [MAIN, "start", ...flags], { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: node.stdout! })) if (line.startsWith("ready ")) break;
  node.stdout!.resume();
  return node;
}

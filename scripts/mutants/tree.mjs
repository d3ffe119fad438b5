/** A copy of the tree to plant bugs in: its sources for the tests, and what is made of them for simulated worlds. */
import { createHash } from "node:crypto";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import ts from "typescript";
import { transpile, writeTranspiled } from "../transpile.mjs";

const PARTS = ["src", "test", "proto"];
const FILES = ["package.json", "vitest.config.ts", "tsconfig.json"];

/** Every run of a test compiles only what the bug has changed, and a unit test that hangs ends soon. */
const CONFIG = `import base from "./vitest.config.ts";
const [unit, ...others] = base.test.projects;
const projects = [{ test: { ...unit.test, testTimeout: 20_000 } }, ...others];
const experimental = { fsModuleCache: true, fsModuleCachePath: "modules" };
export default { test: { ...base.test, projects, experimental } };
`;

/** Copies the tree of this folder and makes the copy the working folder, until `leave`. */
export function enterCopy() {
  const from = process.cwd();
  const scratch = mkdtempSync(join(tmpdir(), "ostraka-mutants-"));
  for (const part of [...PARTS, ...FILES]) cpSync(part, join(scratch, part), { recursive: true });
  symlinkSync(join(resolve("."), "node_modules"), join(scratch, "node_modules"));
  process.chdir(scratch);
  writeFileSync("mutants.config.ts", CONFIG);
  transpile("dist-sim");
  return {
    from,
    digest: digest(),
    leave() {
      process.chdir(from);
      rmSync(scratch, { recursive: true, force: true });
    },
  };
}

/** Of all that a result depends on besides the bug. */
function digest() {
  const hash = createHash("sha256");
  for (const part of PARTS)
    for (const name of readdirSync(part, { recursive: true }).sort())
      if (/\.(ts|proto|json|sql)$/.test(name)) hash.update(name).update(readFileSync(join(part, name)));
  return hash.digest("hex").slice(0, 16);
}

/** What the files are with the bug in them, or (a text) why it cannot be planted. */
export function plan({ file, find, replace, all: everywhere = false, also }) {
  const texts = new Map();
  for (const edit of [{ file, find, replace, everywhere }, ...(also === undefined ? [] : [also])]) {
    const text = texts.get(edit.file) ?? readFileSync(edit.file, "utf8");
    const found = text.split(edit.find).length - 1;
    if (found !== 1 && !(edit.everywhere && found > 0))
      return `its text is found ${found} times in ${edit.file}`;
    texts.set(
      edit.file,
      text.replaceAll(edit.find, () => edit.replace),
    );
  }
  for (const [name, text] of texts) {
    const { diagnostics } = ts.transpileModule(text, { fileName: name, reportDiagnostics: true });
    if (diagnostics.length > 0) return `it makes no program of ${name}`;
  }
  return texts;
}

/** Plants what was planned; answers how to take it out again. */
export function plant(texts) {
  const original = new Map([...texts.keys()].map((file) => [file, readFileSync(file, "utf8")]));
  write(texts);
  return () => write(original);
}

function write(texts) {
  for (const [file, text] of texts) {
    writeFileSync(file, text);
    writeTranspiled(text, file, join("dist-sim", file.replace(/\.ts$/, ".js")));
  }
}

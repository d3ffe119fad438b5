/**
 * Compiles the runner's entry and what it imports, so that real runner processes can be started from a test without
 * building (and type-checking) the whole product. The folder lies inside the package, so that dependencies resolve.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const SOURCE = join(ROOT, "src");

export interface BuiltRunner {
  /** The script to start. */
  readonly entry: string;
  /** The compiled counterpart of a module of src, with what it imports. */
  module(path: string): string;
  remove(): void;
}

export function buildRunner(): BuiltRunner {
  const out = join(ROOT, "node_modules", ".ostraka-test", String(process.pid));
  const done = new Set<string>();
  const compile = (file: string): string => {
    const target = join(out, relative(SOURCE, file)).replace(/\.ts$/, ".js");
    if (done.has(file)) return target;
    done.add(file);
    const text = readFileSync(file, "utf8");
    const { outputText } = ts.transpileModule(text, {
      compilerOptions: {
        target: ts.ScriptTarget.ES2023,
        module: ts.ModuleKind.ESNext,
        verbatimModuleSyntax: true,
      },
    });
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, outputText);
    for (const { fileName } of ts.preProcessFile(outputText).importedFiles)
      if (fileName.startsWith(".")) compile(resolve(dirname(file), fileName.replace(/\.js$/, ".ts")));
    return target;
  };
  mkdirSync(out, { recursive: true });
  writeFileSync(join(out, "package.json"), '{"type":"module"}');
  return {
    entry: compile(join(SOURCE, "machines/range/runner/runner-main.ts")),
    module: (path) => compile(join(SOURCE, path)),
    remove: () => rmSync(out, { recursive: true, force: true }),
  };
}

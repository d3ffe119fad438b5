/** Turns src and test/sim into JavaScript under a folder of the project, file by file, only what has changed. */
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import ts from "typescript";

const OPTIONS = {
  target: "es2023",
  module: "esnext",
  verbatimModuleSyntax: true,
  sourceMap: false,
  inlineSourceMap: true,
};

/** Answers the folder. */
export function transpile(folder, parts = ["src", "test/sim"]) {
  for (const part of parts) {
    for (const name of readdirSync(part, { recursive: true })) {
      if (!name.endsWith(".ts") || name.endsWith(".test.ts") || name.endsWith(".d.ts")) continue;
      const source = join(part, name);
      const target = join(folder, source.replace(/\.ts$/, ".js"));
      const made = statSync(target, { throwIfNoEntry: false });
      if (made !== undefined && made.mtimeMs > statSync(source).mtimeMs) continue;
      writeTranspiled(readFileSync(source, "utf8"), source, target);
    }
  }
  return folder;
}

export function writeTranspiled(text, source, target) {
  const { outputText } = ts.transpileModule(text, { fileName: source, compilerOptions: OPTIONS });
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, outputText);
}

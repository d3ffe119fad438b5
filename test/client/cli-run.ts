/** Runs the `ostraka` command as its users do: another process, with its own streams. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

export const MAIN: string = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

export interface CommandResult {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function assertBuilt(): void {
  if (!existsSync(MAIN)) throw new Error("dist/ is missing: npm run build");
}

export function startOstraka(args: readonly string[], env: Record<string, string> = {}): ChildProcess {
  assertBuilt();
  return spawn(process.execPath, [MAIN, ...args], {
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, OSTRAKA_URL: "", ...env },
  });
}

export async function ostraka(
  args: readonly string[],
  options: { stdin?: string | readonly string[]; env?: Record<string, string> } = {},
): Promise<CommandResult> {
  const child = startOstraka(args, options.env);
  let stdout = "";
  let stderr = "";
  child.stdout!.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr!.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  child.stdin!.on("error", () => undefined);
  for (const piece of typeof options.stdin === "string" ? [options.stdin] : (options.stdin ?? [])) {
    if (!child.stdin!.write(piece)) await new Promise((resolve) => child.stdin!.once("drain", resolve));
  }
  child.stdin!.end();
  const exitCode = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { exitCode, stdout, stderr };
}

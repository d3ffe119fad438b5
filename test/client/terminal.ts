/**
 * A program in a real pseudo-terminal, by way of `script` from util-linux: what it draws can be waited for, and what a
 * person would type is typed.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";

export function hasScript(): boolean {
  return spawnSync("script", ["--version"], { encoding: "utf8" }).stdout?.includes("util-linux") === true;
}

const WAIT_MS = 60_000;

export class Terminal {
  readonly #child: ChildProcess;
  #screen = "";
  #seen = 0;
  #wake: (() => void) | undefined;
  readonly exited: Promise<number | null>;

  constructor(command: string, env: Record<string, string>) {
    this.#child = spawn("script", ["-qefc", `stty rows 24 cols 80; ${command}`, "/dev/null"], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, TERM: "xterm", ...env },
    });
    this.#child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      this.#screen += text;
      this.#wake?.();
    });
    this.exited = new Promise((resolve) => this.#child.once("close", resolve));
    void this.exited.then(() => this.#wake?.());
  }

  type(keys: string): void {
    this.#child.stdin!.write(keys);
  }

  /** Everything drawn so far, without the sequences that move and colour. */
  get text(): string {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken away
    return this.#screen.replace(/\x1b\[[0-9;?]*[A-Za-z]/g, "").replaceAll("\r", "");
  }

  /** Waits until `wanted` is drawn after what was waited for last; answers what came with it. */
  async until(wanted: string): Promise<string> {
    const deadline = Date.now() + WAIT_MS;
    for (;;) {
      const at = this.text.indexOf(wanted, this.#seen);
      if (at >= 0) {
        const from = this.#seen;
        this.#seen = at + wanted.length;
        return this.text.slice(from, this.#seen);
      }
      if (this.#child.exitCode !== null || Date.now() > deadline) {
        throw new Error(`${JSON.stringify(wanted)} did not come; there was:\n${this.text.slice(this.#seen)}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1000);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }
}

/**
 * Shows a long result through the user's pager. Text is held until it is longer or wider than the screen; only then is
 * the pager started, so a short result is simply printed.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { displayWidth } from "../format/width.js";
import type { Output } from "../output.js";
import type { PagedOutput } from "./shell.js";

export interface PagerOptions {
  readonly output: Output;
  readonly rows: number;
  readonly columns: number;
  /** Called around the time in which the pager owns the terminal. */
  readonly suspend: () => void;
  readonly resume: () => void;
}

export function pagerCommand(): string | undefined {
  const chosen = process.env.OSTRAKA_PAGER ?? process.env.PAGER;
  if (chosen !== undefined) return chosen.trim() === "" ? undefined : chosen;
  return "less";
}

export class Pager implements PagedOutput {
  readonly #options: PagerOptions;
  readonly #command: string;
  #held: string[] = [];
  #lines = 0;
  #tooLarge = false;
  #child: ChildProcess | undefined;
  #ended = false;

  constructor(command: string, options: PagerOptions) {
    this.#command = command;
    this.#options = options;
  }

  get closed(): boolean {
    return this.#ended || this.#options.output.closed;
  }

  async write(text: string): Promise<void> {
    if (text === "") return;
    if (this.#child !== undefined) return this.#send(text);
    this.#held.push(text);
    for (const line of text.split("\n")) {
      if (displayWidth(line) > this.#options.columns) this.#tooLarge = true;
    }
    this.#lines += text.split("\n").length - 1;
    // Two lines stay for the prompt.
    if (this.#lines > this.#options.rows - 2) this.#tooLarge = true;
    if (this.#tooLarge) await this.#start();
  }

  async #start(): Promise<void> {
    await this.#options.output.flush();
    this.#options.suspend();
    const child = spawn(this.#command, {
      shell: true,
      stdio: ["pipe", "inherit", "inherit"],
      // Lines are not folded; a screenful that fits needs no pager.
      env: { ...process.env, LESS: process.env.LESS ?? "-SFX", LESSCHARSET: "utf-8" },
    });
    this.#child = child;
    child.stdin!.on("error", () => {
      this.#ended = true;
    });
    child.on("close", () => {
      this.#ended = true;
    });
    const held = this.#held.join("");
    this.#held = [];
    await this.#send(held);
  }

  async #send(text: string): Promise<void> {
    const stdin = this.#child?.stdin;
    if (stdin === null || stdin === undefined || this.#ended) return;
    if (stdin.write(text)) return;
    await Promise.race([once(stdin, "drain"), once(this.#child!, "close")]).catch(() => undefined);
  }

  async flush(): Promise<void> {}

  /** Prints what is held, or waits until the reader has left the pager. */
  async close(): Promise<void> {
    if (this.#child === undefined) {
      await this.#options.output.write(this.#held.join(""));
      this.#held = [];
      return this.#options.output.flush();
    }
    this.#child.stdin?.end();
    if (!this.#ended) await once(this.#child, "close");
    this.#options.resume();
  }
}

/**
 * A file that is there as a whole or not at all: written beside it under another name, which it takes at the end. What
 * had the name before stays until then. What is no file (a pipe, a terminal, /dev/stdout) is written to as it is.
 */
import { lstatSync, realpathSync, renameSync, rmSync, type Stats, statSync } from "node:fs";
import { Output } from "./output.js";

export class WholeFile {
  private constructor(
    readonly output: Output,
    private readonly path: string,
    /** Undefined once it is over, and where the file is written to as it is. */
    private written: string | undefined,
  ) {}

  /** Opens what is written to, so that a name that cannot be had is an error here. */
  static async open(given: string): Promise<WholeFile> {
    const before = statsOf(given);
    if (before !== undefined && (!before.isFile() || isDescriptor(given))) {
      return new WholeFile(await Output.toFile(given), given, undefined);
    }
    // The file that a link leads to is replaced, not the link.
    const path = before === undefined ? given : realpathSync(given);
    const written = `${path}.${process.pid}.part`;
    const output = await Output.toFile(written, before && { mode: before.mode & 0o777 });
    return new WholeFile(output, path, written);
  }

  /** Closes what was written, and gives it its name. */
  async keep(): Promise<void> {
    await this.output.close();
    if (this.written !== undefined) renameSync(this.written, this.path);
    this.written = undefined;
  }

  /** Unless it was kept, it is gone. */
  discard(): void {
    if (this.written !== undefined) rmSync(this.written, { force: true });
    this.written = undefined;
  }
}

function statsOf(path: string): Stats | undefined {
  return statSync(path, { throwIfNoEntry: false });
}

/** /dev/stdout and its like lead to files that others hold open. */
function isDescriptor(path: string): boolean {
  return lstatSync(path).isSymbolicLink() && /^\/(?:dev|proc)\//.test(path);
}

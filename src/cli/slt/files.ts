/** Finds and reads sqllogictest files: plain or gzip, folders all the way down. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { CommandFailure, describeError, EXIT } from "../exit.js";

const SLT_FILE = /\.(?:test|slt)(?:\.gz)?$/;

/** A file as named, and in a folder every file that looks like one, in order of name. */
export function findSltFiles(paths: readonly string[]): string[] {
  const files = paths.flatMap((path) => {
    try {
      return statSync(path).isDirectory() ? inFolder(path) : [path];
    } catch (error) {
      throw new CommandFailure(EXIT.failure, describeError(error));
    }
  });
  if (files.length === 0)
    throw new CommandFailure(EXIT.failure, `no .test or .slt files in ${paths.join(", ")}`);
  return files;
}

function inFolder(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return inFolder(path);
      return SLT_FILE.test(entry.name) ? [path] : [];
    });
}

export function readSltFile(path: string): string {
  const bytes = readFileSync(path);
  const gzipped = bytes[0] === 0x1f && bytes[1] === 0x8b;
  return (gzipped ? gunzipSync(bytes) : bytes).toString("utf8");
}

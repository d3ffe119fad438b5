/** Durable notes of splits whose children are being made, beside the parent's file. See children.ts. */
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { diskTrouble, syncDirectory, syncFileNow } from "./files.js";
import type { NewChild } from "./types.js";

export interface Note extends NewChild {
  /** Bytes of the write-ahead log that belong to the state; null until the split is committed: all there are. */
  readonly walBytes: number | null;
  /** The child's file was complete: where it is not there, the child has left this node since. */
  readonly made?: boolean;
}

const UNFINISHED = ".unfinished";

export function writeNote(path: string, note: Note): void {
  const target = notePath(path, note);
  try {
    writeFileSync(target + UNFINISHED, JSON.stringify(note));
    syncFileNow(target + UNFINISHED);
    renameSync(target + UNFINISHED, target);
    syncDirectory(dirname(path));
  } catch (error) {
    throw diskTrouble(error);
  }
}

export function removeNote(path: string, child: NewChild): void {
  rmSync(notePath(path, child), { force: true });
}

export function readNotes(path: string): Note[] {
  const folder = dirname(path);
  const names = readdirSync(folder).filter((name) => name.startsWith(`${basename(path)}.split-`));
  for (const name of names) if (name.endsWith(UNFINISHED)) rmSync(join(folder, name), { force: true });
  return names
    .filter((name) => !name.endsWith(UNFINISHED))
    .map((name) => JSON.parse(readFileSync(join(folder, name), "utf8")) as Note);
}

function notePath(path: string, { descriptor }: NewChild): string {
  return `${path}.split-${descriptor.range}`;
}

/** The shell's history, kept in a file that only its owner can read: statements may hold what others must not see. */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";

const MAX_ENTRIES = 2000;

export function historyPath(): string {
  return process.env.OSTRAKA_HISTORY ?? join(homedir(), ".ostraka_history");
}

/** Oldest first. A missing or unreadable file is an empty history. */
export function loadHistory(path: string): string[] {
  try {
    return readFileSync(path, "utf8")
      .split("\n")
      .filter((line) => line !== "");
  } catch {
    return [];
  }
}

/** Adds what this shell was told to what others have written meanwhile. Failing to is no reason to fail. */
export function saveHistory(path: string, added: readonly string[]): void {
  if (added.length === 0) return;
  try {
    mkdirSync(dirname(path), { recursive: true });
    const entries = [...loadHistory(path), ...added].slice(-MAX_ENTRIES);
    writeFileSync(path, `${entries.join("\n")}\n`, { mode: 0o600 });
    chmodSync(path, 0o600);
  } catch {
    // A home directory that cannot be written to.
  }
}

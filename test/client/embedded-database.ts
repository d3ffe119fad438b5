/** A real database of one node inside this process, for the tests of one file. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import type * as Embedded from "../../src/embedded/index.js";

export const { open } = (await import("../../dist/embedded/index.js" as string)) as typeof Embedded;

/** Opened while the file's tests are collected; closed and removed after them. */
export async function openForFile(): Promise<Embedded.Database> {
  const directory = mkdtempSync(join(tmpdir(), "ostraka-client-"));
  let db: Embedded.Database | undefined;
  afterAll(async () => {
    await db?.close();
    rmSync(directory, { recursive: true, force: true });
  });
  db = await open(directory);
  return db;
}

/** What is special about a database in this process; all else is the driver's. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type * as Embedded from "../../src/embedded/index.js";

const { open, OstrakaError } = (await import("../../dist/embedded/index.js" as string)) as typeof Embedded;

const folder = mkdtempSync(join(tmpdir(), "ostraka-embedded-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("tells which SQLite it is, and has its directory for itself", async () => {
  const directory = join(folder, "one");
  const db = await open(directory);
  const { rows } = await db.execute("select sqlite_version() as version");
  expect(db.server.sqliteVersion).toBe(rows[0]!.version);
  const second = open(directory);
  await expect(second).rejects.toBeInstanceOf(OstrakaError);
  await expect(second).rejects.toMatchObject({ code: "OSTRAKA_CONFIG" });
  await db.close();
});

test("a directory that cannot be used is an error of ours, and wrong options are refused before it is touched", async () => {
  const file = join(folder, "file");
  writeFileSync(file, "");
  const inFile = open(file);
  await expect(inFile).rejects.toBeInstanceOf(OstrakaError);
  await expect(inFile).rejects.toMatchObject({ code: "OSTRAKA_CONFIG" });
  await expect(open(file, { timeoutMs: -5 })).rejects.toThrow(TypeError);
  await expect(open(file, { intMode: "float" as "number" })).rejects.toThrow(TypeError);
});

import { readFileSync, writeFileSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import Database from "better-sqlite3";
import { afterEach, expect, it, vi } from "vitest";
import { diskTrouble, SYSTEM_FILES } from "../../../src/machines/range/files.js";
import { classifySqliteError } from "../../../src/machines/range/sqlite-errors.js";
import { SimRandom } from "../../sim/sim-random.js";
import { temporaryDirectory } from "./helpers.js";

afterEach(() => vi.restoreAllMocks());

it("copies the beginning of a file also where little is written at a time", async () => {
  const [from, to] = [join(temporaryDirectory(), "from"), join(temporaryDirectory(), "to")];
  const random = new SimRandom(1);
  const bytes = Uint8Array.from({ length: 3_000_000 }, () => random.uint32() & 0xff);
  writeFileSync(from, bytes);
  const probe = await open(from, "r");
  const handle = Object.getPrototypeOf(probe) as FileHandle;
  await probe.close();
  const write = handle.write as (...args: unknown[]) => Promise<{ bytesWritten: number }>;
  vi.spyOn(handle, "write").mockImplementation(function (this: FileHandle, ...args: unknown[]) {
    const [buffer, offset, length, position] = args as [Uint8Array, number, number, number];
    return write.call(this, buffer, offset, Math.min(length, 700_000), position) as never;
  });
  await SYSTEM_FILES.copyPrefix(from, to, 2_500_000);
  expect(Buffer.compare(readFileSync(to), bytes.subarray(0, 2_500_000))).toBe(0);
});

it("takes a log whose index cannot grow for a full disk, as SQLite means it", () => {
  const error = new Database.SqliteError("disk I/O error", "SQLITE_IOERR_SHMSIZE");
  expect(classifySqliteError(error)).toMatchObject({ family: "fatal", code: "OSTRAKA_DISK_FULL" });
  expect(diskTrouble(error)).toMatchObject({ family: "fatal", code: "OSTRAKA_DISK_FULL" });
});

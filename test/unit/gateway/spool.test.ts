/** Rows of a query that do not fit into memory. */
import { expect, it } from "vitest";
import { FatalError } from "../../../src/base/errors.js";
import type { Disk } from "../../../src/base/io.js";
import { SpooledRows } from "../../../src/gateway/spool.js";
import { asRunnerError } from "../../../src/machines/range/runner/session.js";
import type { RowStream } from "../../../src/machines/range/types.js";

it("cannot be kept where the disk is full, which is no fault of the node", async () => {
  const source: RowStream = {
    columns: [],
    columnTypes: [],
    next: async () => ({ rows: new Uint8Array(5 << 20), count: 1 }),
    summary: () => ({ changes: 0, totalChanges: 0, lastInsertRowid: 0n }),
    close: async () => {},
  };
  const disk = {
    open: () => Promise.reject(new FatalError("OSTRAKA_DISK_FULL", "write spool: no space left (ENOSPC)")),
  } as unknown as Disk;
  const space = { disk, temporaryPath: () => "spool", maxResultBytes: 1 << 30 };
  const rows = new SpooledRows(source, space, () => {});
  await expect(rows.next()).rejects.toMatchObject({ family: "retry", code: "OSTRAKA_UNAVAILABLE" });
  await rows.close();
  const full = Object.assign(new Error("write ENOSPC"), { code: "ENOSPC" });
  expect(asRunnerError(full)).toMatchObject({ family: "retry", code: "OSTRAKA_UNAVAILABLE" });
});

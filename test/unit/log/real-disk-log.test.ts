import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { groupId, logIndex, nodeId, term } from "../../../src/base/ids.js";
import { openLog } from "../../../src/log/index.js";
import { RealClock, RealDisk } from "../../../src/node/real-io.js";

test("appends on a real disk are there after reopening", async () => {
  const directory = mkdtempSync(join(tmpdir(), "ostraka-log-"));
  try {
    const options = {
      directory: join(directory, "a", "log"),
      segmentBytes: 65536,
      onDiskFull: () => undefined,
      onFailure: () => undefined,
    };
    let log = await openLog(new RealDisk(), new RealClock(), options);
    for (let i = 1; i <= 500; i++) {
      const data = new Uint8Array(600).fill(i);
      await log.append([
        {
          group: groupId(3),
          hardState: { term: term(2), vote: nodeId(1), commit: logIndex(i - 1) },
          entries: [{ term: term(2), index: logIndex(i), kind: 0, data }],
          snapshot: undefined,
        },
      ]);
    }
    expect(log.usage().segments).toBeGreaterThan(3);
    await log.close();
    log = await openLog(new RealDisk(), new RealClock(), options);
    const group = log.group(groupId(3));
    expect(log.groups()).toEqual([3]);
    expect(group.lastIndex()).toBe(500);
    expect(group.hardState()).toEqual({ term: 2, vote: 1, commit: 499 });
    const entries = group.entries(logIndex(1), logIndex(501), Number.MAX_SAFE_INTEGER);
    expect(entries.map((entry) => entry.data[0])).toEqual(
      Array.from({ length: 500 }, (_, i) => (i + 1) & 255),
    );
    await log.close();
  } finally {
    rmSync(directory, { recursive: true });
  }
});

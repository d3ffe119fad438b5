import { join } from "node:path";
import Database from "better-sqlite3";
import { expect, it } from "vitest";
import { LogExtent } from "../../../src/machines/range/log-extent.js";
import { temporaryDirectory } from "./helpers.js";

it.each([512, 4096, 65536])("finds in a log with pages of %i bytes what SQLite finds", (pageBytes) => {
  const path = join(temporaryDirectory(), "file.db");
  const extent = new LogExtent(path);
  expect(extent.committed()).toBe(0);
  const database = new Database(path);
  const pragma = (text: string) => database.pragma(text);
  for (const set of [`page_size = ${pageBytes}`, "journal_mode = WAL", "wal_autocheckpoint = 0"]) pragma(set);
  pragma("cache_size = 10");
  const logged = (frames: number) => (frames === 0 ? 0 : 32 + frames * (24 + pageBytes));
  const inLog = (): number => (pragma("wal_checkpoint(PASSIVE)") as { log: number }[])[0]!.log;
  const insert = (rows: number) =>
    database.exec(
      `with recursive n(i) as (select 1 union all select i + 1 from n where i < ${rows})
       insert into t select randomblob(500) from n`,
    );
  database.exec("create table t(a)");
  for (let round = 0; round < 4; round++) {
    insert(round);
    expect(extent.committed()).toBe(logged(inLog()));
    // The next write begins the log anew.
    insert(3000);
    const before = extent.committed();
    database.exec("begin");
    insert(2000);
    expect(extent.committed()).toBe(before);
    database.exec("rollback");
    expect(extent.committed()).toBe(before);
    insert(1);
    const after = extent.committed();
    expect(after).toBeGreaterThan(before);
    expect(new LogExtent(path).committed()).toBe(after);
    expect(after).toBe(logged(inLog()));
  }
  database.close();
  expect(extent.committed()).toBe(0);
});

/** SQL files that lose races: a transaction runs again as a whole, and nothing twice. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { importSqlScript } from "../../../src/cli/import/sql-script.js";
import { OstrakaError } from "../../../src/driver/errors.js";
import type { Session, SessionState } from "../../../src/driver/types.js";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ostraka-script-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Keeps what is committed, and loses a race whenever `loses` says so of the statement and how often it was asked. */
class Racing {
  state: SessionState = "idle";
  readonly committed: string[] = [];
  #open: string[] = [];
  readonly #asked = new Map<string, number>();

  constructor(readonly loses: (sql: string, times: number) => boolean) {}

  async execute(sql: string): Promise<unknown> {
    if (/^select/.test(sql)) return { rows: [[0]] };
    if (sql === "ROLLBACK") {
      this.state = "idle";
      return {};
    }
    const times = (this.#asked.get(sql) ?? 0) + 1;
    this.#asked.set(sql, times);
    if (this.state === "failed" || this.loses(sql, times)) {
      if (this.state === "open") this.state = "failed";
      throw new OstrakaError("OSTRAKA_RETRY", "another transaction came in between");
    }
    if (/^BEGIN/.test(sql)) {
      this.state = "open";
      this.#open = [];
    } else if (/^COMMIT/.test(sql)) {
      this.state = "idle";
      this.committed.push(...this.#open);
    } else if (this.state === "open") this.#open.push(sql);
    else this.committed.push(sql);
    return {};
  }
}

const SCRIPT = `create table t(a);
BEGIN;
insert into t values (1);
insert into t values (2);
insert into t values (3);
COMMIT;
BEGIN;
insert into t values (4);
COMMIT;
`;
const ALL = ["create table t(a);", ...[1, 2, 3, 4].map((n) => `insert into t values (${n});`)];

function run(session: Racing): Promise<{ readonly statements: number }> {
  const path = join(folder, "script.sql");
  writeFileSync(path, SCRIPT);
  return importSqlScript(session as unknown as Session, path);
}

test.each([
  ["a statement", (sql: string, times: number) => sql.includes("(3)") && times < 3],
  ["COMMIT", (sql: string, times: number) => sql.startsWith("COMMIT") && times < 3],
])("a transaction that loses at %s runs again", async (_, loses) => {
  const session = new Racing(loses);
  expect(await run(session)).toEqual({ statements: 9 });
  expect(session.committed).toEqual(ALL);
});

test("one that loses for ever ends the import, and says where", async () => {
  const session = new Racing((sql) => sql.includes("(4)"));
  await expect(run(session)).rejects.toThrow(/script\.sql:8: another transaction came in between/);
  expect(session.committed).toEqual(ALL.slice(0, 4));
});

test("what fails outside of a transaction is not repeated", async () => {
  const session = new Racing((sql) => sql.startsWith("create"));
  await expect(run(session)).rejects.toThrow(/script\.sql:1:/);
});

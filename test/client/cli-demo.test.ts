/** `ostraka demo`: a cluster of real processes that leaves nothing behind but what it was asked to keep. */
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { assertBuilt, ostraka, startOstraka } from "./cli-run.js";

const folder = mkdtempSync(join(tmpdir(), "ostraka-demo-test-"));
beforeAll(assertBuilt);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A demo that stays in the foreground. */
async function startDemo(
  data: string,
  nodes: number,
): Promise<{ url: string; stop: (signal: NodeJS.Signals) => Promise<unknown> }> {
  const child = startOstraka(["demo", "--no-shell", "--nodes", String(nodes), "--data", data]);
  child.stderr!.resume();
  const ended = once(child, "exit");
  const line = await Promise.race([
    once(createInterface({ input: child.stdout! }), "line").then(([text]) => String(text)),
    ended.then(([code]) => `ended with ${code}`),
  ]);
  expect(line).toMatch(/^ready url=ostraka:\/\/127\.0\.0\.1:\d+/);
  return {
    url: line.slice("ready url=".length),
    stop: async (signal) => {
      child.kill(signal);
      return (await ended)[0];
    },
  };
}

describe("demo", () => {
  test("runs the SQL on standard input, writes results alone, and removes its data", async () => {
    const scratch = mkdtempSync(join(folder, "tmp-"));
    const { exitCode, stdout, stderr } = await ostraka(["demo"], {
      stdin:
        ".mode csv\nselect count(*) as n from book;\ninsert into author(name) values ('New');\nselect max(id) as id from author;\n",
      env: { TMPDIR: scratch },
    });
    expect(stderr).toMatch(/^Starting 3 nodes in \S+ …\n$/);
    expect(stdout).toBe("n\n16\nid\n9\n");
    expect(exitCode).toBe(0);
    expect(readdirSync(scratch)).toEqual([]);
  });

  test("answers as psql when a statement fails, and starts empty when told to", async () => {
    const failed = await ostraka(["demo", "--nodes", "1", "--empty"], { stdin: "select * from book;\n" });
    expect(failed.exitCode).toBe(3);
    expect(failed.stderr).toContain("Error: stdin:1: no such table: book (SQLITE_ERROR)");
  });

  test("--no-shell stays until a signal, --data keeps what was written, replicas agree", async () => {
    const data = join(folder, "kept");
    const first = await startDemo(data, 3);
    const wrote = await ostraka([
      "sql",
      first.url,
      "-c",
      "create table kept(a); insert into kept values (1),(2)",
    ]);
    expect(wrote).toMatchObject({ exitCode: 0, stderr: "" });
    const check = await ostraka(["check", "--json", "--url", first.url]);
    expect(check.exitCode).toBe(0);
    expect(JSON.parse(check.stdout)).toMatchObject({ equal: true });
    const nodes = await ostraka(["node", "list", "--json", "--url", first.url]);
    expect((JSON.parse(nodes.stdout) as { id: number }[]).map(({ id }) => id).sort()).toEqual([1, 2, 3]);
    expect(await first.stop("SIGTERM")).toBe(0);
    expect((await ostraka(["demo", "--nodes", "1", "--data", data], { stdin: "" })).stderr).toContain(
      "--nodes 3",
    );
    const second = await startDemo(data, 3);
    const { stdout } = await ostraka([
      "sql",
      second.url,
      "--format",
      "csv",
      "-c",
      "select count(*) as n from kept",
    ]);
    expect(stdout).toBe("n\n2\n");
    expect(await second.stop("SIGINT")).toBe(0);
    expect(existsSync(data)).toBe(true);
  });

  test("slt --nodes runs on a cluster of its own", async () => {
    const path = join(folder, "one.test");
    writeFileSync(path, "statement ok\ncreate table t(a)\n\nquery I\nselect count(*) from t\n----\n0\n");
    const { exitCode, stdout } = await ostraka(["slt", "--nodes", "1", path]);
    expect(stdout.trimEnd().split("\n").at(-1)).toBe("2 passed, 0 failed");
    expect(exitCode).toBe(0);
  });
});

/** The shell with a person at it, in a real pseudo-terminal. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { assertBuilt, MAIN } from "./cli-run.js";
import { type LocalServer, startLocalServer } from "./local-gateway.js";
import { hasScript, Terminal } from "./terminal.js";

const folder = mkdtempSync(join(tmpdir(), "ostraka-terminal-"));
const history = join(folder, "history");
const available = hasScript();
if (!available)
  process.stderr.write("SKIPPED: no `script` of util-linux here, so the shell is not tested in a terminal\n");

let server: LocalServer;
let terminal: Terminal;
beforeAll(assertBuilt);
beforeEach(async () => {
  server = await startLocalServer();
});
afterEach(async () => {
  terminal?.kill();
  await server.close();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function open(env: Record<string, string> = {}): Terminal {
  terminal = new Terminal(`"${process.execPath}" "${MAIN}" sql ${server.url}`, {
    OSTRAKA_HISTORY: history,
    PAGER: "",
    ...env,
  });
  return terminal;
}

const CTRL_C = "\x03";
const CTRL_D = "\x04";
const PROMPT = "ostraka> ";

describe.skipIf(!available)("in a terminal", () => {
  test("statements over several lines, prompts of transactions, errors, and Ctrl-D", async () => {
    const shell = open();
    expect(await shell.until(PROMPT)).toContain("Statements end with a semicolon");
    shell.type("select 1 +\r");
    await shell.until("   ...> ");
    shell.type("1 as two;\r");
    expect(await shell.until(PROMPT)).toContain("| two |\n+-----+\n|   2 |");
    shell.type("begin;\r");
    await shell.until("ostraka*> ");
    shell.type("select nope;\r");
    expect(await shell.until("ostraka*> ")).toContain("Error: no such column: nope (SQLITE_ERROR)");
    shell.type("rollback;\r");
    await shell.until(PROMPT);
    shell.type(CTRL_D);
    expect(await shell.exited).toBe(0);
  });

  test("Ctrl-C drops what is typed, and stops what runs", async () => {
    const shell = open();
    await shell.until(PROMPT);
    shell.type("select 'never\r");
    await shell.until("   ...> ");
    shell.type(CTRL_C);
    await shell.until(PROMPT);
    shell.type("with recursive n(i) as (select 1 union all select i + 1 from n) select i from n;\r");
    // The pager is off, so rows stream to the screen until it is stopped.
    await shell.until("1000");
    shell.type(CTRL_C);
    expect(await shell.until("Interrupted.")).toBeTruthy();
    await shell.until(PROMPT);
    shell.type("select 'alive' as x;\r");
    await shell.until("| alive |");
    await shell.until(PROMPT);
    shell.type("\\q\r");
    expect(await shell.exited).toBe(0);
  });

  test("history is kept between shells, for its owner alone", async () => {
    const first = open();
    await first.until(PROMPT);
    first.type("select 'from yesterday' as h;\r");
    await first.until(PROMPT);
    first.type(CTRL_D);
    await first.exited;
    expect(statSync(history).mode & 0o777).toBe(0o600);
    expect(readFileSync(history, "utf8")).toContain("select 'from yesterday' as h;\n");
    const second = open();
    await second.until(PROMPT);
    second.type("\x1b[A");
    await second.until("select 'from yesterday' as h;");
    second.type("\r");
    await second.until("| from yesterday |");
  });

  test("Tab completes keywords, tables, columns, commands and files", async () => {
    const shell = open();
    // A tab is a key only when nothing follows it at once: pasted text may hold tabs.
    await shell.until(PROMPT);
    shell.type("create table warehouse(shelf_number);\r");
    await shell.until(PROMPT);
    shell.type("insert into ware\t");
    await shell.until("warehouse");
    shell.type(" values (42);\r");
    await shell.until(PROMPT);
    shell.type("select shelf_n\t");
    await shell.until("select shelf_number");
    shell.type(" from warehouse;\r");
    await shell.until("| shelf_number |");
    await shell.until(PROMPT);
    shell.type(".tab\t");
    await shell.until(".tables");
    shell.type("\r");
    await shell.until("warehouse");
    const script = join(folder, "a_script_to_find.sql");
    writeFileSync(script, "select 'found' as f;\n");
    await shell.until(PROMPT);
    shell.type(`.read ${script.slice(0, -8)}\t`);
    await shell.until("find.sql");
    shell.type("\r");
    await shell.until("| found |");
  });

  test("what is longer than the screen goes to the pager", async () => {
    const shell = open({ PAGER: "sed 's/^/PAGED /'" });
    await shell.until(PROMPT);
    shell.type("select 'short' as s;\r");
    expect(await shell.until(PROMPT)).not.toContain("PAGED");
    shell.type(
      "with recursive n(i) as (select 1 union all select i + 1 from n where i < 50) select i from n;\r",
    );
    expect(await shell.until(PROMPT)).toContain("PAGED | 50 |");
    shell.type("select 'after' as s;\r");
    await shell.until("| after |");
  });

  test("data cannot drive the terminal", async () => {
    const shell = open();
    await shell.until(PROMPT);
    shell.type("select char(27) || ']0;owned' || char(7) as evil;\r");
    await shell.until("| \\x1b]0;owned\\x07 |");
  });
});

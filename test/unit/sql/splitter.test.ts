import { describe, expect, it } from "vitest";
import { isComplete, StatementSplitter, splitScript } from "../../../src/sql/splitter.js";

const SCRIPT = `-- a comment; with a semicolon
create table t(a, "b;c", [d;e], \`f;g\`); /* and; another */ insert into t values('x;''y', 1);;
create temp trigger if not exists r after insert on t begin
  update t set a = case a when 1 then 2 else 3 end; -- end;
  select 1;
end;
explain create trigger q begin select 1; end;
select 1 - -1, 2/3 -- rest
;
select 'é', "end"`;

describe("the splitter", () => {
  it("cuts a script into statements with their lines", () => {
    const statements = splitScript(SCRIPT);
    expect(statements.map((s) => s.line)).toEqual([2, 2, 3, 7, 8, 10]);
    expect(statements[1]!.text).toBe("insert into t values('x;''y', 1);");
    expect(statements[2]!.text.startsWith("create temp trigger")).toBe(true);
    expect(statements[2]!.text.endsWith("end;")).toBe(true);
    expect(statements[5]!.text).toBe(`select 'é', "end"`);
  });

  it("finds the same statements wherever the script is cut into pieces", () => {
    const whole = splitScript(SCRIPT);
    for (let at = 0; at <= SCRIPT.length; at++) {
      for (const second of [at, Math.min(at + 1, SCRIPT.length), Math.min(at + 7, SCRIPT.length)]) {
        const splitter = new StatementSplitter();
        const found = [
          ...splitter.push(SCRIPT.slice(0, at)),
          ...splitter.push(SCRIPT.slice(at, second)),
          ...splitter.push(SCRIPT.slice(second)),
        ];
        const rest = splitter.finish();
        if (rest) found.push(rest);
        expect(found).toEqual(whole);
      }
    }
  });

  it("answers as sqlite3_complete", () => {
    for (const text of [
      "select 1;",
      "select 1; -- x",
      "select 1; /* x */ ",
      ";",
      "\n-- x\n;",
      "create table trigger;",
    ])
      expect(isComplete(text), text).toBe(true);
    for (const text of [
      "",
      "  ",
      "-- x",
      "select 1",
      "select ';",
      'select ";',
      "select [;",
      "select 1; /*",
      "select 1; x",
      "create trigger x begin select 1;",
      "create temporary trigger x begin select 1; end",
      "explain query plan create trigger x begin select 1; end x;",
      "select 1;-",
    ])
      expect(isComplete(text), text).toBe(false);
    expect(isComplete("create trigger x begin select 1; end;")).toBe(true);
  });

  it("says what is open, for prompts", () => {
    const splitter = new StatementSplitter();
    expect(splitter.atStart).toBe(true);
    splitter.push("-- note\n  ");
    expect(splitter.atStart).toBe(true);
    splitter.push("select 'a");
    expect(splitter.inside).toBe("'");
    splitter.push("' /* x *");
    expect(splitter.inside).toBe("*/");
    splitter.push("/ ;");
    expect(splitter.atStart).toBe(true);
    expect(splitter.line).toBe(2);
  });

  it("takes linear time on long scripts in small pieces and on one long line", () => {
    const line = "insert into t values(1,'abc');";
    const count = 100_000;
    const started = performance.now();
    const splitter = new StatementSplitter();
    let found = 0;
    const script = line.repeat(count);
    for (let at = 0; at < script.length; at += 4096)
      found += splitter.push(script.slice(at, at + 4096)).length;
    expect(found).toBe(count);
    expect(splitScript(script).length).toBe(count);
    const value = "x".repeat(1_000_000);
    let parts = 0;
    for (const piece of ["select '", ...Array(50).fill(value), "';"]) parts += splitter.push(piece).length;
    expect(parts).toBe(1);
    // Generous: quadratic time would take minutes.
    expect(performance.now() - started).toBeLessThan(20_000);
  });
});

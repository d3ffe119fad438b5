/**
 * Thousands of real statements against SQLite itself: what SQLite accepts is analysed, what a statement changes lies
 * in its write spans, and what a query answers depends on nothing outside its read spans (everything else is deleted
 * and the query asked again). Needs the shared corpora beside the checkout; says so loudly when they are absent.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import Database from "better-sqlite3";
import { describe, expect, it } from "vitest";
import { type OstrakaError, UserError } from "../../../src/base/errors.js";
import type { SqlValue } from "../../../src/base/values.js";
import { analyse } from "../../../src/sql/analyse.js";
import { classify, singleStatement } from "../../../src/sql/classify.js";
import { bindParameters } from "../../../src/sql/parameters.js";
import { bindSession } from "../../../src/sql/rewrite.js";
import { isComplete, splitScript } from "../../../src/sql/splitter.js";
import { Tokenizer, TokenKind } from "../../../src/sql/tokenizer.js";
import type { Analysis, Span } from "../../../src/sql/types.js";
import { OracleDouble } from "./oracle-double.js";

const shared = fileURLToPath(new URL("../../../../shared/", import.meta.url));
const present = existsSync(`${shared}grammar/sqlite_grammar_cases.json`);
if (!present)
  process.stderr.write(
    `\nSKIPPED: no corpora at ${shared}; the statements of SQLite's own tests were not tried\n`,
  );

type Rows = Map<string, string>;

/** Contents of every table: by table, rowid (or all of the row) → row. */
function contents(db: Database.Database): Map<string, Rows> {
  const tables = db
    .prepare(
      "select name, wr from pragma_table_list where schema='main' and type in ('table','shadow') and name not like 'sqlite\\_s%' escape '\\' or name='sqlite_sequence'",
    )
    .all() as { name: string; wr: number }[];
  const all = new Map<string, Rows>();
  for (const { name, wr } of tables) {
    const quoted = `"${name.replaceAll('"', '""')}"`;
    const rows: Rows = new Map();
    for (const row of db
      .prepare(`select ${wr === 1 ? "0" : "rowid"}, * from ${quoted}`)
      .raw()
      .safeIntegers()
      .all() as unknown[][]) {
      const text = row
        .map((v) => (Buffer.isBuffer(v) ? `x${v.toString("hex")}` : `${typeof v} ${v}`))
        .join("|");
      rows.set(wr === 1 ? text : String(row[0]), text);
    }
    all.set(name.toLowerCase(), rows);
  }
  return all;
}

function covers(spans: readonly Span[], table: string, key: bigint | undefined, isNew: boolean): boolean {
  return spans.some((span) => {
    if (span.table === "*") return true;
    if (span.table !== table && !table.startsWith(`${span.table}_`)) return false;
    if (span.low === undefined && span.high === undefined) return true;
    if (key === undefined) return false;
    if (isNew && span.high !== undefined && span.high > 2n ** 63n - 1n) return true;
    return (span.low === undefined || key >= span.low) && (span.high === undefined || key <= span.high);
  });
}

/** Tables and keys that differ, and that no span covers. */
function uncovered(before: Map<string, Rows>, after: Map<string, Rows>, spans: readonly Span[]): string[] {
  const missing: string[] = [];
  for (const table of new Set([...before.keys(), ...after.keys()])) {
    const old = before.get(table);
    const now = after.get(table);
    if (old === undefined || now === undefined) continue; // made or dropped: the schema's business
    for (const key of new Set([...old.keys(), ...now.keys()])) {
      if (old.get(key) === now.get(key)) continue;
      const rowid = /^-?\d+$/.test(key) ? BigInt(key) : undefined;
      if (!covers(spans, table, rowid, !old.has(key))) missing.push(`${table}:${key}`);
    }
  }
  return missing;
}

type Values = SqlValue[] | Record<string, SqlValue>;

interface Ran {
  readonly rows: string;
  readonly error: string | undefined;
}

function run(db: Database.Database, sql: string, values: Values): Ran {
  try {
    const statement = db.prepare(sql).safeIntegers();
    if (!statement.reader) {
      statement.run(values);
      return { rows: "", error: undefined };
    }
    const rows = (statement.raw().all(values) as unknown[][]).map((row) =>
      row.map((v) => (Buffer.isBuffer(v) ? v.toString("hex") : String(v))).join("|"),
    );
    return { rows: rows.sort().join("\n"), error: undefined };
  } catch (error) {
    return { rows: "", error: (error as Error).message };
  }
}

/** Deletes, in a savepoint, every row that the query says it does not read, and asks again. */
function answersWithout(db: Database.Database, sql: string, values: Values, reads: readonly Span[]): Ran {
  db.exec("savepoint prune");
  try {
    for (const { name } of db.prepare("select name from sqlite_schema where type='trigger'").all() as {
      name: string;
    }[])
      db.exec(`drop trigger "${name.replaceAll('"', '""')}"`);
    const tables = db
      .prepare(
        "select name, wr from pragma_table_list where schema='main' and type='table' and name not like 'sqlite\\_%' escape '\\'",
      )
      .all() as { name: string; wr: number }[];
    for (const { name, wr } of tables) {
      const spans = reads.filter((span) => span.table === name.toLowerCase() || span.table === "*");
      if (spans.some((span) => span.low === undefined && span.high === undefined)) continue;
      const keep =
        wr === 1
          ? []
          : spans.map(
              ({ low, high }) => `(rowid >= ${low ?? -(2n ** 63n)} and rowid <= ${high ?? 2n ** 63n - 1n})`,
            );
      db.exec(`delete from "${name.replaceAll('"', '""')}" where not (${["0", ...keep].join(" or ")})`);
    }
    return run(db, sql, values);
  } catch (error) {
    // Foreign keys may forbid the deletion: then there is nothing to compare.
    return { rows: "", error: (error as Error).message };
  } finally {
    db.exec("rollback to prune; release prune");
  }
}

const NOT_ORDINARY = /random|changes\(|last_insert_rowid|sqlite_offset|_ostraka/i;

/** Tries one statement on `db`; throws with what is wrong. Answers whether it was compared with SQLite. */
function tryStatement(db: Database.Database, sql: string, values: Values, counts: Map<string, number>): void {
  const count = (what: string): void => {
    counts.set(what, (counts.get(what) ?? 0) + 1);
  };
  tokensAreWhole(sql);
  const oracle = new OracleDouble(db);
  let analysis: Analysis | undefined;
  let refusal: OstrakaError | undefined;
  try {
    analysis = analyse(sql, oracle);
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    refusal = error;
  }
  if (analysis === undefined) {
    count(`refused ${refusal!.code}`);
    if (
      refusal!.code === "OSTRAKA_UNSUPPORTED" ||
      /reserved for internal|non-deterministic use/.test(refusal!.message)
    )
      return;
    let accepted = true;
    try {
      db.prepare(sql);
    } catch {
      accepted = false;
    }
    if (accepted) throw new Error(`refused what SQLite accepts: ${refusal!.message}`);
    return;
  }
  const { kind } = analysis.class;
  if (kind !== "select" && kind !== "write" && kind !== "ddl") {
    count("other");
    run(db, sql, values);
    return;
  }
  const named = Array.isArray(values) ? values : new Map(Object.entries(values));
  const params = bindParameters(analysis.parameters, named).map((v) =>
    typeof v === "number" && Number.isInteger(v) ? BigInt(v) : v,
  );
  const footprint = analysis.footprint(params);
  const inTransaction = db.inTransaction;
  if (kind === "select") {
    const plain = run(db, analysis.sql, values);
    if (plain.error === undefined && !NOT_ORDINARY.test(sql) && !analysis.touchesTemp) {
      const pruned = answersWithout(db, analysis.sql, values, footprint.reads);
      if (pruned.error === undefined && pruned.rows !== plain.rows) {
        throw new Error(
          `depends on more than it says: ${describeSpans(footprint.reads)}\n${plain.rows}\n---\n${pruned.rows}`,
        );
      }
      count("select compared");
    }
    return;
  }
  const before = contents(db);
  const ran = run(db, analysis.sql, values);
  if (db.inTransaction !== inTransaction || ran.error !== undefined) {
    count("write failed");
    return;
  }
  if (analysis.touchesTemp) return;
  const missing = uncovered(before, contents(db), footprint.writes);
  if (kind === "write" && missing.length > 0) {
    throw new Error(
      `writes more than it says: ${missing.slice(0, 5).join(" ")} not in ${describeSpans(footprint.writes)}`,
    );
  }
  count(`${kind} compared`);
}

function describeSpans(spans: readonly Span[]): string {
  return spans.map((s) => `${s.table}:${s.low ?? ""}..${s.high ?? ""}`).join(" ");
}

function tokensAreWhole(sql: string): void {
  const tokenizer = new Tokenizer(sql);
  let at = 0;
  while (tokenizer.next()) {
    if (tokenizer.start !== at || tokenizer.end <= at) throw new Error(`tokens do not meet at ${at}`);
    at = tokenizer.end;
  }
  if (at !== tokenizer.limit) throw new Error("tokens end early");
}

interface GrammarCase {
  readonly sql: string;
  readonly pre?: readonly string[];
  readonly params?: SqlValue[];
  readonly named?: Record<string, SqlValue>;
  readonly parseOnly?: boolean;
  readonly mustFail?: boolean;
}

describe.skipIf(!present)("SQLite's grammar", () => {
  it("is analysed wherever SQLite accepts it, and refused wherever SQLite refuses it", () => {
    const { setup, cases } = JSON.parse(
      readFileSync(`${shared}grammar/sqlite_grammar_cases.json`, "utf8"),
    ) as {
      setup: string[];
      cases: GrammarCase[];
    };
    const wrong: string[] = [];
    const counts = new Map<string, number>();
    for (const test of cases) {
      const db = new Database(":memory:");
      for (const sql of [...setup, ...(test.pre ?? [])]) db.exec(sql);
      try {
        if (test.mustFail === true) {
          expect(() => analyse(test.sql, new OracleDouble(db))).toThrow(UserError);
        } else if (test.parseOnly !== true) {
          expect(splitScript(test.sql)).toHaveLength(1);
          tryStatement(db, test.sql, test.params ?? test.named ?? [], counts);
        }
      } catch (error) {
        wrong.push(`${test.sql}\n    ${(error as Error).message}`);
      }
      db.close();
    }
    expect(wrong).toEqual([]);
    expect(counts.get("select compared")).toBeGreaterThan(150);
    expect(counts.get("write compared")).toBeGreaterThan(60);
  });
});

interface Step {
  readonly sql?: string;
  readonly reset?: true;
  readonly reopen?: true;
}

describe.skipIf(!present)("SQLite's own test scripts", () => {
  const files = present
    ? ["sqlite", "turso"].flatMap((part) =>
        readdirSync(`${shared}scripts/${part}`).map((name) => `${part}/${name}`),
      )
    : [];
  // A fixed part of the files, and of each its first statements: the whole set takes minutes.
  const sample = files.filter((name, i) => i % 15 === 3 && name.endsWith(".gz"));

  it("are analysed, and touch no more than is said", () => {
    const wrong: string[] = [];
    const counts = new Map<string, number>();
    for (const name of sample) {
      const { steps } = JSON.parse(gunzipSync(readFileSync(`${shared}scripts/${name}`)).toString()) as {
        steps: Step[];
      };
      let db = new Database(":memory:");
      db.pragma("foreign_keys=off");
      for (const { sql, reset } of steps.slice(0, 100)) {
        if (reset === true) {
          db.close();
          db = new Database(":memory:");
          db.pragma("foreign_keys=off");
        }
        if (sql === undefined || /^\s*(attach|detach|vacuum)/i.test(sql)) continue;
        try {
          tryStatement(db, sql, [], counts);
        } catch (error) {
          wrong.push(`${name}: ${sql}\n    ${(error as Error).message}`);
          run(db, sql, []);
        }
      }
      db.close();
    }
    expect(wrong.slice(0, 20)).toEqual([]);
    expect(counts.get("select compared")).toBeGreaterThan(100);
    expect(counts.get("write compared")).toBeGreaterThan(100);
  }, 120_000);

  it("classify and split as one statement each, with session values bound to the same columns", () => {
    let statements = 0;
    for (const name of sample) {
      const { steps } = JSON.parse(gunzipSync(readFileSync(`${shared}scripts/${name}`)).toString()) as {
        steps: Step[];
      };
      for (const { sql } of steps) {
        if (sql === undefined) continue;
        statements++;
        try {
          classify(sql);
        } catch (error) {
          expect((error as OstrakaError).message).toMatch(/syntax error|unrecognized token|incomplete input/);
          continue;
        }
        expect(isComplete(`${singleStatement(sql).sql};`), sql).toBe(true);
        const bound = bindSession(sql, { changes: 1, totalChanges: 2, lastInsertRowid: 3n });
        if (!/changes|last_insert_rowid/i.test(sql)) expect(bound).toBe(sql);
      }
    }
    expect(statements).toBeGreaterThan(1000);
    expect(TokenKind.Illegal).toBeDefined();
  });
});

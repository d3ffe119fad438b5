/**
 * Replays recorded SQL with the results that plain SQLite gave, and tells where another database differs: the scripts
 * of shared/scripts and the cases of shared/grammar (their READMEs give the formats).
 *
 * What a database must offer is a `Target`; plain SQLite and the driver are two. A step is
 *   equal        the recorded result, error or not, and the same transaction state after it
 *   unsupported  refused with OSTRAKA_UNSUPPORTED; what the refusal makes differ later is counted as `affected`
 *   different    anything else
 * Steps that the recording marks as unstable, or as too large to keep, run and are not compared.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { gunzipSync } from "node:zlib";

const MAX_SHOWN = 400;

export function readScript(file) {
  const bytes = readFileSync(file);
  const text = (file.endsWith(".gz") ? gunzipSync(bytes) : bytes).toString("utf8");
  return { ...JSON.parse(text), name: basename(file).replace(/\.json(\.gz)?$/, "") };
}

export function newTally() {
  return { equal: 0, ran: 0, unsupported: 0, affected: 0, different: 0, reasons: {}, differences: [] };
}

/** Replays one script; every script begins on an empty database, in one session. */
export async function replayScript(target, script, tally = newTally(), options = {}) {
  let session = await target.reset();
  let refused = false;
  await session.run("PRAGMA foreign_keys=OFF");
  for (const [at, step] of script.steps.entries()) {
    if (step.reset) {
      session = await target.reset();
      refused = false;
    } else if (step.reopen) session = await target.reopen();
    if (step.sql === undefined) {
      await session.run("PRAGMA foreign_keys=OFF");
      continue;
    }
    const startedMs = performance.now();
    const got = await session.run(step.sql).catch((error) => ({ error }));
    options.timed?.(step, performance.now() - startedMs);
    const where = { script: script.name, step: at, sql: step.sql };
    refused = judge(tally, where, step, got, refused, session.inTransaction) || refused;
  }
  return tally;
}

/** Replays grammar cases. A case that only reads leaves the database as the next one wants it. */
export async function replayGrammar(target, { setup, cases }, tally = newTally()) {
  let session;
  for (const [at, one] of cases.entries()) {
    if (session === undefined) {
      session = await target.reset();
      await Promise.all(setup.map((sql) => session.run(sql)));
    }
    const where = { script: `grammar/${one.cat}`, step: at, sql: one.sql };
    let refused = false;
    try {
      for (const sql of one.pre ?? []) await session.run(sql);
    } catch (error) {
      if (error.code !== "OSTRAKA_UNSUPPORTED") {
        count(tally, where, { different: `its preparation failed: ${describe(error)}` });
        session = undefined;
        continue;
      }
      refused = true;
    }
    const args = one.params ?? (one.named === undefined ? undefined : named(one.named));
    const got = await session.run(one.sql, args).catch((error) => ({ error }));
    const parses = one.parseOnly && got.error !== undefined && !/syntax error/.test(got.error.message);
    if (parses) tally.equal++;
    else judge(tally, where, one.mustFail ? { error: "a syntax error" } : expectation(one), got, refused);
    if (!/^\s*(SELECT|VALUES)\b/i.test(one.sql) || one.pre !== undefined) session = undefined;
  }
  return tally;
}

function expectation({ sql, result, parseOnly, params, named: byName }) {
  if (parseOnly) return { unstable: true };
  // better-sqlite3 binds every number as REAL, and counts what a virtual table's module has written.
  if (params !== undefined || byName !== undefined) return withIntegers(result);
  // Of a database in memory.
  if (/^\s*PRAGMA\s+journal_mode\b/i.test(sql)) return { unstable: true };
  return /^\s*(INSERT|REPLACE|UPDATE|DELETE|WITH)\b/i.test(sql) ? result : { ...result, changes: undefined };
}

function withIntegers(result) {
  const whole = (value) => (Number.isInteger(value?.f) ? value.f : value);
  return result.rows === undefined ? result : { ...result, rows: result.rows.map((row) => row.map(whole)) };
}

/** better-sqlite3 takes ?1 as the name "1"; here numbered parameters are positions. */
function named(values) {
  return Object.keys(values).every((key) => /^\d+$/.test(key)) ? Object.values(values) : values;
}

/** True when the step was refused as unsupported. */
function judge(tally, where, step, got, refusedBefore, inTransaction) {
  const verdict = compare(step, got);
  if (verdict.unsupported !== undefined) {
    tally.unsupported++;
    tally.reasons[verdict.unsupported] = (tally.reasons[verdict.unsupported] ?? 0) + 1;
    return !/^\s*(SELECT|VALUES|PRAGMA|EXPLAIN)\b/i.test(step.sql ?? where.sql);
  }
  if (verdict.different === undefined && inTransaction !== undefined && "k" in step) {
    const expected = step.tx === 1;
    if (inTransaction !== expected) {
      verdict.different = `a transaction is ${inTransaction ? "" : "not "}open after it`;
    }
  }
  if (verdict.different !== undefined && refusedBefore) tally.affected++;
  else count(tally, where, verdict);
  return false;
}

function count(tally, where, { different, uncompared }) {
  if (different !== undefined) {
    tally.different++;
    tally.differences.push({ ...where, different });
  } else if (uncompared) tally.ran++;
  else tally.equal++;
}

function compare(step, got) {
  const { error } = got;
  const foreign = error !== undefined && !String(error.code).startsWith("SQLITE_");
  if (error?.code === "OSTRAKA_UNSUPPORTED") return { unsupported: reasonOf(error) };
  if (foreign) return { different: `failed with ${describe(error)}` };
  if (step.unstable || step.skip !== undefined) return { uncompared: true };
  if (step.error !== undefined) {
    if (error === undefined) return { different: `succeeded instead of: ${step.error}` };
    if (step.code !== undefined && step.code !== error.code) {
      return { different: `failed with ${describe(error)} instead of ${step.code} (${step.error})` };
    }
    return {};
  }
  if (error !== undefined) return { different: `failed with ${describe(error)}` };
  if (step.changes !== undefined && step.columns === undefined && got.changes !== step.changes) {
    return { different: `changed ${got.changes} rows instead of ${step.changes}` };
  }
  return step.columns === undefined ? {} : compareRows(step, got);
}

function compareRows(step, got) {
  // better-sqlite3 saw columns where ALTER TABLE looks rows up.
  if (/^\s*ALTER\b/i.test(step.sql ?? "")) return {};
  const columns = JSON.stringify(got.columns.map(nameOf));
  const wanted = JSON.stringify(step.columns.map(nameOf));
  if (columns !== wanted) return { different: `columns ${columns} instead of ${wanted}` };
  const rows = got.rows.map((row) => JSON.stringify(row.map(encode)));
  if (step.rows === undefined) {
    if (step.rowCount === undefined) return {};
    const sum = (lines) => createHash("md5").update(lines.join("\n")).digest("hex");
    const equal =
      rows.length === step.rowCount &&
      sum([...rows].sort()) === step.md5sorted &&
      (step.md5 === undefined || sum(rows) === step.md5);
    return equal ? {} : { different: `${rows.length} rows, unlike the ${step.rowCount} recorded` };
  }
  const expected = step.rows.map((row) => JSON.stringify(row));
  if (step.order === "any") {
    rows.sort();
    expected.sort();
  }
  const [a, b] = [rows.join("\n"), expected.join("\n")];
  return a === b ? {} : { different: `rows ${clip(a)}\n  instead of ${clip(b)}` };
}

/** SQLite tells apart many columns of one name by random numbers. */
function nameOf(column) {
  return column.replace(/:\d{4,}$/, ":#");
}

/** A value as the recordings write it; INTEGER comes as a bigint, REAL as a number. */
function encode(value) {
  if (typeof value === "bigint") {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : { i: String(value) };
  }
  if (typeof value === "number") return { f: Number.isFinite(value) ? value : String(value) };
  return value instanceof Uint8Array ? { x: Buffer.from(value).toString("hex") } : value;
}

function describe(error) {
  return `${error.code ?? error.name}: ${error.message}`;
}

function clip(text) {
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text;
}

/** Refusals that differ only in a name are one reason. */
function reasonOf(error) {
  return error.message.replace(/"[^"]*"|'[^']*'/g, "…");
}

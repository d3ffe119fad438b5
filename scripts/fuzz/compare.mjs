/** Runs what a seed makes on a database and on plain SQLite beside it, and tells the first difference. */
import Database from "better-sqlite3";
import { Generator } from "./generate.mjs";

/** Differences in wording that SQLite itself has between plans. */
const codeOf = (error) => String(error.code ?? error.name);

/** `before` is awaited before each statement, with its number; `virtual`: whether there may be virtual tables. */
export async function compareWithSqlite(database, seed, count, before = async () => {}, virtual = true) {
  const generator = new Generator(seed, virtual);
  const plain = new Database(":memory:");
  plain.pragma("foreign_keys = on");
  plain.defaultSafeIntegers(true);
  const session = await database.session();
  let statements = 0;
  let retries = 0;
  let difference;
  try {
    for (const sql of generator.schema) {
      plain.exec(sql);
      await session.execute(sql);
    }
    for (; statements < count && difference === undefined; statements++) {
      await before(statements);
      const statement = generator.next();
      const ours = await runOurs(session, statement);
      if (ours.error?.code === "OSTRAKA_RETRY" || ours.error?.code === "OSTRAKA_UNSUPPORTED") {
        // Not a word of SQLite's: neither has done it.
        retries++;
        if (session.state !== "idle") await session.execute("rollback");
        if (plain.inTransaction) plain.exec("rollback");
        generator.ended();
        continue;
      }
      const theirs = runPlain(plain, statement);
      difference = compare(statement, ours, theirs);
      if (difference === undefined && (session.state === "open") !== plain.inTransaction)
        difference = `${statement.sql}: a transaction is ${plain.inTransaction ? "" : "not "}open in SQLite`;
      if (!plain.inTransaction) generator.ended();
    }
    if (difference === undefined) difference = await compareTables(session, plain);
    const ranges = await database.execute("select count(*) from ostraka_ranges");
    return { statements, retries, difference, ranges: Number(ranges.rows[0][0]) };
  } finally {
    plain.close();
    await session.close();
  }
}

async function runOurs(session, { sql, args = [] }) {
  try {
    const { rows, columns, rowsAffected } = await session.execute(sql, args.map(whole));
    return { columns, rows: rows.map((row) => [...row]), changes: rowsAffected };
  } catch (error) {
    return { error };
  }
}

function runPlain(plain, { sql, args = [] }) {
  try {
    const statement = plain.prepare(sql);
    const values = args.map(whole);
    if (!statement.reader) return { columns: [], rows: [], changes: statement.run(...values).changes };
    const rows = statement.raw().all(...values);
    return { columns: statement.columns().map(({ name }) => name), rows, changes: undefined };
  } catch (error) {
    return { error };
  }
}

function whole(value) {
  return Number.isInteger(value) ? BigInt(value) : value;
}

function compare({ sql, args, unordered }, ours, theirs) {
  const what = `${sql} ${args === undefined ? "" : JSON.stringify(args)}`;
  if (ours.error !== undefined || theirs.error !== undefined) {
    if (ours.error !== undefined && theirs.error !== undefined && codeOf(ours.error) === codeOf(theirs.error))
      return undefined;
    const said = (side) =>
      side.error === undefined ? "succeeded" : `${codeOf(side.error)}: ${side.error.message}`;
    return `${what}\n  ours:   ${said(ours)}\n  SQLite: ${said(theirs)}`;
  }
  const writes = /^\s*(insert|update|delete|replace)/i.test(sql);
  if (writes && theirs.changes !== undefined && ours.changes !== theirs.changes)
    return `${what}\n  ours changed ${ours.changes}, SQLite ${theirs.changes}`;
  const show = (rows) => {
    const lines = rows.map((row) => JSON.stringify(row.map(text)));
    return (unordered ? lines.sort() : lines).join("\n");
  };
  const [a, b] = [show(ours.rows), show(theirs.rows)];
  return a === b ? undefined : `${what}\n  ours:\n${a}\n  SQLite:\n${b}`;
}

function text(value) {
  if (typeof value === "bigint") return `${value}n`;
  return value instanceof Uint8Array ? `x${Buffer.from(value).toString("hex")}` : value;
}

/** In the end all tables have to be the same, hidden rowids too. */
async function compareTables(session, plain) {
  if (session.state !== "idle") await session.execute("rollback");
  if (plain.inTransaction) plain.exec("rollback");
  // What shadow tables hold depends on when it was written.
  const names = plain
    .prepare(
      `select s.name, s.sql from sqlite_schema s join pragma_table_list l on l.schema = 'main' and l.name = s.name
       where s.type = 'table' and l.type <> 'shadow' and s.name not like 'sqlite%' order by s.name`,
    )
    .all();
  for (const { name, sql } of names) {
    const rowid = /without rowid/i.test(sql) ? "" : "rowid, ";
    const statement = { sql: `select ${rowid}* from ${name}`, args: [], unordered: true };
    const difference = compare(statement, await runOurs(session, statement), runPlain(plain, statement));
    if (difference !== undefined) return `at the end: ${difference}`;
  }
  for (const { name, sql } of names) {
    if (/using fts5/i.test(sql))
      await session.execute(`insert into ${name}(${name}) values ('integrity-check')`);
    if (!/using rtree/i.test(sql)) continue;
    const { rows } = await session.execute(`select rtreecheck('${name}')`);
    if (rows[0][0] !== "ok") return `at the end: ${name}: ${rows[0][0]}`;
  }
  const check = { sql: "pragma foreign_key_check", unordered: true };
  return compare(check, await runOurs(session, check), runPlain(plain, check));
}

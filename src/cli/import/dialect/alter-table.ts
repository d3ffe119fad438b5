/**
 * ALTER TABLE, as far as dumps have it: PostgreSQL's add keys, constraints, defaults and partitions to tables made
 * earlier, phpMyAdmin's add keys and AUTO_INCREMENT.
 */
import type { CreateTableReader } from "./create-table.js";
import type { Report } from "./report.js";
import { type Column, keyOf, type Schema, shownName, type Table } from "./schema.js";
import type { DumpSession } from "./session.js";
import { isWord, type QualifiedName, splitAtCommas, type Token, TokenReader, textOf } from "./tokens.js";

/** Of no matter where the rows are SQLite's. */
const IGNORED = [
  ["enable", "keys"],
  ["disable", "keys"],
  ["enable", "trigger"],
  ["disable", "trigger"],
  ["enable", "always", "trigger"],
  ["enable", "replica", "trigger"],
  ["cluster"],
  ["set", "without"],
  ["replica", "identity"],
  ["set", "("],
  ["set", "tablespace"],
  ["set", "access"],
  ["set", "logged"],
  ["set", "unlogged"],
  ["set", "schema"],
  ["engine"],
  ["order", "by"],
  ["validate", "constraint"],
];
const COLUMN_STORAGE = ["statistics", "storage", "compression", "("];

export class AlterTableReader {
  constructor(
    readonly schema: Schema,
    readonly session: DumpSession,
    readonly create: CreateTableReader,
    readonly report: Report,
  ) {}

  /** After ALTER TABLE. */
  read(reader: TokenReader, line: number): void {
    reader.take("if", "exists");
    reader.take("only");
    const name = this.session.qualify(reader.qualifiedName());
    reader.take("*");
    const table = this.schema.table(name);
    for (const tokens of splitAtCommas(reader.rest())) {
      const action = new TokenReader(tokens, this.session.mode.family);
      if (this.#ofAnything(action, name, line)) continue;
      const understood = table !== undefined && this.#action(action, table, line);
      if (!understood) this.report.note("ALTER TABLE", line, `${shownName(name)}: ${textOf(tokens)}`);
    }
  }

  /** What is the same for tables, views and sequences, known here or not. */
  #ofAnything(action: TokenReader, name: QualifiedName, line: number): boolean {
    if (action.is("owner", "to")) {
      this.report.note("owner", line);
    } else if (IGNORED.some((words) => action.is(...words))) {
      return true;
    } else if (action.is("enable", "row") || action.is("force", "row")) {
      this.report.note("row level security", line, shownName(name));
    } else {
      return action.is("drop", "constraint") && this.schema.table(name) === undefined;
    }
    return true;
  }

  #action(action: TokenReader, table: Table, line: number): boolean {
    if (action.is("add")) return this.#add(action, table, line);
    if (action.take("modify")) return this.#modify(action, table, line);
    if (action.take("alter")) return this.#alterColumn(action, table);
    if (action.take("drop", "constraint")) return this.#dropConstraint(action, table);
    if (action.take("attach", "partition")) {
      const partition = this.schema.table(this.session.qualify(action.qualifiedName()));
      if (partition === undefined) return false;
      partition.partitionOf = table.name;
      return true;
    }
    if (action.take("auto_increment")) {
      action.take("=");
      table.nextId = BigInt(action.next().value);
      return true;
    }
    return false;
  }

  #add(action: TokenReader, table: Table, line: number): boolean {
    action.take("add");
    if (action.take("partition")) return false;
    action.take("column");
    action.take("if", "not", "exists");
    this.create.add(table, action.rest(), line);
    return true;
  }

  /** phpMyAdmin's MODIFY `id` int NOT NULL AUTO_INCREMENT: the column anew, its keys as they were. */
  #modify(action: TokenReader, table: Table, line: number): boolean {
    action.take("column");
    const name = action.name();
    action.at--;
    const at = table.columns.findIndex((column) => column.name.toLowerCase() === name.toLowerCase());
    if (at < 0) return false;
    const before = table.columns.length;
    this.create.add(table, action.rest(), line);
    const [changed] = table.columns.splice(before);
    if (changed === undefined) return false;
    table.columns[at] = changed;
    return true;
  }

  #alterColumn(action: TokenReader, table: Table): boolean {
    action.take("column");
    const name = action.name();
    const column = table.columns.find((candidate) => candidate.name === name);
    if (column === undefined) return false;
    if (action.take("set", "default")) column.default = action.rest();
    else if (action.take("drop", "default")) column.default = undefined;
    else if (action.take("set", "not", "null")) column.notNull = true;
    else if (action.take("drop", "not", "null")) column.notNull = false;
    else if (action.take("add", "generated")) this.#addIdentity(action, column);
    else return action.take("set") && COLUMN_STORAGE.some((word) => action.is(word));
    return true;
  }

  /** … AS IDENTITY (SEQUENCE NAME s START WITH 1 …): the sequence is made by this. */
  #addIdentity(action: TokenReader, column: Column): void {
    column.autoIncrement = true;
    const from = action.tokens.findIndex((token) => isWord(token, "("));
    action.at = from < 0 ? action.tokens.length : from;
    if (!action.is("(")) return;
    const options = new TokenReader(action.parenthesized(), this.session.mode.family);
    if (!options.take("sequence", "name")) return;
    const name = this.session.qualify(options.qualifiedName());
    column.sequence = name;
    this.schema.sequences.set(keyOf(name), {
      name,
      line: column.line,
      next: sequenceOption(options.tokens, "start") ?? 1n,
      step: sequenceOption(options.tokens, "increment") ?? 1n,
      used: true,
    });
  }

  #dropConstraint(action: TokenReader, table: Table): boolean {
    action.take("if", "exists");
    const name = action.name();
    const others = <T extends { readonly name: string | undefined }>(list: T[]): void => {
      const at = list.findIndex((one) => one.name === name);
      if (at >= 0) list.splice(at, 1);
    };
    if (table.primaryKey?.name === name) table.primaryKey = undefined;
    others(table.uniques);
    others(table.checks);
    others(table.foreignKeys);
    return true;
  }
}

/** START WITH 5, INCREMENT BY -1, also without the second word or with =. */
export function sequenceOption(tokens: readonly Token[], word: string): bigint | undefined {
  const at = tokens.findIndex((token) => isWord(token, word));
  if (at < 0) return undefined;
  let i = at + 1;
  while (isWord(tokens[i], "with") || isWord(tokens[i], "by") || isWord(tokens[i], "=")) i++;
  const negative = isWord(tokens[i], "-");
  const number = tokens[negative ? i + 1 : i];
  if (number?.kind !== "number" || !/^\d+$/.test(number.value)) return undefined;
  return negative ? -BigInt(number.value) : BigInt(number.value);
}

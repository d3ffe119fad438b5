/** CREATE TABLE: its definitions one by one, so that one that is not understood does not take the others with it. */
import type { Definition, DefinitionReader } from "./definition.js";
import type { Report } from "./report.js";
import { type Column, newTable, shownName, type Table } from "./schema.js";
import type { DumpSession } from "./session.js";
import { isSymbol, type QualifiedName, splitAtCommas, type Token, TokenReader, textOf } from "./tokens.js";

/** Options of a table that decide nothing here: how it is stored. */
const STORAGE = "table options (storage engine, row format, tablespace …)";

export class CreateTableReader {
  constructor(
    readonly definitions: DefinitionReader,
    readonly session: DumpSession,
    readonly report: Report,
  ) {}

  /** After CREATE TABLE. Throws SyntaxError when there are no columns to be found. */
  read(reader: TokenReader, line: number): Table {
    reader.take("if", "not", "exists");
    const name = this.session.qualify(reader.qualifiedName());
    if (reader.take("partition", "of")) {
      const table = newTable(name, line);
      table.partitionOf = this.session.qualify(reader.qualifiedName());
      return table;
    }
    if (!reader.is("(")) throw new SyntaxError(`${shownName(name)}: not a list of columns`);
    const body = splitAtCommas(reader.parenthesized());
    const options = reader.rest();
    const table = newTable(name, line, this.#inherits(options));
    for (const tokens of body) this.add(table, tokens, line);
    this.#readOptions(table, options, line);
    return table;
  }

  /** One definition, of a statement that begins on this line. */
  add(table: Table, tokens: readonly Token[], firstLine: number): void {
    const line = firstLine + (tokens[0]?.line ?? 0);
    const partial: { column?: Column } = {};
    try {
      this.#merge(table, this.definitions.read(tokens, line, partial), line);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      const what = `${shownName(table.name)}: ${textOf(tokens)}`;
      if (partial.column === undefined) {
        this.report.note("definition that is not understood", line, what);
      } else {
        table.columns.push(partial.column);
        this.report.note("what is said of a column, not understood", line, what);
      }
    }
  }

  #merge(table: Table, definition: Definition, line: number): void {
    if (definition.column !== undefined) table.columns.push(definition.column);
    if (definition.primaryKey !== undefined) table.primaryKey = definition.primaryKey;
    table.uniques.push(...definition.uniques);
    table.checks.push(...definition.checks);
    for (const key of definition.foreignKeys) {
      table.foreignKeys.push({ ...key, parent: this.session.qualify(key.parent) });
    }
    table.indexes.push(...definition.indexes);
    for (const [kind, what] of definition.refused) {
      this.report.note(kind, line, `${shownName(table.name)}: ${what}`);
    }
  }

  #inherits(options: readonly Token[]): QualifiedName[] {
    const reader = new TokenReader(options, this.session.mode.family);
    if (!reader.take("inherits")) return [];
    return splitAtCommas(reader.parenthesized()).map((tokens) =>
      this.session.qualify(new TokenReader(tokens, this.session.mode.family).qualifiedName()),
    );
  }

  #readOptions(table: Table, tokens: readonly Token[], line: number): void {
    const reader = new TokenReader(tokens, this.session.mode.family);
    let storage = false;
    while (!reader.done) {
      const token = reader.next();
      switch (token.kind === "word" ? token.value : "") {
        case "auto_increment":
          table.nextId = BigInt(optionValue(reader)?.value ?? 1);
          break;
        case "comment":
          table.comment = optionValue(reader)?.value;
          break;
        case "collate":
          table.collation = optionValue(reader)?.value.toLowerCase();
          break;
        case "charset":
          table.charset = optionValue(reader)?.value.toLowerCase();
          break;
        case "character":
          reader.take("set");
          table.charset = optionValue(reader)?.value.toLowerCase();
          break;
        case "partition":
          this.report.note(
            "partitioning",
            line,
            `${shownName(table.name)}: ${textOf(tokens.slice(reader.at - 1), 50)}`,
          );
          return;
        case "select":
          this.report.missing("CREATE TABLE with a SELECT", line, shownName(table.name));
          return;
        case "inherits":
          reader.parenthesized();
          break;
        case "default":
          break;
        default:
          storage = true;
          if (isSymbol(token, "(")) {
            reader.at--;
            reader.parenthesized();
          }
      }
    }
    if (storage) this.report.note(STORAGE, line);
  }
}

function optionValue(reader: TokenReader): Token | undefined {
  reader.take("=");
  return reader.done ? undefined : reader.next();
}

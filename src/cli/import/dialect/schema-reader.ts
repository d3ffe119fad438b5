/**
 * The first pass over a dump: every statement that is no row, into the schema or onto the report. What a statement does
 * not say of the schema or the rows (settings, locks, transactions) is passed over without a word; everything else that
 * is not carried over is told of.
 */
import { AlterTableReader, sequenceOption } from "./alter-table.js";
import { readCreateIndex } from "./create-index.js";
import { CreateTableReader } from "./create-table.js";
import type { DdlParser } from "./ddl-parser.js";
import { parseRegclass } from "./default.js";
import { DefinitionReader } from "./definition.js";
import type { Report } from "./report.js";
import { keyOf, Schema, shownName } from "./schema.js";
import type { DumpSession } from "./session.js";
import {
  isSymbol,
  isWord,
  type QualifiedName,
  splitAtCommas,
  type Token,
  TokenReader,
  textOf,
} from "./tokens.js";
import { readType } from "./type-name.js";

/** Statements that change neither schema nor rows. */
const PASSED_OVER = new Set(
  (
    "set use lock unlock start begin commit end rollback savepoint release analyze flush optimize check repair vacuum " +
    "reindex refresh show show xa reset discard prepare deallocate load_extension checkpoint"
  ).split(" "),
);
/** Statements that make, change or remove rows by other means than INSERT … VALUES and COPY. */
const CHANGES_ROWS = new Set([
  "insert",
  "replace",
  "update",
  "delete",
  "merge",
  "truncate",
  "call",
  "load",
  "copy",
  "with",
  "execute",
]);
/** Modifiers between CREATE and what is made. */
const MODIFIERS = new Set(
  "temporary temp global local unlogged recursive constraint aggregate trusted procedural default".split(" "),
);

export class SchemaReader {
  readonly schema = new Schema();
  readonly #definitions: DefinitionReader;
  readonly #createTable: CreateTableReader;
  readonly #alterTable: AlterTableReader;

  constructor(
    readonly session: DumpSession,
    readonly parser: DdlParser,
    readonly report: Report,
  ) {
    this.#definitions = new DefinitionReader(parser, session.mode.family);
    this.#createTable = new CreateTableReader(this.#definitions, session, report);
    this.#alterTable = new AlterTableReader(this.schema, session, this.#createTable, report);
  }

  /** Throws TypeError on text in an encoding that cannot be read. */
  statement(bytes: string, line: number): void {
    if (bytes === "" || this.session.apply(bytes)) return;
    let reader: TokenReader | undefined;
    try {
      reader = this.session.reader(bytes);
      if (!reader.done) this.#statement(reader, line);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      this.#notUnderstood(reader, bytes, line, error.message);
    }
  }

  #notUnderstood(reader: TokenReader | undefined, bytes: string, line: number, why: string): void {
    const what = reader === undefined ? bytes.slice(0, 60).replace(/\s+/g, " ") : textOf(reader.tokens, 60);
    const table = reader?.tokens.slice(0, 5).some((token) => isWord(token, "table")) === true;
    if (table) this.report.missing("table that is not understood", line, `${what} (${why})`);
    else this.report.note("statement that is not understood", line, `${what} (${why})`);
  }

  #statement(reader: TokenReader, line: number): void {
    const first = reader.peek()!.value;
    if (PASSED_OVER.has(first)) return;
    if (CHANGES_ROWS.has(first)) {
      this.report.missing("statement that changes rows", line, textOf(reader.tokens, 60));
      return;
    }
    reader.at = 1;
    switch (first) {
      case "create":
        this.#create(reader, line);
        return;
      case "alter":
        this.#alter(reader, line);
        return;
      case "drop":
        this.#drop(reader);
        return;
      case "comment":
        this.#comment(reader, line);
        return;
      case "select":
      case "do":
        this.#select(reader, line);
        return;
      case "grant":
      case "revoke":
        this.report.note("privileges", line);
        return;
      default:
        this.report.note("statement that is not understood", line, textOf(reader.tokens, 60));
    }
  }

  #create(reader: TokenReader, line: number): void {
    const start = reader.at;
    skipModifiers(reader);
    const temporary = reader.tokens
      .slice(start, reader.at)
      .some((token) => /^temp(?:orary)?$/.test(token.value));
    if (reader.take("table")) {
      if (temporary) this.report.missing("temporary table", line, textOf(reader.rest(), 30));
      else this.#createTableStatement(reader, line);
    } else if (reader.is("index") || reader.is("unique") || isSpecialIndex(reader)) {
      this.#createIndex(reader, line);
    } else if (reader.take("view")) {
      this.#createView(reader, line);
    } else if (reader.take("sequence")) {
      this.#createSequence(reader, line);
    } else if (reader.take("type")) {
      this.#createType(reader, line);
    } else if (reader.take("domain")) {
      this.#createDomain(reader);
    } else if (!reader.is("schema") && !reader.is("database")) {
      this.#createOther(reader, line);
    }
  }

  #createTableStatement(reader: TokenReader, line: number): void {
    const ifNotExists = reader.is("if");
    const table = this.#createTable.read(reader, line);
    const key = keyOf(table.name);
    if (this.schema.tables.has(key)) {
      if (!ifNotExists) this.report.missing("table that is there twice", line, shownName(table.name));
      return;
    }
    this.schema.tables.set(key, table);
  }

  #createIndex(reader: TokenReader, line: number): void {
    const created = readCreateIndex(reader, this.parser, line);
    const name = this.session.qualify(created.table);
    if ("refused" in created) {
      this.report.note(created.refused[0], line, `${created.refused[1]} on ${shownName(name)}`);
      return;
    }
    const table = this.schema.table(name);
    if (table !== undefined) table.indexes.push(created.index);
    else
      this.report.note(
        "index",
        line,
        `${created.index.name ?? "an index"} on ${shownName(name)}, which is no table here`,
      );
  }

  /** [name] [(columns)] [WITH (…)] AS SELECT … [WITH CHECK OPTION]. */
  #createView(reader: TokenReader, line: number): void {
    reader.take("if", "not", "exists");
    const name = this.session.qualify(reader.qualifiedName());
    const columns = reader.is("(")
      ? splitAtCommas(reader.parenthesized()).map((tokens) => new TokenReader(tokens, reader.family).name())
      : [];
    if (reader.take("with")) reader.parenthesized();
    reader.expect("as");
    let select = reader.rest();
    const check = select.findLastIndex((token) => isWord(token, "check"));
    if (check > 0 && isWord(select[check + 1], "option") && check + 2 === select.length) {
      select = select.slice(
        0,
        select.findLastIndex((token) => isWord(token, "with")),
      );
      this.report.note("WITH CHECK OPTION", line, shownName(name));
    }
    this.schema.views.set(keyOf(name), { name, columns, select, line });
  }

  #createSequence(reader: TokenReader, line: number): void {
    reader.take("if", "not", "exists");
    const name = this.session.qualify(reader.qualifiedName());
    const options = reader.rest();
    const step = sequenceOption(options, "increment") ?? 1n;
    this.schema.sequences.set(keyOf(name), {
      name,
      line,
      next: sequenceOption(options, "start") ?? 1n,
      step,
      used: false,
    });
  }

  #createType(reader: TokenReader, line: number): void {
    const name = this.session.qualify(reader.qualifiedName());
    if (reader.take("as", "enum")) {
      const values = splitAtCommas(reader.parenthesized()).map(([token]) => token!.value);
      this.schema.types.set(keyOf(name), { kind: "enum", values });
      return;
    }
    this.schema.types.set(keyOf(name), { kind: "other" });
    this.report.note("type", line, shownName(name));
  }

  #createDomain(reader: TokenReader): void {
    const name = this.session.qualify(reader.qualifiedName());
    reader.take("as");
    const type = readType(reader);
    const checks: (readonly Token[])[] = [];
    let notNull = false;
    let value: readonly Token[] | undefined;
    while (!reader.done) {
      if (reader.take("constraint")) reader.next();
      else if (reader.take("not", "null")) notNull = true;
      else if (reader.take("check")) checks.push(reader.parenthesized());
      else if (reader.take("default")) {
        const from = reader.at;
        while (!reader.done && !(reader.is("constraint") || reader.is("not") || reader.is("check")))
          reader.at++;
        value = reader.tokens.slice(from, reader.at);
      } else reader.at++;
    }
    this.schema.types.set(keyOf(name), { kind: "domain", type, notNull, default: value, checks });
  }

  /** Triggers, functions and whatever else there is no place for: by what they are, with their names. */
  #createOther(reader: TokenReader, line: number): void {
    const kinds: string[] = [];
    if (reader.take("materialized", "view")) kinds.push("materialized view");
    else if (reader.take("event", "trigger")) kinds.push("event trigger");
    else if (reader.take("foreign", "table")) kinds.push("foreign table");
    else kinds.push(reader.next().value);
    if (reader.take("if", "not", "exists")) kinds.splice(1);
    const from = reader.at;
    const name = this.#nameThere(reader);
    let what = name === undefined ? textOf(reader.tokens.slice(from), 60) : shownName(name);
    const on = reader.tokens.findIndex((token, i) => i >= reader.at && isWord(token, "on"));
    if (/^(?:trigger|policy)$/.test(kinds[0]!) && on >= 0) {
      reader.at = on + 1;
      const table = this.#nameThere(reader);
      if (table !== undefined) what += ` on ${shownName(table)}`;
    }
    this.report.note(kinds[0]!, line, what);
  }

  #nameThere(reader: TokenReader): QualifiedName | undefined {
    const { at } = reader;
    try {
      return reader.qualifiedName();
    } catch {
      reader.at = at;
      return undefined;
    }
  }

  #alter(reader: TokenReader, line: number): void {
    if (reader.take("table")) {
      this.#alterTable.read(reader, line);
      return;
    }
    if (reader.tokens.some((token, i) => isWord(token, "owner") && isWord(reader.tokens[i + 1], "to"))) {
      this.report.note("owner", line);
      return;
    }
    if (reader.is("default", "privileges")) {
      this.report.note("privileges", line);
      return;
    }
    // Whose column a sequence is for, its DEFAULT says; an index of a partition is the whole table's.
    if (reader.is("sequence") && reader.tokens.some((token) => isWord(token, "owned"))) return;
    if (reader.is("index") && reader.tokens.some((token) => isWord(token, "attach"))) return;
    if (reader.is("database")) return;
    this.report.note("ALTER", line, textOf(reader.tokens, 60));
  }

  /** Dumps drop what they are about to make, and mysqldump the stand-ins of its views. */
  #drop(reader: TokenReader): void {
    reader.take("materialized");
    const kind = reader.next().value;
    if (kind !== "table" && kind !== "view") return;
    reader.take("if", "exists");
    for (const tokens of splitAtCommas(reader.rest())) {
      const name = this.session.qualify(new TokenReader(tokens, reader.family).qualifiedName());
      (kind === "table" ? this.schema.tables : this.schema.views).delete(keyOf(name));
    }
  }

  #comment(reader: TokenReader, line: number): void {
    reader.expect("on");
    const kind = reader.next().value;
    if (kind === "table" || kind === "column") {
      const parts = [reader.name()];
      while (reader.take(".")) parts.push(reader.name());
      reader.expect("is");
      const text = reader.next();
      const column = kind === "column" ? parts.pop() : undefined;
      const [name, schema] = parts.reverse();
      const table =
        name === undefined ? undefined : this.schema.table(this.session.qualify({ schema, name }));
      const target = column === undefined ? table : table?.columns.find((one) => one.name === column);
      if (target !== undefined) {
        target.comment = text.kind === "string" ? text.value : undefined;
        return;
      }
    }
    this.report.note("comment", line, textOf(reader.tokens.slice(2), 60));
  }

  /** SELECT pg_catalog.setval('s', 5, true), DO SETVAL(`s`, 5, 0); large objects; nothing else of a dump's matters. */
  #select(reader: TokenReader, line: number): void {
    reader.take("pg_catalog", ".");
    const word = reader.next().value;
    if (/^lo_?/.test(word) && isSymbol(reader.peek(), "(")) {
      this.report.missing("large object", line);
      return;
    }
    if (word !== "setval" || !reader.is("(")) return;
    const [first, value, used] = splitAtCommas(reader.parenthesized());
    const target =
      first?.[0]?.kind === "string"
        ? parseRegclass(first[0].value)
        : new TokenReader(first ?? [], reader.family).qualifiedName();
    const sequence = Schema.find(this.schema.sequences, this.session.qualify(target));
    const number = value?.[0]?.kind === "number" ? BigInt(value[0].value) : undefined;
    if (sequence === undefined || number === undefined) return;
    sequence.next = /^(?:false|f|0)$/.test(used?.[0]?.value ?? "true") ? number : number + sequence.step;
  }
}

/** OR REPLACE, ALGORITHM = …, DEFINER = …, SQL SECURITY …, TEMPORARY and the like. */
function skipModifiers(reader: TokenReader): void {
  for (;;) {
    const word = reader.peek()?.value ?? "";
    if (reader.take("or", "replace")) continue;
    if (reader.take("algorithm")) {
      reader.take("=");
      reader.next();
    } else if (reader.take("definer")) {
      reader.take("=");
      // `root`@`localhost`, CURRENT_USER, CURRENT_USER().
      reader.next();
      if (reader.is("(")) reader.parenthesized();
      if (reader.peek()?.value.startsWith("@")) {
        const at = reader.next();
        if (at.value === "@") reader.next();
      }
    } else if (reader.take("sql", "security")) {
      reader.next();
    } else if (reader.peek()?.kind === "word" && MODIFIERS.has(word)) {
      reader.at++;
    } else {
      return;
    }
  }
}

function isSpecialIndex(reader: TokenReader): boolean {
  return ["fulltext", "spatial", "vector"].some((word) => reader.is(word, "index"));
}

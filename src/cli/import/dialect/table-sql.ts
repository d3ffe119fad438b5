/**
 * A table of the dump as SQLite's CREATE TABLE, with what else it needs once its rows are in. What cannot come along is
 * left out one by one, and told of.
 *
 * Decisions
 * - A primary key of one integer column is SQLite's rowid; where the column counted by itself it is AUTOINCREMENT, which
 *   like the others never gives a number twice.
 * - Text that MySQL compares without regard to case is COLLATE NOCASE, so that what was equal for a UNIQUE or a foreign
 *   key mostly stays so.
 * - Comments stay, as comments in the schema's text.
 */
import { textLiteral } from "../../format/literals.js";
import { type ColumnType, columnExpression, resolveType } from "./column-type.js";
import { defaultSql, sequenceOf } from "./default.js";
import { translate } from "./expression.js";
import {
  type Expression,
  isTextual,
  type Scope,
  Untranslatable,
  withoutOuterParentheses,
} from "./expression-types.js";
import type { Family } from "./lexer.js";
import { sqlName } from "./names.js";
import type { Report } from "./report.js";
import type { Sandbox } from "./sandbox.js";
import {
  type Check,
  type Column,
  type ForeignKey,
  type Index,
  type Key,
  type KeyPart,
  Schema,
  shownName,
  type Table,
} from "./schema.js";
import { type QualifiedName, textOf } from "./tokens.js";
import type { ValueKind } from "./value-kind.js";

export interface BuiltColumn {
  readonly source: Column;
  readonly type: ColumnType;
  readonly kind: ValueKind;
  /** SQLite computes it: rows have no value for it. */
  readonly generated: boolean;
}

export interface BuiltTable {
  readonly source: Table;
  readonly name: string;
  readonly sql: string;
  readonly columns: readonly BuiltColumn[];
  /** Where counting goes on, if the table counts. */
  readonly next: bigint | undefined;
  /** Unique keys that only an index can express. */
  readonly indexes: readonly Index[];
}

export interface BuildContext {
  readonly schema: Schema;
  readonly family: Family;
  readonly report: Report;
  readonly sandbox: Sandbox;
  /** The table's own name in the new database; undefined for those that are not in the dump. */
  nameOf(table: Table): string;
  /** Whether a table is imported at all. */
  isMade(table: Table): boolean;
  /** The table that holds the rows of this one: itself, or the whole it is a partition of. */
  rootOf(name: QualifiedName): Table | undefined;
  columnsOf(table: Table): readonly Column[];
}

export function buildTable(table: Table, context: BuildContext): BuiltTable {
  return new TableBuilder(table, context).build();
}

class TableBuilder {
  readonly #columns: readonly Column[];
  readonly #types = new Map<Column, ColumnType>();
  readonly #name: string;
  readonly #shown: string;
  #next: bigint | undefined;

  constructor(
    readonly table: Table,
    readonly context: BuildContext,
  ) {
    this.#columns = context.columnsOf(table);
    this.#name = context.nameOf(table);
    this.#shown = shownName(table.name);
    for (const column of this.#columns) {
      const type = resolveType(column.type, context.schema, context.family);
      if (type.note !== undefined)
        context.report.note(type.note[0], column.line, `${this.#shown}.${column.name}: ${type.note[1]}`);
      this.#types.set(column, type);
    }
  }

  build(): BuiltTable {
    const rowid = this.#rowidColumn();
    const built: BuiltColumn[] = [];
    const definitions: { sql: string; comment: string | undefined }[] = [];
    for (const column of this.#columns) {
      const type = this.#types.get(column)!;
      const generated = this.#generatedSql(column);
      const sql = this.#columnSql(column, column === rowid, generated);
      definitions.push({ sql, comment: column.comment });
      built.push({ source: column, type, kind: type.kind, generated: generated !== undefined });
    }
    for (const sql of [
      ...this.#primaryKeySql(rowid),
      ...this.#uniquesSql(),
      ...this.#checksSql(),
      ...this.#foreignKeysSql(),
    ]) {
      definitions.push({ sql, comment: undefined });
    }
    const lines = definitions.map(
      ({ sql, comment }, i) => `  ${sql}${i < definitions.length - 1 ? "," : ""}${commentSql(comment)}\n`,
    );
    const sql = `CREATE TABLE ${sqlName(this.#name)} (${commentSql(this.table.comment)}\n${lines.join("")})`;
    return {
      source: this.table,
      name: this.#name,
      sql,
      columns: built,
      next: this.#next,
      indexes: this.table.uniques
        .filter((key) => !isPlain(key))
        .map((key) => ({ ...key, unique: true, where: undefined })),
    };
  }

  #note(kind: string, line: number, what: string): void {
    this.context.report.note(kind, line, `${this.#shown}${what === "" ? "" : `.${what}`}`);
  }

  /** The column that is the table's rowid, if it has one. */
  #rowidColumn(): Column | undefined {
    const key = this.table.primaryKey;
    const [part] = key?.parts ?? [];
    if (part?.column === undefined || key!.parts.length !== 1) return undefined;
    const column = this.#find(part.column);
    return column !== undefined && this.#types.get(column)!.kind === "integer" ? column : undefined;
  }

  #find(name: string): Column | undefined {
    return findColumn(this.#columns, name, this.context.family);
  }

  #columnSql(column: Column, isRowid: boolean, generated: string | undefined): string {
    const type = this.#types.get(column)!;
    const parts = [sqlName(column.name), type.declared];
    const counts = this.#counting(column, isRowid);
    if (isRowid) parts.push(counts ? "PRIMARY KEY AUTOINCREMENT" : "PRIMARY KEY");
    const inKey = this.table.primaryKey?.parts.some(
      (part) => part.column !== undefined && this.#find(part.column) === column,
    );
    const notNull = column.notNull || inKey === true || type.domain?.notNull === true;
    // A generated column that cannot come along has no values in the dump.
    if (notNull && !isRowid && (column.generated === undefined || generated !== undefined))
      parts.push("NOT NULL");
    if (generated === undefined && !counts) {
      const value = this.#defaultSql(column);
      if (value !== undefined) parts.push(`DEFAULT ${value}`);
    }
    if (this.#ignoresCase(column)) parts.push("COLLATE NOCASE");
    if (generated !== undefined) parts.push(generated);
    const members = membersSql(column, type, this.context.family);
    if (members !== undefined) parts.push(`CHECK (${members})`);
    if (column.onUpdate) this.#note("ON UPDATE CURRENT_TIMESTAMP", column.line, column.name);
    return parts.join(" ");
  }

  /** Whether the column gives its own numbers, and from where on; told of where SQLite's cannot. */
  #counting(column: Column, isRowid: boolean): boolean {
    const type = this.#types.get(column)!;
    const name = sequenceOf(column, this.context.family);
    const counts = column.autoIncrement || type.serial === true || name !== undefined;
    if (!counts) return false;
    const sequence = name === undefined ? undefined : Schema.find(this.context.schema.sequences, name);
    if (sequence !== undefined) sequence.used = true;
    if (!isRowid) {
      this.#note(
        "numbers for new rows",
        column.line,
        `${column.name}: only a primary key of one integer column counts by itself`,
      );
      return false;
    }
    if (sequence !== undefined && sequence.step !== 1n) {
      this.#note(
        "numbers for new rows",
        column.line,
        `${column.name}: in steps of 1, not of ${sequence.step}`,
      );
    }
    this.#next = sequence?.next ?? this.table.nextId;
    return true;
  }

  #defaultSql(column: Column): string | undefined {
    const type = this.#types.get(column)!;
    const tokens = column.default ?? type.domain?.default;
    if (tokens === undefined || sequenceOf(column, this.context.family) !== undefined) return undefined;
    return this.#attempt("default", column.line, `${column.name}: ${textOf(tokens)}`, "", (scope) => {
      const sql = defaultSql(tokens, type, scope);
      const objection =
        sql === undefined
          ? undefined
          : this.#objection(`${sqlName(column.name)} ${type.declared} DEFAULT ${sql}`, column);
      if (objection !== undefined) throw new Untranslatable(objection);
      return sql;
    });
  }

  #generatedSql(column: Column): string | undefined {
    const { generated } = column;
    if (generated === undefined) return undefined;
    const type = this.#types.get(column)!;
    const what = `${column.name} AS (${textOf(generated.expression)})`;
    const lost = ": an ordinary column now, with what values the dump has";
    return this.#attempt("generated column", column.line, what, lost, (scope) => {
      const value = storedAs(translate(generated.expression, scope), type);
      const sql = `GENERATED ALWAYS AS (${value}) ${generated.stored ? "STORED" : "VIRTUAL"}`;
      const objection = this.#objection(`${sqlName(column.name)} ${type.declared} ${sql}`, column);
      if (objection !== undefined) throw new Untranslatable(objection);
      return sql;
    });
  }

  /** What `build` answers, or undefined and a note why there is nothing. */
  #attempt(
    kind: string,
    line: number,
    what: string,
    lost: string,
    build: (scope: Scope) => string | undefined,
  ): string | undefined {
    const notes = new Set<string>();
    try {
      const sql = build(this.#scope(notes));
      for (const note of notes) this.#note(`${kind} with a difference`, line, `${what} (${note})`);
      return sql;
    } catch (error) {
      if (!(error instanceof Untranslatable)) throw error;
      this.#note(kind, line, `${what}${lost} (${error.message})`);
      return undefined;
    }
  }

  #scope(notes: Set<string>, value?: Column): Scope {
    return columnScope(this.#columns, this.context, notes, value);
  }

  /** What SQLite has against a definition, beside the plain columns of the table. */
  #objection(definition: string, instead?: Column): string | undefined {
    const plain = this.#columns
      .filter((column) => column !== instead)
      .map((column) => `${sqlName(column.name)} ${this.#types.get(column)!.declared}`);
    return this.context.sandbox.objection(
      `CREATE TABLE ostraka_attempt_of_import (${[...plain, definition].join(", ")})`,
    );
  }

  #ignoresCase(column: Column): boolean {
    const type = this.#types.get(column)!;
    if (type.ignoresCase === true) return true;
    if (this.context.family !== "mysql") return false;
    const comparesAsText =
      type.members !== undefined || /^(?:VARCHAR|CHAR)/.test(type.declared) || /text$/.test(column.type.name);
    if (!comparesAsText || type.kind !== "text") return false;
    const own = column.collation ?? (column.charset === undefined ? undefined : collationOf(column.charset));
    const collation = own ?? this.table.collation ?? collationOf(this.table.charset);
    if (/(?:^|_)(?:bin|binary|cs)$/.test(collation)) return false;
    this.context.report.note("collation: NOCASE now, which knows ASCII letters only", column.line);
    return true;
  }

  #primaryKeySql(rowid: Column | undefined): string[] {
    const key = this.table.primaryKey;
    if (key === undefined || rowid !== undefined) return [];
    if (!key.parts.every((part) => part.column !== undefined && this.#find(part.column) !== undefined)) {
      this.#note("primary key", key.line, "");
      return [];
    }
    return [`PRIMARY KEY (${key.parts.map((part) => sqlName(part.column!)).join(", ")})`];
  }

  #uniquesSql(): string[] {
    return this.table.uniques.filter(isPlain).flatMap((key) => {
      const known = key.parts.every((part) => this.#find(part.column!) !== undefined);
      if (!known) {
        this.#note("unique key", key.line, key.name ?? "");
        return [];
      }
      return [
        `${constraintName(key.name)}UNIQUE (${key.parts.map((part) => sqlName(part.column!)).join(", ")})`,
      ];
    });
  }

  #checksSql(): string[] {
    const own = this.table.checks.flatMap((check) => this.#checkSql(check, undefined));
    const ofDomains = this.#columns.flatMap((column) =>
      (this.#types.get(column)!.domain?.checks ?? []).flatMap((expression) =>
        this.#checkSql({ name: undefined, expression, line: column.line }, column),
      ),
    );
    return [...own, ...ofDomains];
  }

  /** `value`: the column of a domain, which its CHECK calls VALUE. */
  #checkSql({ name, expression, line }: Check, value: Column | undefined): string[] {
    const notes = new Set<string>();
    const what = `${name ?? "CHECK"}: ${textOf(expression)}`;
    let why: string | undefined;
    try {
      const { sql } = translate(expression, this.#scope(notes, value));
      const check = `${constraintName(name)}CHECK (${withoutOuterParentheses(sql)})`;
      why = this.#objection(check);
      if (why === undefined) {
        for (const note of notes) this.#note("CHECK constraint with a difference", line, `${what} (${note})`);
        return [check];
      }
    } catch (error) {
      if (!(error instanceof Untranslatable)) throw error;
      why = error.message;
    }
    this.#note("CHECK constraint", line, `${what} (${why})`);
    return [];
  }

  #foreignKeysSql(): string[] {
    return this.table.foreignKeys.flatMap((key) => {
      const why = this.#foreignKeyObjection(key);
      if (why !== undefined) {
        this.#note("foreign key", key.line, `${key.name ?? key.columns.join(", ")}: ${why}`);
        return [];
      }
      if (key.matchFull && key.columns.length > 1) {
        this.#note(
          "foreign key with a difference",
          key.line,
          `${key.name ?? key.columns.join(", ")}: MATCH FULL, here SIMPLE`,
        );
      }
      const parent = this.context.rootOf(key.parent)!;
      const columns = key.parentColumns.length === 0 ? "" : ` (${key.parentColumns.map(sqlName).join(", ")})`;
      const onDelete = key.onDelete === undefined ? "" : ` ON DELETE ${key.onDelete}`;
      const onUpdate = key.onUpdate === undefined ? "" : ` ON UPDATE ${key.onUpdate}`;
      const deferred = key.deferred ? " DEFERRABLE INITIALLY DEFERRED" : "";
      return [
        `${constraintName(key.name)}FOREIGN KEY (${key.columns.map(sqlName).join(", ")}) ` +
          `REFERENCES ${sqlName(this.context.nameOf(parent))}${columns}${onDelete}${onUpdate}${deferred}`,
      ];
    });
  }

  /** SQLite refuses every write to a table whose foreign key does not meet a key of its parent. */
  #foreignKeyObjection(key: ForeignKey): string | undefined {
    const parent = this.context.rootOf(key.parent);
    if (parent === undefined) return `${shownName(key.parent)} is not in the dump`;
    if (!this.context.isMade(parent)) return `${shownName(key.parent)} is not imported`;
    if (key.columns.some((name) => this.#find(name) === undefined))
      return "it names a column that is not there";
    const columns = this.context.columnsOf(parent);
    const { family } = this.context;
    const wanted = key.parentColumns.map((name) => findColumn(columns, name, family));
    if (wanted.includes(undefined)) return "it names a column that is not there";
    const keys = [
      ...(parent.primaryKey === undefined ? [] : [parent.primaryKey]),
      ...parent.uniques,
      ...parent.indexes.filter(({ unique, where }) => unique && where === undefined),
    ];
    if (wanted.length === 0)
      return parent.primaryKey === undefined ? `${shownName(key.parent)} has no primary key` : undefined;
    const met = keys.some(
      (candidate) =>
        isPlain(candidate) &&
        candidate.parts.length === wanted.length &&
        candidate.parts.every((part) => wanted.includes(findColumn(columns, part.column!, family))),
    );
    return met ? undefined : `${key.parentColumns.join(", ")} of ${shownName(key.parent)} are no unique key`;
  }
}

/** Names of columns differ by case in PostgreSQL only. */
export function findColumn(columns: readonly Column[], name: string, family: Family): Column | undefined {
  if (family === "postgresql") return columns.find((column) => column.name === name);
  const lower = name.toLowerCase();
  return columns.find((column) => column.name.toLowerCase() === lower);
}

/** What expressions of a table may name. */
export function columnScope(
  columns: readonly Column[],
  context: Pick<BuildContext, "schema" | "family">,
  notes: Set<string>,
  value?: Column,
): Scope {
  const { schema, family } = context;
  return {
    family,
    note: (what) => notes.add(what),
    type: (type) => {
      const resolved = resolveType(type, schema, family);
      return resolved.note === undefined && resolved.members === undefined ? resolved : undefined;
    },
    column: (_, name): Expression => {
      const column = value !== undefined && name === "value" ? value : findColumn(columns, name, family);
      if (column === undefined) throw new Untranslatable(`${name}: no such column`);
      return columnExpression(sqlName(column.name), resolveType(column.type, schema, family));
    },
  };
}

/** A key that SQLite's UNIQUE can express. */
function isPlain(key: Key): boolean {
  return key.parts.every((part) => part.column !== undefined && part.length === undefined);
}

/** A part of an index. Only so many characters of a column matter for a unique one; another may as well have all. */
export function keyPartSql(part: KeyPart, unique: boolean, scope: Scope): string {
  const descending = part.descending ? " DESC" : "";
  if (part.expression !== undefined) return `${translate(part.expression, scope).sql}${descending}`;
  const { sql, kind } = scope.column(undefined, part.column!);
  const prefix = unique && part.length !== undefined && (isTextual(kind) || kind === "blob");
  return `${prefix ? `substr(${sql}, 1, ${part.length})` : sql}${descending}`;
}

/** A value of a generated column as its type would have it. */
function storedAs({ sql, kind }: Expression, type: ColumnType): string {
  if (type.kind === "numeric" && type.scale !== undefined && kind !== "integer")
    return `round(${sql}, ${type.scale})`;
  if (type.kind === "integer" && kind !== "integer" && kind !== "boolean") {
    if (kind !== "numeric" && kind !== "inexact" && kind !== "real") throw new Untranslatable("no integer");
    return `CAST(round(${sql}) AS INTEGER)`;
  }
  return withoutOuterParentheses(sql);
}

function membersSql(column: Column, type: ColumnType, family: Family): string | undefined {
  if (type.members === undefined) return undefined;
  const name = sqlName(column.name);
  const { of, values } = type.members;
  // MySQL keeps what was no member, unless told to be strict, as the empty string.
  const all = family === "mysql" && !values.includes("") ? [...values, ""] : values;
  if (of === "enum") return `${name} IN (${all.map(textLiteral).join(", ")})`;
  // Members are taken out of ",a,b," one by one; a comma is what remains.
  const taken = values.reduce(
    (sql, member) => `replace(${sql}, ${textLiteral(`,${member},`)}, ',')`,
    `',' || ${name} || ','`,
  );
  return `${name} = '' OR ${taken} = ','`;
}

function collationOf(charset: string | undefined): string {
  return charset === "binary" ? "binary" : "ci";
}

function constraintName(name: string | undefined): string {
  return name === undefined ? "" : `CONSTRAINT ${sqlName(name)} `;
}

function commentSql(comment: string | undefined): string {
  if (comment === undefined || comment.trim() === "") return "";
  return ` /* ${comment.replaceAll("*/", "* /").replace(/\s+/g, " ").trim()} */`;
}

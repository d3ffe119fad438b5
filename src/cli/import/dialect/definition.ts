/**
 * One definition of a CREATE TABLE, or after an ALTER TABLE's ADD: a column with what is said of it, a constraint, or
 * an index. What stands between the names and expressions is read by node-sql-parser.
 */
import { ColumnAttributes } from "./column-attributes.js";
import { writeConstraint } from "./constraint.js";
import type { DdlParser } from "./ddl-parser.js";
import { applyColumnTree, applyConstraintTree } from "./definition-tree.js";
import type { Check, Column, ForeignKey, Index, Key } from "./schema.js";
import { Skeleton } from "./skeleton.js";
import { type Token, TokenReader } from "./tokens.js";
import { readType } from "./type-name.js";

/** What a definition comes to. Constraints that are written with a column are given apart from it. */
export interface Definition {
  column?: Column;
  primaryKey?: Key;
  readonly uniques: Key[];
  readonly checks: Check[];
  readonly foreignKeys: ForeignKey[];
  readonly indexes: Index[];
  /** What is known to have no counterpart: [kind, what]. */
  readonly refused: [kind: string, what: string][];
}

const CONSTRAINT_WORDS = new Set(["constraint", "primary", "unique", "foreign", "check", "exclude", "like"]);
const MYSQL_INDEX_WORDS = new Set(["key", "index", "fulltext", "spatial", "vector", "period"]);

export class DefinitionReader {
  constructor(
    readonly parser: DdlParser,
    readonly family: "mysql" | "postgresql",
  ) {}

  /** Throws SyntaxError when it is not understood; `partial.column` is then what is certain of a column. */
  read(tokens: readonly Token[], line: number, partial: { column?: Column } = {}): Definition {
    const reader = new TokenReader(tokens, this.family);
    const definition: Definition = { uniques: [], checks: [], foreignKeys: [], indexes: [], refused: [] };
    if (this.#isConstraint(reader)) this.#readConstraint(reader, definition, line);
    else this.#readColumn(reader, definition, line, partial);
    return definition;
  }

  #isConstraint(reader: TokenReader): boolean {
    const first = reader.peek();
    if (first?.kind !== "word") return false;
    if (CONSTRAINT_WORDS.has(first.value)) return true;
    return this.family === "mysql" && MYSQL_INDEX_WORDS.has(first.value);
  }

  #readColumn(reader: TokenReader, definition: Definition, line: number, partial: { column?: Column }): void {
    const column: Column = {
      name: reader.name(),
      type: readType(reader),
      line,
      notNull: false,
      default: undefined,
      generated: undefined,
      autoIncrement: false,
      sequence: undefined,
      charset: undefined,
      collation: undefined,
      comment: undefined,
      onUpdate: false,
    };
    partial.column = column;
    definition.column = column;
    const skeleton = new Skeleton();
    skeleton.add("c int");
    const attributes = new ColumnAttributes(reader, skeleton, column, definition);
    attributes.read();
    const [tree, ...others] = this.parser.definitions(skeleton.text);
    if (tree === undefined || others.length > 0) throw new SyntaxError("not understood");
    applyColumnTree(tree, skeleton, column, definition, attributes.deferred);
  }

  #readConstraint(reader: TokenReader, definition: Definition, line: number): void {
    const skeleton = new Skeleton();
    // A table has at least one column.
    skeleton.add("c int,");
    const { deferred, complete } = writeConstraint(reader, skeleton, definition, line);
    if (complete) return;
    const [, tree, ...others] = this.parser.definitions(skeleton.text);
    if (tree === undefined || others.length > 0) throw new SyntaxError("not understood");
    applyConstraintTree(tree, skeleton, definition, { line, deferred });
  }
}

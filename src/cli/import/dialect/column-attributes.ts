/**
 * What follows a column's type. Expressions, and what only one of the databases knows, are read here; the rest goes,
 * as a skeleton, to the parser.
 */
import type { Definition } from "./definition.js";
import type { Column } from "./schema.js";
import type { Skeleton } from "./skeleton.js";
import { isSymbol, type Token, type TokenReader } from "./tokens.js";

/** Words that end the expression of a DEFAULT. */
const AFTER_DEFAULT = {
  postgresql: new Set(
    "not null constraint primary unique check references generated collate deferrable initially compression storage".split(
      " ",
    ),
  ),
  mysql: new Set(
    (
      "not null constraint primary unique key check references generated as collate comment auto_increment on " +
      "character charset visible invisible column_format storage compressed srid ref_system_id engine_attribute"
    ).split(" "),
  ),
};
const NOW = /^(?:current_timestamp|now|localtime|localtimestamp)$/;

export class ColumnAttributes {
  deferred = false;
  /** CONSTRAINT name, of what comes next. */
  #name: string | undefined;

  constructor(
    readonly reader: TokenReader,
    readonly skeleton: Skeleton,
    readonly column: Column,
    readonly definition: Definition,
  ) {}

  read(): void {
    while (!this.reader.done) {
      if (!(this.#expressions() || this.#describing() || this.#ignored())) this.#forParser();
    }
  }

  #expressions(): boolean {
    const { reader, column, definition } = this;
    if (reader.take("constraint")) {
      this.#name = reader.name();
    } else if (reader.take("check")) {
      const expression = reader.parenthesized();
      if (takeUnenforced(reader)) definition.refused.push(["CHECK constraint", "it is not enforced"]);
      else definition.checks.push({ name: this.#name, expression, line: column.line });
      this.#name = undefined;
    } else if (reader.take("default")) {
      column.default = this.#defaultExpression();
    } else if (reader.is("generated") || (reader.is("as") && isSymbol(reader.peek(1), "("))) {
      this.#generated();
    } else if (reader.is("on", "update") && NOW.test(reader.peek(2)?.value ?? "")) {
      reader.at += 3;
      if (reader.is("(")) reader.parenthesized();
      column.onUpdate = true;
    } else {
      return false;
    }
    return true;
  }

  #defaultExpression(): readonly Token[] {
    const { reader } = this;
    const words = AFTER_DEFAULT[reader.family];
    const from = reader.at;
    for (let depth = 0; !reader.done; reader.at++) {
      const token = reader.peek()!;
      if (depth === 0 && reader.at > from && token.kind === "word" && words.has(token.value)) break;
      if (isSymbol(token, "(")) depth++;
      else if (isSymbol(token, ")")) depth--;
    }
    return reader.tokens.slice(from, reader.at);
  }

  /** GENERATED … AS IDENTITY, or AS (expression). */
  #generated(): void {
    const { reader, column } = this;
    if (reader.take("generated") && !reader.take("always")) reader.expect("by", "default");
    reader.expect("as");
    if (reader.take("identity")) {
      column.autoIncrement = true;
      if (reader.is("(")) reader.parenthesized();
      return;
    }
    const expression = reader.parenthesized();
    const stored = reader.take("stored") || reader.take("persistent");
    if (!stored) reader.take("virtual");
    column.generated = { expression, stored };
  }

  #describing(): boolean {
    const { reader, skeleton, column } = this;
    if (reader.take("comment")) {
      column.comment = reader.next().value;
    } else if (reader.take("collate")) {
      const { name } = reader.qualifiedName();
      skeleton.add("COLLATE");
      skeleton.addName(name);
    } else if (reader.take("character", "set") || reader.take("charset")) {
      column.charset = reader.name().toLowerCase();
    } else if (reader.take("binary")) {
      column.collation = "binary";
    } else if (reader.take("references")) {
      writeReferences(reader, skeleton);
    } else if (takeDeferrable(reader)) {
      this.deferred = true;
    } else {
      return false;
    }
    return true;
  }

  /** What makes no difference to the values, or is told of. */
  #ignored(): boolean {
    const { reader, definition } = this;
    if (reader.take("invisible")) {
      definition.refused.push(["column attribute", "INVISIBLE: SELECT * shows it"]);
    } else if (reader.take("column_format") || reader.take("storage") || reader.take("compression")) {
      reader.next();
    } else if (reader.take("srid")) {
      reader.next();
    } else if (reader.take("ref_system_id") || reader.take("engine_attribute")) {
      reader.take("=");
      reader.next();
    } else if (reader.take("compressed")) {
      if (reader.take("=")) reader.next();
    } else {
      return (
        takeImmediate(reader) || reader.take("visible") || reader.take("ascii") || reader.take("unicode")
      );
    }
    return true;
  }

  #forParser(): void {
    const token = this.reader.next();
    if (token.kind === "word" || token.kind === "number") this.skeleton.add(token.text);
    else if (token.kind === "symbol") this.skeleton.add(token.text);
    else if (token.kind === "name") this.skeleton.addName(token.value);
    else this.skeleton.addString(token.value);
  }
}

/** REFERENCES has been passed. The parser wants columns; a primary key goes without. */
export function writeReferences(reader: TokenReader, skeleton: Skeleton): void {
  skeleton.add("REFERENCES");
  const { schema, name } = reader.qualifiedName();
  if (schema !== undefined) {
    skeleton.addName(schema);
    skeleton.add(".");
  }
  skeleton.addName(name);
  if (reader.is("(")) skeleton.addKeyParts(reader.parenthesized(), reader.family);
  else skeleton.addNoColumns();
}

/** Passes DEFERRABLE INITIALLY DEFERRED. */
export function takeDeferrable(reader: TokenReader): boolean {
  return reader.take("deferrable", "initially", "deferred") || reader.take("initially", "deferred");
}

/** Passes what says that a constraint is checked at once, as in SQLite unless told otherwise. */
export function takeImmediate(reader: TokenReader): boolean {
  return (
    reader.take("not", "deferrable") || reader.take("deferrable") || reader.take("initially", "immediate")
  );
}

/** Passes what follows a CHECK; true when it does not hold for every row. */
export function takeUnenforced(reader: TokenReader): boolean {
  reader.take("no", "inherit");
  if (reader.take("not", "enforced") || reader.take("not", "valid")) return true;
  reader.take("enforced");
  return false;
}

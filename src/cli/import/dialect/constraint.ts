/** A table's constraint or index as a skeleton for the parser. What the parser does not know is read here. */
import { takeDeferrable, takeImmediate, takeUnenforced, writeReferences } from "./column-attributes.js";
import type { Definition } from "./definition.js";
import type { Skeleton } from "./skeleton.js";
import { type TokenReader, textOf } from "./tokens.js";

const STRUCTURE = new Set(
  "primary key unique index foreign match full partial simple on delete update cascade restrict set null default no action".split(
    " ",
  ),
);
const STARTS = new Set(["check", "primary", "unique", "foreign", "exclude"]);
const NO_COUNTERPART: Readonly<Record<string, string>> = {
  exclude: "exclusion constraint",
  fulltext: "full-text index",
  spatial: "spatial index",
  vector: "vector index",
  period: "period",
};

export interface Written {
  readonly deferred: boolean;
  /** There is nothing left for the parser to read. */
  readonly complete: boolean;
}

const COMPLETE: Written = { deferred: false, complete: true };

export function writeConstraint(
  reader: TokenReader,
  skeleton: Skeleton,
  definition: Definition,
  line: number,
): Written {
  let name: string | undefined;
  if (reader.take("constraint")) {
    const next = reader.peek();
    if (next?.kind !== "word" || !STARTS.has(next.value)) name = reader.name();
  }
  if (reader.take("check")) {
    const expression = reader.parenthesized();
    const what = `${name ?? textOf(expression)}: existing rows need not meet it`;
    if (takeUnenforced(reader)) definition.refused.push(["CHECK constraint", what]);
    else definition.checks.push({ name, expression, line });
    return COMPLETE;
  }
  const kind = NO_COUNTERPART[reader.peek()?.value ?? ""];
  if (kind !== undefined) {
    definition.refused.push([kind, name ?? textOf(reader.rest())]);
    return COMPLETE;
  }
  if (name !== undefined) {
    skeleton.add("CONSTRAINT");
    skeleton.addName(name);
  }
  let deferred = false;
  while (!reader.done) {
    if (takeDeferrable(reader)) deferred = true;
    else if (!(takeOptions(reader, definition) || takeImmediate(reader))) writeOne(reader, skeleton);
  }
  return { deferred, complete: false };
}

function writeOne(reader: TokenReader, skeleton: Skeleton): void {
  if (reader.is("(")) skeleton.addKeyParts(reader.parenthesized(), reader.family);
  else if (reader.take("references")) writeReferences(reader, skeleton);
  else {
    const token = reader.peek()!;
    if (token.kind === "word" && STRUCTURE.has(token.value)) skeleton.add(reader.next().text);
    else skeleton.addName(reader.name());
  }
}

/** Passes what is of no matter in SQLite; what might matter is told of. */
function takeOptions(reader: TokenReader, definition: Definition): boolean {
  if (reader.take("nulls", "not", "distinct")) {
    definition.refused.push(["UNIQUE attribute", "NULLS NOT DISTINCT: here NULLs are distinct"]);
  } else if (reader.take("using", "index", "tablespace") || reader.take("using") || reader.take("comment")) {
    reader.next();
  } else if (reader.take("include") || reader.take("with")) {
    if (reader.is("(")) reader.parenthesized();
    else while (!reader.done) reader.at++;
  } else if (reader.take("key_block_size") || reader.take("clustering")) {
    reader.take("=");
    reader.next();
  } else {
    return (
      reader.take("nulls", "distinct") ||
      reader.take("not", "valid") ||
      reader.take("not", "ignored") ||
      ["visible", "invisible", "ignored"].some((word) => reader.take(word))
    );
  }
  return true;
}

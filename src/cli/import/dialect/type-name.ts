/** The name of a column's type in MySQL's and PostgreSQL's own words: `character varying(20)`, `int(10) unsigned`. */
import { splitAtCommas, type Token, type TokenReader, textOf } from "./tokens.js";

export interface TypeName {
  readonly schema: string | undefined;
  /** Words of a longer name with one space between them; in lower case unless it was quoted. */
  readonly name: string;
  /** Numbers in parentheses. */
  readonly sizes: readonly number[];
  /** Members of an ENUM or SET. */
  readonly members: readonly string[];
  readonly unsigned: boolean;
  readonly array: boolean;
  /** As written, on one line. */
  readonly text: string;
}

/** What may follow the first word of a type's name and belongs to it. */
const LONGER: Readonly<Record<string, readonly (readonly string[])[]>> = {
  double: [["precision"]],
  character: [["varying"]],
  char: [["varying"], ["byte"]],
  bit: [["varying"]],
  national: [["character", "varying"], ["char", "varying"], ["character"], ["char"], ["varchar"]],
  nchar: [["varying"], ["varchar"]],
  long: [["varchar"], ["varbinary"]],
};
const ZONES = [
  ["with", "time", "zone"],
  ["without", "time", "zone"],
];
const INTERVAL_FIELDS = new Set(["year", "month", "day", "hour", "minute", "second", "to"]);

export function readType(reader: TokenReader): TypeName {
  const from = reader.at;
  let schema: string | undefined;
  let words = [reader.next().value];
  while (reader.take(".")) {
    schema = words[0]!;
    words = [reader.next().value];
  }
  for (const more of LONGER[words[0]!.toLowerCase()] ?? []) {
    if (!reader.take(...more)) continue;
    words.push(...more);
    break;
  }
  const first = words[0]!.toLowerCase();
  if (first === "interval") while (INTERVAL_FIELDS.has(reader.peek()?.value ?? "")) reader.at++;
  const args = reader.is("(") ? splitAtCommas(reader.parenthesized()) : [];
  if (first === "time" || first === "timestamp") {
    const zone = ZONES.find((candidate) => reader.take(...candidate));
    if (zone !== undefined) words.push(...zone);
  }
  let unsigned = false;
  while (reader.is("unsigned") || reader.is("signed") || reader.is("zerofill")) {
    // ZEROFILL implies it.
    if (reader.next().value !== "signed") unsigned = true;
  }
  const array = takeArray(reader);
  return {
    schema: schema === "pg_catalog" ? undefined : schema,
    name: words.join(" "),
    sizes: args.map(([token]) => Number(token?.value)).filter((size) => Number.isInteger(size)),
    members: args.flatMap((arg) => membersOf(arg)),
    unsigned,
    array,
    text: textOf(reader.tokens.slice(from, reader.at), 60),
  };
}

function takeArray(reader: TokenReader): boolean {
  let array = reader.take("array");
  while (reader.take("[")) {
    array = true;
    while (!reader.take("]")) reader.next();
  }
  return array;
}

/** A member may have an introducer, _utf8mb4'…'. */
function membersOf(tokens: readonly Token[]): string[] {
  return tokens.filter(({ kind }) => kind === "string").map(({ value }) => value);
}

/**
 * Names in the one namespace that SQLite has for tables, views and indexes, without regard to case. Schemas and databases
 * become a part of the name only where it would not be unique without.
 */

import { RESERVED_WORDS } from "../../../sql/keywords.js";
import { nameLiteral } from "../../format/literals.js";
import type { QualifiedName } from "./tokens.js";

export class Names {
  readonly #taken = new Set<string>();

  /** The first of these names that nobody has, or the last with a number. */
  take(...wanted: readonly string[]): string {
    const free = wanted.find((name) => !this.#taken.has(name.toLowerCase()));
    let name = free ?? wanted[wanted.length - 1]!;
    for (let n = 2; this.#taken.has(name.toLowerCase()); n++) name = `${wanted[wanted.length - 1]}_${n}`;
    this.#taken.add(name.toLowerCase());
    return name;
  }
}

/** What a table or view may be called, the best first. */
export function candidates({ schema, name }: QualifiedName): string[] {
  return schema === undefined ? [name] : [name, `${schema}_${name}`];
}

/** A name as SQL, in quotes only where it has to be. */
export function sqlName(name: string): string {
  return nameLiteral(name, (word) => RESERVED_WORDS.has(word.toUpperCase()));
}

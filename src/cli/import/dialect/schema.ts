/**
 * The schema of a dump, as it was there: gathered whole before anything of it is made, because PostgreSQL's dumps (and
 * phpMyAdmin's) tell of keys and constraints after the rows, which SQLite can only take with the table.
 */
import type { QualifiedName, Token } from "./tokens.js";
import type { TypeName } from "./type-name.js";

export interface Column {
  readonly name: string;
  type: TypeName;
  readonly line: number;
  notNull: boolean;
  default: readonly Token[] | undefined;
  generated: { readonly expression: readonly Token[]; readonly stored: boolean } | undefined;
  /** AUTO_INCREMENT or IDENTITY. */
  autoIncrement: boolean;
  /** What an IDENTITY counts with. */
  sequence: QualifiedName | undefined;
  charset: string | undefined;
  collation: string | undefined;
  comment: string | undefined;
  /** ON UPDATE CURRENT_TIMESTAMP. */
  onUpdate: boolean;
}

/** A part of a key: a column, of which only so many characters may count, or an expression. */
export interface KeyPart {
  readonly column: string | undefined;
  readonly expression: readonly Token[] | undefined;
  readonly length: number | undefined;
  readonly descending: boolean;
}

export interface Key {
  readonly name: string | undefined;
  readonly parts: readonly KeyPart[];
  readonly line: number;
}

export interface Check {
  readonly name: string | undefined;
  readonly expression: readonly Token[];
  readonly line: number;
}

export interface ForeignKey {
  readonly name: string | undefined;
  readonly columns: readonly string[];
  readonly parent: QualifiedName;
  /** Empty: the parent's primary key. */
  readonly parentColumns: readonly string[];
  /** In SQL: CASCADE, SET NULL … */
  readonly onDelete: string | undefined;
  readonly onUpdate: string | undefined;
  readonly matchFull: boolean;
  readonly deferred: boolean;
  readonly line: number;
}

export interface Index extends Key {
  readonly unique: boolean;
  readonly where: readonly Token[] | undefined;
}

export interface Table {
  readonly name: QualifiedName;
  readonly line: number;
  readonly columns: Column[];
  primaryKey: Key | undefined;
  readonly uniques: Key[];
  readonly checks: Check[];
  readonly foreignKeys: ForeignKey[];
  readonly indexes: Index[];
  comment: string | undefined;
  /** Of columns that do not say another. */
  collation: string | undefined;
  charset: string | undefined;
  /** What AUTO_INCREMENT gives next. */
  nextId: bigint | undefined;
  readonly inherits: readonly QualifiedName[];
  /** Rows of a partition are rows of this table. */
  partitionOf: QualifiedName | undefined;
}

export interface View {
  readonly name: QualifiedName;
  readonly columns: readonly string[];
  readonly select: readonly Token[];
  readonly line: number;
}

export interface Sequence {
  readonly name: QualifiedName;
  readonly line: number;
  next: bigint;
  step: bigint;
  /** Some column counts with it. */
  used: boolean;
}

/** A type of PostgreSQL's that the dump makes. */
export type UserType =
  | { readonly kind: "enum"; readonly values: string[] }
  | {
      readonly kind: "domain";
      readonly type: TypeName;
      readonly notNull: boolean;
      readonly default: readonly Token[] | undefined;
      readonly checks: readonly (readonly Token[])[];
    }
  | { readonly kind: "other" };

export class Schema {
  readonly tables = new Map<string, Table>();
  readonly views = new Map<string, View>();
  readonly sequences = new Map<string, Sequence>();
  readonly types = new Map<string, UserType>();

  /** PostgreSQL's and MySQL's own schema of the moment is written out or left out at will; it is found either way. */
  static find<T>(map: ReadonlyMap<string, T>, name: QualifiedName): T | undefined {
    const exact = map.get(keyOf(name));
    if (exact !== undefined) return exact;
    const key = name.schema === undefined ? `public\0${name.name}` : `\0${name.name}`;
    return name.schema === undefined || name.schema === "public" ? map.get(key) : undefined;
  }

  table(name: QualifiedName): Table | undefined {
    return Schema.find(this.tables, name);
  }
}

export function keyOf({ schema, name }: QualifiedName): string {
  return `${schema ?? ""}\0${name}`;
}

/** For messages. */
export function shownName({ schema, name }: QualifiedName): string {
  return schema === undefined || schema === "public" ? name : `${schema}.${name}`;
}

export function newTable(name: QualifiedName, line: number, inherits: readonly QualifiedName[] = []): Table {
  return {
    name,
    line,
    columns: [],
    primaryKey: undefined,
    uniques: [],
    checks: [],
    foreignKeys: [],
    indexes: [],
    comment: undefined,
    collation: undefined,
    charset: undefined,
    nextId: undefined,
    inherits,
    partitionOf: undefined,
  };
}

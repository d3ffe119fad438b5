/**
 * Rows as users see them, decoded when they are first looked at: a result nobody reads (an INSERT's) costs nothing.
 *
 * A row has its columns as own enumerable properties, so that it prints, spreads and compares as `{ id: 1, ... }`;
 * positions, `length` and iteration come from a prototype shared by all rows of the same columns. Positions win over
 * columns named like them (`select 2` has a column "2"); of several columns of one name the first has the name.
 */
import { type SqlValue, ValueReader } from "../base/values.js";
import type { IntMode, ResultSet, Row, Value } from "./types.js";

type MutableRow = Record<string, Value>;

interface Shape {
  readonly columns: readonly string[];
  /** For each position the own property that holds it. */
  readonly slots: readonly string[];
  /** Positions whose slot is not to be enumerated. */
  readonly hidden: readonly boolean[];
  readonly anyHidden: boolean;
  readonly prototype: object;
}

const SHAPES_KEPT = 256;
const shapes = new Map<string, Shape>();

/** The one used last, which is most often the next. */
let latest: Shape | undefined;

function shapeOf(columns: readonly string[]): Shape {
  if (latest === undefined || !sameNames(latest.columns, columns)) latest = findShape(columns);
  return latest;
}

function sameNames(a: readonly string[], b: readonly string[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

function findShape(columns: readonly string[]): Shape {
  const signature = JSON.stringify(columns);
  let shape = shapes.get(signature);
  if (shape === undefined) {
    if (shapes.size >= SHAPES_KEPT) shapes.clear();
    shape = makeShape(columns);
    shapes.set(signature, shape);
  }
  return shape;
}

function makeShape(columns: readonly string[]): Shape {
  const count = columns.length;
  const taken = new Set<string>(["length", "__proto__"]);
  for (let i = 0; i < count; i++) taken.add(String(i));
  const prototype: object = Object.create(Object.prototype);
  const slots: string[] = [];
  const hidden: boolean[] = [];
  columns.forEach((name, i) => {
    const named = !taken.has(name);
    if (named) {
      taken.add(name);
      Object.defineProperty(prototype, i, {
        get(this: MutableRow) {
          return this[name];
        },
      });
    }
    slots.push(named ? name : String(i));
    hidden.push(!named);
  });
  Object.defineProperty(prototype, "length", { value: count });
  Object.defineProperty(prototype, Symbol.iterator, {
    *value(this: MutableRow) {
      for (let i = 0; i < count; i++) yield this[i];
    },
  });
  return { columns, slots, hidden, anyHidden: hidden.includes(true), prototype };
}

export class RowDecoder {
  readonly #shape: Shape;
  readonly #intMode: IntMode;

  constructor(columns: readonly string[], intMode: IntMode) {
    this.#shape = shapeOf(columns);
    this.#intMode = intMode;
  }

  /** Appends the rows of a chunk; throws RangeError on an INTEGER that intMode "number" cannot hold. */
  decode(chunk: Uint8Array, into: Row[]): void {
    const reader = new ValueReader(chunk);
    while (!reader.done) into.push(this.row(reader.vector()));
  }

  row(values: readonly SqlValue[]): Row {
    const { slots, hidden, anyHidden, prototype, columns } = this.#shape;
    const row = Object.create(prototype) as MutableRow;
    for (let i = 0; i < slots.length; i++) {
      const value = values[i] ?? null;
      const shown = typeof value === "bigint" ? this.#integer(value, columns[i]!) : value;
      if (anyHidden && hidden[i]) Object.defineProperty(row, i, { value: shown });
      else row[slots[i]!] = shown;
    }
    return row as unknown as Row;
  }

  #integer(value: bigint, column: string): Value {
    if (this.#intMode === "bigint") return value;
    if (this.#intMode === "string") return value.toString();
    const number = Number(value);
    if (!Number.isSafeInteger(number))
      throw new RangeError(
        `column "${column}": ${value} is too large for a number; connect with intMode "bigint" or "string"`,
      );
    return number;
  }
}

/** A finished result. */
export class Result implements ResultSet {
  #chunks: readonly Uint8Array[];
  #rows: readonly Row[] | undefined;
  readonly #intMode: IntMode;

  constructor(
    readonly columns: readonly string[],
    readonly columnTypes: readonly (string | null)[],
    chunks: readonly Uint8Array[],
    intMode: IntMode,
    readonly rowsAffected: number,
    readonly lastInsertRowid: bigint | undefined,
  ) {
    this.#chunks = chunks;
    this.#intMode = intMode;
  }

  get rows(): readonly Row[] {
    if (this.#rows === undefined) {
      const rows: Row[] = [];
      if (this.#chunks.length > 0) {
        const decoder = new RowDecoder(this.columns, this.#intMode);
        for (const chunk of this.#chunks) decoder.decode(chunk, rows);
      }
      this.#rows = rows;
      this.#chunks = [];
    }
    return this.#rows;
  }

  toJSON(): unknown {
    const { columns, columnTypes, rows, rowsAffected } = this;
    return { columns, columnTypes, rows, rowsAffected, lastInsertRowid: this.lastInsertRowid?.toString() };
  }
}

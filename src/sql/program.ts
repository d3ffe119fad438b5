/**
 * An EXPLAINed program, cut into frames (the statement itself, then each trigger and foreign-key action), and what can
 * be told of a frame without running it: which addresses are reachable, which loops there are, and where the value of
 * a register may come from.
 *
 * Invariants
 * 1. `origins` answers every place the value can come from, or undefined when it is not certain of that.
 * 2. A frame with an opcode that is not understood has no origins and no loops to trust (`understood` is false).
 */
import { isJump, isUnderstood, successors, writtenRegisters } from "./opcodes.js";
import type { OpcodeRow } from "./types.js";

/** Where a register's value comes from, if it is a key. */
export type Origin =
  | { readonly from: "integer"; readonly value: bigint }
  | { readonly from: "parameter"; readonly index: number }
  | { readonly from: "null" }
  /** The rowid of the row that a cursor stands on. */
  | { readonly from: "rowid"; readonly cursor: number }
  /** A rowid that NewRowid chose; `onlyIfNull` when it is chosen only where the other origins give NULL. */
  | { readonly from: "new"; readonly cursor: number; readonly onlyIfNull: boolean };

/** Where any value comes from. */
export type ValueOrigin =
  | Origin
  | { readonly from: "text"; readonly value: string }
  /** Of a STRICT table, which may have made another number of it; what it was before is among the origins too. */
  | { readonly from: "checked" };

export interface Loop {
  readonly start: number;
  /** Address of the op that jumps back. */
  readonly end: number;
  readonly driver: OpcodeRow;
}

export class Frame {
  readonly ops: readonly OpcodeRow[];
  readonly understood: boolean;
  readonly reachable: Uint8Array;
  /** Addresses that some op jumps to. */
  readonly #targets: Uint8Array;
  readonly #writers = new Map<number, number[]>();
  #loops: readonly Loop[] | undefined;

  constructor(ops: readonly OpcodeRow[]) {
    this.ops = ops;
    this.understood = ops.every(isUnderstood) && !tangled(ops);
    this.#targets = new Uint8Array(ops.length + 1);
    this.reachable = new Uint8Array(ops.length + 1);
    ops.forEach((op, at) => {
      if (op.opcode === "Jump") for (const p of [op.p1, op.p2, op.p3]) this.#targets[p] = 1;
      else if (isJump(op)) this.#targets[op.p2] = 1;
      if (op.opcode === "InitCoroutine") this.#targets[op.p3] = 1;
      writtenRegisters(op, (register) => {
        const writers = this.#writers.get(register);
        if (writers === undefined) this.#writers.set(register, [at]);
        else writers.push(at);
      });
    });
    const pending = [0];
    for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
      const op = ops[at];
      if (op === undefined || this.reachable[at] === 1) continue;
      this.reachable[at] = 1;
      successors(op, at, (next) => pending.push(next));
    }
  }

  /** The constants that are loaded before the program proper: from where Init jumps to, to the end. */
  get prologue(): number {
    const init = this.ops[0];
    return init === undefined || init.p2 <= 1 ? this.ops.length : init.p2;
  }

  /** Backward jumps, but for the one that ends the prologue. */
  loops(): readonly Loop[] {
    this.#loops ??= this.#findLoops();
    return this.#loops;
  }

  #findLoops(): Loop[] {
    const loops: Loop[] = [];
    for (let at = 0; at < this.prologue; at++) {
      const op = this.ops[at]!;
      if (this.reachable[at] === 0 || op.opcode === "Return" || op.opcode === "Gosub") continue;
      successors(op, at, (to) => {
        if (to <= at) loops.push({ start: to, end: at, driver: op });
      });
    }
    return loops;
  }

  /** Addresses of the ops that may change a register. */
  writersOf(register: number): readonly number[] {
    return this.#writers.get(register) ?? [];
  }

  /** Every origin that the register's value can have when the op at `at` reads it. */
  origins(register: number, at: number): readonly Origin[] | undefined {
    const found = this.values(register, at);
    if (found === undefined || found.some(({ from }) => from === "text" || from === "checked"))
      return undefined;
    return found as readonly Origin[];
  }

  /** The same for what need not be a key. */
  values(register: number, at: number): readonly ValueOrigin[] | undefined {
    if (!this.understood) return undefined;
    const found: ValueOrigin[] = [];
    return this.#collect(register, at, found, new Set()) ? found : undefined;
  }

  /** The register's writers that reach `at`: the last one before it in straight-line code, else all there are. */
  #writersBefore(register: number, at: number): readonly number[] {
    const writers = this.#writers.get(register) ?? [];
    for (let i = at; i > 0 && this.#targets[i] === 0; i--) {
      const op = this.ops[i - 1]!;
      if (/^(Goto|Halt|Return|EndCoroutine|Yield|Gosub|Init|InitCoroutine|Program|Jump)$/.test(op.opcode))
        break;
      if (writers.includes(i - 1)) return [i - 1];
    }
    return writers;
  }

  #collect(register: number, at: number, found: ValueOrigin[], seen: Set<string>): boolean {
    const writers = this.#writersBefore(register, at);
    if (writers.length === 0) return false;
    for (const writer of writers) {
      const key = `${register}@${writer}`;
      if (seen.has(key)) continue;
      seen.add(key);
      if (!this.#collectFrom(writer, register, found, seen)) return false;
    }
    return true;
  }

  #collectFrom(at: number, register: number, found: ValueOrigin[], seen: Set<string>): boolean {
    const op = this.ops[at]!;
    const copied = (from: number): boolean => this.#collect(from, at, found, seen);
    switch (op.opcode) {
      case "Integer":
        found.push({ from: "integer", value: BigInt(op.p1) });
        return true;
      case "Int64":
        if (op.p4 === null || !/^-?\d+$/.test(op.p4)) return false;
        found.push({ from: "integer", value: BigInt(op.p4) });
        return true;
      case "Variable":
        found.push({ from: "parameter", index: op.p1 - 1 });
        return true;
      case "Null":
        found.push({ from: "null" });
        return true;
      case "String8":
        if (op.p4 === null) return false;
        found.push({ from: "text", value: op.p4 });
        return true;
      case "TypeCheck":
        found.push({ from: "checked" });
        return copied(register);
      case "SoftNull":
        // Clears the key's column of a row, once the key was taken out; whatever comes next is written over it.
        return true;
      case "Rowid":
        found.push({ from: "rowid", cursor: op.p1 });
        return true;
      case "NewRowid":
        if (register !== op.p2) return false;
        found.push({ from: "new", cursor: op.p1, onlyIfNull: this.#guarded(at, op.p2) });
        return true;
      case "SCopy":
      case "IntCopy":
        return copied(op.p1);
      case "Copy":
        return copied(op.p1 + register - op.p2);
      case "Move":
        return register >= op.p2 && register < op.p2 + op.p3 && copied(op.p1 + register - op.p2);
      case "RowSetRead":
        return this.#collectAll("RowSetAdd", op.p1, (add) => add.p2, found, seen);
      case "Column":
        return this.#collectColumn(op, found, seen);
      default:
        return false;
    }
  }

  /** `NotNull r` right before `NewRowid r`: the new rowid replaces NULL only. */
  #guarded(at: number, register: number): boolean {
    const before = this.ops[at - 1];
    return before?.opcode === "NotNull" && before.p1 === register && before.p2 === at + 1;
  }

  /** A column of an ephemeral table: whatever was put into any of its columns. */
  #collectColumn(op: OpcodeRow, found: ValueOrigin[], seen: Set<string>): boolean {
    const opened = this.ops.filter((o) => o.opcode.startsWith("Open") && o.p1 === op.p1);
    if (opened.length === 0 || opened.some((o) => o.opcode !== "OpenEphemeral")) return false;
    if (this.ops.some((o) => o.opcode === "OpenDup" && o.p2 === op.p1)) return false;
    const key = `c${op.p1}.${op.p2}`;
    if (seen.has(key)) return true;
    seen.add(key);
    // With P4 of IdxInsert unknown and plain tables filled through Insert, the record always comes from a MakeRecord.
    let any = false;
    for (let at = 0; at < this.ops.length; at++) {
      const insert = this.ops[at]!;
      if (insert.p1 !== op.p1 || (insert.opcode !== "IdxInsert" && insert.opcode !== "Insert")) continue;
      any = true;
      const records = this.#writersBefore(insert.p2, at);
      if (records.length === 0) return false;
      for (const record of records) {
        const made = this.ops[record]!;
        if (made.opcode !== "MakeRecord" || op.p2 >= made.p2) return false;
        if (!this.#collect(made.p1 + op.p2, record, found, seen)) return false;
      }
    }
    return any;
  }

  #collectAll(
    opcode: string,
    p1: number,
    register: (op: OpcodeRow) => number,
    found: ValueOrigin[],
    seen: Set<string>,
  ): boolean {
    let any = false;
    for (let at = 0; at < this.ops.length; at++) {
      const op = this.ops[at]!;
      if (op.opcode !== opcode || op.p1 !== p1) continue;
      any = true;
      if (!this.#collect(register(op), at, found, seen)) return false;
    }
    return any;
  }
}

/** Large and full of loops: telling what it touches would take longer than it is worth. Long VALUES lists are not. */
function tangled(ops: readonly OpcodeRow[]): boolean {
  if (ops.length < MANY_OPS) return false;
  let backward = 0;
  ops.forEach((op, at) => {
    if (isJump(op) && op.p2 > 0 && op.p2 < at) backward++;
  });
  return backward > FEW_LOOPS;
}

const MANY_OPS = 10_000;
const FEW_LOOPS = 32;

/** Cuts the rows of EXPLAIN into frames: each sub-program follows with addresses from 0. */
export function framesOf(rows: readonly OpcodeRow[]): Frame[] {
  const frames: Frame[] = [];
  let from = 0;
  for (let i = 1; i <= rows.length; i++) {
    if (i < rows.length && rows[i]!.addr !== 0) continue;
    frames.push(new Frame(rows.slice(from, i)));
    from = i;
  }
  return frames;
}

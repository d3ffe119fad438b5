/**
 * The footprint of a statement, from SQLite's own program for it: what it reads and writes, as spans of keys where the
 * keys are constants or parameters, else as whole tables.
 *
 * Why these spans are enough. A transaction runs its statements on some state, and commits at index c if no span that
 * it read was written since; its write statements then run again at c, and each must tell what it told before
 * (changes, rows, last rowid, or the error), else the whole commit fails with OSTRAKA_RETRY. So for every statement
 * the answer that the client saw must be the answer at c:
 * 1. A statement that only reads answers from the rows in `reads`. Those are unchanged but for the transaction's own
 *    writes, so by induction over the statements it is enough that those writes have the same effects at c.
 * 2. A write's effects depend on rows that it finds by its predicates, subqueries, triggers, cascades, REPLACE, UPSERT and
 *    OR IGNORE: all of these are in `reads`, unchanged. What is left out is what can only make it succeed or fail
 *    (UNIQUE under ABORT, parents of foreign keys): success is told, and compared when the text runs again. Hence
 *    `checks`, to be added to the reads whenever the text is not run again: a statement that failed, row changes.
 * 3. A key that SQLite chooses (NewRowid) at the top level is told: by last_insert_rowid and, over many rows, by the
 *    count of changes, since such keys are consecutive. It reads END_OF_TABLE, so that a lost race is found at
 *    validation and not only at apply. Where nothing runs again the key must still be the next one, whoever wrote
 *    what: all rows up to the end are among the checks (up to END_OF_TABLE, which tells them from a look at the whole
 *    table). In a trigger the key is not told and depends on every row: the whole table is read.
 *    A UNIQUE index that a success shows to have lacked what was added depends on nobody adding the same. Writes name
 *    what they add (UNIQUE_KEYS), so that whoever knows the values need not take the whole table for read.
 * 4. Rows that appear under chosen keys (others' appends write END_OF_TABLE only) did not exist before. A key that was
 *    found cannot be one of them; whatever looked for a key and may not have found it, or for a range, reads END_OF_TABLE
 *    as well. A key found and deleted since is a conflict on the key itself.
 *
 * Any valid plan will do: an answer that one plan computes from certain rows depends on no others. What is not
 * understood becomes whole tables, and what cannot even be named becomes every table.
 */
import { type Probe, probeOf } from "./probes.js";
import type { Frame, Origin } from "./program.js";
import type { Bound, SpanTemplate } from "./span-templates.js";
import { lowerAscii } from "./tokenizer.js";
import { EVERY_TABLE, type KeyColumn, type OpcodeRow, SCHEMA, type SchemaOracle } from "./types.js";
import { shadowOwner, type VirtualTouch } from "./virtual-tables.js";

interface CursorTarget {
  /** Where it is opened. */
  readonly at: number;
  readonly table: string;
  /** A table's own b-tree, keyed by rowid. */
  readonly keyed: boolean;
  readonly writable: boolean;
  /** Of the shared database; undefined where it is not known, or the table's rows are not its own. */
  readonly root: number | undefined;
}

/** What the programs of a statement touch. */
export interface Touched {
  readonly reads: readonly SpanTemplate[];
  readonly writes: readonly SpanTemplate[];
  readonly checks: readonly SpanTemplate[];
  /** Checks of tables that count as looked at whole, but are not: all of each such table's. */
  readonly probes: readonly Probe[];
  /** See Analysis.uniqueChecks: tables, and all other checks. */
  readonly uniqueTables: ReadonlySet<string>;
  readonly otherChecks: readonly SpanTemplate[];
  readonly temp: boolean;
  /** The only read is one key, and an outcome with a row, or with a change, proves that it was there. */
  readonly provesItsKey: { readonly byRow: boolean; readonly byChange: boolean };
  /** Tables written, lower-case. */
  readonly written: ReadonlySet<string>;
}

export interface TouchOptions {
  /** Tables named in the statement itself, lower-case; tells the user's use of sqlite_sequence from AUTOINCREMENT's. */
  readonly names: ReadonlySet<string>;
  /** What a virtual table's pointer (P4 of VOpen) stands for; undefined when it is not known. */
  readonly virtualTable: (pointer: string) => VirtualTouch | undefined;
}

const SEEK_RANGE: ReadonlySet<string> = new Set(["SeekGE", "SeekGT", "SeekLE", "SeekLT"]);
const PROBES: ReadonlySet<string> = new Set(["NoConflict", "Found", "NotFound", "NotExists"]);
/** Ops that move a cursor over rows, or depend on which there are; reading where one stands is covered by how it got there. */
const MOVES: ReadonlySet<string> = new Set(
  (
    "SeekLT SeekLE SeekGE SeekGT IfNoHope NoConflict NotFound Found SeekRowid NotExists Last IfSizeBetween Sort Rewind " +
    "IfEmpty Prev Next IdxLE IdxGT IdxLT IdxGE Count SeekScan SeekEnd IFindKey"
  ).split(" "),
);
const READS_ROW: ReadonlySet<string> = new Set(["Column", "Rowid", "IdxRowid", "RowData", "Offset"]);
const FOLLOWERS: ReadonlySet<string> = new Set(["Next", "Prev", "SeekEnd"]);

export function touchedBy(frames: readonly Frame[], oracle: SchemaOracle, options: TouchOptions): Touched {
  const collector = new Collector(oracle, options);
  frames.forEach((frame, i) => {
    collector.frame(frame, i === 0);
  });
  return collector.finish(frames);
}

class Collector {
  readonly reads: SpanTemplate[] = [{ kind: "whole", table: SCHEMA }];
  readonly writes: SpanTemplate[] = [];
  readonly checks: SpanTemplate[] = [];
  readonly #probes: Probe[] = [];
  /** Tables of which a check may look at any row. */
  readonly #unprobed = new Set<string>();
  /** Tables whose UNIQUE indexes are checked. */
  readonly #unique = new Set<string>();
  temp = false;
  readonly #oracle: SchemaOracle;
  readonly #options: TouchOptions;
  #frame!: Frame;
  #main = true;
  #cursors = new Map<number, CursorTarget[]>();
  #positions = new Map<number, SpanTemplate[]>();

  constructor(oracle: SchemaOracle, options: TouchOptions) {
    this.#oracle = oracle;
    this.#options = options;
  }

  frame(frame: Frame, main: boolean): void {
    this.#frame = frame;
    this.#main = main;
    this.#cursors = new Map();
    this.#positions = new Map();
    const { ops } = frame;
    ops.forEach((op, at) => {
      this.#open(op, at);
    });
    if (!frame.understood) {
      for (const targets of this.#cursors.values()) {
        for (const target of targets) {
          this.reads.push({ kind: "whole", table: target.table });
          if (target.writable) this.writes.push({ kind: "whole", table: target.table });
        }
      }
      for (const op of ops) if (op.opcode === "Clear" || op.opcode === "Destroy") this.#clear(op);
      return;
    }
    for (let at = 0; at < ops.length; at++) if (frame.reachable[at] === 1) this.#read(ops[at]!, at);
    for (let at = 0; at < ops.length; at++) if (frame.reachable[at] === 1) this.#write(ops[at]!, at);
  }

  finish(frames: readonly Frame[]): Touched {
    const reads = distinct(this.reads);
    const writes = distinct(this.writes);
    const unique = [...this.#unique].map((table) => ({ kind: "whole", table }) as const);
    return {
      reads,
      writes,
      checks: distinct([...this.checks, ...unique]),
      probes: this.#probes.filter(({ table }) => !this.#unprobed.has(table)),
      uniqueTables: this.#unique,
      otherChecks: distinct(this.checks),
      temp: this.temp,
      provesItsKey: provesItsKey(frames, reads),
      written: new Set(writes.map((span) => span.table)),
    };
  }

  #open(op: OpcodeRow, at: number): void {
    switch (op.opcode) {
      case "OpenRead":
      case "OpenWrite":
      case "ReopenIdx": {
        if (op.p3 === 1) {
          this.temp = true;
          return;
        }
        // With P5 & 16 the root page is in a register: a b-tree that this statement has just made.
        const writable = op.opcode === "OpenWrite";
        if (writable && (op.p5 & 16) !== 0) return;
        this.#addCursor(op.p1, { at, ...this.#target(op.p3, op.p2, writable) });
        return;
      }
      case "VOpen":
      case "VUpdate":
        this.#virtual(op);
        return;
      default:
    }
  }

  #addCursor(cursor: number, target: CursorTarget): void {
    const targets = this.#cursors.get(cursor);
    if (targets === undefined) this.#cursors.set(cursor, [target]);
    else targets.push(target);
  }

  /**
   * What a cursor stands for at an address. A number is used again for another b-tree where the first is done with (the
   * prologue's look at sqlite_sequence, FROM subqueries); outside of loops the last opening before the address counts,
   * else all of them do.
   */
  #targetsAt(cursor: number, at: number): readonly CursorTarget[] {
    const targets = this.#cursors.get(cursor) ?? [];
    if (targets.every((t) => t.table === targets[0]!.table && t.keyed === targets[0]!.keyed)) {
      return targets.slice(0, 1);
    }
    const { prologue } = this.#frame;
    // The prologue runs first, then the program from its beginning.
    const same = targets.filter((t) => t.at >= prologue === at >= prologue);
    if (same.length === 0) return targets;
    const loops = this.#frame.loops();
    if (same.some((t) => loops.some((loop) => t.at >= loop.start && t.at <= loop.end))) return targets;
    const before = same.filter((t) => t.at < at);
    return before.length === 0 ? targets : before.slice(-1);
  }

  #target(database: number, root: number, writable: boolean): Omit<CursorTarget, "at"> {
    if (root === 1) return { table: SCHEMA, keyed: false, writable, root: undefined };
    const object = this.#oracle.objectByRootPage(database, root);
    if (object === undefined) return { table: EVERY_TABLE, keyed: false, writable, root: undefined };
    const table = lowerAscii(object.table);
    const facts = object.kind === "table" ? this.#oracle.table(object.name) : undefined;
    const keyed = facts !== undefined && !facts.withoutRowid;
    const owner = shadowOwner(table, this.#oracle);
    const own = owner === table;
    return { table: owner, keyed: keyed && own, writable, root: own && database === 0 ? root : undefined };
  }

  #virtual(op: OpcodeRow): void {
    const touch = op.p4 === null ? undefined : this.#options.virtualTable(op.p4);
    for (const table of touch?.reads ?? [EVERY_TABLE]) this.reads.push({ kind: "whole", table });
    if (op.opcode !== "VUpdate") return;
    for (const table of touch?.writes ?? [EVERY_TABLE]) this.writes.push({ kind: "whole", table });
  }

  #clear(op: OpcodeRow): void {
    const database = op.opcode === "Clear" ? op.p2 : op.p3;
    if (database === 1) {
      this.temp = true;
      return;
    }
    const target = this.#target(database, op.p1, true);
    this.writes.push({ kind: "whole", table: target.table });
    // How many rows there were is told, and is told of this table alone; but it is all of its rows.
    this.reads.push({ kind: "whole", table: target.table });
  }

  #read(op: OpcodeRow, at: number): void {
    if (op.opcode === "Clear" || op.opcode === "Destroy") {
      this.#clear(op);
      return;
    }
    if (op.opcode === "DeferredSeek") {
      this.#wholeOf(op.p3, at);
      this.#wholeOf(op.p1, at);
      return;
    }
    const targets = this.#targetsAt(op.p1, at);
    if (targets.length === 0) return;
    if (op.opcode === "NewRowid") {
      this.#readNewRowid(op, at, targets);
      return;
    }
    if (!MOVES.has(op.opcode)) return;
    const target = targets[0]!;
    if (targets.length > 1 || target.table === SCHEMA) this.#wholeOf(op.p1, at);
    else if (this.#isSequenceBookkeeping(target)) return;
    else if (target.keyed) this.#readKeyed(op, at, target);
    else if (PROBES.has(op.opcode) && this.#isCheck(op, at)) {
      if (target.writable && target.root !== undefined) this.#unique.add(target.table);
      else this.checks.push({ kind: "whole", table: target.table });
      const columns = target.root === undefined ? undefined : this.#oracle.keyColumns?.(target.root);
      const probe = columns && probeOf(this.#frame, op, at, target.table, columns);
      if (probe === undefined) this.#unprobed.add(target.table);
      else this.#probes.push(probe);
    } else this.#wholeOf(op.p1, at);
  }

  /** AUTOINCREMENT's own reads of sqlite_sequence, at the top level: their result is the key, and the key is told. */
  #isSequenceBookkeeping(target: CursorTarget): boolean {
    return this.#main && target.table === "sqlite_sequence" && !this.#options.names.has("sqlite_sequence");
  }

  #wholeOf(cursor: number, at: number): void {
    for (const { table } of this.#targetsAt(cursor, at)) {
      this.reads.push({ kind: "whole", table });
      this.#position(cursor, { kind: "whole", table });
    }
  }

  #position(cursor: number, span: SpanTemplate): void {
    const positions = this.#positions.get(cursor);
    if (positions === undefined) this.#positions.set(cursor, [span]);
    else positions.push(span);
  }

  /** A probe that can only make the statement succeed or fail. */
  #isCheck(op: OpcodeRow, at: number): boolean {
    const { ops } = this.#frame;
    const writable = this.#targetsAt(op.p1, at)[0]?.writable === true;
    if (writable) {
      // UPDATE lets a row be in its own way: the rowid found, or the key's columns, are compared with its own first.
      let next = at + 1;
      while (next < at + 6 && /^(IdxRowid|Column|Eq|Noop)$/.test(ops[next]?.opcode ?? "")) next++;
      return ops[next]?.opcode === "Halt" && ops[next]!.p1 !== 0;
    }
    // A foreign key's look for the parent opens and closes a cursor of its own, and never reads a row.
    let closed = false;
    for (const other of ops) {
      if (other.p1 !== op.p1) continue;
      if (other.opcode === "Close") closed = true;
      else if (other !== op && (MOVES.has(other.opcode) || READS_ROW.has(other.opcode))) return false;
    }
    return closed;
  }

  #readKeyed(op: OpcodeRow, at: number, target: CursorTarget): void {
    const { table } = target;
    if (op.opcode === "SeekRowid" || op.opcode === "NotExists") {
      const spans = this.#spansOf(this.#frame.origins(op.p3, at), table);
      const check = op.opcode === "NotExists" && this.#isCheck(op, at);
      if (check) this.#probeKey(op, at, target, spans);
      for (const span of spans) {
        (check ? this.checks : this.reads).push(span);
        // A check that goes on has found nothing to stand on.
        if (!check) this.#position(op.p1, span);
      }
    } else if (SEEK_RANGE.has(op.opcode) || op.opcode === "Rewind" || op.opcode === "Last") {
      const span = this.#rangeOf(op, at, table);
      this.reads.push(span);
      this.#position(op.p1, span);
    } else if (!FOLLOWERS.has(op.opcode)) {
      this.#wholeOf(op.p1, at);
    }
  }

  /** Spans of checks that name all rows are narrowed by what is probed, and take in this look; what is written comes anyway. */
  #probeKey(op: OpcodeRow, at: number, { table, writable }: CursorTarget, spans: SpanTemplate[]): void {
    const whole = spans.some(({ kind }) => kind === "whole");
    if (writable && !whole) return;
    const name = whole ? undefined : this.#rowidOf(table);
    const probe =
      name === undefined
        ? undefined
        : probeOf(this.#frame, { ...op, p4: "1" }, at, table, [rowidColumn(name)]);
    if (probe === undefined) this.#unprobed.add(table);
    else this.#probes.push(probe);
  }

  #rowidOf(table: string): string | undefined {
    const facts = this.#oracle.table(table);
    if (facts === undefined) return undefined;
    const taken = new Set(facts.columns.map(lowerAscii));
    return facts.integerPrimaryKey ?? ["rowid", "_rowid_", "oid"].find((name) => !taken.has(name));
  }

  #readNewRowid(op: OpcodeRow, at: number, targets: readonly CursorTarget[]): void {
    for (const { table } of targets) {
      if (table === "sqlite_sequence" && this.#main) continue;
      if (!this.#main) {
        this.reads.push({ kind: "whole", table });
        continue;
      }
      const keys = this.#frame.origins(op.p2, at + 1);
      const guarded = keys?.filter((o) => o.from === "parameter") ?? [];
      if (keys === undefined || keys.some((o) => o.from === "null" || o.from === "rowid" || !isGuarded(o))) {
        this.reads.push({ kind: "end", table });
        this.checks.push({ kind: "up to end", table });
      } else {
        for (const { index } of guarded) {
          this.reads.push({ kind: "end if null", table, parameter: index });
          this.checks.push({ kind: "up to end if null", table, parameter: index });
        }
      }
    }
  }

  #write(op: OpcodeRow, at: number): void {
    const targets = this.#targetsAt(op.p1, at);
    const { opcode } = op;
    if (opcode !== "Insert" && opcode !== "Delete" && opcode !== "IdxInsert" && opcode !== "IdxDelete")
      return;
    for (const target of targets) {
      const { table } = target;
      if (table === SCHEMA || targets.length > 1) this.writes.push({ kind: "whole", table });
      else if (opcode === "Insert" && target.keyed && !this.#isSequenceBookkeeping(target)) {
        this.writes.push(...this.#spansOf(this.#frame.origins(op.p3, at), table));
      } else if (opcode === "Delete" && target.keyed) {
        this.writes.push(...(this.#positions.get(op.p1) ?? [{ kind: "whole", table } as const]));
      } else if (!(opcode.startsWith("Idx") && this.#isIndexOf(table))) {
        this.writes.push({ kind: "whole", table });
      } else if (opcode === "IdxInsert" && this.#isUnique(target)) {
        this.writes.push({ kind: "unique", table });
      }
    }
  }

  /** An index entry goes with a row whose own key is written through the table's cursor. */
  #isIndexOf(table: string): boolean {
    const facts = this.#oracle.table(table);
    if (facts === undefined || facts.withoutRowid) return false;
    return [...this.#cursors.values()].some((targets) =>
      targets.some((target) => target.table === table && target.keyed && target.writable),
    );
  }

  #isUnique({ root }: CursorTarget): boolean {
    return root === undefined || this.#oracle.isUniqueIndex?.(root) !== false;
  }

  #spansOf(origins: readonly Origin[] | undefined, table: string): SpanTemplate[] {
    const whole: SpanTemplate[] = [{ kind: "whole", table }];
    if (origins === undefined) return whole;
    const chosenIfNull = origins.some((o) => o.from === "new" && o.onlyIfNull);
    const spans: SpanTemplate[] = [];
    for (const origin of origins) {
      switch (origin.from) {
        case "integer":
          spans.push(keysAt(table, { value: origin.value }, false));
          break;
        case "parameter":
          spans.push(keysAt(table, { parameter: origin.index }, chosenIfNull));
          break;
        case "rowid": {
          const targets = this.#cursors.get(origin.cursor) ?? [];
          const positions = this.#positions.get(origin.cursor);
          if (positions === undefined || !targets.every((t) => t.keyed && t.table === table)) return whole;
          spans.push(...positions);
          break;
        }
        case "new":
          // With a guard the parameters say when; a literal NULL needs the end as well.
          if (!origin.onlyIfNull || origins.some((o) => o.from === "null"))
            spans.push({ kind: "end", table });
          break;
        default:
          // NULL finds nothing, and is never stored as a key.
          break;
      }
    }
    return spans;
  }

  /** The keys that a seek, Rewind or Last and the loop behind it can come to. */
  #rangeOf(op: OpcodeRow, at: number, table: string): SpanTemplate {
    const bound = (register: number, address: number): Bound | "unknown" => {
      const origins = this.#frame.origins(register, address);
      const [origin] = origins ?? [];
      if (origins?.length !== 1 || origin === undefined) return "unknown";
      if (origin.from === "integer") return { value: origin.value };
      return origin.from === "parameter" ? { parameter: origin.index } : "unknown";
    };
    let low: Bound;
    let high: Bound;
    if (SEEK_RANGE.has(op.opcode)) {
      const seek = bound(op.p3, at);
      if (seek === "unknown") return { kind: "whole", table };
      if (op.opcode === "SeekGE" || op.opcode === "SeekGT") low = seek;
      else high = seek;
    }
    // The other bound is tested first thing in the loop: Rowid, then a comparison that leaves it.
    const { ops } = this.#frame;
    const [step] = ops
      .filter((o) => (o.opcode === "Next" || o.opcode === "Prev") && o.p1 === op.p1 && o.p2 > at)
      .sort((a, b) => a.p2 - b.p2);
    const forward = op.opcode === "SeekGE" || op.opcode === "SeekGT" || op.opcode === "Rewind";
    if (step !== undefined && (step.opcode === "Next") !== forward) return { kind: "whole", table };
    const rowid = step === undefined ? undefined : ops[step.p2];
    const test = step === undefined ? undefined : ops[step.p2 + 1];
    const upward = step?.opcode === "Next";
    const leaves = upward ? /^G[te]$/ : /^L[te]$/;
    const tested =
      rowid?.opcode === "Rowid" && rowid.p1 === op.p1 && test !== undefined && leaves.test(test.opcode) &&
      test.p3 === rowid.p2 && test.p2 === op.p2; // biome-ignore format: one condition
    if (tested) {
      const other = bound(test.p1, step!.p2 + 1);
      if (other !== "unknown" && upward) high = other;
      else if (other !== "unknown") low = other;
    }
    if (low === undefined && high === undefined) return { kind: "whole", table };
    return { kind: "keys", table, low, high, chosenIfNull: false };
  }
}

function isGuarded(origin: Origin): boolean {
  return origin.from !== "new" || origin.onlyIfNull;
}

function rowidColumn(name: string): KeyColumn {
  return { name, collation: "BINARY", real: false };
}

function keysAt(table: string, bound: Exclude<Bound, undefined>, chosenIfNull: boolean): SpanTemplate {
  return { kind: "keys", table, low: bound, high: bound, chosenIfNull };
}

/**
 * Whether an outcome proves that the only key read was there: a row answered by a program that ends when the search
 * fails, or a change made by one that has nothing else to change.
 */
function provesItsKey(frames: readonly Frame[], reads: readonly SpanTemplate[]): Touched["provesItsKey"] {
  const never = { byRow: false, byChange: false };
  const [frame] = frames;
  if (frame === undefined || reads.filter((span) => span.table !== SCHEMA).length !== 1) return never;
  const seeks = frame.ops.filter((op) => op.opcode === "SeekRowid");
  const [seek] = seeks;
  if (seeks.length !== 1 || seek === undefined) return never;
  if (
    frame.ops.some(
      (op) => /^(Agg|Yield|Gosub|NullRow|Once|BeginSubrtn|Init[CI])/.test(op.opcode) && op.opcode !== "Init",
    )
  ) {
    return never;
  }
  return { byRow: frame.ops[seek.p2]?.opcode === "Halt", byChange: true };
}

function distinct(spans: readonly SpanTemplate[]): SpanTemplate[] {
  const key = (bound: Bound): string =>
    bound === undefined ? "-" : "value" in bound ? `${bound.value}` : `?${bound.parameter}`;
  const seen = new Map<string, SpanTemplate>();
  for (const span of spans) {
    const keys =
      span.kind === "keys"
        ? `${key(span.low)}..${key(span.high)} ${span.chosenIfNull}`
        : "parameter" in span
          ? span.parameter
          : "";
    seen.set(`${span.kind} ${span.table} ${keys}`, span);
  }
  const whole = new Set([...seen.values()].filter((s) => s.kind === "whole").map((s) => s.table));
  return [...seen.values()].filter((s) => s.kind === "whole" || !whole.has(s.table));
}

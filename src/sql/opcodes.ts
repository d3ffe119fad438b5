/**
 * What the opcodes of SQLite's virtual machine do to registers and to the flow of control, as far as the analysis
 * needs it. Taken from the opcode documentation of SQLite 3.53.2.
 *
 * Invariant: an opcode that is not listed is not understood, and a program that contains one is never narrowed (its
 * footprint is whole tables and its cost unknown). So a new SQLite may make the analysis coarser, not wrong, as long
 * as opcodes keep their meaning.
 */
import type { OpcodeRow } from "./types.js";

const words = (list: string): ReadonlySet<string> => new Set(list.split(/\s+/));

/** P2 is an address to jump to. */
const JUMPS = words(
  "VFilter Init Goto Gosub InitCoroutine Yield MustBeInt Jump Once If IfNot IsType IfNullRow SeekLT SeekLE SeekGE " +
    "SeekGT IfNotOpen IfNoHope NoConflict NotFound Found SeekRowid NotExists Last IfSizeBetween SorterSort Sort " +
    "Rewind IfEmpty SorterNext Prev Next IdxLE IdxGT IdxLT IdxGE RowSetRead RowSetTest Program IsNull NotNull Ne Eq " +
    "Gt Le Lt Ge ElseEq FkIfZero IfPos IfNotZero DecrJumpZero VNext Filter SequenceTest SeekScan SorterCompare",
);

/** Register P1 changes. */
const WRITES_P1 = words(
  "InitCoroutine Yield Gosub EndCoroutine SoftNull AddImm MemMax IfPos IfNotZero DecrJumpZero RealAffinity Cast " +
    "RowSetAdd FilterAdd AggFinal",
);
/** Register P2 changes. */
const WRITES_P2 = words(
  "Integer Int64 String String8 Real BeginSubrtn Blob Variable SCopy IntCopy IsTrue ZeroOrNull Count ReadCookie Not " +
    "BitNot Sequence NewRowid Rowid IdxRowid Destroy CreateBtree Param OffsetLimit VInitIn GetSubtype SetSubtype " +
    "SorterData RowData",
);
/** Register P3 changes. */
const WRITES_P3 = words(
  "Or And Add Subtract Multiply Divide Remainder BitAnd BitOr ShiftLeft ShiftRight Concat RowSetRead Offset Column " +
    "MakeRecord PureFunc Function AggStep AggStep1 AggInverse AggValue VColumn IfNullRow Program NewRowid",
);
/** Understood, and no register changes but what the sets above say, or what `writtenRegisters` says below. */
const UNDERSTOOD = words(
  "Transaction Init Goto Return Halt HaltIfNull Null Move Copy FkCheck ResultRow CollSeq Permutation Compare TypeCheck " +
    "Affinity ReopenIdx OpenRead OpenWrite OpenDup OpenAutoindex OpenEphemeral SorterOpen OpenPseudo Close ColumnsUsed " +
    "SeekHit Insert RowCell Delete ResetCount NullRow SeekEnd IdxInsert SorterInsert IdxDelete DeferredSeek FinishSeek " +
    "Clear ResetSorter FkCounter Trace CursorHint ReleaseReg Noop Explain Abortable ClrSubtype CursorLock " +
    "CursorUnlock VOpen VUpdate VCheck VBegin TableLock Expire",
);

export function isJump(op: OpcodeRow): boolean {
  return JUMPS.has(op.opcode) && (op.p2 !== 0 || op.opcode === "Goto");
}

export function isUnderstood(op: OpcodeRow): boolean {
  const { opcode } = op;
  return (
    UNDERSTOOD.has(opcode) ||
    JUMPS.has(opcode) ||
    WRITES_P1.has(opcode) ||
    WRITES_P2.has(opcode) ||
    WRITES_P3.has(opcode)
  );
}

/** Calls `visit` with every register whose value the op may change. Affinities that leave integers alone are left out. */
export function writtenRegisters(op: OpcodeRow, visit: (register: number) => void): void {
  const { opcode, p1, p2, p3 } = op;
  if (WRITES_P1.has(opcode)) visit(p1);
  if (WRITES_P2.has(opcode)) visit(p2);
  if (WRITES_P3.has(opcode)) visit(p3);
  const range = (from: number, count: number): void => {
    for (let i = 0; i < count; i++) visit(from + i);
  };
  switch (opcode) {
    case "Null":
      range(p2, Math.max(1, p3 - p2 + 1));
      break;
    case "Move":
      range(p2, p3);
      range(p1, p3);
      break;
    case "Copy":
      range(p2, p3 + 1);
      break;
    case "TypeCheck":
      range(p1, p2);
      break;
    case "Affinity":
      // REAL (E) and FLEXNUM (F) may change an integer; the others turn text into it at most.
      for (let i = 0; i < p2; i++) if (/[EF]/.test(op.p4?.[i] ?? "E")) visit(p1 + i);
      break;
    default:
  }
}

/** Calls `visit` with every address that may run next after `op` at `at`. */
export function successors(op: OpcodeRow, at: number, visit: (address: number) => void): void {
  switch (op.opcode) {
    case "Halt":
    case "EndCoroutine":
      return;
    case "Goto":
      visit(op.p2);
      return;
    case "Jump":
      visit(op.p1);
      visit(op.p2);
      visit(op.p3);
      return;
    case "InitCoroutine":
      visit(op.p3);
      visit(op.p2 === 0 ? at + 1 : op.p2);
      return;
    default:
      if (isJump(op)) visit(op.p2);
      // Init never falls through; neither does Gosub, but its Return comes back behind it.
      if (op.opcode !== "Init" || op.p2 === 0) visit(at + 1);
  }
}

/**
 * Batches are all or nothing within whatever is open: they are no place for statements that begin, end or undo more than
 * the batch itself has done.
 */
import { RetryError, UserError } from "../base/errors.js";
import type { GroupId } from "../base/ids.js";
import type { RangeService } from "../range/types.js";
import { lowerAscii } from "../sql/tokenizer.js";
import type { Statement, StatementClass } from "../sql/types.js";
import type { GatewayDatabase } from "./database.js";
import { Deadline } from "./deadline.js";
import type { TempSpace } from "./temp-space.js";
import type { Transaction } from "./transaction.js";

/** Around a batch inside a transaction. */
export const BATCH_SAVEPOINT = "_ostraka_batch";

export function refuseEndings(classes: Iterable<StatementClass>): void {
  const savepoints: string[] = [];
  for (const kind of classes) {
    switch (kind.kind) {
      case "begin":
      case "commit":
      case "rollback":
        throw new UserError(
          "OSTRAKA_UNSUPPORTED",
          `${kind.kind.toUpperCase()} cannot be part of a batch, which is all or nothing by itself`,
        );
      case "savepoint":
        savepoints.push(lowerAscii(kind.name));
        break;
      case "release":
      case "rollback to": {
        const at = savepoints.lastIndexOf(lowerAscii(kind.name));
        if (at < 0) throw new UserError("SQLITE_ERROR", `no such savepoint: ${kind.name}`);
        savepoints.length = kind.kind === "release" ? at : at + 1;
        break;
      }
      default:
    }
  }
}

/** The leader of the one range that all statements touch; undefined when that is not one, or unbounded work. */
export function batchLeader(
  db: GatewayDatabase,
  statements: readonly { readonly statement: Statement }[],
): RangeService | undefined {
  const { whole } = db;
  if (whole !== undefined) return whole.leader;
  const ranges = new Set<GroupId>();
  for (const { statement } of statements) {
    const analysis = db.ranges.schema().analyse(statement.sql);
    if (analysis.cost !== "bounded") return undefined;
    for (const { range } of db.touched(analysis.footprint(statement.params))) ranges.add(range);
  }
  if (ranges.size > 1) return undefined;
  const [range] = ranges;
  return db.client(range ?? db.first.range);
}

/**
 * Undoes what a batch has done in a transaction, also for whoever gave the batch up, and not the transaction. Answers why
 * that could not be done: then the transaction must not be committed.
 */
export async function undoBatch(
  { clock, limits }: GatewayDatabase,
  transaction: Transaction,
  temp: TempSpace,
): Promise<RetryError | undefined> {
  const deadline = new Deadline(clock, undefined, limits.availabilityMs, { signal: undefined });
  try {
    await transaction.rollbackTo(BATCH_SAVEPOINT, deadline);
    await transaction.release(BATCH_SAVEPOINT, deadline);
    if (transaction.moved) await temp.undone(transaction, deadline);
    return undefined;
  } catch (cause) {
    return new RetryError("OSTRAKA_RETRY", "what a batch had done could not be undone", { cause });
  } finally {
    deadline.dispose();
  }
}

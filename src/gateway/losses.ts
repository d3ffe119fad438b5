/** What a transaction, or a write by itself, reserves that has lost before, so that it does not lose for ever. */
import type { Footprint, Span } from "../sql/types.js";
import { EVERYTHING, SCHEMA } from "../txn/spans.js";
import type { TransactionOptions } from "./transaction.js";

/**
 * After so many losses a transaction reserves the whole database. That stops all others, the more so the longer the
 * transaction takes: across ranges, whose commits take several rounds, others would lose because of it, and reserve too.
 * There it first reserves what each of its statements touches, which stops only those who touch the same.
 */
const LOSSES = 1;
const LOSSES_ACROSS_RANGES = 5;
/** What runs in a workspace touches more, and is not reserved statement by statement. */
const LOSSES_IN_WORKSPACE = 2;
const WHOLE_DATABASE: readonly Span[] = [EVERYTHING];
/** Of a write by itself, as long as it reserves rows alone. */
const LOSSES_OF_ROWS = 3;

/** `across`: there are several ranges. */
export function reservationsOf(
  losses: number,
  immediate: boolean,
  across: boolean,
): Pick<TransactionOptions, "reserve" | "reserveMoved" | "lost"> {
  const all = immediate || losses >= (across ? LOSSES_ACROSS_RANGES : LOSSES);
  return {
    reserve: all ? WHOLE_DATABASE : undefined,
    reserveMoved: losses >= LOSSES_IN_WORKSPACE ? WHOLE_DATABASE : undefined,
    lost: across && losses > 0,
  };
}

/**
 * What a write by itself keeps others from after it has lost: what it writes, and what constraints look at; what it reads
 * besides, which may be much more, once that was not enough.
 */
export function reservedBy({ reads, writes, checks }: Footprint, losses: number): readonly Span[] {
  const rows = [...writes, ...checks];
  return losses < LOSSES_OF_ROWS ? rows : [...rows, ...reads.filter(({ table }) => table !== SCHEMA.table)];
}

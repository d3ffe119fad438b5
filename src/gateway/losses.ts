/** What a transaction reserves that has lost before, so that it does not lose for ever. */
import { EVERY_TABLE, type Span } from "../sql/types.js";
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
const WHOLE_DATABASE: readonly Span[] = [{ table: EVERY_TABLE, low: undefined, high: undefined }];

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

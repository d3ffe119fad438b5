/**
 * The bank checker: money moves between accounts and is neither made nor lost, so every read of all accounts shows
 * the same total, and the same accounts.
 */
import { type Verdict, verdictOf } from "./verdict.js";

export interface BankHistory {
  readonly total: number;
  readonly accounts: number;
  /** Balances, one list a read of all accounts. */
  readonly reads: readonly (readonly number[])[];
  /** False where transfers refuse to overdraw. */
  readonly mayBeNegative?: boolean;
}

export function checkBank({ total, accounts, reads, mayBeNegative = false }: BankHistory): Verdict {
  const problems: string[] = [];
  for (const [at, balances] of reads.entries()) {
    if (balances.length !== accounts)
      problems.push(`read ${at} shows ${balances.length} accounts, not ${accounts}`);
    const sum = balances.reduce((a, b) => a + b, 0);
    if (sum !== total) problems.push(`read ${at} adds up to ${sum}, not ${total}`);
    if (!mayBeNegative && balances.some((balance) => balance < 0))
      problems.push(`read ${at} shows a negative balance: ${balances.join(", ")}`);
  }
  return verdictOf(problems, reads.length);
}

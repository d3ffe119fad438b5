/** Call options with their defaults. */
import type { CallOptions } from "./types.js";
import { checkTimeout } from "./url.js";

export function termsOf(
  options: CallOptions | undefined,
  defaultTimeoutMs: number,
): { readonly timeoutMs: number; readonly signal: AbortSignal | undefined } {
  if (options === undefined) return { timeoutMs: defaultTimeoutMs, signal: undefined };
  const timeoutMs = options.timeoutMs === undefined ? defaultTimeoutMs : checkTimeout(options.timeoutMs);
  return { timeoutMs, signal: options.signal };
}

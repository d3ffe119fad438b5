/** Call options with their defaults. */
import { isPlainObject } from "./bind.js";
import type { Args, CallOptions } from "./types.js";
import { checkTimeout } from "./url.js";

export function termsOf(
  options: CallOptions | undefined,
  defaultTimeoutMs: number,
): { readonly timeoutMs: number; readonly signal: AbortSignal | undefined } {
  if (options === undefined) return { timeoutMs: defaultTimeoutMs, signal: undefined };
  const timeoutMs = options.timeoutMs === undefined ? defaultTimeoutMs : checkTimeout(options.timeoutMs);
  const { signal } = options;
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new TypeError("signal must be an AbortSignal");
  return { timeoutMs, signal };
}

/**
 * Options may come second where the statement is an object, which has its arguments itself. Named arguments are not
 * called `signal` and `timeoutMs` only.
 */
export function apart(
  statement: unknown,
  args: Args | CallOptions | undefined,
  options: CallOptions | undefined,
): readonly [args: Args | undefined, options: CallOptions | undefined] {
  const second = typeof statement === "object" && options === undefined && isPlainObject(args);
  if (second && Object.keys(args as object).every((name) => OPTIONS.has(name)))
    return [undefined, args as CallOptions];
  return [args as Args | undefined, options];
}

const OPTIONS: ReadonlySet<string> = new Set(["signal", "timeoutMs"]);

import { FatalError } from "./errors.js";

/** A broken invariant stops the node with its reason; assertions stay on in production. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new FatalError("OSTRAKA_INVARIANT", message);
}

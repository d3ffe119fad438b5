import { FatalError } from "./errors.js";

/** A broken invariant stops the node with its reason; assertions stay on in production. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new FatalError("OSTRAKA_INVARIANT", message);
}

/** For `switch` statements that must be exhaustive. */
export function unreachable(value: never): never {
  throw new FatalError("OSTRAKA_INVARIANT", `unreachable: ${JSON.stringify(value)}`);
}

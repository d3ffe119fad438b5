import type { ScratchLoad, SourceLoad } from "../../../src/machines/range/types.js";

/** What is wanted of one source. */
export function loadsOf(source: number, ...loads: ScratchLoad[]): SourceLoad[] {
  return loads.map((load) => ({ source, load }));
}

/** Which file a connection has open, when the path may be given to another meanwhile. */
import { statSync } from "node:fs";
import type { RangeConnection } from "../connection.js";

/** Device and inode. */
export function identity(path: string): string {
  const { dev, ino } = statSync(path, { bigint: true });
  return `${dev}:${ino}`;
}

export function openIdentified(
  path: string,
  open: () => RangeConnection,
): { readonly next: RangeConnection; readonly file: string } {
  for (;;) {
    const file = identity(path);
    const next = open();
    if (identity(path) === file) return { next, file };
    next.close();
  }
}

/** Which file a connection has open, when the path may be given to another meanwhile. */
import { statSync } from "node:fs";
import type { RangeConnection } from "../connection.js";

/** Device and inode. Throws ENOENT where there is no file. */
export function identity(path: string): string {
  const { dev, ino } = statSync(path, { bigint: true });
  return `${dev}:${ino}`;
}

/** What has been opened is of the file answered, with its log; throws ENOENT where that is gone. */
export function openIdentified(
  path: string,
  open: () => RangeConnection,
): { readonly next: RangeConnection; readonly file: string } {
  for (;;) {
    const file = identity(path);
    let next: RangeConnection;
    try {
      next = open();
    } catch (error) {
      // SQLite has many names for a file that goes while it is opened.
      if (identity(path) === file) throw error;
      continue;
    }
    let still = false;
    try {
      still = identity(path) === file;
    } finally {
      if (!still) next.close();
    }
    if (still) return { next, file };
  }
}

/** Which file a connection has open, when the path may be given to another meanwhile. */
import { statSync } from "node:fs";
import type { RangeConnection } from "../connection.js";

/** Device and inode. Throws ENOENT where there is no file. */
export function identity(path: string): string {
  const { dev, ino } = statSync(path, { bigint: true });
  return `${dev}:${ino}`;
}

/** Whether the path still names the file that had this identity. */
export function isStill(path: string, file: string): boolean {
  try {
    return identity(path) === file;
  } catch {
    return false;
  }
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
      if (isStill(path, file)) throw error;
      continue;
    }
    if (isStill(path, file)) return { next, file };
    next.close();
  }
}

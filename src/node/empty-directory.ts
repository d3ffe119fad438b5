/** A directory with nothing in it. */
import { join } from "node:path";
import type { Disk } from "../base/io.js";

/** Makes it, or removes what is in it: for good, once this resolves. */
export async function emptyDirectory(disk: Disk, directory: string): Promise<void> {
  await disk.makeDirectory(directory);
  for (const name of await disk.list(directory)) await disk.remove(join(directory, name));
  await disk.syncDirectory(directory);
}

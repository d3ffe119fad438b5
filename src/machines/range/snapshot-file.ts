/** A snapshot of a range is a copy of its SQLite file; whoever streams it reads the copy directly. */
import type { LogIndex } from "../../base/ids.js";
import type { MachineSnapshot } from "../../multiraft/types.js";
import { diskTrouble, type FileWork, removeDatabase } from "./files.js";

export async function snapshotOfCopy(
  path: string,
  appliedIndex: LogIndex,
  files: FileWork,
): Promise<MachineSnapshot> {
  try {
    const file = await files.openForReading(path);
    return {
      appliedIndex,
      bytes: file.bytes,
      read: (offset, length) => file.read(offset, length),
      release: async () => {
        await file.close();
        await removeDatabase(path, files);
      },
    };
  } catch (error) {
    throw diskTrouble(error);
  }
}

/** A snapshot of a range is a copy of its SQLite file; whoever streams it reads the copy directly. */
import { open } from "node:fs/promises";
import type { LogIndex } from "../../base/ids.js";
import type { MachineSnapshot } from "../../multiraft/types.js";
import { diskTrouble, removeDatabase } from "./files.js";

export async function snapshotOfCopy(path: string, appliedIndex: LogIndex): Promise<MachineSnapshot> {
  try {
    const file = await open(path, "r");
    const { size } = await file.stat();
    return {
      appliedIndex,
      bytes: size,
      read: async (offset, length) => {
        const buffer = new Uint8Array(Math.max(0, Math.min(length, size - offset)));
        let filled = 0;
        while (filled < buffer.length) {
          const { bytesRead } = await file.read(buffer, filled, buffer.length - filled, offset + filled);
          if (bytesRead === 0) break;
          filled += bytesRead;
        }
        return buffer.subarray(0, filled);
      },
      release: async () => {
        await file.close();
        await removeDatabase(path);
      },
    };
  } catch (error) {
    throw diskTrouble(error);
  }
}

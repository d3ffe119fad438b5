/** Where there is no room for another process: as spawn tells of it. */
import { EventEmitter } from "node:events";
import { expect, it, vi } from "vitest";
import { createRunnerPool } from "../../../src/machines/range/runner/pool.js";
import { systemClock } from "../../../src/rpc/system.js";

const spawn = vi.hoisted(() => vi.fn());
vi.mock("node:child_process", () => ({ spawn }));

it.each([
  [
    "without pipes, and an error that comes later",
    () => {
      const child = Object.assign(new EventEmitter(), { kill: () => false, stdio: undefined });
      process.nextTick(() =>
        child.emit("error", Object.assign(new Error("spawn EMFILE"), { code: "EMFILE" })),
      );
      return child;
    },
  ],
  [
    "by throwing",
    () => {
      throw Object.assign(new Error("spawn ENOMEM"), { code: "ENOMEM" });
    },
  ],
])("whoever needs one is told, and others that wait: %s", async (_, fails) => {
  spawn.mockReset().mockImplementation(fails);
  const pool = createRunnerPool({ clock: systemClock, size: 1, warm: 0 });
  try {
    const first = await pool.acquire();
    const waiting = pool.acquire();
    await expect(first.pin("/none")).rejects.toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
    expect(first.dead).toBe(true);
    await expect((await waiting).pin("/none")).rejects.toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
    expect(spawn).toHaveBeenCalledTimes(2);
  } finally {
    await pool.close();
  }
});

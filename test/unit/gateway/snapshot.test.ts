/** A snapshot counts only if every fence stood until all ranges were pinned. */
import { expect, it } from "vitest";
import { groupId, logIndex, term } from "../../../src/base/ids.js";
import { encodeKey } from "../../../src/base/keys.js";
import type { GatewayDatabase } from "../../../src/gateway/database.js";
import type { Deadline } from "../../../src/gateway/deadline.js";
import { takeSnapshot } from "../../../src/gateway/snapshot.js";
import type { Wanted } from "../../../src/gateway/sources.js";
import type { Runner } from "../../../src/machines/range/types.js";
import type { RangeDescriptor } from "../../../src/placement/descriptor.js";

const LEFT: RangeDescriptor = {
  range: groupId(3),
  start: "",
  end: encodeKey(1, [10n]),
  generation: 2,
  replicas: [],
};
const RIGHT: RangeDescriptor = { ...LEFT, range: groupId(4), start: LEFT.end, end: "" };

/** `stood`: what the releases of each range answer, one attempt after the other. */
function databaseOf(stood: ReadonlyMap<number, readonly boolean[]>) {
  const released: string[] = [];
  let closed = 0;
  let attempts = 0;
  const client = (range: number) => ({
    fence: async () => ({ index: logIndex(7), term: term(2), wallMs: range, schemaVersion: 1 }),
    release: async (id: string) => {
      released.push(`${range} ${id}`);
      return stood.get(range)![attempts - 1] ?? true;
    },
  });
  const db = {
    persist: async <T>(_: unknown, attempt: (tries: number) => Promise<T>): Promise<T> => {
      for (;;) {
        try {
          return await attempt(attempts++);
        } catch (error) {
          if ((error as { code?: string }).code !== "OSTRAKA_UNAVAILABLE" || attempts > 5) throw error;
        }
      }
    },
    random: { bytes: (count: number) => new Uint8Array(count).fill(attempts) },
    ranges: {
      schema: () => ({ snapshot: { version: 1, tables: [] } }),
      directory: () => ({ ranges: [LEFT, RIGHT] }),
    },
    client,
    replica: () => undefined,
    sources: {
      open: async (wanted: readonly Wanted[]) =>
        new Map(
          wanted.map(({ descriptor }) => [
            descriptor.range,
            { appliedIndex: logIndex(7), close: () => closed++ },
          ]),
        ),
    },
  };
  const runner = { dead: false, dropSources: async () => undefined } as unknown as Runner;
  const options = { spans: [], everywhere: true };
  return {
    take: () => takeSnapshot(db as unknown as GatewayDatabase, runner, options, {} as Deadline),
    released,
    attempts: () => attempts,
    closed: () => closed,
  };
}

it("is what all ranges were at one moment", async () => {
  const database = databaseOf(
    new Map([
      [3, [true]],
      [4, [true]],
    ]),
  );
  const { pins, wallMs } = await database.take();
  expect([...pins.keys()]).toEqual([3, 4]);
  expect(wallMs).toBe(4);
  expect(database.attempts()).toBe(1);
});

it("is taken anew when one of the fences fell, and what was pinned is let go", async () => {
  const database = databaseOf(
    new Map([
      [3, [true, false]],
      [4, [false, true]],
    ]),
  );
  const { pins } = await database.take();
  expect([...pins.keys()]).toEqual([3, 4]);
  expect(database.attempts()).toBe(3);
  expect(database.closed()).toBe(4);
  // Each attempt's fences are its own.
  expect(new Set(database.released).size).toBe(6);
});

/** A snapshot counts only if every fence stood until all ranges were pinned. */
import { expect, it } from "vitest";
import { RetryError } from "../../../src/base/errors.js";
import { groupId, logIndex, term } from "../../../src/base/ids.js";
import { encodeKey } from "../../../src/base/keys.js";
import type { GatewayDatabase } from "../../../src/gateway/database.js";
import { Deadline } from "../../../src/gateway/deadline.js";
import { takeSnapshot } from "../../../src/gateway/snapshot.js";
import type { Wanted } from "../../../src/gateway/sources.js";
import type { Runner } from "../../../src/machines/range/types.js";
import type { RangeDescriptor } from "../../../src/placement/descriptor.js";
import { ManualClock } from "../../sim/manual-clock.js";

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
    clock: new ManualClock(),
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

/** The left range lies on this node, whose directory is as old as `known`. */
it("counts only where the pinned range is what it was thought to be", async () => {
  let generation = LEFT.generation;
  let known = LEFT;
  const dropped: number[] = [];
  const store = {
    path: "left",
    appliedIndex: () => logIndex(7),
    state: () => ({ descriptor: { generation } }),
  };
  let tries = 0;
  const db = {
    clock: new ManualClock(),
    persist: async <T>(_: unknown, attempt: (tries: number) => Promise<T>): Promise<T> => {
      const first = attempt(tries++);
      await expect(first).rejects.toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
      known = { ...LEFT, generation };
      return attempt(tries++);
    },
    random: { bytes: (count: number) => new Uint8Array(count) },
    ranges: {
      schema: () => ({ snapshot: { version: 1, tables: [] } }),
      directory: () => ({ ranges: [known] }),
    },
    client: () => ({
      fence: async () => ({ index: logIndex(7), term: term(2), wallMs: 1, schemaVersion: 1 }),
      release: async () => true,
    }),
    replica: () => ({ store }),
  };
  const runner = {
    dead: false,
    addSource: async () => {
      // Its split was applied just before.
      generation = LEFT.generation + 1;
      return { source: 1, appliedIndex: logIndex(7) };
    },
    dropSources: async () => void dropped.push(tries),
  } as unknown as Runner;
  const options = { spans: [], everywhere: true };
  const { pins } = await takeSnapshot(db as unknown as GatewayDatabase, runner, options, {} as Deadline);
  expect(pins.get(LEFT.range)).toMatchObject({ descriptor: { generation: LEFT.generation + 1 } });
  expect(dropped).toEqual([1]);
});

it("is not tried again in a process that has died", async () => {
  const clock = new ManualClock();
  const deadline = new Deadline(clock, undefined, 20_000, { signal: undefined });
  let tries = 0;
  const store = { path: "left", appliedIndex: () => logIndex(7), state: () => ({ descriptor: LEFT }) };
  const db = {
    clock: new ManualClock(),
    persist: <T>(_: unknown, attempt: (tries: number) => Promise<T>): Promise<T> => deadline.persist(attempt),
    random: { bytes: (count: number) => new Uint8Array(count) },
    ranges: {
      schema: () => ({ snapshot: { version: 1, tables: [] } }),
      directory: () => ({ ranges: [LEFT] }),
    },
    client: () => ({
      fence: async () => ({ index: logIndex(7), term: term(2), wallMs: 1, schemaVersion: 1 }),
      release: async () => true,
    }),
    replica: () => ({ store }),
  };
  const runner = {
    dead: false,
    kill: () => {},
    addSource: async () => {
      tries++;
      runner.dead = true;
      throw new RetryError("OSTRAKA_UNAVAILABLE", "the process has ended");
    },
  };
  const options = { spans: [], everywhere: true };
  const taken = takeSnapshot(
    db as unknown as GatewayDatabase,
    runner as unknown as Runner,
    options,
    deadline,
  );
  await expect(taken).rejects.toMatchObject({
    code: "OSTRAKA_UNAVAILABLE",
    message: "the process has ended",
  });
  expect(tries).toBe(1);
});

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

it("shows no write that was let in after one of the fences, and every one before", async () => {
  // Each range counts its writes; as soon as a fence has ended, the next one is applied.
  const counts = new Map([
    [3, 7],
    [4, 7],
  ]);
  const write = (range: number) => counts.set(range, counts.get(range)! + 1);
  // Of this range the node's own replica lags behind.
  let applied = 6;
  const pinned: number[] = [];
  const store = {
    path: "left",
    appliedIndex: () => logIndex(applied),
    state: () => ({ descriptor: LEFT }),
  };
  const waitApplied = async (index: number) => {
    applied = index;
  };
  const db = {
    clock: new ManualClock(),
    persist: <T>(_: unknown, attempt: (tries: number) => Promise<T>): Promise<T> => attempt(0),
    random: { bytes: (count: number) => new Uint8Array(count) },
    ranges: {
      schema: () => ({ snapshot: { version: 1, tables: [] } }),
      directory: () => ({ ranges: [LEFT, RIGHT] }),
    },
    client: (range: number) => ({
      fence: async () => ({
        index: logIndex(counts.get(range)!),
        term: term(2),
        wallMs: 1,
        schemaVersion: 1,
      }),
      release: async () => {
        write(range);
        applied = counts.get(3)!;
        return true;
      },
    }),
    replica: (range: number) =>
      range === 3 ? { store, clock: db.clock, handle: { waitApplied } } : undefined,
    sources: {
      open: async ([wanted]: readonly Wanted[]) => {
        pinned.push(counts.get(4)!);
        const source = { appliedIndex: logIndex(counts.get(4)!), close: () => undefined };
        return new Map([[wanted!.descriptor.range, source]]);
      },
    },
  };
  const runner = {
    dead: false,
    addSource: async () => {
      pinned.push(applied);
      return { source: 1, appliedIndex: logIndex(applied) };
    },
    dropSources: async () => undefined,
  } as unknown as Runner;
  const deadline = new Deadline(db.clock, undefined, 1_000, { signal: undefined });
  const options = { spans: [], everywhere: true };
  const { pins } = await takeSnapshot(db as unknown as GatewayDatabase, runner, options, deadline);
  expect(pinned).toEqual([7, 7]);
  expect([...pins.values()].map(({ index }) => index)).toEqual([7, 7]);
});

it("is of the schema by which the statement was analysed, in every range", async () => {
  let known = 1;
  const told: number[] = [];
  const db = {
    clock: new ManualClock(),
    persist: async <T>(_: unknown, attempt: (tries: number) => Promise<T>): Promise<T> => {
      const first = attempt(0);
      await expect(first).rejects.toMatchObject({ code: "OSTRAKA_UNAVAILABLE" });
      return attempt(1);
    },
    random: { bytes: (count: number) => new Uint8Array(count) },
    ranges: {
      schema: () => ({ snapshot: { version: known, tables: [] } }),
      directory: () => ({ ranges: [LEFT, RIGHT] }),
      refreshSchema: async () => {
        known = 2;
      },
    },
    client: (range: number) => ({
      // The change has come to the left one already.
      fence: async () => ({
        index: logIndex(7),
        term: term(2),
        wallMs: 1,
        schemaVersion: range === 3 ? 2 : known,
      }),
      release: async () => true,
    }),
    replica: () => undefined,
    sources: {
      open: async (wanted: readonly Wanted[]) => {
        told.push(known);
        const source = { appliedIndex: logIndex(7), close: () => undefined };
        return new Map(wanted.map(({ descriptor }) => [descriptor.range, source]));
      },
    },
  };
  const runner = { dead: false, dropSources: async () => undefined } as unknown as Runner;
  const options = { spans: [], everywhere: true };
  const { schema } = await takeSnapshot(db as unknown as GatewayDatabase, runner, options, {} as Deadline);
  expect(schema.version).toBe(2);
  expect(told).toEqual([2]);
});

/** Steps that `stall` names never end until `goOn`; both ranges lie here and elsewhere. */
function stalling(stall: "fence" | "addSource" | "release") {
  const clock = new ManualClock();
  let goOn!: () => void;
  const gone = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  const step = async <T>(name: typeof stall, answer: T): Promise<T> => {
    if (name === stall) await gone;
    return answer;
  };
  const asked: string[] = [];
  let closed = 0;
  const store = {
    path: "left",
    appliedIndex: () => logIndex(7),
    state: () => ({ descriptor: LEFT }),
  };
  const runner = {
    dead: false,
    addSource: () => {
      asked.push("addSource");
      return step("addSource", { source: 0, appliedIndex: logIndex(7) });
    },
    dropSources: async () => void asked.push("dropSources"),
    kill: () => {
      asked.push("kill");
      runner.dead = true;
    },
  };
  const db = {
    clock: new ManualClock(),
    persist: <T>(of: Deadline, ...rest: [() => Promise<T>, undefined, (value: T) => void]) =>
      of.persist(...rest),
    random: { bytes: (count: number) => new Uint8Array(count) },
    ranges: {
      schema: () => ({ snapshot: { version: 1, tables: [] } }),
      directory: () => ({ ranges: [LEFT, RIGHT] }),
    },
    client: () => ({
      fence: () => step("fence", { index: logIndex(7), term: term(2), wallMs: 1, schemaVersion: 1 }),
      release: () => step("release", true),
    }),
    replica: (range: number) => (range === 3 ? { store } : undefined),
    sources: {
      open: async ([wanted]: readonly Wanted[]) =>
        new Map([[wanted!.descriptor.range, { appliedIndex: logIndex(7), close: () => closed++ }]]),
    },
  };
  const deadline = new Deadline(clock, 100, 10_000, { signal: undefined });
  const taken = takeSnapshot(
    db as unknown as GatewayDatabase,
    runner as unknown as Runner,
    { spans: [], everywhere: true },
    deadline,
  );
  return { taken, clock, goOn: () => goOn(), asked, closed: () => closed };
}

it.each([
  ["fence", []],
  ["addSource", ["addSource", "kill"]],
  ["release", ["addSource", "kill"]],
] as const)("that is stopped in the middle of %s does nothing more to the process", async (step, done) => {
  const { taken, clock, goOn, asked, closed } = stalling(step);
  const failed = expect(taken).rejects.toMatchObject({ code: "OSTRAKA_TIMEOUT" });
  await clock.advance(100);
  await failed;
  expect(asked).toEqual(done);
  goOn();
  await clock.advance(100);
  expect(asked).toEqual(done);
  expect(closed()).toBe(step === "fence" ? 0 : 1);
});

it("asks for calm once it has been tried for long", async () => {
  const clock = new ManualClock();
  const asked: number[] = [];
  const db = {
    clock,
    persist: async <T>(_: unknown, attempt: (tries: number) => Promise<T>): Promise<T> => {
      for (let tries = 0; ; tries++) {
        const taken = await attempt(tries).catch(() => undefined);
        if (taken !== undefined) return taken;
        await clock.advance(400);
      }
    },
    random: { bytes: (count: number) => new Uint8Array(count) },
    ranges: {
      schema: () => ({ snapshot: { version: 1, tables: [] } }),
      directory: () => ({ ranges: [LEFT, RIGHT] }),
      calm: (ms: number) => void asked.push(ms),
    },
    client: () => ({
      fence: async () => {
        if (asked.length < 2) throw new RetryError("OSTRAKA_UNAVAILABLE", "the range has changed");
        return { index: logIndex(7), term: term(2), wallMs: 1, schemaVersion: 1 };
      },
      release: async () => true,
    }),
    replica: () => undefined,
    sources: { open: async () => new Map() },
  };
  const runner = { dead: false, dropSources: async () => undefined } as unknown as Runner;
  const options = { spans: [], everywhere: true };
  await takeSnapshot(db as unknown as GatewayDatabase, runner, options, {} as Deadline);
  expect(asked).toEqual([1600, 2400]);
});

import { describe, expect, it } from "vitest";
import { FatalError } from "../../../src/base/errors.js";
import { type LogIndex, logIndex, term } from "../../../src/base/ids.js";
import { Applier, type ApplierLimits } from "../../../src/multiraft/applier.js";
import type { GroupMachine } from "../../../src/multiraft/types.js";
import { type Entry, EntryKind, type LogReader, type SnapshotMeta } from "../../../src/raft/types.js";
import { settle } from "../../sim/manual-clock.js";

const CONF = { voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };

function entry(index: number, size = 10, kind: Entry["kind"] = EntryKind.Normal): Entry {
  return { index: logIndex(index), term: term(1), kind, data: new Uint8Array(size) };
}

const LIMITS: ApplierLimits = {
  maxApplyBytes: 100,
  maxApplyCalls: 2,
  lazyEntries: 3,
  lazyBytes: 100,
  maxReadyBytes: 50,
};

/** A machine whose calls finish when told to, and a log that counts what is read back from it. */
class Fixture {
  readonly stored: Entry[] = [];
  readonly calls: { indexes: number[]; upTo: number; finish(): void; fail(error: Error): void }[] = [];
  readonly applied: number[] = [];
  readonly results = new Map<number, number>();
  failure: unknown;
  blocked: { readonly reason: string; readonly diskFull: boolean; retry(): void } | undefined;
  readBack = 0;
  readonly applier: Applier;

  constructor(limits: Partial<ApplierLimits> = {}) {
    const machine: Partial<GroupMachine> = {
      apply: (entries, upTo) =>
        new Promise((resolve, reject) => {
          const finish = (): void => resolve(entries.map(({ index }) => Uint8Array.of(index)));
          this.calls.push({ indexes: entries.map(({ index }) => index), upTo, finish, fail: reject });
        }),
      restore: (file) =>
        new Promise((resolve, reject) => {
          const finish = (): void => resolve(logIndex(Number(file)));
          this.calls.push({ indexes: [], upTo: -1, finish, fail: reject });
        }),
    };
    const log: Partial<LogReader> = {
      term: () => term(1),
      entries: (low, high, maxBytes) => {
        this.readBack++;
        const result: Entry[] = [];
        let bytes = 0;
        for (let index: number = low; index < high; index++) {
          const found = this.stored[index - 1] as Entry;
          bytes += found.data.length;
          if (result.length > 0 && bytes > maxBytes) break;
          result.push(found);
        }
        return result;
      },
    };
    this.applier = new Applier(
      machine as GroupMachine,
      log as LogReader,
      logIndex(0),
      { ...LIMITS, ...limits },
      {
        applied: (entries, results, upTo) => {
          for (const { index } of entries) this.applied.push(index);
          for (const [index, result] of results) this.results.set(index, result[0] as number);
          expect(entries[entries.length - 1]?.index).toBe(upTo);
        },
        restored: (meta) => this.applied.push(-meta.index),
        failed: (error) => {
          this.failure = error;
        },
        blocked: (reason, retry, diskFull) => {
          this.blocked = { reason, retry, diskFull };
        },
        unblocked: () => {
          this.blocked = undefined;
        },
      },
    );
  }

  push(entries: readonly Entry[]): void {
    this.stored.push(...entries);
    this.applier.push(entries);
  }

  async drain(): Promise<void> {
    for (let next = this.calls.shift(); next !== undefined; next = this.calls.shift()) {
      next.finish();
      await settle();
    }
  }
}

describe("applying", () => {
  it("is in order and bounded, and reads back from the log what did not fit in memory", async () => {
    const f = new Fixture();
    for (let from = 1; from <= 100; from += 10) f.push(Array.from({ length: 10 }, (_, i) => entry(from + i)));
    expect(f.calls.length).toBeLessThanOrEqual(2);
    await f.drain();
    expect(f.applied).toEqual(Array.from({ length: 100 }, (_, i) => i + 1));
    expect(f.readBack).toBeGreaterThan(0);
    expect(f.applier.idle).toBe(true);
    for (let i = 1; i <= 100; i++) expect(f.results.get(i)).toBe(i);
  });

  it("puts off what may wait, until there is enough of it or somebody is in a hurry", async () => {
    const f = new Fixture();
    const patiently = (entries: readonly Entry[]): void => {
      f.stored.push(...entries);
      f.applier.push(entries, true);
    };
    patiently([entry(1)]);
    patiently([entry(2)]);
    expect(f.calls).toHaveLength(0);
    expect([f.applier.putOff, f.applier.idle]).toEqual([true, false]);
    patiently([entry(3)]);
    expect(f.calls.map(({ indexes }) => indexes)).toEqual([[1, 2, 3]]);
    await f.drain();
    patiently([entry(4)]);
    f.applier.hurry();
    expect(f.calls.map(({ indexes }) => indexes)).toEqual([[4]]);
    await f.drain();
    // What may not wait takes along what could.
    patiently([entry(5)]);
    f.push([entry(6)]);
    expect(f.calls.map(({ indexes }) => indexes)).toEqual([[5, 6]]);
    await f.drain();
    // Large ones need not be many.
    patiently([entry(7, 100)]);
    expect(f.calls.map(({ indexes }) => indexes)).toEqual([[7]]);
    await f.drain();
    expect([f.applier.putOff, f.applier.idle]).toEqual([false, true]);
    expect(f.applied).toEqual([1, 2, 3, 4, 5, 6, 7]);
  });

  it("reports completions in order whatever the machine does", async () => {
    const f = new Fixture();
    f.push([entry(1)]);
    f.push([entry(2)]);
    const [first, second] = f.calls;
    second?.finish();
    await settle();
    expect(f.applied).toEqual([]);
    first?.finish();
    await settle();
    expect(f.applied).toEqual([1, 2]);
  });

  it("leaves out what carries nothing for the machine, but tells how far it got", async () => {
    const f = new Fixture();
    f.push([entry(1, 0), entry(2, 5, EntryKind.ConfChange), entry(3)]);
    expect(f.calls[0]).toMatchObject({ indexes: [3], upTo: 3 });
    await f.drain();
    expect([...f.results.keys()]).toEqual([3]);
    expect(f.applied).toEqual([1, 2, 3]);
  });

  it("restores a snapshot only after the calls under way, and skips what it covers", async () => {
    const f = new Fixture({ maxApplyBytes: 1000, maxApplyCalls: 1, maxReadyBytes: 10 });
    f.push([entry(1), entry(2), entry(3)]);
    const meta: SnapshotMeta = { index: logIndex(10), term: term(2), conf: CONF };
    f.applier.restore(meta, "10");
    f.applier.push([entry(11)]);
    expect(f.calls).toHaveLength(1);
    f.calls.shift()?.finish();
    await settle();
    expect(f.calls).toHaveLength(1);
    expect(f.calls[0]?.upTo).toBe(-1);
    await f.drain();
    expect(f.applied).toEqual([1, -10, 11]);
  });

  it("stops at a failure", async () => {
    const f = new Fixture({ maxApplyBytes: 1000, maxApplyCalls: 1, maxReadyBytes: 10 });
    f.push([entry(1), entry(2)]);
    f.calls.shift()?.fail(new Error("disk"));
    await settle();
    expect(f.failure).toMatchObject({ message: "disk" });
    expect(f.calls).toEqual([]);
    expect(f.applier.appliedIndex).toBe(0 as LogIndex);
  });

  it("waits while the disk is full, then hands over again all from the first that was not applied", async () => {
    const f = new Fixture({ maxApplyBytes: 1000, maxApplyCalls: 2, maxReadyBytes: 10 });
    const full = new FatalError("OSTRAKA_DISK_FULL", "no space");
    f.push([entry(1), entry(2), entry(3)]);
    f.calls.shift()!.fail(full);
    await settle();
    expect(f.blocked).toBeUndefined();
    f.calls.shift()!.fail(full);
    await settle();
    expect(f.blocked?.reason).toBe("no space");
    f.push([entry(4)]);
    expect(f.calls).toEqual([]);
    f.blocked!.retry();
    expect(f.calls.map(({ indexes }) => indexes)).toEqual([[1], [2]]);
    await f.drain();
    expect(f.applied).toEqual([1, 2, 3, 4]);
    expect([f.blocked, f.failure]).toEqual([undefined, undefined]);
  });

  it("waits for another machine without calling the disk full", async () => {
    const f = new Fixture();
    f.push([entry(1)]);
    f.calls.shift()!.fail(new FatalError("OSTRAKA_TOO_EARLY", "the other one is behind"));
    await settle();
    expect(f.blocked).toMatchObject({ reason: "the other one is behind", diskFull: false });
    f.blocked!.retry();
    await f.drain();
    expect([f.applied, f.blocked, f.failure]).toEqual([[1], undefined, undefined]);
  });

  it("tries a snapshot again that had no room", async () => {
    const f = new Fixture();
    f.applier.restore({ index: logIndex(10), term: term(2), conf: CONF }, "10");
    f.calls.shift()!.fail(new FatalError("OSTRAKA_DISK_FULL", "no space"));
    await settle();
    f.blocked!.retry();
    await f.drain();
    expect([f.applied, f.blocked, f.failure]).toEqual([[-10], undefined, undefined]);
  });

  it("takes a gap for a broken invariant", () => {
    const f = new Fixture();
    f.push([entry(1)]);
    expect(() => f.applier.push([entry(3)])).toThrow(/committed entry 3 after 1/);
  });
});

import { describe, expect, it } from "vitest";
import { transactionId } from "../../../src/base/ids.js";
import type { Span } from "../../../src/sql/types.js";
import { Reservations } from "../../../src/txn/reservations.js";
import { anyIntersect } from "../../../src/txn/spans.js";

const at = (low: number, high = low): Span[] => [{ table: "t", low: BigInt(low), high: BigInt(high) }];
const [a, b, c] = ["a", "b", "c"].map(transactionId) as [
  ReturnType<typeof transactionId>,
  ReturnType<typeof transactionId>,
  ReturnType<typeof transactionId>,
];
const none = { reservations: [], waiters: [] };

describe("reservations", () => {
  it("are granted at once where nothing is in the way, else oldest first", () => {
    const line = new Reservations(100);
    expect(line.reserve(a, at(1), 30, 50).reservations).toEqual([a]);
    expect(line.reserve(b, at(1, 5), 20, 50)).toEqual(none);
    expect(line.reserve(c, at(5), 10, 50).reservations).toEqual([c]);
    expect(line.release(a, 60)).toEqual(none);
    expect(line.release(c, 60).reservations).toEqual([b]);
    expect(line.isGranted(b)).toBe(true);
  });

  it("do not let a younger one pass an older that waits", () => {
    const line = new Reservations(100);
    line.reserve(a, at(1), 10, 50);
    line.reserve(b, at(1, 5), 20, 50);
    expect(line.reserve(c, at(5), 30, 50)).toEqual(none);
    expect(line.release(b, 51).reservations).toEqual([c]);
  });

  it("expire unless renewed, and then hold up nobody", () => {
    const line = new Reservations(100);
    line.reserve(a, at(1), 0, 0);
    line.reserve(b, at(1), 1, 1);
    expect(line.renew(a, 90)).toBe(true);
    expect(line.nextExpiryMs()).toBe(190);
    expect(line.advance(189)).toEqual(none);
    expect(line.advance(190).reservations).toEqual([b]);
    expect(line.renew(a, 191)).toBe(false);
  });

  it("are made anew by who comes back after they have expired", () => {
    const line = new Reservations(100);
    line.reserve(a, at(1), 0, 0);
    expect(line.reserve(a, at(1, 5), 0, 200).reservations).toEqual([a]);
    expect(line.isGranted(a)).toBe(true);
    expect(line.more(a, at(2), 0, 400).reservations).toEqual([a]);
    expect(line.isGranted(a)).toBe(true);
  });

  it("keep others waiting in the order in which they came, the holder not", () => {
    const line = new Reservations(100);
    line.reserve(a, at(1), 0, 0);
    expect(line.wait(at(2), undefined)).toBeUndefined();
    expect(line.wait(at(1), a)).toBeUndefined();
    const first = line.wait(at(1, 3), b)!;
    // Not reserved itself, but an older wait stands before it.
    const second = line.wait(at(3), undefined)!;
    const gone = line.wait(at(1), undefined)!;
    expect(line.cancel(gone, 2)).toEqual(none);
    expect(line.release(a, 3).waiters).toEqual([first, second]);
    expect(line.wait(at(1, 3), undefined)).toBeUndefined();
  });

  it("grow as their transaction goes, at the age that it has", () => {
    const line = new Reservations(100);
    expect(line.more(a, at(1), 10, 50).reservations).toEqual([a]);
    // Nothing that it has not.
    expect(line.more(a, at(1), 90, 51)).toEqual(none);
    expect(line.size).toBe(1);
    expect(line.more(b, at(2, 3), 20, 51).reservations).toEqual([b]);
    expect(line.more(a, [...at(1), ...at(3)], 90, 52)).toEqual(none);
    expect(line.isGranted(a)).toBe(false);
    // It came later, but is younger.
    expect(line.more(c, at(3, 4), 15, 53)).toEqual(none);
    // What it has keeps others waiting meanwhile, and it does not wait for itself.
    expect(line.wait(at(1), undefined)).toBeDefined();
    expect(line.wait(at(1), a)).toBeUndefined();
    expect(line.release(b, 54).reservations).toEqual([a]);
    expect(line.isGranted(a)).toBe(true);
    expect(line.renew(a, 60)).toBe(true);
    expect(line.advance(159)).toEqual({ reservations: [], waiters: [] });
    const { reservations, waiters } = line.release(a, 159);
    expect(reservations).toEqual([c]);
    expect(waiters.length).toBe(1);
  });

  it("that two hold and want crosswise are given up, and then stand in nobody's way", () => {
    const line = new Reservations(100);
    line.more(a, at(1), 0, 0);
    line.more(b, at(2), 1, 1);
    expect(line.more(a, at(2), 0, 2)).toEqual(none);
    expect(line.more(b, at(1), 1, 2)).toEqual(none);
    expect(line.more(c, at(2), 3, 3)).toEqual(none);
    expect(line.giveUp(a, 4)).toEqual(none);
    expect(line.isGranted(a)).toBe(true);
    expect(line.release(a, 5).reservations).toEqual([b]);
    expect(line.release(b, 6).reservations).toEqual([c]);
  });

  it("never overlap, always move on, and grant everybody in the end (random)", () => {
    let state = 42;
    const below = (n: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state >>> 8) % n;
    };
    for (let run = 0; run < 500; run++) {
      const line = new Reservations(10);
      const spans = new Map<string, Span[]>();
      const waiting = new Set<number>();
      const granted = new Set<string>();
      let now = 0;
      const took = (step: { reservations: readonly string[]; waiters: readonly number[] }): void => {
        for (const id of step.reservations) granted.add(id);
        for (const ticket of step.waiters) expect(waiting.delete(ticket)).toBe(true);
      };
      for (let step = 0; step < 40; step++) {
        now += below(4);
        const low = below(5);
        const choice = below(4);
        if (choice === 0) {
          const id = transactionId(`t${spans.size}`);
          spans.set(id, at(low, low + below(3)));
          const how = below(2) === 0 ? line.reserve.bind(line) : line.more.bind(line);
          took(how(id, spans.get(id)!, now - below(20), now));
        } else if (choice === 3 && spans.size > 0 && below(2) === 0) {
          const [name, had] = [...spans][below(spans.size)]!;
          const id = transactionId(name);
          const wanted = at(low, low + below(2));
          // What has expired, or was given up, is not had any more.
          if (!line.isGranted(id) || !line.renew(id, now)) continue;
          took(line.more(id, wanted, now, now));
          if (line.isGranted(id)) spans.set(name, [...had, ...wanted]);
          else took(line.giveUp(id, now));
        } else if (choice === 1 && spans.size > 0)
          took(line.release(transactionId(`t${below(spans.size)}`), now));
        else if (choice === 2) {
          const ticket = line.wait(at(low), undefined);
          if (ticket !== undefined) waiting.add(ticket);
        } else took(line.advance(now));
        const holders = [...spans].filter(([id]) => line.isGranted(transactionId(id)));
        for (const [i, [, mine]] of holders.entries())
          for (const [, other] of holders.slice(i + 1)) expect(anyIntersect(mine, other)).toBe(false);
      }
      for (let end = 0; line.size > 0; end++) {
        expect(end).toBeLessThan(100);
        now = Math.max(now, line.nextExpiryMs() ?? Number.NaN);
        took(line.advance(now));
      }
      expect(waiting.size).toBe(0);
      expect(granted.size).toBeGreaterThanOrEqual(spans.size > 0 ? 1 : 0);
    }
  });
});

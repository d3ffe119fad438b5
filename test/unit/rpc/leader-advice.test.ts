import { expect, it } from "vitest";
import type { Gateway } from "../../../src/rpc/gateway.js";
import { LeaderAdvice } from "../../../src/rpc/leader-advice.js";

function advised({ leader = 2 as number | undefined } = {}) {
  let nowMs = 0;
  const clock = { monotonicMs: () => nowMs } as ConstructorParameters<typeof LeaderAdvice>[0];
  const gateway = { mainLeader: () => leader } as unknown as Gateway;
  const advice = new LeaderAdvice(clock, gateway, 1);
  return {
    /** What the client is told in so many answers, of which one in `readsIn` is a read. */
    answers(number: number, readsIn = Number.POSITIVE_INFINITY): (number | undefined)[] {
      const told: (number | undefined)[] = [];
      for (let i = 1; i <= number; i++) {
        const node = advice.answered(i % readsIn !== 0);
        if (node !== undefined) told.push(node);
      }
      return told;
    },
    pass(ms: number): void {
      nowMs += ms;
    },
    lead(node: number | undefined): void {
      leader = node;
    },
  };
}

it("names the leader once to a client that writes, again after a while, and at once when it is another", () => {
  const client = advised();
  expect(client.answers(63)).toEqual([]);
  expect(client.answers(1000)).toEqual([2]);
  client.pass(10_000);
  expect(client.answers(1000)).toEqual([2]);
  client.lead(3);
  expect(client.answers(1000)).toEqual([3]);
});

it("names nobody to a client that reads as much as it writes", () => {
  expect(advised().answers(1000, 2)).toEqual([]);
  expect(advised().answers(1000, 3)).toEqual([2]);
});

it("names nobody where this node leads, or none does", () => {
  const client = advised({ leader: 1 });
  expect(client.answers(1000)).toEqual([]);
  client.lead(undefined);
  expect(client.answers(1000)).toEqual([]);
});

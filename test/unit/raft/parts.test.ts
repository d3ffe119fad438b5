/**
 * The engine's small parts alone: quorum arithmetic against brute force, the bytes of membership changes, the
 * in-flight window.
 */
import { describe, expect, test } from "vitest";
import { type NodeId, nodeId } from "../../../src/base/ids.js";
import {
  type ConfState,
  changeConf,
  decodeConfChange,
  EMPTY_CONF,
  encodeConfChange,
} from "../../../src/raft/index.js";
import { Inflights } from "../../../src/raft/inflights.js";
import { quorumReached, quorumVote } from "../../../src/raft/quorum.js";
import { UncommittedBytes } from "../../../src/raft/uncommitted.js";
import { hasQuorum } from "./invariants.js";
import { SeededRandom } from "./random.js";

function someConf(random: SeededRandom): ConfState {
  const some = (): NodeId[] => [1, 2, 3, 4, 5, 6].filter(() => random.chance(0.5)).map(nodeId);
  const voters = some();
  return { ...EMPTY_CONF, voters: voters.length > 0 ? voters : [nodeId(1)], votersOutgoing: some() };
}

describe("quorums", () => {
  test("the index reached is the highest that a quorum has", () => {
    const random = new SeededRandom(1);
    for (let run = 0; run < 2000; run++) {
      const conf = someConf(random);
      const match = Array.from({ length: 7 }, () => random.below(6));
      const reached = quorumReached(conf, (voter) => match[voter]!);
      expect(hasQuorum(conf, (voter) => match[voter]! >= reached)).toBe(true);
      expect(hasQuorum(conf, (voter) => match[voter]! > reached)).toBe(false);
    }
  });

  test("a ballot is won, lost or open exactly as its possible ends say", () => {
    const random = new SeededRandom(2);
    for (let run = 0; run < 2000; run++) {
      const conf = someConf(random);
      const vote = Array.from({ length: 7 }, () => random.pick([true, false, undefined]));
      const ifOthersRefuse = hasQuorum(conf, (voter) => vote[voter] === true);
      const ifOthersGrant = hasQuorum(conf, (voter) => vote[voter] !== false);
      const expected = ifOthersRefuse ? "won" : ifOthersGrant ? "pending" : "lost";
      expect(quorumVote(conf, (voter) => vote[voter])).toBe(expected);
    }
  });
});

describe("membership changes", () => {
  test("come back from their bytes", () => {
    for (const change of [
      { changes: [] },
      { changes: [{ kind: "voter", node: nodeId(1) }] },
      {
        changes: [
          { kind: "remove", node: nodeId(127) },
          { kind: "learner", node: nodeId(128) },
          { kind: "voter", node: nodeId(2 ** 40 + 3) },
        ],
      },
    ] as const)
      expect(decodeConfChange(encodeConfChange(change))).toEqual(change);
  });

  test("bytes that are none are refused, not guessed at", () => {
    for (const bytes of [
      [],
      [2, 0],
      [1],
      [1, 1],
      [1, 1, 0],
      [1, 1, 3, 1],
      [1, 0, 0],
      [1, 200, 1],
      [1, 1, 0, 255, 255, 255, 255, 255, 255, 255, 255],
    ])
      expect(() => decodeConfChange(Uint8Array.from(bytes)), String(bytes)).toThrow(/cannot be read/);
  });

  test("entering and leaving always leads where the change says", () => {
    const random = new SeededRandom(3);
    for (let run = 0; run < 300; run++) {
      let conf: ConfState = { ...EMPTY_CONF, voters: [nodeId(1), nodeId(2), nodeId(3)] };
      for (let i = 0; i < 4; i++) {
        const changes = Array.from({ length: random.below(4) + 1 }, () => ({
          kind: random.pick(["voter", "learner", "remove"] as const),
          node: nodeId(1 + random.below(5)),
        }));
        const joint = changeConf(conf, { changes });
        if (joint === undefined) continue;
        expect(joint.votersOutgoing).toEqual(conf.voters);
        expect(changeConf(joint, { changes })).toBe(undefined);
        const after = changeConf(joint, { changes: [] })!;
        const last = new Map(changes.map(({ kind, node }) => [node, kind]));
        for (const [node, kind] of last) {
          expect(after.voters.includes(node)).toBe(kind === "voter");
          expect(after.learners.includes(node)).toBe(kind === "learner");
        }
        expect(after.learnersNext).toEqual([]);
        conf = after;
      }
    }
  });
});

test("the in-flight window is bounded in messages and bytes, and freed by index", () => {
  const window = new Inflights(3, 100);
  window.add(5, 40);
  window.add(7, 59);
  expect(window.full).toBe(false);
  window.add(9, 1);
  expect(window.full).toBe(true);
  window.freeTo(6);
  expect([window.count, window.bytes, window.full]).toEqual([2, 60, false]);
  window.add(12, 500);
  expect(window.full).toBe(true);
  window.freeTo(12);
  expect([window.count, window.bytes]).toEqual([0, 0]);
  for (let i = 0; i < 1000; i++) {
    window.add(13 + i, 1);
    window.freeTo(13 + i);
  }
  expect([window.count, window.bytes]).toEqual([0, 0]);
});

test("uncommitted bytes are freed as proposals commit, and one may always come in alone", () => {
  const tail = new UncommittedBytes(10);
  expect(tail.admits(1000)).toBe(true);
  tail.add(3, 1000);
  expect([tail.admits(1), tail.admits(0)]).toEqual([false, true]);
  tail.committedTo(2);
  expect(tail.admits(1)).toBe(false);
  tail.committedTo(3);
  tail.add(4, 6);
  expect([tail.admits(4), tail.admits(5)]).toEqual([true, false]);
});

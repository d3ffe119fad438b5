/** The coordinator behind bytes: codec, snapshots, restarts, and the same log in other batches. */
import { expect, it } from "vitest";
import { FatalError } from "../../../src/base/errors.js";
import { groupId, logIndex, term, transactionId } from "../../../src/base/ids.js";
import {
  decodeEntry,
  decodeImage,
  decodeResults,
  encodeEntry,
  encodeImage,
  encodeResults,
} from "../../../src/machines/coordinator/codec.js";
import { CoordinatorMachine } from "../../../src/machines/coordinator/coordinator.js";
import { MemoryMachine } from "../../../src/machines/memory-machine.js";
import { type Entry, EntryKind } from "../../../src/raft/types.js";
import {
  type CoordinatorCommand,
  type CoordinatorResult,
  CoordinatorState,
  type OutboxRow,
} from "../../../src/txn/coordinator.js";
import { MemoryDisk } from "../../sim/memory-disk.js";
import { SeededRandom } from "../../sim/seeded-random.js";

const NOW = 1_700_000_000_000;
const id = (name: string) => transactionId(`${name}@${NOW.toString(36)}`);

const COMMANDS: readonly CoordinatorCommand[] = [
  { kind: "register", transaction: id("a"), participants: [groupId(3), groupId(2 ** 40)] },
  { kind: "register", transaction: id("ä"), participants: [] },
  { kind: "decide", transaction: id("a"), decision: "committed", answer: Uint8Array.of(0, 255) },
  { kind: "decide", transaction: id("b"), decision: "committed", answer: undefined },
  { kind: "decide", transaction: id("c"), decision: "committed", answer: new Uint8Array(0) },
  { kind: "decide", transaction: id("ä"), decision: "aborted", answer: undefined },
  { kind: "acknowledge", rows: [1, 2 ** 45] },
];

const RESULTS: readonly CoordinatorResult[] = [
  { state: "registered", changed: true },
  { state: "registered", changed: false },
  { state: "committed", changed: true, answer: undefined },
  { state: "committed", changed: false, answer: Uint8Array.of(7) },
  { state: "aborted", changed: false, answer: undefined },
  { state: "unknown" },
  { state: "ahead" },
  { state: "full" },
  { state: "acknowledged", delivered: 12 },
];

/** A log in which everything happens: open, over, forgotten, with answers and without. */
function someLog(seed: number, length: number): Uint8Array[] {
  const random = new SeededRandom(seed);
  const below = (n: number): number => Math.floor(random.float() * n);
  return Array.from({ length }, (_, step) => {
    const wallMs = NOW + step * 10;
    const commands = Array.from({ length: below(4) }, (): CoordinatorCommand => {
      const transaction = transactionId(`t${below(20)}@${(NOW + below(3)).toString(36)}`);
      const participants = [3, 4, 5].slice(below(3)).map(groupId);
      const answer = below(2) === 0 ? random.bytes(below(30)) : undefined;
      switch (below(4)) {
        case 0:
          return { kind: "register", transaction, participants };
        case 1:
          return { kind: "decide", transaction, decision: "committed", answer };
        case 2:
          return { kind: "decide", transaction, decision: "aborted", answer: undefined };
        default:
          return { kind: "acknowledge", rows: Array.from({ length: below(5) }, () => below(step + 1)) };
      }
    });
    return encodeEntry({ wallMs, commands });
  });
}

const entry = (index: number, data: Uint8Array): Entry => ({
  index: logIndex(index),
  term: term(1),
  kind: EntryKind.Normal,
  data,
});

async function open(disk: MemoryDisk) {
  const coordinator = new CoordinatorMachine();
  const machine = new MemoryMachine({ machine: coordinator, disk: disk.session(), directory: "coordinator" });
  return { coordinator, machine, applied: await machine.open() };
}

it("writes and reads every command, result and state", () => {
  expect(decodeEntry(encodeEntry({ wallMs: NOW, commands: COMMANDS }))).toEqual({
    wallMs: NOW,
    commands: COMMANDS,
  });
  expect(decodeResults(encodeResults(RESULTS))).toEqual(RESULTS);
  const state = new CoordinatorState();
  state.apply(NOW, COMMANDS);
  state.apply(NOW + 1, [
    { kind: "register", transaction: id("open"), participants: [groupId(3), groupId(4)] },
    { kind: "register", transaction: id("half"), participants: [groupId(3), groupId(4)] },
    { kind: "decide", transaction: id("half"), decision: "aborted", answer: undefined },
  ]);
  state.apply(NOW + 2, [{ kind: "acknowledge", rows: [state.rows().at(-1)!.id] }]);
  const image = state.image();
  expect(image.open.map((open) => open.state)).toContain("registered");
  expect(image.answers.length).toBeGreaterThan(0);
  expect(decodeImage(encodeImage(image))).toEqual(image);
});

it("refuses bytes of another format", () => {
  const bytes = encodeEntry({ wallMs: NOW, commands: COMMANDS });
  bytes[0] = 99;
  expect(() => decodeEntry(bytes)).toThrow(FatalError);
  const unknown = encodeEntry({ wallMs: 0, commands: [{ kind: "acknowledge", rows: [] }] });
  unknown[unknown.length - 2] = 77;
  expect(() => new CoordinatorMachine().apply([{ index: 1, data: unknown }])).toThrow(FatalError);
});

it("keeps nothing of the entry's own bytes", () => {
  const machine = new CoordinatorMachine();
  const data = Buffer.from(encodeEntry({ wallMs: NOW, commands: COMMANDS }));
  machine.apply([{ index: 1, data }]);
  data.fill(0);
  expect(machine.state.decided(id("a"))?.answer).toEqual(Uint8Array.of(0, 255));
});

it("tells of the rows that an apply wrote, until nobody listens", () => {
  const machine = new CoordinatorMachine();
  const told: OutboxRow[][] = [];
  const stop = machine.onRows((rows) => told.push([...rows]));
  const apply = (name: string) =>
    machine.apply([
      {
        index: 1,
        data: encodeEntry({
          wallMs: NOW,
          commands: [
            { kind: "register", transaction: id(name), participants: [groupId(3), groupId(4)] },
            { kind: "decide", transaction: id(name), decision: "committed", answer: undefined },
          ],
        }),
      },
    ]);
  apply("a");
  stop();
  apply("b");
  expect(told.map((rows) => rows.map(({ id: row }) => row))).toEqual([[1, 2]]);
  expect(machine.state.rows()).toHaveLength(4);
});

it("comes back from its last checkpoint and the log after it, and is equal everywhere", async () => {
  for (const seed of [1, 2, 3]) {
    const log = someLog(seed, 120).map((data, n) => entry(n + 2, data));
    const disk = new MemoryDisk();
    const first = await open(disk);
    await first.machine.apply(log.slice(0, 70), logIndex(71));
    await first.machine.checkpoint();
    await first.machine.apply(log.slice(70), logIndex(121));
    disk.crash();
    const again = await open(disk);
    expect(again.applied).toBe(71);
    const results: Uint8Array[] = [];
    for (const one of log.slice(70)) results.push(...(await again.machine.apply([one], one.index)));
    const whole = new CoordinatorMachine();
    expect(results).toEqual(whole.apply(log).slice(70));
    expect((await again.machine.digest()).digest).toBe((await first.machine.digest()).digest);
    expect(again.coordinator.snapshot()).toEqual(whole.snapshot());
    // And from a snapshot, with what leads it to be asked.
    const restored = new CoordinatorMachine();
    restored.restore(whole.snapshot());
    expect(restored.snapshot()).toEqual(whole.snapshot());
    expect(restored.state.rows()).toEqual(whole.state.rows());
    expect(restored.state.transactions()).toEqual(whole.state.transactions());
  }
});

/** What a range remembers of answers does not depend on how often its file was opened. */
import { expect, it } from "vitest";
import { groupId } from "../../../src/base/ids.js";
import { encodeKey } from "../../../src/base/keys.js";
import { decodeResults } from "../../../src/machines/range/command.js";
import type { StoreCore } from "../../../src/machines/range/store-core.js";
import type { Command, CommandResult } from "../../../src/machines/range/types.js";
import { at, entry, execute, statement, temporaryDirectory, WALL_MS } from "./helpers.js";
import { childOf, openRange, split } from "./ranges.js";

const SPLIT_AT = encodeKey(1, [100n]);
const HOUR_MS = 3_600_000;
const key = (client: string, sequence: number, lowestUnanswered: number, afterMs = 0) => ({
  client,
  sequence,
  lowestUnanswered,
  issuedMs: WALL_MS + afterMs,
});

/** A write of a client that counts, and tells which answers it has. */
function write(sequence: number, lowestUnanswered: number): Command {
  return {
    kind: "execute",
    key: key("c", sequence, lowestUnanswered),
    wallMs: WALL_MS,
    statement: statement(`insert into t values (${sequence})`),
  };
}

/** Two replicas; the second is opened anew after every entry. */
class Replicas {
  readonly #lefts = [temporaryDirectory(), temporaryDirectory()].map((root) => ({
    root,
    store: openRange(root),
  }));
  #index = 1;

  /** What the first answers; the other says the same. */
  apply(command: Command): CommandResult {
    this.#index++;
    const { generation } = this.#first.rangeState!.descriptor;
    const [first, second] = this.#lefts.map(({ store }) => {
      const { results } = store.apply([entry(this.#index, [command], generation)], at(this.#index));
      return decodeResults(results[0]!)[0]!;
    });
    this.#lefts[1]!.store.rest();
    expect(second).toEqual(first);
    return first!;
  }

  get #first(): StoreCore {
    return this.#lefts[0]!.store;
  }

  async splitAndMerge(): Promise<void> {
    this.apply(split(SPLIT_AT, 4));
    const [child] = await Promise.all(this.#lefts.map(({ store }) => childOf(store)));
    const { descriptor } = child!;
    const frozen = at(this.#index + 1);
    for (const { root } of this.#lefts) {
      const right = openRange(root, 4);
      const into = groupId(3);
      const { generation } = descriptor;
      const freeze: Command = { kind: "freeze", key: key("f", 1, 1), wallMs: WALL_MS, generation, into };
      right.apply([entry(frozen, [freeze], generation)], frozen);
      await right.close();
    }
    const { generation } = this.#first.rangeState!.descriptor;
    const right = { ...descriptor, generation: descriptor.generation + 1, replicas: [] };
    this.apply({ kind: "absorb", key: key("l", 1, 1), wallMs: WALL_MS, generation, right });
    expect(this.#first.rangeState!.descriptor.end).toBe("");
  }

  async digests(): Promise<string[]> {
    return Promise.all(this.#lefts.map(async ({ store }) => (await store.digest()).digest));
  }
}

it("the same log makes the same file, through a split and a merge, however often it is opened", async () => {
  const replicas = new Replicas();
  replicas.apply(execute("create table t(a integer primary key)"));
  replicas.apply(write(1, 1));
  replicas.apply(write(2, 1));
  await replicas.splitAndMerge();
  // The client goes on, and has what it was answered before.
  for (const [sequence, lowest] of [
    [3, 2],
    [4, 4],
    [5, 5],
  ] as const) {
    replicas.apply(write(sequence, lowest));
    const [first, second] = await replicas.digests();
    expect(second, `after write ${sequence}`).toBe(first);
  }
});

it("what may have gone is never done again, and what was issued since is, whatever clocks say", async () => {
  const replicas = new Replicas();
  const insert = (id: number, stampedMs: number, of: Extract<Command, { kind: "execute" }>["key"]) =>
    replicas.apply({
      kind: "execute",
      key: of,
      wallMs: WALL_MS + stampedMs,
      statement: statement(`insert into t values (${id})`),
    });
  const forgotten = {
    ok: false,
    error: ["ambiguous", "OSTRAKA_UNKNOWN_OUTCOME", expect.anything(), null],
  };
  replicas.apply(execute("create table t(a integer primary key)"));
  // Issued by a clock that is ahead of the next one's. Its answer goes with the next write.
  const first = key("c", 1, 1, 500);
  expect(insert(1, 0, first)).toMatchObject({ ok: true });
  expect(insert(2, 10, key("c", 2, 2, 10))).toMatchObject({ ok: true });
  await replicas.splitAndMerge();
  // A clock that is far ahead lets all of that go.
  expect(insert(3, 5 * HOUR_MS, key("d", 1, 1, 5 * HOUR_MS))).toMatchObject({ ok: true });
  expect(insert(1, 5 * HOUR_MS, first)).toMatchObject(forgotten);
  expect(insert(4, 5 * HOUR_MS, key("e", 1, 1, 20))).toMatchObject(forgotten);
  expect(insert(4, 5 * HOUR_MS, key("e", 1, 1, 600))).toMatchObject({ ok: true });
  expect(insert(4, 5 * HOUR_MS, key("e", 1, 1, 600))).toMatchObject({ ok: true, repeated: true });
  const [one, other] = await replicas.digests();
  expect(other).toBe(one);
});

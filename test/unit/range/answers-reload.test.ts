/** What a range remembers of answers does not depend on how often its file was opened. */
import { expect, it } from "vitest";
import { groupId } from "../../../src/base/ids.js";
import { encodeKey } from "../../../src/base/keys.js";
import type { StoreCore } from "../../../src/machines/range/store-core.js";
import type { Command } from "../../../src/machines/range/types.js";
import { at, entry, execute, statement, temporaryDirectory, WALL_MS } from "./helpers.js";
import { childOf, openRange, split } from "./ranges.js";

const SPLIT_AT = encodeKey(1, [100n]);
const key = (client: string, sequence: number, lowestUnanswered: number) => ({
  client,
  sequence,
  lowestUnanswered,
  issuedMs: WALL_MS,
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

  apply(command: Command): void {
    this.#index++;
    const { generation } = this.#first.rangeState!.descriptor;
    for (const { store } of this.#lefts)
      store.apply([entry(this.#index, [command], generation)], at(this.#index));
    this.#lefts[1]!.store.rest();
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

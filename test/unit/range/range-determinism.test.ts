/** Random logs with everything that a range of several meets, applied in different batches and over restarts. */
import { expect, it } from "vitest";
import { type GroupId, transactionId } from "../../../src/base/ids.js";
import { encodeKey } from "../../../src/base/keys.js";
import { decodeResults } from "../../../src/machines/range/command.js";
import type { StoreCore } from "../../../src/machines/range/store-core.js";
import type {
  Command,
  CommandResult,
  PreparedTransaction,
  RowChange,
} from "../../../src/machines/range/types.js";
import type { Entry } from "../../../src/raft/types.js";
import { SimRandom } from "../../sim/sim-random.js";
import {
  at,
  entry,
  execute,
  freshKey,
  newStore,
  prepare,
  resolve,
  span,
  statement,
  temporaryDirectory,
  transaction,
  WALL_MS,
} from "./helpers.js";
import { childrenOf, openRange, rangePath, split, trim } from "./ranges.js";

const SEED = Number(process.env.SEED ?? 31);
const ROUNDS = 10;
const ENTRIES = 60;

class LogMaker {
  readonly log: Entry[] = [];
  readonly children: GroupId[] = [];
  readonly seen = new Map<string, number>();
  readonly #random: SimRandom;
  readonly #store: StoreCore;
  /** As the store answered; only what was voted for is ever committed. */
  readonly #voted = new Set<string>();
  readonly #decisions = new Map<string, "committed" | "aborted">();
  #transactions = 0;
  #tables = 0;

  constructor(random: SimRandom, store: StoreCore) {
    this.#random = random;
    this.#store = store;
    this.#append([
      execute("create table l(a)"),
      execute("create table t(id integer primary key autoincrement, a unique)"),
      execute("create table k(a text, b integer, c, primary key(a, b)) without rowid"),
      execute("create trigger x after insert on t begin insert into l values (random()); end"),
      execute("create virtual table f using fts5(x)"),
      execute("insert into f values ('one')"),
      execute("create virtual table rt using rtree(id, low, high)"),
      execute("create table fed(a unique)"),
      execute("create trigger y after insert on fed begin insert into f(x) values (new.a || ' fed'); end"),
    ]);
    // With FTS4 every command is a batch.
    if (random.below(2) === 0) this.#append([execute("create virtual table f4 using fts4(x)")]);
    for (let i = 0; i < ENTRIES; i++) this.#append(this.#commands());
  }

  #append(commands: Command[]): void {
    const index = this.log.length + 1;
    const generation = this.#random.below(12) === 0 ? 99 : this.#store.rangeState!.descriptor.generation;
    const one = entry(index, commands, commands.some(({ kind }) => kind === "resolve") ? 0 : generation);
    this.log.push(one);
    const results = decodeResults(this.#store.apply([one], at(index)).results[0]!);
    commands.forEach((command, i) => {
      this.#learn(command, results[i]!);
    });
  }

  #learn(command: Command, result: CommandResult): void {
    const what = `${command.kind} ${result.ok ? "ok" : result.error[1]}`;
    this.seen.set(what, (this.seen.get(what) ?? 0) + 1);
    if (!result.ok) return;
    if (command.kind === "prepare" && result.vote === "yes") this.#voted.add(command.prepared.transaction);
    if (command.kind === "resolve") this.#voted.delete(command.transaction);
    if (command.kind === "split") this.children.push(command.child);
  }

  #commands(): Command[] {
    const commands: Command[] = [];
    for (let left = 1 + this.#random.below(3); left > 0; left--) {
      // Nobody writes what a prepared transaction holds: here, everything.
      const held = this.#voted.size > 0 || commands.some(({ kind }) => kind === "prepare");
      commands.push(held ? this.#beside() : this.#command());
    }
    return this.#random.below(8) === 0 ? [...commands, this.#split()] : commands;
  }

  #beside(): Command {
    switch (this.#random.below(5)) {
      case 0:
        return this.#prepare();
      case 1:
        return trim(1 + this.#random.below(5));
      case 2:
        return execute("insert into l values (?)", [BigInt(this.#random.below(9))]);
      default:
        return this.#resolve();
    }
  }

  #resolve(): Command {
    const voted = [...this.#voted];
    if (voted.length === 0) return resolve(`n${++this.#transactions}`, "aborted");
    return this.#decide(voted[this.#random.below(voted.length)]!);
  }

  #command(): Command {
    const random = this.#random;
    const id = BigInt(random.below(30));
    switch (random.below(15)) {
      case 0:
        return execute("insert into t(id, a) values (?, ?)", [id, BigInt(random.below(10))]);
      case 1:
        return execute("insert into t(a) values (random() % 1000)", [], {
          appendsTo: random.below(2) === 0 ? ["t"] : undefined,
        });
      case 2:
        return execute("insert or replace into k values ('k' || (? % 3), ?, datetime('now'))", [id, id]);
      case 3:
        return execute("insert or rollback into t(id, a) values (?, 7)", [id]);
      case 4:
        return transaction(`t${++this.#transactions}`, [
          statement("update t set a = a + 100 where id = ?", [id]),
          statement("delete from k where b = ?", [id]),
        ]);
      case 5:
      case 6:
        return this.#prepare();
      case 7:
      case 8:
        return this.#resolve();
      case 9:
        return trim(1 + random.below(5));
      case 10:
      case 11:
      case 12:
      case 13:
        return this.#virtual(id);
      default:
        return { kind: "tombstone", key: freshKey(), wallMs: WALL_MS, transaction: transactionId(`b${id}`) };
    }
  }

  /** What virtual tables hold back until a batch ends, if they are let. */
  #virtual(id: bigint): Command {
    const random = this.#random;
    const text = `w${id} w${random.below(99)} ${"long ".repeat(random.below(40))}`;
    switch (random.below(9)) {
      case 0:
        return execute("insert or replace into f(rowid, x) values (?, ?), (? + 1, 'next')", [id, text, id]);
      case 1:
        return execute("insert into f4(x) values (?), ('more'), ('and more')", [text]);
      case 2:
        return execute("insert or replace into rt values (?, ?, ? + 5)", [id, id, id]);
      case 3:
        return execute("delete from f where rowid = ?", [id]);
      case 4:
        return execute("insert or fail into fed values (?), (5), (6), (?)", [text, id]);
      case 5:
        return transaction(`t${++this.#transactions}`, [
          statement("insert into f(x) values (?)", [text]),
          statement("update f set x = x || ' again' where rowid < 3"),
          statement("delete from f4 where docid = ?", [id]),
        ]);
      case 6:
        return execute("insert into f(f) values ('optimize')");
      case 7:
        return {
          ...transaction(`t${++this.#transactions}`, []),
          kind: "rows",
          changes: [{ table: "f_config", key: ["unknown"], row: ["unknown", id] }],
          outcomes: [],
        } as unknown as Command;
      default:
        return execute("delete from rt where id > ?", [id]);
    }
  }

  /** A coordinator says one thing, however often. */
  #decide(id: string): Command {
    const decision = this.#decisions.get(id) ?? (this.#random.below(3) > 0 ? "committed" : "aborted");
    this.#decisions.set(id, decision);
    return resolve(id, decision);
  }

  #prepare(): Command {
    const random = this.#random;
    const name = `p${++this.#transactions}`;
    const everything = { reads: [span("*")], writes: [span("*")] };
    if (random.below(5) === 0) {
      const statements = [statement(`create table u${++this.#tables}(a)`)];
      const changes = [{ table: `u${this.#tables}`, key: [1n], row: ["u"] }];
      return prepare(this.#store, name, { kind: "schema", statements, changes }, everything);
    }
    const id = BigInt(random.below(30));
    const changes: RowChange[] = [
      { table: "t", key: [id], row: random.below(3) === 0 ? undefined : [id, BigInt(random.below(8))] },
      { table: "k", key: ["z", id], row: ["z", id, null] },
    ];
    const body: PreparedTransaction["body"] = { kind: "rows", changes };
    // Whoever prepares has seen to it that nobody else writes meanwhile: here, that nobody else is prepared.
    return prepare(this.#store, name, body, everything);
  }

  #split(): Command {
    const { descriptor } = this.#store.rangeState!;
    const key =
      this.#random.below(4) === 0 ? encodeKey(3, ["k1", 5n]) : encodeKey(2, [BigInt(this.#random.below(30))]);
    return split(key, 10 + this.log.length, descriptor.generation);
  }
}

async function childDigests(root: string, children: readonly GroupId[]): Promise<unknown[]> {
  const digests: unknown[] = [];
  for (const child of children) {
    const store = openRange(root, child);
    digests.push(await store.digest());
    await store.close();
  }
  return digests;
}

it("is the same range, with the same children, however its log is applied", async () => {
  const seen = new Set<string>();
  let splits = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const random = new SimRandom(SEED, `round ${round}`);
    const root = temporaryDirectory();
    const reference = openRange(root);
    const made = new LogMaker(random.stream("log"), reference);
    await childrenOf(reference, made.children.length);
    const expected = await reference.digest();
    const children = await childDigests(root, made.children);
    for (const what of made.seen.keys()) seen.add(what);
    splits += made.children.length;
    for (let way = 0; way < 2; way++) {
      const other = temporaryDirectory();
      let store = openRange(other);
      for (let from = 0; from < made.log.length; ) {
        const batch = made.log.slice(from, from + 1 + random.below(way === 0 ? made.log.length : 6));
        from += batch.length;
        store.apply(batch, batch.at(-1)!.index);
        if (random.below(3) === 0) await store.checkpoint();
        if (way === 1 && random.below(3) === 0) {
          await store.close();
          store = newStore(rangePath(other, 3));
          store.open();
        }
      }
      await store.close();
      store = openRange(other);
      expect(await store.digest(), `seed ${SEED}, round ${round}`).toEqual(expected);
      expect(await childDigests(other, made.children), `seed ${SEED}, round ${round}`).toEqual(children);
      await store.close();
    }
    await reference.close();
  }
  expect(splits).toBeGreaterThan(ROUNDS);
  for (const what of [
    "execute ok",
    "execute SQLITE_CONSTRAINT_UNIQUE",
    "execute OSTRAKA_ROUTE",
    "execute OSTRAKA_MOVE",
    "prepare ok",
    "prepare OSTRAKA_RETRY",
    "prepare SQLITE_CONSTRAINT_UNIQUE",
    "resolve ok",
    "split OSTRAKA_RETRY",
    "trim ok",
  ])
    expect(seen, `seed ${SEED}`).toContain(what);
});

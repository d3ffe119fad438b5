/** A small bank for scripted worlds: a table of accounts in two ranges, and transfers between them. */
import { expect } from "vitest";
import { COORDINATOR_GROUP, FIRST_RANGE_GROUP, type GroupId, nodeId } from "../../../src/base/ids.js";
import { type SimClient, scriptedClient, type WriteEnd } from "./client.js";
import type { Machine } from "./process.js";
import type { World } from "./world.js";

export const ACCOUNTS = 4;
export const INITIAL = 100;
const SUM = "SELECT sum(v), count(*) FROM t";

export class Accounts {
  #clients = 200;
  /** Of account 1, by what is known; undefined while it is not. */
  expected: number | undefined = INITIAL;

  constructor(readonly world: World) {}

  client(node?: Machine): SimClient {
    return scriptedClient(this.world, ++this.#clients, node);
  }

  async create(): Promise<void> {
    const client = this.client();
    for (const sql of [
      "CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER NOT NULL)",
      `INSERT INTO t(id, v) VALUES ${Array.from({ length: ACCOUNTS }, (_, i) => `(${i + 1}, ${INITIAL})`).join()}`,
    ])
      expect((await client.write(sql, [])).outcome).toBe("committed");
    await this.split(3);
  }

  /** Answers the new range. */
  async split(at: number): Promise<GroupId> {
    const before = new Set(this.ranges);
    await this.admin("range.split", { table: "t", at: String(at) });
    return this.ranges.find((range) => !before.has(range))!;
  }

  async admin(verb: string, args: Readonly<Record<string, unknown>>, node?: Machine): Promise<unknown> {
    const machine = node ?? this.world.machines.find(({ serving }) => serving)!;
    return this.client(machine).request(machine.process!, (gateway) => gateway.admin(verb, args));
  }

  get ranges(): readonly GroupId[] {
    return this.world.operator.directory!.ranges.map(({ range }) => range);
  }

  get second(): GroupId {
    return this.ranges[1]!;
  }

  async lead(group: GroupId, machine: Machine): Promise<void> {
    let leader: Machine | undefined;
    await this.world.when(() => {
      leader = this.world.leader(group);
      return (
        leader?.process?.host?.findGroup(group)?.status().leaderReady === true &&
        machine.process?.host?.findGroup(group) !== undefined
      );
    }, `somebody leads ${group}`);
    if (leader !== machine) await leader!.process!.host!.group(group).transferLeadership(nodeId(machine.id));
    await this.world.when(
      () => machine.process?.host?.findGroup(group)?.status().leaderReady === true,
      `node ${machine.id} leads ${group}`,
    );
  }

  /** From account 1 to account 4, over both ranges. */
  async transfer(client: SimClient, amount = 1): Promise<WriteEnd> {
    const { end } = await client.transaction(
      "BEGIN",
      async (run) => {
        await run("UPDATE t SET v = v - ? WHERE id = 1", [amount]);
        await run("UPDATE t SET v = v + ? WHERE id = 4", [amount]);
      },
      undefined,
    );
    if (end.outcome === "committed" && this.expected !== undefined) this.expected -= amount;
    if (end.outcome === "unknown") this.expected = undefined;
    return end;
  }

  async add(client: SimClient): Promise<boolean> {
    const rows = await client.read(SUM);
    if (rows === undefined) return false;
    expect(rows[0]!.map(Number)).toEqual([ACCOUNTS * INITIAL, ACCOUNTS]);
    return true;
  }

  async check(): Promise<void> {
    for (const machine of this.world.machines) {
      const client = this.client(machine);
      let added = false;
      for (let tries = 0; !added && tries < 20; tries++) added = await this.add(client);
      expect(added).toBe(true);
      const rows = await client.read("SELECT v FROM t WHERE id = 1");
      if (this.expected !== undefined) expect(Number(rows?.[0]?.[0])).toBe(this.expected);
    }
  }

  prepared(range: GroupId): number {
    return this.world.sightings.prepared(range);
  }

  get allPrepared(): boolean {
    return this.prepared(FIRST_RANGE_GROUP) > 0 && this.prepared(this.second) > 0;
  }

  /** Decisions that some range has not acknowledged. */
  get undelivered(): number {
    const { coordinator } = this.world.leader(COORDINATOR_GROUP)?.process?.hosting ?? {};
    return coordinator?.leader?.gauges().undelivered ?? 0;
  }
}

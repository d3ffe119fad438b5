/**
 * A replicated map of strings: PUT, DEL, CAS through the log; GET reads this replica's state, linearizably when it
 * follows on `readIndex()`. The smallest complete example of a service on the engine.
 */
import { pack, unpack } from "msgpackr";
import type { ReplicatedGroup, StateMachine } from "../state-machine.js";

export type KvCommand =
  | readonly ["PUT", key: string, value: string]
  | readonly ["DEL", key: string]
  /** Sets `value` if the key holds `expected` (null: is absent). */
  | readonly ["CAS", key: string, expected: string | null, value: string];

export interface KvResult {
  /** CAS: whether it was set. DEL: whether there was anything. PUT: true. */
  readonly done: boolean;
  /** What the key held before. */
  readonly previous: string | null;
}

export function encodeKvCommand(command: KvCommand): Uint8Array {
  return pack(command);
}

export function decodeKvResult(bytes: Uint8Array): KvResult {
  const [done, previous] = unpack(bytes) as [boolean, string | null];
  return { done, previous };
}

export class KvMachine implements StateMachine {
  #values = new Map<string, string>();

  apply(entries: readonly { readonly index: number; readonly data: Uint8Array }[]): readonly Uint8Array[] {
    return entries.map(({ data }) => pack(this.#run(unpack(data) as KvCommand)));
  }

  snapshot(): Uint8Array {
    const sorted = [...this.#values].sort(([a], [b]) => (a < b ? -1 : 1));
    return pack(sorted);
  }

  restore(snapshot: Uint8Array): void {
    this.#values = new Map(unpack(snapshot) as [string, string][]);
  }

  get(key: string): string | null {
    return this.#values.get(key) ?? null;
  }

  #run(command: KvCommand): [done: boolean, previous: string | null] {
    const previous = this.get(command[1]);
    switch (command[0]) {
      case "PUT":
        this.#values.set(command[1], command[2]);
        return [true, previous];
      case "DEL":
        return [this.#values.delete(command[1]), previous];
      case "CAS":
        if (previous !== command[2]) return [false, previous];
        this.#values.set(command[1], command[3]);
        return [true, previous];
    }
  }
}

/** The map as its users see it, on one node. Errors are those of the group. */
export class Kv {
  constructor(
    private readonly group: ReplicatedGroup,
    private readonly machine: KvMachine,
  ) {}

  put(key: string, value: string): Promise<KvResult> {
    return this.#propose(["PUT", key, value]);
  }

  delete(key: string): Promise<KvResult> {
    return this.#propose(["DEL", key]);
  }

  compareAndSet(key: string, expected: string | null, value: string): Promise<KvResult> {
    return this.#propose(["CAS", key, expected, value]);
  }

  async get(key: string): Promise<string | null> {
    await this.group.readIndex();
    return this.machine.get(key);
  }

  async #propose(command: KvCommand): Promise<KvResult> {
    const { result } = await this.group.propose(encodeKvCommand(command));
    return decodeKvResult(result);
  }
}

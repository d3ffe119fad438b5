/** Replicated counters by name: INCR, DECR, RESET. Values are exact however large they grow. */
import { pack, unpack } from "msgpackr";
import type { ReplicatedGroup, StateMachine } from "../state-machine.js";

export type CounterCommand =
  | readonly ["INCR", name: string, by: bigint]
  | readonly ["DECR", name: string, by: bigint]
  | readonly ["RESET", name: string];

/** Big integers travel as decimal text: no limit, and one form for one value. */
export function encodeCounterCommand(command: CounterCommand): Uint8Array {
  return pack(command[0] === "RESET" ? command : [command[0], command[1], command[2].toString()]);
}

/** The value after the command. */
export function decodeCounterResult(bytes: Uint8Array): bigint {
  return BigInt(unpack(bytes) as string);
}

export class CounterMachine implements StateMachine {
  #values = new Map<string, bigint>();

  apply(entries: readonly { readonly index: number; readonly data: Uint8Array }[]): readonly Uint8Array[] {
    return entries.map(({ data }) => {
      const [verb, name, by] = unpack(data) as [CounterCommand[0], string, string?];
      return pack(this.#run(verb, name, BigInt(by ?? 0)).toString());
    });
  }

  snapshot(): Uint8Array {
    const sorted = [...this.#values].sort(([a], [b]) => (a < b ? -1 : 1));
    return pack(sorted.map(([name, value]) => [name, value.toString()]));
  }

  restore(snapshot: Uint8Array): void {
    const pairs = unpack(snapshot) as [string, string][];
    this.#values = new Map(pairs.map(([name, value]) => [name, BigInt(value)]));
  }

  value(name: string): bigint {
    return this.#values.get(name) ?? 0n;
  }

  #run(verb: CounterCommand[0], name: string, by: bigint): bigint {
    if (verb === "RESET") {
      this.#values.delete(name);
      return 0n;
    }
    const value = this.value(name) + (verb === "INCR" ? by : -by);
    this.#values.set(name, value);
    return value;
  }
}

/** Counters as their users see them, on one node. */
export class Counter {
  constructor(
    private readonly group: ReplicatedGroup,
    private readonly machine: CounterMachine,
  ) {}

  increment(name: string, by = 1n): Promise<bigint> {
    return this.#propose(["INCR", name, by]);
  }

  decrement(name: string, by = 1n): Promise<bigint> {
    return this.#propose(["DECR", name, by]);
  }

  reset(name: string): Promise<bigint> {
    return this.#propose(["RESET", name]);
  }

  async value(name: string): Promise<bigint> {
    await this.group.readIndex();
    return this.machine.value(name);
  }

  async #propose(command: CounterCommand): Promise<bigint> {
    const { result } = await this.group.propose(encodeCounterCommand(command));
    return decodeCounterResult(result);
  }
}

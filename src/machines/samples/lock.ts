/**
 * Replicated locks by name: ACQUIRE, RELEASE. Every grant to a new owner carries a fencing token that grows for ever
 * (the log index of the grant): who guards a resource refuses tokens below the largest it has seen, and so a holder
 * that was paused cannot do harm after the lock has passed on. There are no time-outs in the machine: apply has no
 * clock. An owner that dies is released by whoever decides that it is dead.
 */
import { pack, unpack } from "msgpackr";
import type { ReplicatedGroup, StateMachine } from "../state-machine.js";

export type LockCommand =
  | readonly ["ACQUIRE", name: string, owner: string]
  /** With a token, only that grant is released, not a later one of the same owner. */
  | readonly ["RELEASE", name: string, owner: string, token: number | null];

export interface LockResult {
  /** ACQUIRE: the caller holds it (again, if it already did). RELEASE: the caller held it and no longer does. */
  readonly done: boolean;
  /** Who holds it now. */
  readonly owner: string | null;
  /** Of the grant in force; 0 when nobody holds it. */
  readonly token: number;
}

interface Grant {
  readonly owner: string;
  readonly token: number;
}

export function encodeLockCommand(command: LockCommand): Uint8Array {
  return pack(command);
}

export function decodeLockResult(bytes: Uint8Array): LockResult {
  const [done, owner, token] = unpack(bytes) as [boolean, string | null, number];
  return { done, owner, token };
}

export class LockMachine implements StateMachine {
  #grants = new Map<string, Grant>();

  apply(entries: readonly { readonly index: number; readonly data: Uint8Array }[]): readonly Uint8Array[] {
    return entries.map(({ index, data }) => {
      const command = unpack(data) as LockCommand;
      const done = command[0] === "ACQUIRE" ? this.#acquire(command, index) : this.#release(command);
      const grant = this.#grants.get(command[1]);
      return pack([done, grant?.owner ?? null, grant?.token ?? 0]);
    });
  }

  snapshot(): Uint8Array {
    const sorted = [...this.#grants].sort(([a], [b]) => (a < b ? -1 : 1));
    return pack(sorted.map(([name, { owner, token }]) => [name, owner, token]));
  }

  restore(snapshot: Uint8Array): void {
    const rows = unpack(snapshot) as [string, string, number][];
    this.#grants = new Map(rows.map(([name, owner, token]) => [name, { owner, token }]));
  }

  holder(name: string): Grant | undefined {
    return this.#grants.get(name);
  }

  #acquire(
    [, name, owner]: Extract<LockCommand, readonly ["ACQUIRE", ...unknown[]]>,
    index: number,
  ): boolean {
    const grant = this.#grants.get(name);
    if (grant !== undefined) return grant.owner === owner;
    this.#grants.set(name, { owner, token: index });
    return true;
  }

  #release([, name, owner, token]: Extract<LockCommand, readonly ["RELEASE", ...unknown[]]>): boolean {
    const grant = this.#grants.get(name);
    if (grant?.owner !== owner || (token !== null && grant.token !== token)) return false;
    return this.#grants.delete(name);
  }
}

/** Locks as their users see them, on one node. */
export class Lock {
  constructor(
    private readonly group: ReplicatedGroup,
    private readonly machine: LockMachine,
  ) {}

  acquire(name: string, owner: string): Promise<LockResult> {
    return this.#propose(["ACQUIRE", name, owner]);
  }

  release(name: string, owner: string, token: number | null = null): Promise<LockResult> {
    return this.#propose(["RELEASE", name, owner, token]);
  }

  async holder(name: string): Promise<{ readonly owner: string; readonly token: number } | undefined> {
    await this.group.readIndex();
    return this.machine.holder(name);
  }

  async #propose(command: LockCommand): Promise<LockResult> {
    const { result } = await this.group.propose(encodeLockCommand(command));
    return decodeLockResult(result);
  }
}

/**
 * The public contract of a replicated service: implement it, and the engine makes every replica apply the same
 * entries in the same order. The samples (kv, counter, lock) are written against it.
 *
 * `apply` must be a function of the entries and the state alone: no clock, no randomness, no I/O. Whatever needs
 * those is decided by the proposer and carried in the entry.
 */
export interface StateMachine {
  /** Applies committed entries in log order; answers one result for each, handed to whoever proposed it. */
  apply(entries: readonly { readonly index: number; readonly data: Uint8Array }[]): readonly Uint8Array[];
  /** The whole state, from which `restore` makes an equal machine on any replica. Equal states give equal bytes. */
  snapshot(): Uint8Array;
  restore(snapshot: Uint8Array): void;
}

/** What a client of a replicated machine needs of its group: a group's handle is one, a service's group another. */
export interface ReplicatedGroup {
  /** Resolves with the machine's result once the entry is applied. */
  propose(data: Uint8Array): Promise<{ readonly result: Uint8Array }>;
  /** Resolves once this replica's machine has applied whatever was committed before the call. */
  readIndex(): Promise<unknown>;
}

/**
 * What the main thread and the storage worker say to each other. All that one turn of the event loop gathers goes in
 * one message, both ways. Entries and results travel as one transferred buffer a request: a view into a larger buffer
 * would be cloned with all of it.
 */
import type { WireError } from "../../base/errors.js";
import { type GroupId, type LogIndex, logIndex, type TransactionId, term } from "../../base/ids.js";
import type { Key } from "../../base/keys.js";
import { type Entry, EntryKind } from "../../raft/types.js";
import type { Span } from "../../sql/types.js";
import type { StateDigest } from "./digest.js";
import type { PrivateCopy } from "./store-core.js";
import type {
  CommandResult,
  IdempotencyKey,
  PreparedTransaction,
  RangeBeginning,
  RangeState,
  SchemaSnapshot,
  Speculation,
  SpeculationAnswer,
  SplitChild,
  StoreSize,
} from "./types.js";

/** Byte strings one after the other. */
export interface Packed {
  readonly bytes: Uint8Array;
  readonly lengths: readonly number[];
}

export interface PackedEntries extends Packed {
  readonly indexes: readonly number[];
  readonly terms: readonly number[];
}

export type StoreCall =
  | { readonly op: "open"; readonly path: string }
  /** `failures`: applies of this store that had failed, as far as was known when this one was sent. */
  | {
      readonly op: "apply";
      readonly entries: PackedEntries;
      readonly upTo: LogIndex;
      readonly failures: number;
    }
  | { readonly op: "checkpoint" }
  | { readonly op: "copy" }
  | { readonly op: "digest" }
  | { readonly op: "close" }
  | { readonly op: "schema" }
  | { readonly op: "prepared" }
  | { readonly op: "rowCounts" }
  | { readonly op: "splitKey" }
  | { readonly op: "restore"; readonly file: string }
  /** Encoded by read-batch.ts, as are the answers. */
  | { readonly op: "reads"; readonly reads: Uint8Array }
  | { readonly op: "speculate"; readonly speculation: Speculation }
  | { readonly op: "forget"; readonly transaction: TransactionId }
  | { readonly op: "outcome"; readonly transaction: TransactionId }
  | { readonly op: "answered"; readonly key: IdempotencyKey };

export interface StoreRequest {
  readonly id: number;
  readonly store: number;
  readonly call: StoreCall;
}

export interface StoreAnswer {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: WireError;
}

/** What answers mean, by operation. */
export interface AnswerValues {
  readonly open: LogIndex;
  readonly apply: Packed;
  readonly checkpoint: LogIndex;
  readonly copy: PrivateCopy;
  readonly digest: StateDigest;
  readonly close: undefined;
  readonly schema: SchemaSnapshot;
  readonly prepared: readonly PreparedTransaction[];
  readonly rowCounts: ReadonlyMap<string, number>;
  readonly splitKey: Key | undefined;
  readonly restore: LogIndex;
  readonly reads: {
    readonly appliedIndex: LogIndex;
    readonly held: readonly Span[] | undefined;
    readonly answers: Uint8Array;
  };
  readonly speculate: SpeculationAnswer;
  readonly forget: undefined;
  readonly outcome: "committed" | "aborted" | undefined;
  readonly answered: CommandResult | undefined;
}

/** How a store is after the requests of a message; comes before the answers. */
export interface StoreStatus extends StoreSize {
  readonly store: number;
  readonly appliedIndex: LogIndex;
  readonly lastWallMs: number;
  /** Present when it has changed. */
  readonly schema?: SchemaSnapshot;
  /** Present when the range's state has changed. */
  readonly range?: { readonly state: RangeState; readonly beginning: RangeBeginning | undefined };
  /** Ranges split off whose files are being made, if there are any. */
  readonly making?: readonly GroupId[];
  /** Ranges split off whose files have become complete. */
  readonly children?: readonly SplitChild[];
}

export interface StoreReply {
  readonly statuses: readonly StoreStatus[];
  readonly answers: readonly StoreAnswer[];
}

export function pack(parts: readonly Uint8Array[]): Packed {
  const lengths = parts.map((part) => part.length);
  const bytes = new Uint8Array(lengths.reduce((sum, length) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return { bytes, lengths };
}

export function unpack({ bytes, lengths }: Packed): Uint8Array[] {
  let at = 0;
  return lengths.map((length) => {
    at += length;
    return bytes.subarray(at - length, at);
  });
}

export function packEntries(entries: readonly Entry[]): PackedEntries {
  return {
    ...pack(entries.map((entry) => entry.data)),
    indexes: entries.map((entry) => entry.index),
    terms: entries.map((entry) => entry.term),
  };
}

export function unpackEntries(packed: PackedEntries): Entry[] {
  return unpack(packed).map((data, i) => ({
    index: logIndex(packed.indexes[i]!),
    term: term(packed.terms[i]!),
    kind: EntryKind.Normal,
    data,
  }));
}

/**
 * RangeService over the peer connections: what a gateway calls on another node's leader, and the serving side, which
 * finds the range by its group. Methods are served once for all groups of a node.
 */
import { RouteError } from "../base/errors.js";
import { type GroupId, groupId, type NodeId, type Term, type TransactionId } from "../base/ids.js";
import type { Key } from "../base/keys.js";
import type {
  CommandResult,
  IdempotencyKey,
  SchemaSnapshot,
  StampedStatement,
  StatementOutcome,
} from "../machines/range/types.js";
import type { RangeDescriptor } from "../placement/descriptor.js";
import {
  batchCodec,
  commitCopyCodec,
  pack,
  prepareCodec,
  runCodec,
  stampedCodec,
  unpack,
  writeCodec,
} from "../range/codec.js";
import type {
  CopyCommit,
  LocalRead,
  PinPoint,
  PrepareRequest,
  RangeService,
  RangeStatus,
  ReadPoint,
  TransactionStatement,
  TransactionStatementAnswer,
  Vote,
  WriteRequest,
} from "../range/types.js";
import type { PeerCalls } from "../rpc/peer-calls.js";
import type { Span } from "../sql/types.js";

type Caller = Pick<PeerCalls, "call">;
type Server = Pick<PeerCalls, "serve">;

type Result = CommandResult | { readonly ok: "move" };
type Method = Exclude<keyof RangeService, "group">;

export function remoteRange(calls: Caller, node: NodeId, group: GroupId): RangeService {
  const call = async (method: Method, args: readonly unknown[]): Promise<unknown> =>
    unpack((await calls.call(node, `range.${method}`, [group, pack(args)])) as Uint8Array);
  return {
    group,
    readPoint: async () => (await call("readPoint", [])) as ReadPoint,
    write: async (request: WriteRequest) => (await call("write", [writeCodec.pack(request)])) as Result,
    batch: async (request) => (await call("batch", [batchCodec.pack(request)])) as Result,
    begin: async (transaction, options) => (await call("begin", [transaction, options])) as PinPoint,
    run: async (statement: TransactionStatement) => {
      const answer = (await call("run", [runCodec.pack(statement)])) as TransactionStatementAnswer;
      return answer.kind === "move" ? answer : { ...answer, stamped: stampedCodec.unpack(answer.stamped) };
    },
    recheck: async (transaction, ordinal) => void (await call("recheck", [transaction, ordinal])),
    truncate: async (transaction, ordinal) => void (await call("truncate", [transaction, ordinal])),
    commit: async (transaction, key, reads, ran) =>
      (await call("commit", [transaction, key, reads, ran])) as CommandResult,
    commitCopy: async (commit, reads) =>
      (await call("commitCopy", [commitCopyCodec.pack(commit), reads])) as CommandResult,
    rollback: async (transaction) => void (await call("rollback", [transaction])),
    outcome: async (transaction, generation) =>
      (await call("outcome", [transaction, generation])) as "committed" | "aborted" | "unknown",
    answered: async (key, generation) =>
      ((await call("answered", [key, generation])) as CommandResult | null) ?? undefined,
    setPragma: async (name, value, key) => (await call("setPragma", [name, value, key])) as CommandResult,
    read: async ({ statement, maxBytes }) =>
      (await call("read", [stampedCodec.pack(statement), maxBytes])) as {
        readonly outcome: StatementOutcome;
        readonly wallMs: number;
      },
    awaitHolds: async (spans) => void (await call("awaitHolds", [spans])),
    prepare: async (request) => (await call("prepare", [prepareCodec.pack(request)])) as Vote,
    resolve: async (transaction, decision) => void (await call("resolve", [transaction, decision])),
    fence: async (id, spans, generation, standMs) =>
      (await call("fence", [id, spans, generation, standMs])) as PinPoint,
    release: async (id, term) => (await call("release", [id, term])) as boolean,
    split: async (at, child) => (await call("split", [at ?? null, child])) as RangeDescriptor,
    freeze: async (into) => (await call("freeze", [into])) as RangeDescriptor,
    absorb: async (right, ready) => (await call("absorb", [right, ready])) as RangeDescriptor,
    describe: async () => (await call("describe", [])) as RangeStatus,
    schema: async () => (await call("schema", [])) as SchemaSnapshot,
  };
}

type Handler = (range: RangeService, args: readonly unknown[]) => Promise<unknown>;

const HANDLERS: { readonly [M in Method]: Handler } = {
  readPoint: (range) => range.readPoint(),
  write: (range, [request]) => range.write(writeCodec.unpack(request)),
  batch: (range, [request]) => range.batch(batchCodec.unpack(request)),
  begin: (range, [transaction, options]) =>
    range.begin(transaction as TransactionId, options as Parameters<RangeService["begin"]>[1]),
  run: async (range, [request]) => {
    const answer = await range.run(runCodec.unpack(request));
    return answer.kind === "move" ? answer : { ...answer, stamped: stampedCodec.pack(answer.stamped) };
  },
  recheck: (range, [transaction, ordinal]) => range.recheck(transaction as TransactionId, ordinal as number),
  truncate: (range, [transaction, ordinal]) =>
    range.truncate(transaction as TransactionId, ordinal as number),
  commit: (range, [transaction, key, reads, ran]) =>
    range.commit(
      transaction as TransactionId,
      key as IdempotencyKey,
      reads as readonly LocalRead[],
      (ran as number | null | undefined) ?? undefined,
    ),
  commitCopy: (range, [commit, reads]) =>
    range.commitCopy(commitCopyCodec.unpack(commit) as CopyCommit, reads as readonly LocalRead[]),
  rollback: (range, [transaction]) => range.rollback(transaction as TransactionId),
  outcome: (range, [transaction, generation]) =>
    range.outcome(transaction as TransactionId, generation as number),
  answered: (range, [key, generation]) => range.answered(key as IdempotencyKey, generation as number),
  setPragma: (range, [name, value, key]) =>
    range.setPragma(name as "user_version" | "application_id", value as number, key as IdempotencyKey),
  read: (range, [statement, maxBytes]) =>
    range.read({
      statement: stampedCodec.unpack(statement) as StampedStatement,
      maxBytes: maxBytes as number,
    }),
  awaitHolds: (range, [spans]) => range.awaitHolds(spans as readonly Span[]),
  prepare: (range, [request]) => range.prepare(prepareCodec.unpack(request) as PrepareRequest),
  resolve: (range, [transaction, decision]) =>
    range.resolve(transaction as TransactionId, decision as "committed" | "aborted"),
  fence: (range, [id, spans, generation, standMs]) =>
    range.fence(id as string, spans as readonly Span[], generation as number, standMs as number),
  release: (range, [id, term]) => range.release(id as string, term as Term),
  split: (range, [at, child]) => range.split((at as Key | null) ?? undefined, child as GroupId),
  freeze: (range, [into]) => range.freeze(into as GroupId),
  absorb: (range, [right, ready]) => range.absorb(right as RangeDescriptor, ready as readonly NodeId[]),
  describe: (range) => range.describe(),
  schema: (range) => range.schema(),
};

/** Answers other nodes' calls from this node's ranges; `find` answers undefined for a group that is not here. */
export function serveRanges(calls: Server, find: (group: GroupId) => RangeService | undefined): void {
  for (const [method, handler] of Object.entries(HANDLERS)) {
    calls.serve(`range.${method}`, async ([group, args]) => {
      const range = find(groupId(group as number));
      if (range === undefined) throw new RouteError(`range ${group} is not on this node`, undefined);
      return pack((await handler(range, unpack(args as Uint8Array) as unknown[])) ?? null);
    });
  }
}

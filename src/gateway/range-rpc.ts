/** RangeService over the peer connections: what a gateway calls on another node's leader, and the serving side. */
import { RouteError } from "../base/errors.js";
import { FIRST_RANGE_GROUP, type NodeId, type TransactionId } from "../base/ids.js";
import type { CommandResult, IdempotencyKey } from "../machines/range/types.js";
import {
  batchCodec,
  commitCopyCodec,
  pack,
  runCodec,
  stampedCodec,
  unpack,
  writeCodec,
} from "../range/codec.js";
import type {
  CopyCommit,
  LocalRead,
  RangeService,
  ReadPoint,
  TransactionStatement,
  TransactionStatementAnswer,
  WriteRequest,
} from "../range/types.js";
import type { PeerCalls } from "../rpc/peer-calls.js";

type Caller = Pick<PeerCalls, "call">;
type Server = Pick<PeerCalls, "serve">;

type Result = CommandResult | { readonly ok: "move" };

export function remoteRange(calls: Caller, node: NodeId): RangeService {
  const call = async (method: string, args: readonly unknown[]): Promise<unknown> =>
    unpack((await calls.call(node, `range.${method}`, [pack(args)])) as Uint8Array);
  return {
    group: FIRST_RANGE_GROUP,
    readPoint: async () => (await call("readPoint", [])) as ReadPoint,
    write: async (request: WriteRequest) => (await call("write", [writeCodec.pack(request)])) as Result,
    batch: async (request) => (await call("batch", [batchCodec.pack(request)])) as Result,
    begin: async (transaction, options) => (await call("begin", [transaction, options])) as ReadPoint,
    run: async (statement: TransactionStatement) => {
      const answer = (await call("run", [runCodec.pack(statement)])) as TransactionStatementAnswer;
      return answer.kind === "move" ? answer : { ...answer, stamped: stampedCodec.unpack(answer.stamped) };
    },
    truncate: async (transaction, ordinal) => void (await call("truncate", [transaction, ordinal])),
    commit: async (transaction, key, reads) =>
      (await call("commit", [transaction, key, reads])) as CommandResult,
    commitCopy: async (commit, reads) =>
      (await call("commitCopy", [commitCopyCodec.pack(commit), reads])) as CommandResult,
    rollback: async (transaction) => void (await call("rollback", [transaction])),
    outcome: async (transaction) =>
      (await call("outcome", [transaction])) as "committed" | "aborted" | "unknown",
    setPragma: async (name, value, key) => (await call("setPragma", [name, value, key])) as CommandResult,
    read: notBuilt,
    awaitHolds: notBuilt,
    prepare: notBuilt,
    resolve: notBuilt,
    fence: notBuilt,
    release: notBuilt,
    split: notBuilt,
    freeze: notBuilt,
    absorb: notBuilt,
    describe: notBuilt,
    schema: notBuilt,
  };
}

/** Answers other nodes' calls from the local leader. */
export function serveRange(calls: Server, find: () => RangeService | undefined): void {
  let range!: RangeService;
  const serve = (method: string, handler: (args: unknown[]) => Promise<unknown>): void =>
    calls.serve(`range.${method}`, async (args) => {
      const found = find();
      if (found === undefined) throw new RouteError("the range is not on this node", undefined);
      range = found;
      return pack((await handler(unpack(args[0] as Uint8Array) as unknown[])) ?? null);
    });
  serve("readPoint", () => range.readPoint());
  serve("write", ([request]) => range.write(writeCodec.unpack(request)));
  serve("batch", ([request]) => range.batch(batchCodec.unpack(request)));
  serve("begin", ([transaction, options]) =>
    range.begin(transaction as TransactionId, options as Parameters<RangeService["begin"]>[1]),
  );
  serve("run", async ([request]) => {
    const answer = await range.run(runCodec.unpack(request));
    return answer.kind === "move" ? answer : { ...answer, stamped: stampedCodec.pack(answer.stamped) };
  });
  serve("truncate", ([transaction, ordinal]) =>
    range.truncate(transaction as TransactionId, ordinal as number),
  );
  serve("commit", ([transaction, key, reads]) =>
    range.commit(transaction as TransactionId, key as IdempotencyKey, reads as readonly LocalRead[]),
  );
  serve("commitCopy", ([commit, reads]) =>
    range.commitCopy(commitCopyCodec.unpack(commit) as CopyCommit, reads as readonly LocalRead[]),
  );
  serve("rollback", ([transaction]) => range.rollback(transaction as TransactionId));
  serve("outcome", ([transaction]) => range.outcome(transaction as TransactionId));
  serve("setPragma", ([name, value, key]) =>
    range.setPragma(name as "user_version" | "application_id", value as number, key as IdempotencyKey),
  );
}

function notBuilt(): never {
  throw new Error("not built yet");
}

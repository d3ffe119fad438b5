/** CoordinatorService over the peer connections: what a node calls on the coordinator's leader, and the serving side. */
import { RouteError } from "../base/errors.js";
import type { GroupId, NodeId, TransactionId } from "../base/ids.js";
import type {
  CoordinatedTransaction,
  CoordinatorEndpoint,
  Decision,
  OutboxRow,
} from "../coordinator/types.js";
import type { PeerCalls } from "../rpc/peer-calls.js";

type Caller = Pick<PeerCalls, "call">;
type Server = Pick<PeerCalls, "serve">;

type Returns<M extends keyof CoordinatorEndpoint> = Awaited<ReturnType<CoordinatorEndpoint[M]>>;

/** A decision waits for one round of the log; beyond this the caller had better ask somebody else. */
const TIMEOUT_MS = 10_000;

export function remoteCoordinator(calls: Caller, node: NodeId): CoordinatorEndpoint {
  const call = (method: string, args: readonly unknown[]): Promise<unknown> =>
    calls.call(node, `coordinator.${method}`, args, { timeoutMs: TIMEOUT_MS });
  return {
    register: async (transaction, participants) =>
      (await call("register", [transaction, participants])) as Returns<"register">,
    decide: async (transaction, decision, answer) =>
      (await call("decide", [transaction, decision, answer])) as Returns<"decide">,
    inquire: async (transaction) => (await call("inquire", [transaction])) as Returns<"inquire">,
    list: async () => (await call("list", [])) as CoordinatedTransaction[],
    outbox: async () => (await call("outbox", [])) as OutboxRow[],
  };
}

/** Answers other nodes' calls from the leader on this node; `local` is undefined where the group has no replica. */
export function serveCoordinator(calls: Server, local: () => CoordinatorEndpoint | undefined): void {
  const serve = (
    method: string,
    handler: (coordinator: CoordinatorEndpoint, args: readonly unknown[]) => Promise<unknown>,
  ): void =>
    calls.serve(`coordinator.${method}`, async (args) => {
      const coordinator = local();
      if (coordinator === undefined)
        throw new RouteError("this node has no replica of the coordinator", undefined);
      return handler(coordinator, args);
    });
  serve("register", (coordinator, [transaction, participants]) =>
    coordinator.register(transaction as TransactionId, participants as readonly GroupId[]),
  );
  serve("decide", (coordinator, [transaction, decision, answer]) =>
    coordinator.decide(transaction as TransactionId, decision as Decision, answer as Uint8Array | undefined),
  );
  serve("inquire", (coordinator, [transaction]) => coordinator.inquire(transaction as TransactionId));
  serve("list", (coordinator) => coordinator.list());
  serve("outbox", (coordinator) => coordinator.outbox());
}

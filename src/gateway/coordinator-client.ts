/** The coordinator's leader as seen from any node, with or without a replica of its group: group-route.ts finds it. */
import type { GroupId, NodeId, TransactionId } from "../base/ids.js";
import type {
  CoordinatedTransaction,
  CoordinatorEndpoint,
  CoordinatorService,
  Decision,
  OutboxRow,
} from "../coordinator/types.js";
import { GroupRoute, type GroupRouteOptions, type Hosted } from "./group-route.js";

export interface CoordinatorClientOptions extends Omit<GroupRouteOptions<CoordinatorEndpoint>, "remote"> {
  readonly remote: (node: NodeId) => CoordinatorEndpoint;
}

export class CoordinatorClient implements CoordinatorEndpoint {
  readonly #route: GroupRoute<CoordinatorEndpoint>;

  constructor(options: CoordinatorClientOptions) {
    this.#route = new GroupRoute(options);
  }

  /** A replica of the group is on this node from now on. */
  attach(hosted: Hosted<CoordinatorEndpoint>): void {
    this.#route.attach(hosted);
  }

  /** The replica was moved away. */
  detach(): void {
    this.#route.detach();
  }

  register(
    transaction: TransactionId,
    participants: readonly GroupId[],
  ): ReturnType<CoordinatorService["register"]> {
    return this.#route.call((leader) => leader.register(transaction, participants));
  }

  decide(
    transaction: TransactionId,
    decision: Decision,
    answer?: Uint8Array,
  ): ReturnType<CoordinatorService["decide"]> {
    return this.#route.call((leader) => leader.decide(transaction, decision, answer));
  }

  inquire(transaction: TransactionId): ReturnType<CoordinatorService["inquire"]> {
    return this.#route.call((leader) => leader.inquire(transaction));
  }

  list(): Promise<CoordinatedTransaction[]> {
    return this.#route.call((leader) => leader.list());
  }

  outbox(): Promise<OutboxRow[]> {
    return this.#route.call((leader) => leader.outbox());
  }
}

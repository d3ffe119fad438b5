/** What was told of a number that one client raises and everybody reads. It begins as 0. */
import { checkMonotonic, type MonotonicEvent } from "../../checkers/monotonic.js";
import type { WriteEnd } from "../client.js";
import { NEVER, type Tools } from "./workload.js";

type Teller = Pick<Tools, "client" | "nowMs">;

export class Raised {
  readonly #history: MonotonicEvent[] = [{ kind: "write", value: 0, startMs: 0, endMs: 0, client: "" }];

  /** A write that has ended just now. */
  wrote({ client, nowMs }: Teller, value: number, startMs: number, { outcome }: WriteEnd): void {
    if (outcome === "aborted") return;
    const endMs = outcome === "committed" ? nowMs : NEVER;
    this.#history.push({ kind: "write", value, startMs, endMs, client: client.name });
  }

  /** A read that has ended just now. */
  saw({ client, nowMs }: Teller, value: number, startMs: number): void {
    this.#history.push({ kind: "read", value, startMs, endMs: nowMs, client: client.name });
  }

  verdict() {
    return checkMonotonic(this.#history);
  }
}

/**
 * What is kept beside a transaction on a private copy or scratch database while its statements run: captured changes,
 * what became of the tables, and open savepoints, whose rollback takes both back to where they were.
 */
import { classify } from "../../../sql/classify.js";
import { lowerAscii } from "../../../sql/tokenizer.js";
import type { SessionFlags } from "../../../sql/types.js";
import type { RangeConnection } from "../connection.js";
import type { Leading } from "../leading-words.js";
import type { StampedStatement } from "../types.js";
import { Capture, type CaptureMark } from "./capture.js";
import { type HistoryMark, TableHistory } from "./table-history.js";

/** What else follows the transaction. */
export interface Follower {
  /** Before anything of a statement happens: everything is in place. */
  settle(): void;
  /** Before it runs, with its settings in force. */
  observe(flags: SessionFlags, writes: boolean): void;
  schemaChanged(): void;
  mark(): unknown;
  restore(mark: unknown): void;
  /** No savepoint is open any more. */
  savepointsGone(): void;
}

interface Savepoint {
  readonly name: string;
  readonly capture: CaptureMark;
  readonly history: HistoryMark;
  readonly follower: unknown;
}

const CHANGES_TABLES: ReadonlySet<string> = new Set(["create", "drop", "alter"]);
const SAVEPOINTS: ReadonlySet<string> = new Set(["savepoint", "release", "rollback"]);

export class TransactionWatch {
  readonly capture: Capture;
  readonly history: TableHistory;
  readonly #follower: Follower | undefined;
  #savepoints: Savepoint[] = [];
  #changesTables = false;

  constructor(connection: RangeConnection, follower?: Follower) {
    this.capture = new Capture(connection);
    this.history = new TableHistory(connection.database);
    this.#follower = follower;
  }

  get savepointOpen(): boolean {
    return this.#savepoints.length > 0;
  }

  /** Before anything of the statement happens, its transaction's beginning included. */
  settle(): void {
    this.#follower?.settle();
  }

  /** Before it runs, with its settings in force. */
  before(statement: StampedStatement, { word, explained }: Leading): void {
    if (explained) return;
    const writes = this.capture.observe(statement, word);
    this.#follower?.observe(statement.flags, writes);
    if (!CHANGES_TABLES.has(word)) return;
    this.history.begin();
    this.#changesTables = true;
    if (word === "alter") this.capture.beforeAlter();
  }

  /** A statement without rows has run. */
  ran(sql: string, { word, explained }: Leading): void {
    if (!explained && SAVEPOINTS.has(word)) this.#follow(sql);
  }

  /** It has ended, or failed, and the transaction is still open. */
  ended(): void {
    if (!this.#changesTables) return;
    this.#changesTables = false;
    this.capture.afterSchemaChange(this.history.end());
    this.#follower?.schemaChanged();
  }

  #follow(sql: string): void {
    const statement = classify(sql);
    if (statement.kind === "savepoint") {
      this.#savepoints.push({
        name: lowerAscii(statement.name),
        capture: this.capture.mark(),
        history: this.history.mark(),
        follower: this.#follower?.mark(),
      });
      return;
    }
    if (statement.kind !== "release" && statement.kind !== "rollback to") return;
    const name = lowerAscii(statement.name);
    const at = this.#savepoints.findLastIndex((savepoint) => savepoint.name === name);
    const savepoint = this.#savepoints[at];
    if (savepoint === undefined) return;
    if (statement.kind === "release") {
      this.#savepoints.length = at;
      if (at === 0) this.#follower?.savepointsGone();
      return;
    }
    this.#savepoints.length = at + 1;
    this.capture.restore(savepoint.capture);
    this.history.restore(savepoint.history);
    this.#follower?.restore(savepoint.follower);
  }
}

/**
 * Where a transaction goes on once it does what cannot run at one leader: a database of its own, in a process that can be
 * killed. For a database of one range that is a copy of its file (private-copy.ts), for one of many a scratch database
 * with the rows that the transaction touches (wide-workspace.ts).
 */
import type { GroupId, TransactionId } from "../base/ids.js";
import type {
  CommandResult,
  IdempotencyKey,
  RowStream,
  Runner,
  StampedStatement,
  StatementOutcome,
  SystemTable,
} from "../machines/range/types.js";
import type { LocalRead } from "../range/types.js";
import type { Analysis } from "../sql/types.js";
import type { Deadline } from "./deadline.js";
import type { History } from "./history.js";

/** What was read of a range, to be validated by its leader at the commit. */
export interface RangeRead extends LocalRead {
  readonly range: GroupId;
}

export interface WorkspaceCommit {
  readonly transaction: TransactionId;
  readonly key: IdempotencyKey;
  readonly history: History;
  /** What the transaction had read before it came here. */
  readonly earlier: readonly RangeRead[];
  /** Statements that leaders of ranges had run for it: what it has read there is for them to validate. */
  readonly ran: ReadonlyMap<GroupId, number>;
  readonly deadline: Deadline;
}

export interface Workspace {
  readonly runner: Runner;
  /** The leader's wall clock when it was opened, for stamps. */
  readonly wallMs: number;
  /** Of the schema that it was opened with. */
  readonly schemaVersion: number;
  /** The transaction has changed the schema, or the session's TEMP objects. */
  readonly knowsSchema: boolean;
  /** As of the transaction's own schema changes and TEMP objects. */
  analyse(sql: string): Analysis;
  /** Runs one statement and answers its whole outcome; for SELECTs that may be large use `stream`. */
  run(
    statement: StampedStatement,
    analysis: Analysis,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<StatementOutcome>;
  /** Starts a query; its rows come at the caller's pace. */
  stream(
    statement: StampedStatement,
    analysis: Analysis,
    deadline: Deadline,
    systemTables: readonly SystemTable[],
  ): Promise<RowStream>;
  /** Savepoint statements: not replicated, nothing to analyse. */
  control(sql: string, deadline: Deadline): Promise<void>;
  /** All that was read here so far. */
  reads(): readonly RangeRead[];
  /**
   * Runs COMMIT here (deferred constraints are checked: it may fail, and the workspace stays open), then proposes what
   * the transaction did. Rejects as RangeService's commits do.
   */
  commit(commit: WorkspaceCommit): Promise<CommandResult>;
  rollback(): Promise<void>;
}

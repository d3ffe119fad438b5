/**
 * `import { connect } from "ostraka"`: the client library's public face. Nothing but re-exports, so that what users
 * may rely on can be seen in one place.
 */
export { connect } from "./connect.js";
export { OstrakaError } from "./errors.js";
export type {
  Args,
  CallOptions,
  ConnectOptions,
  Database,
  ExecResult,
  Executor,
  InputValue,
  IntMode,
  Outcome,
  ResultSet,
  Row,
  RowIterator,
  RunResult,
  ServerInfo,
  Session,
  SessionState,
  Statement,
  StatementInput,
  TlsOptions,
  Transaction,
  TransactionMode,
  Value,
} from "./types.js";

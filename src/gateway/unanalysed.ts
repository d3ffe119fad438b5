/** What is known of statements that are not analysed: introspection and EXPLAIN. */
import { type Analysis, HEADER, type Span } from "../sql/types.js";
import { EVERYTHING, SCHEMA } from "../txn/spans.js";

const HEADER_SPAN: Span = { table: HEADER, low: undefined, high: undefined };

/** May look at any row. */
export const UNANALYSED_READ: Analysis = {
  class: { kind: "select" },
  readonly: true,
  returnsRows: true,
  cost: "unknown",
  parameters: [],
  touchesTemp: false,
  systemTables: [],
  rowChangesOnly: false,
  usesStamp: false,
  writesStatistics: false,
  footprint: () => ({ reads: [EVERYTHING], writes: [], checks: [] }),
  sql: "",
};

/** Looks at the schema alone. */
export const UNANALYSED_SCHEMA: Analysis = {
  ...UNANALYSED_READ,
  footprint: () => ({ reads: [SCHEMA], writes: [], checks: [] }),
};

/** Looks at user_version and application_id, which are set like the schema. */
export const UNANALYSED_HEADER: Analysis = {
  ...UNANALYSED_READ,
  footprint: () => ({ reads: [SCHEMA, HEADER_SPAN], writes: [], checks: [] }),
};

/** What is known of statements that are not analysed: introspection and EXPLAIN. */
import type { Analysis } from "../sql/types.js";
import { EVERYTHING, SCHEMA } from "../txn/spans.js";

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

/** What is known of statements that are not analysed: introspection and EXPLAIN. */
import { type Analysis, EVERY_TABLE, SCHEMA } from "../sql/types.js";

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
  footprint: () => ({
    reads: [{ table: EVERY_TABLE, low: undefined, high: undefined }],
    writes: [],
    checks: [],
  }),
  sql: "",
};

/** Looks at the schema alone. */
export const UNANALYSED_SCHEMA: Analysis = {
  ...UNANALYSED_READ,
  footprint: () => ({ reads: [{ table: SCHEMA, low: undefined, high: undefined }], writes: [], checks: [] }),
};

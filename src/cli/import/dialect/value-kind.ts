/** What a column's values are: decides how they are read from a dump, and what may be made of them in expressions. */
export type ValueKind =
  | "integer"
  /** Exact decimals, which SQLite holds as INTEGER or REAL. */
  | "numeric"
  | "real"
  | "text"
  /** CHAR(n) of PostgreSQL, whose trailing blanks mean nothing. */
  | "padded"
  | "blob"
  | "boolean"
  /** A number written as bits or as bytes. */
  | "bit"
  /** Dates and times, kept as text. */
  | "time"
  /** Kept as text in UTC, without the offset. */
  | "timestamptz";

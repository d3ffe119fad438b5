/**
 * Every pragma that SQLite knows, and what becomes of it here. PRAGMA takes effect when it is prepared, so a pragma is
 * never prepared unless this table says that running it where it is run has no effect.
 */

export type PragmaTreatment =
  /** Accepted without effect; answers the value in force (`rows`), whatever was asked for. */
  | {
      readonly kind: "fixed";
      readonly columns: readonly string[];
      readonly row: readonly (string | bigint)[] | undefined;
      /** Why it cannot be turned on, where leaving that unsaid would mislead. */
      readonly alwaysOff?: string;
    }
  /** Reads the schema or the database; run as it is where the data is. */
  | { readonly kind: "introspection"; readonly wholeDatabase: boolean }
  /** A setting of the session: a bit of SessionFlags, or one that never leaves the session. */
  | { readonly kind: "session" }
  /** A number in the database header: set by a command of its own, read like a table. */
  | { readonly kind: "replicated" }
  | { readonly kind: "unsupported"; readonly reason: string }
  /** SQLite ignores pragmas that it does not know: no rows, no error. */
  | { readonly kind: "unknown" };

const fixed = (name: string, value: string | bigint): PragmaTreatment => ({
  kind: "fixed",
  columns: [name],
  row: [value],
});
/** Accepted in silence: SQLite answers no row when it is set, and has nothing to say that matters here. */
const silent: PragmaTreatment = { kind: "fixed", columns: [], row: undefined };
const session: PragmaTreatment = { kind: "session" };
const unsupported = (reason: string): PragmaTreatment => ({ kind: "unsupported", reason });
const schema: PragmaTreatment = { kind: "introspection", wholeDatabase: false };
const whole: PragmaTreatment = { kind: "introspection", wholeDatabase: true };

const PRAGMAS: ReadonlyMap<string, PragmaTreatment> = new Map<string, PragmaTreatment>([
  ["journal_mode", fixed("journal_mode", "wal")],
  ["synchronous", fixed("synchronous", 2n)],
  ["busy_timeout", fixed("timeout", 5000n)],
  ["cache_size", fixed("cache_size", -16000n)],
  ["wal_checkpoint", { kind: "fixed", columns: ["busy", "log", "checkpointed"], row: [0n, 0n, 0n] }],
  ["wal_autocheckpoint", fixed("wal_autocheckpoint", 1000n)],
  ["optimize", silent],
  ["shrink_memory", silent],
  ["incremental_vacuum", silent],
  ["encoding", fixed("encoding", "UTF-8")],
  ["auto_vacuum", fixed("auto_vacuum", 0n)],
  ["locking_mode", fixed("locking_mode", "normal")],
  ["page_size", fixed("page_size", 4096n)],
  ["secure_delete", fixed("secure_delete", 0n)],
  ["temp_store", fixed("temp_store", 0n)],
  ["threads", fixed("threads", 0n)],
  ["cache_spill", fixed("cache_spill", 0n)],
  ["checkpoint_fullfsync", fixed("checkpoint_fullfsync", 0n)],
  ["fullfsync", fixed("fullfsync", 0n)],
  ["journal_size_limit", fixed("journal_size_limit", -1n)],
  ["mmap_size", fixed("mmap_size", 0n)],
  ["max_page_count", fixed("max_page_count", 4294967294n)],
  ["soft_heap_limit", fixed("soft_heap_limit", 0n)],
  ["hard_heap_limit", fixed("hard_heap_limit", 0n)],
  ["analysis_limit", fixed("analysis_limit", 0n)],
  ["automatic_index", fixed("automatic_index", 1n)],
  ["cell_size_check", fixed("cell_size_check", 0n)],
  ["read_uncommitted", fixed("read_uncommitted", 0n)],
  ["reverse_unordered_selects", fixed("reverse_unordered_selects", 0n)],
  ["trusted_schema", fixed("trusted_schema", 1n)],
  [
    "legacy_alter_table",
    {
      kind: "fixed",
      columns: ["legacy_alter_table"],
      row: [0n],
      alwaysOff: "ALTER TABLE … RENAME always renames in triggers and views, too",
    },
  ],
  ["count_changes", fixed("count_changes", 0n)],
  ["full_column_names", fixed("full_column_names", 0n)],
  ["short_column_names", fixed("short_column_names", 1n)],
  ["empty_result_callbacks", fixed("empty_result_callbacks", 0n)],
  ["legacy_file_format", silent],

  ["table_info", schema],
  ["table_xinfo", schema],
  ["table_list", schema],
  ["index_list", schema],
  ["index_info", schema],
  ["index_xinfo", schema],
  ["foreign_key_list", schema],
  ["collation_list", schema],
  ["function_list", schema],
  ["module_list", schema],
  ["pragma_list", schema],
  ["compile_options", schema],
  ["database_list", schema],
  ["schema_version", schema],
  ["data_version", schema],
  ["freelist_count", schema],
  ["page_count", schema],
  ["foreign_key_check", whole],
  ["integrity_check", whole],
  ["quick_check", whole],

  ["foreign_keys", session],
  ["defer_foreign_keys", session],
  ["recursive_triggers", session],
  ["case_sensitive_like", session],
  ["ignore_check_constraints", session],
  ["query_only", session],

  ["user_version", { kind: "replicated" }],
  ["application_id", { kind: "replicated" }],

  ["writable_schema", unsupported("the schema changes only by CREATE, ALTER and DROP")],
  ["temp_store_directory", unsupported("where temporary files go is each node's own")],
  ["data_store_directory", unsupported("where files go is each node's own")],
  ["lock_proxy_file", unsupported("files are never shared between processes")],
  ["key", unsupported("this build of SQLite has no encryption")],
  ["rekey", unsupported("this build of SQLite has no encryption")],
]);

/** Some pragmas only look when they have no argument, and would change the file when they have one. */
const READ_ONLY_WITHOUT_ARGUMENT: ReadonlySet<string> = new Set([
  "schema_version",
  "page_count",
  "freelist_count",
]);

export function pragmaTreatment(name: string, hasArgument: boolean): PragmaTreatment {
  if (hasArgument && READ_ONLY_WITHOUT_ARGUMENT.has(name)) {
    return name === "schema_version"
      ? unsupported("the schema version is kept by SQLite")
      : (PRAGMAS.get(name) as PragmaTreatment);
  }
  return PRAGMAS.get(name) ?? { kind: "unknown" };
}

/** Pragmas that may be read as table-valued functions (pragma_table_info('t')). */
export function isReadablePragmaFunction(name: string): boolean {
  return PRAGMAS.get(name)?.kind === "introspection" || PRAGMAS.get(name)?.kind === "replicated";
}

/** SQLite's reading of a boolean argument: ON, YES, TRUE and numbers whose last byte is not zero; anything else is off. */
export function pragmaBoolean(argument: string): boolean {
  if (/^\d/.test(argument)) return (pragmaInteger(argument) & 0xff) !== 0;
  return /^(on|yes|true)$/i.test(argument);
}

/** SQLite's reading of a number of 32 bits: what it begins with; 0 where that is none, or too much. */
export function pragmaInteger(argument: string): number {
  const hex = /^0x0*([0-9a-f]{1,8})(?![0-9a-f])/i.exec(argument)?.[1];
  if (hex !== undefined) {
    const value = Number.parseInt(hex, 16);
    return value < 2 ** 31 ? value : 0;
  }
  const value = Number(/^[+-]?\d+/.exec(argument)?.[0] ?? 0);
  return value < -(2 ** 31) || value >= 2 ** 31 ? 0 : value + 0;
}

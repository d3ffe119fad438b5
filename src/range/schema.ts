/**
 * One replica's schema as the main thread knows it: the oracle that SQLite answers from, rebuilt when an apply changed
 * the schema, and the analyses of statements, cached by text until then.
 */
import { createOracle, type SessionOracle } from "../machines/range/oracle.js";
import type { RangeStore, SchemaSnapshot } from "../machines/range/types.js";
import { AnalysisCache } from "../sql/analyse.js";
import type { Analysis, SchemaOracle } from "../sql/types.js";

const CACHED_STATEMENTS = 4096;

export class Schema {
  #snapshot: SchemaSnapshot;
  #oracle: SessionOracle | undefined;
  #cache = new AnalysisCache(CACHED_STATEMENTS);

  private constructor(snapshot: SchemaSnapshot) {
    this.#snapshot = snapshot;
  }

  static async follow(store: RangeStore): Promise<Schema> {
    const schema = new Schema(await store.schema());
    store.onSchema((snapshot) => {
      schema.#snapshot = snapshot;
      schema.#oracle?.close();
      schema.#oracle = undefined;
      schema.#cache = new AnalysisCache(CACHED_STATEMENTS);
    });
    return schema;
  }

  get version(): number {
    return this.#snapshot.version;
  }

  get snapshot(): SchemaSnapshot {
    return this.#snapshot;
  }

  /** Not to be kept: the next change of the schema closes it. */
  oracle(): SchemaOracle {
    this.#oracle ??= createOracle(this.#snapshot);
    return this.#oracle;
  }

  /** Throws UserError as SQLite would on a statement that does not compile. */
  analyse(sql: string): Analysis {
    return this.#cache.analyse(sql, this.oracle());
  }
}

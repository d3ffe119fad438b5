/**
 * Replicas' schemas as the main thread knows them: the oracle that SQLite answers from, rebuilt when an apply changed
 * the schema, and the analyses of statements, cached by text until then.
 *
 * Every range of a database holds the whole schema, so a node with many ranges has one schema many times. Schemas that
 * are equal (the same version, the same statements) share one oracle and one cache (SchemaPool); a range that has
 * applied a change before the others moves on to another.
 */
import { createOracle, type SessionOracle } from "../machines/range/oracle.js";
import type { RangeStore, SchemaSnapshot } from "../machines/range/types.js";
import { AnalysisCache } from "../sql/analyse.js";
import type { Analysis, SchemaOracle } from "../sql/types.js";

const CACHED_STATEMENTS = 4096;
/** Oracles that are kept open; one that is closed is made again when it is asked. */
const OPEN_ORACLES = 8;

/** One schema, for all ranges that have it. */
class SharedSchema {
  readonly key: string;
  readonly snapshot: SchemaSnapshot;
  users = 0;
  #oracle: SessionOracle | undefined;
  readonly #cache = new AnalysisCache(CACHED_STATEMENTS);

  constructor(key: string, snapshot: SchemaSnapshot) {
    this.key = key;
    this.snapshot = snapshot;
  }

  /** Undefined unless open. */
  get open(): SessionOracle | undefined {
    return this.#oracle;
  }

  make(): SessionOracle {
    this.#oracle = createOracle(this.snapshot);
    return this.#oracle;
  }

  analyse(sql: string, oracle: SchemaOracle): Analysis {
    return this.#cache.analyse(sql, oracle);
  }

  close(): void {
    this.#oracle?.close();
    this.#oracle = undefined;
  }
}

/** The schemas in use on a node. */
export class SchemaPool {
  readonly #byKey = new Map<string, SharedSchema>();
  /** With open oracles, the one used last at the end. */
  readonly #open = new Set<SharedSchema>();

  get size(): number {
    return this.#byKey.size;
  }

  acquire(snapshot: SchemaSnapshot): SharedSchema {
    const key = JSON.stringify([snapshot.version, snapshot.statements, snapshot.tables]);
    let shared = this.#byKey.get(key);
    if (shared === undefined) {
      shared = new SharedSchema(key, snapshot);
      this.#byKey.set(key, shared);
    }
    shared.users++;
    return shared;
  }

  release(shared: SharedSchema): void {
    if (--shared.users > 0) return;
    this.#byKey.delete(shared.key);
    this.#open.delete(shared);
    shared.close();
  }

  oracle(shared: SharedSchema): SessionOracle {
    const open = shared.open;
    if (open !== undefined) {
      if (this.#open.size > 1) this.#used(shared);
      return open;
    }
    this.#used(shared);
    if (this.#open.size > OPEN_ORACLES) {
      const [oldest] = this.#open;
      this.#open.delete(oldest!);
      oldest!.close();
    }
    return shared.make();
  }

  #used(shared: SharedSchema): void {
    this.#open.delete(shared);
    this.#open.add(shared);
  }
}

export class Schema {
  readonly #pool: SchemaPool;
  #shared: SharedSchema;
  #closed = false;

  private constructor(snapshot: SchemaSnapshot, pool: SchemaPool) {
    this.#pool = pool;
    this.#shared = pool.acquire(snapshot);
  }

  /** The schema of a store, as its applies change it. */
  static async follow(store: RangeStore, pool = new SchemaPool()): Promise<Schema> {
    let schema: Schema | undefined;
    let changed: SchemaSnapshot | undefined;
    store.onSchema((snapshot) => {
      changed = snapshot;
      schema?.update(snapshot);
    });
    const first = await store.schema();
    schema = new Schema(changed ?? first, pool);
    return schema;
  }

  /** A schema that somebody else keeps up to date. */
  static of(snapshot: SchemaSnapshot, pool: SchemaPool): Schema {
    return new Schema(snapshot, pool);
  }

  update(snapshot: SchemaSnapshot): void {
    if (this.#closed) return;
    const before = this.#shared;
    this.#shared = this.#pool.acquire(snapshot);
    this.#pool.release(before);
  }

  /** Its range is gone from this node. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#pool.release(this.#shared);
  }

  get version(): number {
    return this.#shared.snapshot.version;
  }

  get snapshot(): SchemaSnapshot {
    return this.#shared.snapshot;
  }

  /** Not to be kept: the next change of the schema closes it. */
  oracle(): SchemaOracle {
    return this.#pool.oracle(this.#shared);
  }

  /** Throws UserError as SQLite would on a statement that does not compile. */
  analyse(sql: string): Analysis {
    return this.#shared.analyse(sql, this.oracle());
  }
}

/**
 * What is under way, by ids that mostly count up: a map for entries that live shortly and come by the million.
 *
 * A Map in its place costs more than it looks: each time it makes room it leaves its old table behind, with all that
 * was in it, and the old table points to the new one. Once one of them is old enough for the garbage collector to
 * look at it rarely, it keeps alive, one after the other, everything that was ever in its successors.
 *
 * An id has one place, by its lowest bits; an entry that finds its place taken by an older one is kept in a Map.
 * What was deleted is forgotten at once.
 */
const FIRST_PLACES = 64;
const MOST_PLACES = 4096;

export class IdTable<V> {
  #ids: number[] = new Array<number>(FIRST_PLACES).fill(-1);
  #values: (V | undefined)[] = new Array<V | undefined>(FIRST_PLACES).fill(undefined);
  #mask = FIRST_PLACES - 1;
  readonly #others = new Map<number, V>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(id: number): V | undefined {
    const at = id & this.#mask;
    return this.#ids[at] === id ? this.#values[at] : this.#others.get(id);
  }

  has(id: number): boolean {
    return this.get(id) !== undefined;
  }

  /** `id`: a whole number from 0 on; `value` must not be undefined. */
  set(id: number, value: V): void {
    const at = id & this.#mask;
    const there = this.#ids[at];
    if (there === id) {
      this.#values[at] = value;
      return;
    }
    if (there === -1 && !this.#others.has(id)) {
      this.#ids[at] = id;
      this.#values[at] = value;
      this.#size++;
      return;
    }
    if (!this.#others.has(id)) this.#size++;
    this.#others.set(id, value);
    if (this.#size > this.#ids.length / 2 && this.#ids.length < MOST_PLACES) this.#grow();
  }

  delete(id: number): boolean {
    const at = id & this.#mask;
    if (this.#ids[at] === id) {
      this.#ids[at] = -1;
      this.#values[at] = undefined;
    } else if (!this.#others.delete(id)) return false;
    this.#size--;
    return true;
  }

  clear(): void {
    this.#ids.fill(-1);
    this.#values.fill(undefined);
    this.#others.clear();
    this.#size = 0;
  }

  /** In no particular order. */
  values(): V[] {
    return [...this.#values.filter((value) => value !== undefined), ...this.#others.values()];
  }

  #grow(): void {
    const entries = this.#ids.flatMap((id, i) => (id < 0 ? [] : [[id, this.#values[i] as V] as const]));
    entries.push(...this.#others);
    const places = this.#ids.length * 2;
    this.#mask = places - 1;
    this.#ids = new Array<number>(places).fill(-1);
    this.#values = new Array<V | undefined>(places).fill(undefined);
    this.#others.clear();
    this.#size = 0;
    for (const [id, value] of entries) this.set(id, value);
  }
}

/**
 * What was found out of the last few texts. The ranges of a database all have the same schema, and many of them one worker:
 * what follows from the schema's text alone is found out once for all of them.
 */
export class Remembered<T> {
  readonly #most: number;
  /** The one used last at the end. */
  readonly #found = new Map<string, T>();

  /** Of so many texts, at most. */
  constructor(most: number) {
    this.#most = most;
  }

  of(text: string, find: () => T): T {
    const found = this.#found.get(text) ?? find();
    this.#found.delete(text);
    this.#found.set(text, found);
    if (this.#found.size > this.#most) this.#found.delete(this.#found.keys().next().value as string);
    return found;
  }
}

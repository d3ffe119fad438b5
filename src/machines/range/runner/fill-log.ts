/** Rows that came from other nodes while a savepoint was open, in case it is rolled back to: nobody has them any more. */
import { closeSync, ftruncateSync } from "node:fs";
import { assert } from "../../../base/assert.js";
import { openUnnamed, readAt, writeAt } from "./spool.js";

export interface FillPiece {
  readonly offset: number;
  readonly length: number;
}

export class FillLog {
  readonly #file = openUnnamed();
  #end = 0;
  #closed = false;

  append(rows: Uint8Array): FillPiece {
    const piece = { offset: this.#end, length: rows.length };
    writeAt(this.#file, rows, this.#end);
    this.#end += rows.length;
    return piece;
  }

  read({ offset, length }: FillPiece): Uint8Array {
    assert(!this.#closed, "rows were read from a log that is closed");
    return readAt(this.#file, offset, length);
  }

  clear(): void {
    ftruncateSync(this.#file, 0);
    this.#end = 0;
  }

  close(): void {
    if (!this.#closed) closeSync(this.#file);
    this.#closed = true;
  }
}

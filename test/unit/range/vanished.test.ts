/** A range's directory that is removed while a statement's process opens its file. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, expect, it } from "vitest";
import { FatalError } from "../../../src/base/errors.js";
import { openConnection, type RangeConnection } from "../../../src/machines/range/connection.js";
import { openIdentified } from "../../../src/machines/range/runner/file-identity.js";
import { asRunnerError } from "../../../src/machines/range/runner/session.js";
import { temporaryDirectory } from "./helpers.js";

const RETRY = { family: "retry", code: "OSTRAKA_UNAVAILABLE" };

let directory: string;
let path: string;
beforeEach(() => {
  directory = temporaryDirectory();
  path = join(directory, "range.db");
  openConnection(path, { readonly: false, role: "apply" }).close();
});

function remove(): void {
  rmSync(directory, { recursive: true });
}

function failureOf(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  return undefined;
}

const open = (): RangeConnection => openConnection(path, { readonly: true, role: "read" });

it("is no fault of the statement", () => {
  remove();
  expect(failureOf(open)).toMatchObject({ family: "fatal", code: "SQLITE_CANTOPEN" });
});

it("has the statement tried again where it goes before the file is opened", () => {
  const late = (): RangeConnection => {
    remove();
    return open();
  };
  expect(asRunnerError(failureOf(() => openIdentified(path, late)))).toMatchObject(RETRY);
});

it("has the statement tried again where it goes in the middle", () => {
  const halfway = (): RangeConnection => {
    remove();
    throw new FatalError("SQLITE_IOERR_FSTAT", "disk I/O error");
  };
  expect(asRunnerError(failureOf(() => openIdentified(path, halfway)))).toMatchObject(RETRY);
});

it("has the statement tried again where it goes afterwards, and leaves nothing open", () => {
  let opened: RangeConnection | undefined;
  const early = (): RangeConnection => {
    opened = open();
    remove();
    return opened;
  };
  expect(asRunnerError(failureOf(() => openIdentified(path, early)))).toMatchObject(RETRY);
  expect(opened?.database.open).toBe(false);
});

it("is looked for in vain once it is gone", () => {
  remove();
  expect(asRunnerError(failureOf(() => openIdentified(path, open)))).toMatchObject(RETRY);
});

/**
 * RangeService calls as bytes, for the way between nodes: one msgpack array a call, SQL values as vectors of
 * src/base/values.ts so that storage classes stay exact. Both ends run the same version of this file (the peer
 * handshake sees to that), so objects travel as maps and need no format number.
 */
import { Packr } from "msgpackr";
import { decodeVector, encodeVector, type SqlValue } from "../base/values.js";
import { decodeChanges, encodeChanges, encoded } from "../machines/range/row-changes.js";
import type { StampedStatement } from "../machines/range/types.js";
import type { Statement } from "../sql/types.js";
import type {
  CopyCommit,
  PrepareRequest,
  RangeService,
  TransactionStatement,
  WriteRequest,
} from "./types.js";

const packr = new Packr({ useRecords: false, int64AsType: "bigint", variableMapSize: true });

export function pack(value: unknown): Uint8Array {
  return packr.pack(value);
}

export function unpack(bytes: Uint8Array): unknown {
  return packr.unpack(bytes);
}

type Packed<T> = Omit<T, "params" | "vector"> & { readonly params: Uint8Array };
type BatchRequest = Parameters<RangeService["batch"]>[0];

interface WithParams {
  readonly params: readonly SqlValue[];
  readonly vector?: Uint8Array | undefined;
}

function packParams<T extends WithParams>(statement: T): Packed<T> {
  const { vector, ...rest } = statement;
  return { ...rest, params: vector ?? encodeVector(statement.params) } as Packed<T>;
}

function unpackParams<T extends WithParams>(packed: Packed<T>): T {
  return { ...packed, params: decodeVector(packed.params) } as unknown as T;
}

function packInner<T extends { readonly statement: Statement }>(request: T): unknown {
  return { ...request, statement: packParams(request.statement) };
}

function unpackInner<T extends { readonly statement: Statement }>(packed: unknown): T {
  const request = packed as T;
  return {
    ...request,
    statement: unpackParams<Statement>(request.statement as unknown as Packed<Statement>),
  };
}

export const writeCodec = {
  pack: (request: WriteRequest): unknown => packInner(request),
  unpack: (packed: unknown): WriteRequest => unpackInner(packed),
};

export const runCodec = {
  pack: (request: TransactionStatement): unknown => packInner(request),
  unpack: (packed: unknown): TransactionStatement => unpackInner(packed),
};

export const batchCodec = {
  pack: (request: BatchRequest): unknown => ({ ...request, statements: request.statements.map(packInner) }),
  unpack: (packed: unknown): BatchRequest => {
    const request = packed as BatchRequest;
    return { ...request, statements: request.statements.map((statement) => unpackInner(statement)) };
  },
};

export const stampedCodec = {
  pack: (statement: StampedStatement | undefined): unknown => statement && packParams(statement),
  unpack: (packed: unknown): StampedStatement | undefined =>
    packed ? unpackParams<StampedStatement>(packed as Packed<StampedStatement>) : undefined,
};

export const commitCopyCodec = {
  pack: (commit: CopyCommit): unknown => ({
    ...commit,
    body:
      commit.body.kind === "statements"
        ? { kind: commit.body.kind, statements: commit.body.statements.map(packParams) }
        : { ...commit.body, changes: encoded(commit.body.changes) },
  }),
  unpack: (packed: unknown): CopyCommit => {
    const commit = packed as CopyCommit;
    const { body } = commit;
    return {
      ...commit,
      body:
        body.kind === "statements"
          ? { kind: body.kind, statements: unpackStatements(body.statements) }
          : body,
    };
  },
};

export const prepareCodec = {
  pack: (request: PrepareRequest): unknown => ({ ...request, body: packBody(request.body) }),
  unpack: (packed: unknown): PrepareRequest => {
    const request = packed as PrepareRequest;
    return { ...request, body: unpackBody(request.body) };
  },
};

function packBody(body: PrepareRequest["body"]): unknown {
  if (body.kind === "nothing" || body.kind === "own") return body;
  const changes = encodeChanges(body.changes);
  return body.kind === "rows"
    ? { ...body, changes }
    : { ...body, changes, statements: body.statements.map(packParams) };
}

function unpackBody(body: PrepareRequest["body"]): PrepareRequest["body"] {
  if (body.kind === "nothing" || body.kind === "own") return body;
  const changes = decodeChanges(body.changes as unknown as Uint8Array);
  return body.kind === "rows"
    ? { ...body, changes }
    : { ...body, changes, statements: unpackStatements(body.statements) };
}

function unpackStatements(packed: readonly unknown[]): StampedStatement[] {
  return packed.map((item) => unpackParams<StampedStatement>(item as Packed<StampedStatement>));
}

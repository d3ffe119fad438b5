/**
 * The bytes of the coordinator's log entries, of their results, and of its state. One entry carries a batch of commands,
 * all that a leader gathered in one turn, and one stamp for them; its result carries one result for each. The first byte
 * of each is the format's version; the rest is in the encoding of src/base/values.ts.
 */
import { FatalError } from "../../base/errors.js";
import { type GroupId, groupId, type TransactionId, transactionId } from "../../base/ids.js";
import { ValueReader, ValueWriter } from "../../base/values.js";
import type {
  CoordinatorCommand,
  CoordinatorImage,
  CoordinatorResult,
  Decision,
  OutboxRow,
} from "../../txn/coordinator.js";

const FORMAT = 1;
const COMMAND = { register: 0, commit: 1, commitWithAnswer: 2, abort: 3, acknowledge: 4 } as const;
const STATES = ["registered", "committed", "aborted"] as const;
const RESULTS = ["registered", "committed", "aborted", "unknown", "ahead", "full", "acknowledged"] as const;

/** For what is written in one go, without calling anything that may use it too. */
const writer = new ValueWriter(16 * 1024);

// --- entries ----------------------------------------------------------------------------------------------------------

export interface CoordinatorEntry {
  readonly wallMs: number;
  readonly commands: readonly CoordinatorCommand[];
}

export function encodeEntry({ wallMs, commands }: CoordinatorEntry): Uint8Array {
  begin();
  writer.uint(wallMs);
  writer.uint(commands.length);
  for (const command of commands) writeCommand(command);
  return writer.take();
}

export function decodeEntry(bytes: Uint8Array): CoordinatorEntry {
  const reader = readerOf(bytes);
  const wallMs = reader.uint();
  return { wallMs, commands: readList(reader, readCommand) };
}

function writeCommand(command: CoordinatorCommand): void {
  switch (command.kind) {
    case "register":
      writer.byte(COMMAND.register);
      writer.string(command.transaction);
      writeNumbers(command.participants);
      return;
    case "decide": {
      const { decision, answer } = command;
      const commit = answer === undefined ? COMMAND.commit : COMMAND.commitWithAnswer;
      writer.byte(decision === "committed" ? commit : COMMAND.abort);
      writer.string(command.transaction);
      if (decision === "committed" && answer !== undefined) writer.bytes(answer);
      return;
    }
    case "acknowledge":
      writer.byte(COMMAND.acknowledge);
      writeNumbers(command.rows);
      return;
  }
}

function readCommand(reader: ValueReader): CoordinatorCommand {
  const kind = reader.byte();
  if (kind === COMMAND.acknowledge) return { kind: "acknowledge", rows: readList(reader, readNumber) };
  const transaction = transactionId(reader.string());
  switch (kind) {
    case COMMAND.register:
      return { kind: "register", transaction, participants: readList(reader, readGroup) };
    case COMMAND.commit:
      return { kind: "decide", transaction, decision: "committed", answer: undefined };
    case COMMAND.commitWithAnswer:
      return { kind: "decide", transaction, decision: "committed", answer: readCopy(reader) };
    case COMMAND.abort:
      return { kind: "decide", transaction, decision: "aborted", answer: undefined };
    default:
      throw new FatalError("OSTRAKA_FORMAT", `unknown coordinator command ${kind}`);
  }
}

// --- results ----------------------------------------------------------------------------------------------------------

export function encodeResults(results: readonly CoordinatorResult[]): Uint8Array {
  begin();
  writer.uint(results.length);
  for (const result of results) {
    writer.byte(RESULTS.indexOf(result.state));
    if ("changed" in result) writer.byte(result.changed ? 1 : 0);
    if ("answer" in result) writeOptional(result.answer);
    if (result.state === "acknowledged") writer.uint(result.delivered);
  }
  return writer.take();
}

export function decodeResults(bytes: Uint8Array): CoordinatorResult[] {
  return readList(readerOf(bytes), readResult);
}

function readResult(reader: ValueReader): CoordinatorResult {
  const state = nameOf(RESULTS, reader.byte());
  switch (state) {
    case "registered":
      return { state, changed: reader.byte() === 1 };
    case "committed":
    case "aborted":
      return { state, changed: reader.byte() === 1, answer: readOptional(reader) };
    case "acknowledged":
      return { state, delivered: reader.uint() };
    default:
      return { state };
  }
}

// --- state ------------------------------------------------------------------------------------------------------------

export function encodeImage(image: CoordinatorImage): Uint8Array {
  begin();
  writer.uint(image.wallMs);
  writer.uint(image.floorMs);
  writer.uint(image.nextRow);
  writer.uint(image.open.length);
  for (const { transaction, state, registeredMs, decidedMs, participants } of image.open) {
    writer.string(transaction);
    writer.byte(STATES.indexOf(state));
    writer.uint(registeredMs);
    writer.uint(decidedMs);
    writer.uint(participants.length);
    for (const [range, row] of participants) {
      writer.uint(range);
      writer.uint(row === undefined ? 0 : row.id);
      if (row !== undefined) writer.uint(row.createdMs);
    }
  }
  writer.uint(image.outcomes.length);
  for (const { transaction, decision, decidedMs } of image.outcomes) {
    writer.string(transaction);
    writer.byte(STATES.indexOf(decision));
    writer.uint(decidedMs);
  }
  writer.uint(image.answers.length);
  for (const [transaction, answer] of image.answers) {
    writer.string(transaction);
    writer.bytes(answer);
  }
  return writer.take();
}

export function decodeImage(bytes: Uint8Array): CoordinatorImage {
  const reader = readerOf(bytes);
  return {
    wallMs: reader.uint(),
    floorMs: reader.uint(),
    nextRow: reader.uint(),
    open: readList(reader, readOpen),
    outcomes: readList(reader, () => ({
      transaction: transactionId(reader.string()),
      decision: readDecision(reader),
      decidedMs: reader.uint(),
    })),
    answers: readList(reader, () => [transactionId(reader.string()), readCopy(reader)] as const),
  };
}

function readOpen(reader: ValueReader): CoordinatorImage["open"][number] {
  const transaction = transactionId(reader.string());
  const state = nameOf(STATES, reader.byte());
  return {
    transaction,
    state,
    registeredMs: reader.uint(),
    decidedMs: reader.uint(),
    participants: readList(reader, () => readParticipant(reader, transaction, state)),
  };
}

function readParticipant(
  reader: ValueReader,
  transaction: TransactionId,
  decision: "registered" | Decision,
): readonly [GroupId, OutboxRow | undefined] {
  const destination = readGroup(reader);
  const id = reader.uint();
  if (id === 0) return [destination, undefined];
  if (decision === "registered")
    throw new FatalError("OSTRAKA_CORRUPT", `a row of transaction ${transaction}, which is not decided`);
  return [destination, { id, transaction, destination, decision, createdMs: reader.uint() }];
}

// --- parts ------------------------------------------------------------------------------------------------------------

function begin(): void {
  writer.reset();
  writer.byte(FORMAT);
}

function readerOf(bytes: Uint8Array): ValueReader {
  const reader = new ValueReader(bytes);
  const format = reader.byte();
  if (format !== FORMAT)
    throw new FatalError(
      "OSTRAKA_FORMAT",
      `coordinator bytes of format ${format}; this version reads ${FORMAT}`,
    );
  return reader;
}

function writeNumbers(numbers: readonly number[]): void {
  writer.uint(numbers.length);
  for (const number of numbers) writer.uint(number);
}

function writeOptional(bytes: Uint8Array | undefined): void {
  writer.byte(bytes === undefined ? 0 : 1);
  if (bytes !== undefined) writer.bytes(bytes);
}

function readOptional(reader: ValueReader): Uint8Array | undefined {
  return reader.byte() === 1 ? readCopy(reader) : undefined;
}

/** What is kept must not hold on to the bytes of the whole entry. A Buffer's slice would be a view. */
function readCopy(reader: ValueReader): Uint8Array {
  return new Uint8Array(reader.bytes());
}

function readList<T>(reader: ValueReader, read: (reader: ValueReader) => T): T[] {
  const list: T[] = [];
  for (let left = reader.uint(); left > 0; left--) list.push(read(reader));
  return list;
}

function readNumber(reader: ValueReader): number {
  return reader.uint();
}

function readGroup(reader: ValueReader): GroupId {
  return groupId(reader.uint());
}

function readDecision(reader: ValueReader): Decision {
  const state = nameOf(STATES, reader.byte());
  if (state === "registered") throw new FatalError("OSTRAKA_CORRUPT", "an outcome that is none");
  return state;
}

function nameOf<T extends string>(names: readonly T[], at: number): T {
  const name = names[at];
  if (name === undefined) throw new FatalError("OSTRAKA_FORMAT", `unknown coordinator state ${at}`);
  return name;
}

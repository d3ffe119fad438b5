/**
 * Runs a .sql file in one session, sent ahead as far as that is safe (shell/pipeline.ts), stopping at the first error.
 * Commands of a shell have no place in it.
 */
import { statSync } from "node:fs";
import { basename } from "node:path";
import type { Session } from "../../driver/types.js";
import { type SplitStatement, StatementSplitter } from "../../sql/splitter.js";
import { NO_TIMEOUT_MS } from "../connection.js";
import { CommandFailure, describeError, EXIT } from "../exit.js";
import { startProgress } from "../progress.js";
import { Pipeline } from "../shell/pipeline.js";
import { readText } from "./import.js";

export async function importSqlScript(
  session: Session,
  path: string,
): Promise<{ readonly statements: number }> {
  const run = new SqlScript(session, path);
  const progress = startProgress(basename(path), statSync(path).size);
  try {
    const splitter = new StatementSplitter();
    for await (const { text, bytes } of readText(path)) {
      for (const statement of splitter.push(text)) await run.statement(statement);
      progress.update(bytes, run.statements);
    }
    const rest = splitter.finish();
    if (rest !== undefined) await run.statement(rest);
    await run.finish();
  } finally {
    progress.stop();
  }
  return { statements: run.statements };
}

class SqlScript {
  statements = 0;
  readonly #pipeline: Pipeline;
  #failure: CommandFailure | undefined;

  constructor(
    readonly session: Session,
    readonly path: string,
  ) {
    this.#pipeline = new Pipeline(
      () => session,
      {
        failed: (error, _sql, line) => {
          this.#fail(error, line);
          return false;
        },
      },
      { stopOnError: () => true, timeoutMs: () => NO_TIMEOUT_MS },
    );
  }

  async statement({ text, line }: SplitStatement): Promise<void> {
    const offered = await this.#pipeline.offer(text, line);
    if (offered === "stop") throw this.#failure;
    if (offered === "no") {
      try {
        await this.session.execute(text, undefined, { timeoutMs: NO_TIMEOUT_MS });
      } catch (error) {
        throw this.#fail(error, line);
      }
    }
    this.statements++;
  }

  async finish(): Promise<void> {
    if (!(await this.#pipeline.drain())) throw this.#failure;
    if (this.session.state !== "idle") {
      throw new CommandFailure(
        EXIT.failure,
        `${this.path} ends within a transaction: what it did was rolled back`,
      );
    }
  }

  #fail(error: unknown, line: number): CommandFailure {
    const kept =
      this.session.state === "idle"
        ? "what came before this statement was loaded, nothing after it"
        : "the open transaction was rolled back; what was committed before it stays";
    this.#failure = new CommandFailure(
      EXIT.failure,
      `${this.path}:${line}: ${describeError(error)}\n${kept}`,
      {
        cause: error,
      },
    );
    return this.#failure;
  }
}

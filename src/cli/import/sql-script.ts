/**
 * Runs a .sql file in one session, sent ahead as far as that is safe (shell/pipeline.ts), stopping at the first error.
 * A transaction of it that loses a race (OSTRAKA_RETRY), as when the range that it fills is split, runs again from its
 * BEGIN. Commands of a shell have no place in it.
 */
import { statSync } from "node:fs";
import { basename } from "node:path";
import type { Session } from "../../driver/types.js";
import { type SplitStatement, StatementSplitter } from "../../sql/splitter.js";
import { NO_TIMEOUT_MS } from "../connection.js";
import { CommandFailure, describeError, EXIT, errorCode } from "../exit.js";
import { bindLongLiterals } from "../long-literals.js";
import { startProgress } from "../progress.js";
import { Pipeline } from "../shell/pipeline.js";
import { readText } from "./import.js";

interface Failure {
  readonly error: unknown;
  readonly line: number;
}

const MAX_ATTEMPTS = 20;
/** About what a transaction may hold. */
const MAX_KEPT_CHARACTERS = 64 * 1024 * 1024;

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
  #pipeline: Pipeline;
  #failure: Failure | undefined;
  /** Those of the open transaction, for when it has to run again; undefined where they are too many to be kept. */
  #kept: SplitStatement[] | undefined = [];
  #keptCharacters = 0;

  constructor(
    readonly session: Session,
    readonly path: string,
  ) {
    this.#pipeline = this.#newPipeline();
  }

  async statement(statement: SplitStatement): Promise<void> {
    this.#keep(statement);
    let failure = await this.#attempt(statement);
    for (let attempt = 1; failure !== undefined; attempt++) {
      const lostRace = errorCode(failure.error) === "OSTRAKA_RETRY" && this.session.state === "failed";
      if (!lostRace || this.#kept === undefined || attempt === MAX_ATTEMPTS) throw this.#told(failure);
      failure = await this.#again(this.#kept);
    }
    this.statements++;
    if (this.session.state === "idle") this.#forget();
  }

  async finish(): Promise<void> {
    if (!(await this.#pipeline.drain())) throw this.#told(this.#failure!);
    if (this.session.state !== "idle") {
      throw new CommandFailure(
        EXIT.failure,
        `${this.path} ends within a transaction: what it did was rolled back`,
      );
    }
  }

  #newPipeline(): Pipeline {
    return new Pipeline(
      () => this.session,
      {
        failed: (error, _sql, line) => {
          this.#failure = { error, line };
          return false;
        },
      },
      { stopOnError: () => true, timeoutMs: () => NO_TIMEOUT_MS },
    );
  }

  async #attempt({ text, line }: SplitStatement): Promise<Failure | undefined> {
    const offered = await this.#pipeline.offer(text, line);
    if (offered === "stop") return this.#failure;
    if (offered === "taken") return undefined;
    try {
      await this.session.execute(bindLongLiterals(text), undefined, { timeoutMs: NO_TIMEOUT_MS });
      return undefined;
    } catch (error) {
      return { error, line };
    }
  }

  /** Runs all of a transaction that another one, or a range that was split, came in between of. */
  async #again(statements: readonly SplitStatement[]): Promise<Failure | undefined> {
    this.#pipeline = this.#newPipeline();
    await this.session.execute("ROLLBACK");
    for (const statement of statements) {
      const failure = await this.#attempt(statement);
      if (failure !== undefined) return failure;
    }
    return undefined;
  }

  #keep(statement: SplitStatement): void {
    this.#keptCharacters += statement.text.length;
    if (this.#keptCharacters > MAX_KEPT_CHARACTERS) this.#kept = undefined;
    this.#kept?.push(statement);
  }

  #forget(): void {
    this.#kept = [];
    this.#keptCharacters = 0;
  }

  #told({ error, line }: Failure): CommandFailure {
    const kept =
      this.session.state === "idle"
        ? "what came before this statement was loaded, nothing after it"
        : "the open transaction was rolled back; what was committed before it stays";
    return new CommandFailure(EXIT.failure, `${this.path}:${line}: ${describeError(error)}\n${kept}`, {
      cause: error,
    });
  }
}

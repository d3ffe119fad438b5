/**
 * What a dump says about itself while it goes: its text's encoding, how strings are escaped, and in which schema names
 * without one are. The schema and the rows are read in two passes; each follows these statements anew.
 */
import { type Decode, decoderFor, decodeUtf8 } from "./charset.js";
import type { LexicalMode } from "./lexer.js";
import { isSymbol, type QualifiedName, type Token, TokenReader, tokenize } from "./tokens.js";

export type Dialect = "mysql" | "mariadb" | "postgresql";

export class DumpSession {
  readonly mode: LexicalMode;
  decode: Decode = decodeUtf8;
  /** MySQL's USE, PostgreSQL's search_path: where a table is that is named without its schema. */
  schema: string | undefined;
  /** What @variables remember of sql_mode. */
  readonly #savedModes = new Map<string, string | undefined>();
  #sqlMode: string | undefined;

  constructor(readonly dialect: Dialect) {
    this.mode = {
      family: dialect === "postgresql" ? "postgresql" : "mysql",
      mariadb: dialect === "mariadb",
      backslashEscapes: dialect !== "postgresql",
      ansiQuotes: dialect === "postgresql",
    };
  }

  tokenize(bytes: string): Token[] {
    return tokenize(bytes, this.mode, this.decode);
  }

  reader(bytes: string): TokenReader {
    return new TokenReader(this.tokenize(bytes), this.mode.family);
  }

  /** A name with the schema that it has, or is in now. */
  qualify(name: QualifiedName): QualifiedName {
    return name.schema === undefined ? { schema: this.schema, name: name.name } : name;
  }

  /** Whether this was a statement of the kind that only changes how to read on. Throws TypeError on an encoding that cannot be read. */
  apply(bytes: string): boolean {
    // Looked at first by a pattern: this runs for every statement of both passes.
    if (!/^(?:set|use|select\s+pg_catalog\.set_config)\b/i.test(bytes)) return false;
    try {
      this.#apply(this.reader(bytes));
    } catch (error) {
      // Settings of any other form have nothing to do with how to read on.
      if (!(error instanceof SyntaxError)) throw error;
    }
    return true;
  }

  #apply(reader: TokenReader): void {
    if (reader.take("use")) {
      this.schema = reader.name();
    } else if (reader.take("set")) {
      this.#set(reader);
    } else {
      const [name, value] = reader.tokens.filter(({ kind }) => kind === "string");
      if (name?.value === "search_path" && value !== undefined) this.#searchPath(value.value);
    }
  }

  #set(reader: TokenReader): void {
    if (reader.take("names") || reader.take("character", "set") || reader.take("charset")) {
      this.#encoding(reader.next().value);
      return;
    }
    for (const word of ["session", "local", "global"]) reader.take(word);
    if (this.mode.family === "mysql") {
      this.#setVariables(reader.rest());
      return;
    }
    const name = reader.name();
    if (!reader.take("=")) reader.take("to");
    const value = reader.peek();
    if (name === "client_encoding" && value !== undefined) this.#encoding(value.value);
    if (name === "standard_conforming_strings" && value !== undefined) {
      this.mode.backslashEscapes = /^(?:off|false|no|0)$/i.test(value.value);
    }
    if (name === "search_path" && value !== undefined) this.#searchPath(value.value);
  }

  #setVariables(tokens: readonly Token[]): void {
    for (const [i, token] of tokens.entries()) {
      if (token.kind !== "word" || !isSymbol(tokens[i + 1], "=")) continue;
      const value = tokens[i + 2];
      if (value === undefined) continue;
      if (/^(?:@@)?(?:session\.)?sql_mode$/.test(token.value)) {
        if (value.kind === "string") this.#setMode(value.value);
        else if (value.value.startsWith("@")) this.#setMode(this.#savedModes.get(value.value));
      } else if (/^@@(?:session\.)?sql_mode$/.test(value.value)) {
        this.#savedModes.set(token.value, this.#sqlMode);
      }
    }
  }

  #setMode(value: string | undefined): void {
    this.#sqlMode = value;
    const modes = new Set((value ?? "").toUpperCase().split(","));
    this.mode.backslashEscapes = !modes.has("NO_BACKSLASH_ESCAPES");
    this.mode.ansiQuotes = modes.has("ANSI_QUOTES") || modes.has("ANSI");
  }

  #searchPath(value: string): void {
    const first = value
      .split(",")[0]!
      .trim()
      .replace(/^"(.*)"$/, "$1");
    this.schema = first === "" || first === "pg_catalog" ? undefined : first;
  }

  #encoding(name: string): void {
    if (name === "default") return;
    const decode = decoderFor(name, this.mode.family);
    if (decode === undefined) {
      throw new TypeError(`text in ${name} cannot be read here; dump it anew in UTF-8`);
    }
    this.decode = decode;
  }
}

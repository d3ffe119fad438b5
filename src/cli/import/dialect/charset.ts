/**
 * The encodings that a dump's text may be in. All of them keep ASCII characters to themselves: in the others (Shift
 * JIS, Big5, GBK …) a quote or a backslash may be half of a character, and nothing here could be sure where a string
 * ends.
 */
import { isUtf8 } from "node:buffer";

/** Text of one character a byte, decoded. Throws TypeError where the bytes are no text. */
export type Decode = (bytes: string) => string;

const NON_ASCII = /[\x80-\xff]/;

export const decodeUtf8: Decode = (bytes) => {
  if (!NON_ASCII.test(bytes)) return bytes;
  const buffer = Buffer.from(bytes, "latin1");
  if (!isUtf8(buffer)) throw new TypeError("not UTF-8 text");
  return buffer.toString("utf8");
};

/** Node's name for what MySQL and PostgreSQL call an encoding. */
const ENCODINGS: Readonly<Record<string, string>> = {
  latin2: "iso-8859-2",
  latin5: "iso-8859-9",
  latin7: "iso-8859-13",
  latin9: "iso-8859-15",
  hebrew: "iso-8859-8",
  greek: "iso-8859-7",
  cp1250: "windows-1250",
  cp1251: "windows-1251",
  cp1256: "windows-1256",
  cp1257: "windows-1257",
  koi8r: "koi8-r",
  koi8u: "koi8-u",
  ujis: "euc-jp",
  eucjp: "euc-jp",
  euckr: "euc-kr",
  ...Object.fromEntries(
    [1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258].map((n) => [`win${n}`, `windows-${n}`]),
  ),
};

const UTF8 = new Set(["utf8", "utf8mb3", "utf8mb4", "unicode", "ascii", "sqlascii", "binary"]);

/** How to read text in the encoding of this name; undefined for those that cannot be read. */
export function decoderFor(name: string, family: "mysql" | "postgresql"): Decode | undefined {
  const plain = name.toLowerCase().replace(/[-_ ]/g, "");
  if (UTF8.has(plain)) return decodeUtf8;
  // What MySQL calls latin1 is what the web does: Windows' code page.
  if (plain === "latin1") return family === "mysql" ? decodeWindows1252 : (bytes) => bytes;
  const encoding = ENCODINGS[plain];
  if (encoding === "windows-1252") return decodeWindows1252;
  return encoding === undefined ? undefined : decodeWith(encoding);
}

/** 0x80 to 0x9f; the five that mean nothing stay what they are. Some versions of Node take this encoding for latin1. */
const WINDOWS_1252 =
  "\u20ac\u0081\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u008d\u017d\u008f" +
  "\u0090\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u009d\u017e\u0178";

const decodeWindows1252: Decode = (bytes) =>
  bytes.replace(/[\x80-\x9f]/g, (c) => WINDOWS_1252[c.charCodeAt(0) - 0x80]!);

function decodeWith(encoding: string): Decode {
  const decoder = new TextDecoder(encoding, { fatal: true });
  return (bytes) => (NON_ASCII.test(bytes) ? decoder.decode(Buffer.from(bytes, "latin1")) : bytes);
}

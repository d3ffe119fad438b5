/**
 * How wide a text is on a terminal, and how to show one that could drive it.
 *
 * Widths follow Unicode's East Asian Width (wide and fullwidth count two) and emoji presentation; marks that combine
 * count nothing. Terminals disagree about rare sequences; a column one cell off is the worst that follows.
 *
 * `printable` is the rule that keeps data from acting: control characters (C0, DEL, C1) and the bidirectional
 * overrides come out as visible escapes, so that no value can move the cursor, rename the window or reorder a line.
 */

/** First and last code points of the ranges that take two cells, in order. */
const WIDE = [
  0x1100, 0x115f, 0x231a, 0x231b, 0x2329, 0x232a, 0x23e9, 0x23ec, 0x23f0, 0x23f0, 0x23f3, 0x23f3, 0x25fd,
  0x25fe, 0x2614, 0x2615, 0x2648, 0x2653, 0x267f, 0x267f, 0x2693, 0x2693, 0x26a1, 0x26a1, 0x26aa, 0x26ab,
  0x26bd, 0x26be, 0x26c4, 0x26c5, 0x26ce, 0x26ce, 0x26d4, 0x26d4, 0x26ea, 0x26ea, 0x26f2, 0x26f3, 0x26f5,
  0x26f5, 0x26fa, 0x26fa, 0x26fd, 0x26fd, 0x2705, 0x2705, 0x270a, 0x270b, 0x2728, 0x2728, 0x274c, 0x274c,
  0x274e, 0x274e, 0x2753, 0x2755, 0x2757, 0x2757, 0x2795, 0x2797, 0x27b0, 0x27b0, 0x27bf, 0x27bf, 0x2b1b,
  0x2b1c, 0x2b50, 0x2b50, 0x2b55, 0x2b55, 0x2e80, 0x303e, 0x3041, 0x33ff, 0x3400, 0x4dbf, 0x4e00, 0xa4cf,
  0xa960, 0xa97c, 0xac00, 0xd7a3, 0xf900, 0xfaff, 0xfe10, 0xfe19, 0xfe30, 0xfe6f, 0xff00, 0xff60, 0xffe0,
  0xffe6, 0x16fe0, 0x18cff, 0x1aff0, 0x1b2fb, 0x1f004, 0x1f004, 0x1f0cf, 0x1f0cf, 0x1f18e, 0x1f18e, 0x1f191,
  0x1f19a, 0x1f200, 0x1f320, 0x1f32d, 0x1f335, 0x1f337, 0x1f37c, 0x1f37e, 0x1f393, 0x1f3a0, 0x1f3ca, 0x1f3cf,
  0x1f3d3, 0x1f3e0, 0x1f3f0, 0x1f3f4, 0x1f3f4, 0x1f3f8, 0x1f43e, 0x1f440, 0x1f440, 0x1f442, 0x1f4fc, 0x1f4ff,
  0x1f53d, 0x1f54b, 0x1f54e, 0x1f550, 0x1f567, 0x1f57a, 0x1f57a, 0x1f595, 0x1f596, 0x1f5a4, 0x1f5a4, 0x1f5fb,
  0x1f64f, 0x1f680, 0x1f6c5, 0x1f6cc, 0x1f6cc, 0x1f6d0, 0x1f6d2, 0x1f6d5, 0x1f6d7, 0x1f6dc, 0x1f6df, 0x1f6eb,
  0x1f6ec, 0x1f6f4, 0x1f6fc, 0x1f7e0, 0x1f7eb, 0x1f7f0, 0x1f7f0, 0x1f90c, 0x1f93a, 0x1f93c, 0x1f945, 0x1f947,
  0x1f9ff, 0x1fa70, 0x1faff, 0x20000, 0x2fffd, 0x30000, 0x3fffd,
];

const ASCII_ONLY = /^[\x20-\x7e]*$/;
const ZERO_WIDTH = /^[\p{Mn}\p{Me}\p{Cf}]$/u;
/** Joiners, variation selectors, flags, skin tones: only then are clusters more than code points. */
const CLUSTERED = /[\u200d\ufe0f\u{1f1e6}-\u{1f1ff}\u{1f3fb}-\u{1f3ff}]/u;
const segmenter = new Intl.Segmenter("en", { granularity: "grapheme" });

/** Cells that `text` takes on one line of a terminal. It must hold no control characters. */
export function displayWidth(text: string): number {
  if (ASCII_ONLY.test(text)) return text.length;
  if (!CLUSTERED.test(text)) return sumOfCodePoints(text);
  let width = 0;
  for (const { segment } of segmenter.segment(text)) {
    const own = sumOfCodePoints(segment);
    width += CLUSTERED.test(segment) ? Math.min(2, Math.max(own, segment.includes("\ufe0f") ? 2 : own)) : own;
  }
  return width;
}

function sumOfCodePoints(text: string): number {
  let width = 0;
  for (const character of text) width += codePointWidth(character.codePointAt(0)!, character);
  return width;
}

function codePointWidth(codePoint: number, character: string): number {
  if (codePoint < 0x300) return 1;
  if (ZERO_WIDTH.test(character)) return 0;
  let low = 0;
  let high = WIDE.length / 2 - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (codePoint < WIDE[2 * middle]!) high = middle - 1;
    else if (codePoint > WIDE[2 * middle + 1]!) low = middle + 1;
    else return 2;
  }
  return 1;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: finding them is the purpose
const UNPRINTABLE = /[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
const LAYOUT = new Set(["\n", "\r", "\t"]);

/** `text` on one line, with everything that could act on a terminal shown as an escape (`\n`, `\x1b`, `\u202e`). */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, escapeOf);
}

/** The same, but line feeds, carriage returns and tabs stay: for formats in which they are part of the layout. */
export function printableKeepingLayout(text: string): string {
  return text.replace(UNPRINTABLE, (character) => (LAYOUT.has(character) ? character : escapeOf(character)));
}

function escapeOf(character: string): string {
  if (character === "\n") return "\\n";
  if (character === "\t") return "\\t";
  if (character === "\r") return "\\r";
  const code = character.charCodeAt(0);
  return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
}

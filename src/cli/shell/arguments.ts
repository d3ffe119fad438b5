/**
 * Cuts a dot or backslash command into words, as sqlite3 does: words end at spaces, '…' is taken as it is, "…" knows
 * the escapes of C. A semicolon at the very end is forgiven.
 */
export function splitArguments(line: string): string[] {
  const words: string[] = [];
  let quoted = false;
  let i = 0;
  while (i < line.length) {
    const c = line[i]!;
    if (/\s/.test(c)) {
      i++;
      continue;
    }
    quoted = c === "'" || c === '"';
    if (c === "'") {
      const close = line.indexOf("'", i + 1);
      const end = close < 0 ? line.length : close;
      words.push(line.slice(i + 1, end));
      i = end + 1;
    } else if (c === '"') {
      const [word, end] = readQuoted(line, i + 1);
      words.push(word);
      i = end;
    } else {
      let end = i;
      while (end < line.length && !/\s/.test(line[end]!)) end++;
      words.push(line.slice(i, end));
      i = end;
    }
  }
  const last = words.at(-1);
  if (quoted) return words;
  if (words.length > 1 && last === ";") words.pop();
  else if (last !== undefined && last.length > 1 && last.endsWith(";")) {
    words[words.length - 1] = last.slice(0, -1);
  }
  return words;
}

const ESCAPES: Readonly<Record<string, string>> = {
  n: "\n",
  r: "\r",
  t: "\t",
  a: "\x07",
  b: "\b",
  f: "\f",
  v: "\v",
};

function readQuoted(line: string, from: number): [word: string, end: number] {
  let word = "";
  let i = from;
  for (; i < line.length && line[i] !== '"'; i++) {
    if (line[i] !== "\\" || i + 1 >= line.length) {
      word += line[i];
      continue;
    }
    const next = line[++i]!;
    const octal = /^[0-7]{1,3}/.exec(line.slice(i))?.[0];
    if (octal !== undefined) {
      word += String.fromCharCode(Number.parseInt(octal, 8) & 255);
      i += octal.length - 1;
    } else {
      word += ESCAPES[next] ?? next;
    }
  }
  return [word, i + 1];
}

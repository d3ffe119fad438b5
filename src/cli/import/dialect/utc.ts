/**
 * PostgreSQL's timestamps with time zone as text that sorts as they do: in UTC, without the offset, as SQLite's own
 * CURRENT_TIMESTAMP. A dump has them in the time zone of the server, whose offset changes over the year.
 */
const TIMESTAMP =
  /^(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(\.\d+)?([-+])(\d\d)(?::?(\d\d))?(?::?(\d\d))?$/;

/** Undefined for what is no such timestamp: infinity, years BC or beyond 9999. */
export function utcTimestamp(text: string): string | undefined {
  const match = TIMESTAMP.exec(text);
  if (match === null) return undefined;
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const [hours, minutes, seconds] = match.slice(9, 12).map((part) => Number(part ?? 0)) as [
    number,
    number,
    number,
  ];
  const offsetMs = (hours * 3600 + minutes * 60 + seconds) * 1000 * (match[8] === "-" ? -1 : 1);
  // Date.UTC takes years below 100 for those of the last century.
  const moment = new Date(Date.UTC(2000, month - 1, day, hour, minute, second));
  moment.setUTCFullYear(year, month - 1, day);
  const iso = new Date(moment.getTime() - offsetMs).toISOString();
  if (!/^\d{4}-/.test(iso)) return undefined;
  return `${iso.slice(0, 10)} ${iso.slice(11, 19)}${match[7] ?? ""}`;
}

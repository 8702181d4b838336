import { WaggleError } from '@waggle/protocol/base';

/** RFC 3339: a date, or a date and a time with its offset. A plus sign that became a space in the query is one all the same. */
const TIME = /^\d{4}-\d{2}-\d{2}(?:[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+\- ]\d{2}:\d{2}))?$/;

/** Unix ms of an RFC 3339 text; a date alone is its midnight in UTC. Throws `REQUEST_INVALID`. */
export function parseTime(text: string, name: string): number {
  const ms = TIME.test(text) ? Date.parse(text.replace(' ', '+')) : Number.NaN;
  if (Number.isFinite(ms) && ms >= 0) return ms;
  throw new WaggleError(
    'REQUEST_INVALID',
    `Expected a time since 1970 as 2026-01-31 or 2026-01-31T12:00:00Z for ${name}, received ${JSON.stringify(text.slice(0, 60))}`,
  );
}

/** Unix ms as RFC 3339, UTC. */
export const rfc3339 = (ms: number): string => new Date(ms).toISOString();

/** `from` and `to` of a query, in Unix ms: by default the 24 hours before now. Throws `REQUEST_INVALID`. */
export function rangeOf(
  query: { readonly from?: string; readonly to?: string },
  nowMs: number,
): { fromMs: number; toMs: number } {
  const toMs = query.to === undefined ? nowMs + 1 : parseTime(query.to, 'to');
  const fromMs = query.from === undefined ? Math.max(0, toMs - 86_400_000) : parseTime(query.from, 'from');
  if (fromMs > toMs)
    throw new WaggleError(
      'REQUEST_INVALID',
      `Expected from before to, received ${rfc3339(fromMs)} and ${rfc3339(toMs)}`,
    );
  return { fromMs, toMs };
}

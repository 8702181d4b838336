import type { AnswerInfo, Receipt, ReceiptClaims, Usage } from './types.ts';

/** Names in `waggle-usage`, by dimension. */
const DIMENSIONS: Readonly<Record<keyof Usage, string>> = {
  requests: 'requests',
  requestsFailed: 'requests-failed',
  bytesIn: 'bytes-in',
  bytesOut: 'bytes-out',
  pixelsIn: 'pixels-in',
  pixelsOut: 'pixels-out',
  cpuMicros: 'cpu-micros',
};

/** What the headers of an answer say. What cannot be read is left out: it is no reason to lose the answer. */
export const infoOf = ({ headers }: Response, node: string): AnswerInfo => ({
  node,
  replica: headers.get('waggle-node'),
  requestId: headers.get('waggle-request-id'),
  usage: parseUsage(headers.get('waggle-usage')),
  receipt: parseReceipt(headers.get('waggle-receipt')),
  isRepeat: headers.get('waggle-repeat') === 'true',
  timing: parseTiming(headers.get('server-timing')),
});

/** A dictionary (RFC 9651 §3.2) of integers. Names that are not known are passed over, those that are missing are 0. */
export function parseUsage(text: string | null): Usage | null {
  if (text === null) return null;
  const counts = new Map<string, number>();
  for (const member of text.split(',')) {
    const [, name, digits] = /^\s*([a-z*][a-z0-9_.*-]*)=(\d{1,15})\s*(?:;.*)?$/.exec(member) ?? [];
    if (name !== undefined) counts.set(name, Number(digits));
  }
  if (counts.size === 0) return null;
  const entries = Object.entries(DIMENSIONS).map(([dimension, name]) => [dimension, counts.get(name) ?? 0]);
  return Object.fromEntries(entries) as Usage;
}

/** Durations in ms by name (W3C Server Timing). */
export function parseTiming(text: string | null): Record<string, number> {
  const metrics = (text ?? '').split(',').flatMap((metric) => {
    const [, name, ms] = /^\s*([\w!#$%&'*+.^`|~-]+)\s*;\s*dur=(\d+(?:\.\d+)?)/.exec(metric) ?? [];
    return name === undefined ? [] : [[name, Number(ms)] as const];
  });
  return Object.fromEntries(metrics);
}

/** A receipt (docs/FORMATS.md) with its payload taken apart, not verified. */
export function parseReceipt(text: string | null): Receipt | null {
  if (text === null) return null;
  try {
    const payload = text.split('.')[1] ?? '';
    const bytes = Uint8Array.from(atob(payload.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
    const claims: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    return { text, claims: typeof claims === 'object' ? (claims as ReceiptClaims | null) : null };
  } catch {
    return { text, claims: null };
  }
}

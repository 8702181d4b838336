import { setTimeout as wait } from 'node:timers/promises';
import { WaggleError } from '@waggle/protocol/base';
import { mebibytes, UnusableError } from './source.ts';

/** How often a resource is asked for, when a node is busy or the connection breaks. */
const TRIES = 3;
/** Between tries, in ms, if the node does not say: four times as long each time. It is asked to wait for no longer than the last. */
const WAIT_MS = 500;
const WAIT_MS_MAX = 10_000;

/** Statuses by which a node, or what stands before it, says that it cannot answer now: not what it has to show. */
const isUnready = (status: number): boolean => status === 408 || status === 429 || status >= 500;

/** Why there is no answer, in words, and when the next try is worth it: in ms, null without a word about it, undefined never. */
interface Unread {
  readonly received: string;
  readonly waitMs: number | null | undefined;
}

/**
 * Gets a resource whole. A node that is busy, or a connection that breaks, also in the middle of a body, is tried again: whoever
 * cannot answer is no forger. Throws `UnusableError` if it could not be read in the end, if the credential will not do, and with the
 * code `SLOTS_EXPIRED` for status 410; and `BUNDLE_MALFORMED` for another answer.
 */
export async function get(url: URL, token: string | undefined, bytesMax: number, msMax: number): Promise<Uint8Array> {
  for (let tries = 1; ; tries++) {
    const answer = await attempt(url, token, bytesMax, msMax);
    if (answer instanceof Uint8Array) return answer;
    const { received, waitMs } = answer;
    if (waitMs === undefined || tries === TRIES)
      throw new UnusableError(
        `Expected an answer from ${url.href}, received ${received}${tries > 1 ? `, ${tries} times` : ''}: it could not be read, which says nothing about what it holds`,
        { code: 'PEER_UNREACHABLE' },
      );
    await wait(Math.min(waitMs ?? WAIT_MS * 4 ** (tries - 1), WAIT_MS_MAX));
  }
}

async function attempt(
  url: URL,
  token: string | undefined,
  bytesMax: number,
  msMax: number,
): Promise<Uint8Array | Unread> {
  const signal = AbortSignal.timeout(msMax);
  try {
    const response = await fetch(url, {
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      // A redirect could lead to another host than the one that was to be verified.
      redirect: 'manual',
      signal,
    });
    if (response.status === 200) return await bodyOf(response, url, bytesMax);
    await response.body?.cancel();
    if (!isUnready(response.status)) throw refused(url, response.status);
    const seconds = /^[0-9]{1,6}$/.exec(response.headers.get('retry-after') ?? '')?.[0];
    return { received: `status ${response.status}`, waitMs: seconds === undefined ? null : Number(seconds) * 1_000 };
  } catch (error) {
    if (signal.aborted) return { received: `no whole one within ${msMax / 1_000} s`, waitMs: undefined };
    // This is how fetch speaks of connections (Fetch §5.6, "network error"); all else is not about them.
    if (!(error instanceof TypeError)) throw error;
    return { received: `none: ${error.cause instanceof Error ? error.cause.message : error.message}`, waitMs: null };
  }
}

/** The whole body. Throws `BUNDLE_MALFORMED` if it is too large, and as `fetch` if the connection breaks. */
async function bodyOf({ body }: Response, url: URL, bytesMax: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of body ?? []) {
    length += part.length;
    if (length > bytesMax)
      throw new WaggleError(
        'BUNDLE_MALFORMED',
        `Expected at most ${mebibytes(bytesMax)} from ${url.href}, received more`,
      );
    parts.push(part);
  }
  return Buffer.concat(parts, length);
}

function refused(url: URL, status: number): Error {
  if (status === 401 || status === 403)
    return new UnusableError(
      `Expected a token of an auditor for ${url.href} (--token or WAGGLE_TOKEN), received ${status}`,
    );
  if (status === 410)
    return new UnusableError(
      `Expected the slots at ${url.href}, which are not kept there any more (--without-slots checks the rest)`,
      { code: 'SLOTS_EXPIRED' },
    );
  return new WaggleError('BUNDLE_MALFORMED', `Expected status 200 from ${url.href}, received ${status}`);
}

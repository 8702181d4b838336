import { createHash } from 'node:crypto';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { SealedEpoch } from '@waggle/runtime';

/** A part of a sealed epoch, for caches. */
export interface Cached {
  readonly etag: string;
  /** Whether shared caches may keep it. */
  readonly isPublic: boolean;
  /** Whether it may still change: then it is asked for again each time. */
  readonly mayChange?: boolean;
}

/** What is signed grows: signatures that come after the seal take their place in the checkpoint. */
const SIGNED = /^(checkpoint|tar|outline\.tar|proof-[0-9]+)$/;

/** A part of a sealed epoch by its name: the root commits to all of them but the signatures. */
export function sealed(
  { epoch, root, checkpoint }: Pick<SealedEpoch, 'epoch' | 'root' | 'checkpoint'>,
  part: string,
  isPublic: boolean,
): Cached {
  const base = `${epoch}-${Buffer.from(root).toString('base64url')}-${part}`;
  if (!SIGNED.test(part)) return { etag: `"${base}"`, isPublic };
  const signatures = createHash('sha256').update(checkpoint).digest('base64url');
  return { etag: `"${base}-${signatures}"`, isPublic, mayChange: true };
}

/** Says how long a response may be kept; whether the client has it already, and only needs to be told (304). */
export function isUnchanged(
  request: FastifyRequest,
  reply: FastifyReply,
  { etag, isPublic, mayChange = false }: Cached,
): boolean {
  const age = mayChange ? 'no-cache' : 'max-age=31536000, immutable';
  reply.header('etag', etag).header('cache-control', `${isPublic ? 'public' : 'private'}, ${age}`);
  if (!isPublic) reply.header('vary', 'authorization');
  const known =
    request.headers['if-none-match']?.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag) ?? false;
  if (known) reply.code(304);
  return known;
}

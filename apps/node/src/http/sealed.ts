import type { FastifyReply, FastifyRequest } from 'fastify';
import type { SealedSummary } from '@waggle/runtime';

/** What never changes again: a part of a sealed epoch. */
export interface Immutable {
  readonly etag: string;
  /** Whether shared caches may keep it. */
  readonly isPublic: boolean;
}

/** A part of a sealed epoch by its name: the root commits to all of them. */
export const sealed = ({ epoch, root }: SealedSummary, part: string, isPublic: boolean): Immutable => ({
  etag: `"${epoch}-${Buffer.from(root).toString('base64url')}-${part}"`,
  isPublic,
});

/** Says that a response may be kept for ever; whether the client has it already, and only needs to be told (304). */
export function isUnchanged(request: FastifyRequest, reply: FastifyReply, { etag, isPublic }: Immutable): boolean {
  reply.header('etag', etag).header('cache-control', `${isPublic ? 'public' : 'private'}, max-age=31536000, immutable`);
  if (!isPublic) reply.header('vary', 'authorization');
  const known =
    request.headers['if-none-match']?.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag) ?? false;
  if (known) reply.code(304);
  return known;
}

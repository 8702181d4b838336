import type { FastifyRequest } from 'fastify';
import type { Hook } from './authenticate.ts';
import { holdUntilOver } from './holding.ts';
import type { Room } from './room.ts';

/** Who shares room: a customer, a token, or everyone without a credential together. */
export function partyOf({ principal }: FastifyRequest): string {
  if (principal === null) return 'anyone';
  return principal.kind === 'customer' ? `customer ${principal.customer}` : `token ${principal.id}`;
}

/**
 * An `onRequest` hook, after the guard, for routes that read the store: lets in as many as there is room for, so that no number
 * of readers keeps metering from the disk. Throws `QUEUE_FULL`.
 */
export const readingIn =
  (room: Room): Hook =>
  (request, _reply, done) => {
    const party = partyOf(request);
    room.take(party, 1);
    holdUntilOver(request, () => room.give(party, 1));
    done();
  };

import type { FastifyReply, FastifyRequest } from 'fastify';
import { actorOf, type Context, type Principal, type Write } from '@waggle/identity';
import { visibleAt, type VisibleAt } from '../cluster.ts';
import type { Node } from '../node.ts';
import { principalOf } from './authenticate.ts';
import { Room } from './room.ts';
import { WAIT_MS, type WaitQuery } from './schemas.ts';

/** Changes that may wait for other members at the same time; beyond, and for half of them by one principal, they answer at once. */
const WAITING_MAX = 256;
/** How often to look whether a member that was waited for is gone, or this node goes, in ms. What members hold is heard at once. */
const LOOK_MS = 500;

const waiting = new Room(WAITING_MAX, 'changes that wait for members');

/**
 * Runs a command of identity as whoever asks. Done when it is on disk here, and held by as many live members as the request
 * waits for, or its time is up: how far it has got is in the result and in the header `waggle-visible`. Throws what
 * `Node.manage` throws.
 */
export async function change<T extends { readonly writes: readonly Write[] }>(
  node: Node,
  request: FastifyRequest,
  reply: FastifyReply,
  command: (context: Context) => T,
): Promise<T & { readonly visibleAt: VisibleAt }> {
  const done = await node.manage(actorOf(principalOf(request)), command);
  await reached(node, done.version, request.query as WaitQuery, crowdOf(principalOf(request)));
  const visible = visibleAt(node.driver, done.version);
  reply.header('waggle-visible', `members=${visible.members}, of=${visible.of}`);
  return { ...done, visibleAt: visible };
}

/** As `change`, for commands that give their writes only. */
export const apply = (
  node: Node,
  request: FastifyRequest,
  reply: FastifyReply,
  command: (context: Context) => readonly Write[],
): Promise<{ readonly visibleAt: VisibleAt }> =>
  change(node, request, reply, (context) => ({ writes: command(context) }));

/** Waits until as many of the live members as are wanted hold the registers, for as long as the request says. */
async function reached(
  node: Node,
  version: number,
  { wait, timeoutMs = WAIT_MS }: WaitQuery,
  who: string,
): Promise<void> {
  const { driver, clock } = node;
  const isReached = (): boolean => {
    const { members, of } = visibleAt(driver, version);
    return wait === undefined || (wait === 'all' ? members === of : members > of / 2);
  };
  if (isReached() || !waiting.has(who, 1)) return;
  waiting.add(who, 1);
  try {
    const endMs = clock.monotonicMs() + timeoutMs;
    for (let leftMs = timeoutMs; leftMs > 0 && !node.isDraining; leftMs = endMs - clock.monotonicMs())
      if (await driver.follow(version, isReached, Math.min(leftMs, LOOK_MS))) return;
  } finally {
    waiting.give(who, 1);
  }
}

/** Who shares the places: all keys of a customer together, so that more keys get no more of them, and each token by itself. */
const crowdOf = (principal: Principal): string =>
  principal.kind === 'customer' ? `customer ${principal.customer}` : actorOf(principal).credential;

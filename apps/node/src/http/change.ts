import type { FastifyRequest } from 'fastify';
import { actorOf, type Context, type Write } from '@waggle/identity';
import type { Node } from '../node.ts';
import { principalOf } from './authenticate.ts';

/**
 * How far a change has got that is on this node's disk. It is the only live member, so `?wait=all` and `?wait=majority` have
 * what they wait for.
 */
export const VISIBLE = { members: 1, of: 1 } as const;

/** Runs a command of identity as whoever asks; done when it is on disk. Throws what `Node.manage` throws. */
export const change = <T extends { readonly writes: readonly Write[] }>(
  node: Node,
  request: FastifyRequest,
  command: (context: Context) => T,
): Promise<T> => node.manage(actorOf(principalOf(request)), command);

/** As `change`, for commands that give their writes only. */
export const apply = (
  node: Node,
  request: FastifyRequest,
  command: (context: Context) => readonly Write[],
): Promise<unknown> => change(node, request, (context) => ({ writes: command(context) }));

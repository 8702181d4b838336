import { join } from 'node:path';
import { Type } from 'typebox';
import { base64, WaggleError, type ReplicaId, type Signer } from '@waggle/protocol/base';
import {
  createBan,
  createInvite,
  createOwnRetire,
  createRetire,
  encodeFact,
  factKey,
  INVITE_MS,
  INVITE_MS_MAX,
  INVITE_MS_MIN,
  INVITE_USES_MAX,
  verifyFact,
  type Ban,
  type Retire,
} from '@waggle/protocol/authority';
import { entropy, nodeCrypto, readOperatorKey, signerFromSeed } from '@waggle/runtime';
import { demandQuorumWithout, inviteAddresses, inviteWarnings, rosterWarnings } from '../cluster.ts';
import { OPERATOR_KEY_FILE, type Node } from '../node.ts';
import type { App, Deps } from './app.ts';
import type { Guards } from './authenticate.ts';
import { change } from './change.ts';
import {
  AUTHENTICATION_CODES,
  CHANGE_CODES,
  choice,
  closed,
  responses,
  time,
  visibleAt,
  waitQuery,
} from './schemas.ts';
import { rfc3339 } from './time.ts';

const warnings = Type.Array(Type.String(), { description: 'What the operator should know of it; empty if nothing.' });
const CODES = [...AUTHENTICATION_CODES, ...CHANGE_CODES, 'OPERATOR_KEY_MISSING'] as const;

/** A body that may be left out. */
const optional = <T>(schema: object): ReturnType<typeof Type.Unsafe<T | null | undefined>> =>
  Type.Unsafe<T | null | undefined>({ ...schema, type: ['object', 'null'] });

const inviteBody = optional<{ uses?: number; expiresInMs?: number }>(
  closed({
    uses: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: INVITE_USES_MAX,
        description: 'How many nodes may join with it. Default: 1.',
      }),
    ),
    expiresInMs: Type.Optional(
      Type.Integer({
        minimum: INVITE_MS_MIN,
        maximum: INVITE_MS_MAX,
        description: `How long it is good for, in ms. Default: ${INVITE_MS}.`,
      }),
    ),
  }),
);

const force = {
  force: Type.Optional(
    Type.Boolean({ description: 'Whether to ban a voter without which too few are left to seal an epoch.' }),
  ),
};

const factBody = (kind: 'retire' | 'ban') =>
  optional<{ signature?: string; force?: boolean }>(
    closed({
      ...(kind === 'ban' ? force : {}),
      signature: Type.Optional(
        Type.String({
          pattern: '^[A-Za-z0-9+/]{86}==$',
          description:
            'By the operator key, over the fact: Ed25519, base64, as `waggle retire --operator-key FILE` makes it. Without it this node has to have the key.',
        }),
      ),
    }),
  );

/** Who may join, and who may vote or connect no more: what takes the operator key. */
export function inviteRoutes(app: App, { node }: Deps, guards: Guards): void {
  const { standing } = node;
  const { authority } = node.driver;
  const onRequest = guards.role('operator');
  const common = { tags: ['Operator'], security: [{ token: [] }] };

  app.post(
    '/v1/cluster/invites',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'createInvite',
        summary: 'Make an invite, with which new nodes join',
        description:
          'It is a secret, shown this once, and holds the addresses of live members. Takes the operator key, in the data directory of this node; where it is elsewhere, `waggle invite --operator-key FILE` makes an invite there.',
        querystring: closed(waitQuery),
        body: inviteBody,
        response: responses(
          {
            201: Type.Object(
              {
                invite: Type.String({ description: 'One line: for `npm start -- --join -` or `--join @FILE`.' }),
                expiresAt: time('Nobody joins with it from then on.'),
                uses: Type.Integer(),
                warnings,
                visibleAt,
              },
              { description: 'The invite.' },
            ),
          },
          ...CODES,
          'NOT_READY',
        ),
      },
    },
    async (request, reply) => {
      const operator = operatorOf(node, '`waggle invite --operator-key FILE` makes one where it is.');
      const addresses = inviteAddresses(node.driver, node.address);
      const { uses = 1, expiresInMs = INVITE_MS } = request.body ?? {};
      const made = await change(node, request, reply, (context) => {
        const created = createInvite({
          cluster: standing.cluster,
          operator,
          addresses,
          uses,
          expiresInMs,
          nowMs: context.nowMs,
          crypto: nodeCrypto,
          random: entropy,
          signerFromSeed,
        });
        const details = { uses, expiresMs: created.expiresMs };
        return {
          ...created,
          writes: [node.identity.auditEntry(context, { action: 'invite.create', target: created.id, details })],
        };
      });
      const { invite, expiresMs, visibleAt: visible } = made;
      const expiresAt = rfc3339(expiresMs);
      reply.code(201).header('cache-control', 'no-store');
      return { invite, expiresAt, uses, warnings: inviteWarnings(addresses), visibleAt: visible };
    },
  );

  for (const kind of ['retire', 'ban'] as const)
    app.post(
      `/v1/cluster/members/:replica/${kind}`,
      {
        onRequest,
        schema: {
          ...common,
          operationId: `${kind}Member`,
          summary:
            kind === 'retire' ? 'Take a member’s vote for ever' : 'Shut a member out for ever: no vote, no connection',
          description:
            kind === 'retire'
              ? 'It may still connect, so that its late usage arrives. For a node that is gone for good. Takes the operator key, or its signature, unless it is the node itself that is asked. Idempotent.'
              : 'What it counted before and others hold is still sealed. Refused where too few voters would be left, which would end sealing. Ask another node than that one. Takes the operator key, or its signature. Idempotent.',
          params: closed({
            replica: Type.String({ pattern: '^[0-9a-f]{32}$', description: 'Id of a replica, hexadecimal.' }),
          }),
          querystring: closed(waitQuery),
          body: factBody(kind),
          response: responses(
            {
              200: Type.Object(
                { replica: Type.String(), status: choice(['retired', 'banned']), warnings, visibleAt },
                { description: 'What it is now.' },
              ),
            },
            ...CODES,
            'MEMBER_UNKNOWN',
            'SIGNATURE_INVALID',
            ...(kind === 'ban' ? (['BAN_REFUSED'] as const) : []),
          ),
        },
      },
      async (request, reply) => {
        const replica = request.params.replica as ReplicaId;
        const { signature, force: isForced = false } = request.body ?? {};
        const applied = await change(node, request, reply, (context) => {
          demandMember(node, replica, kind);
          const fact = factOf(node, kind, replica, signature);
          if (
            authority.statusOf(replica) === 'banned' ||
            (kind === 'retire' && authority.statusOf(replica) === 'retired')
          )
            return { writes: [] };
          if (kind === 'ban' && !isForced) demandQuorumWithout(node.driver, replica);
          const register = { key: factKey(fact), value: encodeFact(fact) };
          return {
            writes: [
              register,
              node.identity.auditEntry(context, { action: `member.${kind}`, target: replica, details: null }),
            ],
          };
        });
        const status = authority.statusOf(replica) as 'retired' | 'banned';
        return { replica, status, warnings: rosterWarnings(node.driver), visibleAt: applied.visibleAt };
      },
    );
}

/** The operator key of this node's data directory. Throws `OPERATOR_KEY_MISSING`, which says what else to do, and `DATA_DAMAGED`. */
function operatorOf({ config, standing }: Node, instead: string): Signer {
  const operator = readOperatorKey(config.data);
  const file = join(config.data, OPERATOR_KEY_FILE);
  if (operator === null)
    throw new WaggleError('OPERATOR_KEY_MISSING', `Expected the operator key in ${file}. ${instead}`);
  if (base64.encode(operator.publicKey) === standing.cluster.genesis.operatorKey) return operator;
  throw new WaggleError(
    'OPERATOR_KEY_MISSING',
    `Expected the operator key of this cluster in ${file}, found that of another. ${instead}`,
  );
}

/** Throws `MEMBER_UNKNOWN` for a stranger, and `REQUEST_INVALID` where the cluster would be left without what it needs. */
function demandMember({ driver, standing }: Node, replica: ReplicaId, kind: 'retire' | 'ban'): void {
  const status = driver.authority.statusOf(replica);
  if (status === 'unknown')
    throw new WaggleError('MEMBER_UNKNOWN', `Expected a replica of this cluster, received ${replica}`);
  if (kind === 'ban' && replica === standing.replica)
    throw new WaggleError(
      'REQUEST_INVALID',
      `Expected another replica than ${replica}, which is asked: ask a member that stays`,
    );
  const staying = driver.roster.filter((entry) => driver.authority.statusOf(entry.replica) === 'admitted');
  if (staying.length === 1 && staying[0]!.replica === replica)
    throw new WaggleError('REQUEST_INVALID', `Expected somebody to be left who votes, ${replica} is the last one`);
}

/** The fact, with the signature that was brought, or by the key that is here. Throws `SIGNATURE_INVALID` and as `operatorOf`. */
function factOf(node: Node, kind: 'retire' | 'ban', replica: ReplicaId, signature: string | undefined): Retire | Ban {
  const { cluster, keys, replica: self } = node.standing;
  if (signature === undefined) {
    // Its own vote is its own to give up.
    if (kind === 'retire' && replica === self) return createOwnRetire(cluster.id, self, keys.transport);
    const operator = operatorOf(node, `\`waggle ${kind} ${replica} --operator-key FILE\` does it where it is.`);
    return (kind === 'retire' ? createRetire : createBan)(cluster.id, replica, operator);
  }
  const fact: Retire | Ban =
    kind === 'retire'
      ? { kind, cluster: cluster.id, replica, transportKey: null, signature }
      : { kind, cluster: cluster.id, replica, signature };
  verifyFact(fact, cluster, nodeCrypto);
  return fact;
}

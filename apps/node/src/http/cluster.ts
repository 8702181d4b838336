import { Type } from 'typebox';
import { hex } from '@waggle/protocol/base';
import type { App, Deps } from './app.ts';
import type { Guards } from './authenticate.ts';
import { AUTHENTICATION_CODES, choice, responses } from './schemas.ts';
import { publicUrl, VERSION } from './self.ts';

const load = Type.Object(
  {
    workers: Type.Integer({ description: 'Jobs that may be at work at the same time.' }),
    running: Type.Integer({ description: 'Jobs at work.' }),
    queued: Type.Integer({ description: 'Jobs that wait.' }),
  },
  { description: 'How busy it is.' },
);
const nodeFields = { replica: Type.String(), url: Type.String({ description: 'What clients call it.' }), load };

/** Who the cluster is. */
export function clusterRoutes(app: App, { node }: Deps, guards: Guards): void {
  const { standing, pool, config } = node;
  const { cluster, replica, keys } = standing;
  const self = () => {
    const { running, queued } = pool.stats;
    return { replica, url: publicUrl(app, config), load: { workers: config.workers, running, queued } };
  };

  app.get(
    '/v1/nodes',
    {
      onRequest: guards.anyone,
      schema: {
        tags: ['Customer'],
        security: [{ apiKey: [] }, { token: [] }],
        operationId: 'listNodes',
        summary: 'The nodes and how busy they are',
        response: responses(
          { 200: Type.Object({ nodes: Type.Array(Type.Object(nodeFields)) }, { description: 'The nodes.' }) },
          ...AUTHENTICATION_CODES,
        ),
      },
    },
    async () => ({ nodes: [self()] }),
  );

  app.get(
    '/v1/cluster',
    {
      onRequest: guards.role('operator'),
      schema: {
        tags: ['Operator'],
        security: [{ token: [] }],
        operationId: 'getCluster',
        summary: 'The cluster: members and roster',
        response: responses(
          {
            200: Type.Object(
              {
                cluster: Type.String({ description: 'Id: the SHA-256 of the genesis.' }),
                origin: Type.String({ description: 'The first line of every checkpoint.' }),
                self: Type.String({ description: 'Replica that answers.' }),
                members: Type.Array(
                  Type.Object({
                    member: Type.String({ description: 'Public key, hexadecimal.' }),
                    state: choice(['alive', 'suspect', 'dead', 'left']),
                    incarnation: Type.Integer(),
                    zone: Type.Unsafe({ type: ['string', 'null'] }),
                    version: Type.String(),
                    lag: Type.Integer({
                      description: 'Registers that this node lacks of what it is known to have written.',
                    }),
                    ...nodeFields,
                  }),
                ),
                roster: Type.Array(Type.String(), { description: 'Replicas that may vote.' }),
              },
              { description: 'The cluster.' },
            ),
          },
          ...AUTHENTICATION_CODES,
        ),
      },
    },
    async () => ({
      cluster: cluster.id,
      origin: cluster.origin,
      self: replica,
      members: [
        {
          member: hex.encode(keys.transport.publicKey),
          state: 'alive',
          incarnation: 0,
          zone: null,
          version: VERSION,
          lag: 0,
          ...self(),
        },
      ],
      roster: cluster.genesis.roster.map((entry) => entry.replica),
    }),
  );
}

import { Type } from 'typebox';
import { alarmsOf, liveEntries, memberEntries, type MemberEntry } from '../cluster.ts';
import type { App, Deps } from './app.ts';
import type { Guards } from './authenticate.ts';
import { inviteRoutes } from './invites.ts';
import { AUTHENTICATION_CODES, choice, responses, time } from './schemas.ts';
import { publicUrl, VERSION } from './self.ts';
import { rfc3339 } from './time.ts';

const load = Type.Object(
  {
    workers: Type.Integer({ description: 'Jobs that may be at work at the same time.' }),
    running: Type.Integer({ description: 'Jobs at work.' }),
    queued: Type.Integer({ description: 'Jobs that wait.' }),
  },
  { description: 'How busy it is, as it said last.' },
);
const url = { description: 'What clients call it.' };
const zone = Type.Unsafe<string | null>({ type: ['string', 'null'], description: 'Rack or room.' });
const orNull = (schema: object) => Type.Unsafe({ anyOf: [schema, { type: 'null' }] });
const ms = (description: string) => Type.Unsafe<number | null>({ type: ['integer', 'null'], description });

const node = Type.Object({
  replica: Type.String(),
  url: Type.String(url),
  zone,
  load,
  transportKey: Type.String({
    description: 'Ed25519 public key, 32 bytes in base64: what its receipts are signed with.',
  }),
});

const member = Type.Object({
  member: Type.String({ description: 'Public key, hexadecimal.' }),
  replica: Type.String(),
  state: choice(['alive', 'suspect', 'dead', 'left', 'unheard'], {
    description: 'Whether it is reachable; unheard: nothing was heard of it since this node’s start.',
  }),
  since: orNull(time('When this node took that to be so.')),
  incarnation: Type.Integer({ description: 'Raised by the member itself to refute a suspicion.' }),
  status: choice(['admitted', 'retired']),
  url: orNull({ type: 'string', ...url }),
  addresses: Type.Array(Type.Object({ host: Type.String(), port: Type.Integer() }), {
    description: 'Where members dial it, by UDP.',
  }),
  zone,
  version: orNull({ type: 'string', description: 'Of its program.' }),
  load: orNull(load),
  lag: Type.Object(
    { controlMs: ms('Customers, keys, settings, closes.'), usageMs: ms('Usage.') },
    {
      description:
        'ms since this node held all that the member had to show; null: not since this node’s start. The answering node’s own is 0.',
    },
  ),
});

const cluster = Type.Object(
  {
    cluster: Type.String({ description: 'Id: the SHA-256 of the genesis.' }),
    origin: Type.String({ description: 'The first line of every checkpoint.' }),
    self: Type.String({ description: 'Replica that answers: the rest is what it sees.' }),
    asOf: time('When it saw this.'),
    members: Type.Array(member, { description: 'All that may connect, by replica, itself too.' }),
    roster: Type.Array(Type.String(), { description: 'Replicas that may vote on the epoch to be sealed next.' }),
    openEpoch: Type.Integer({ description: 'Requests are metered in it.' }),
    sealingEpoch: Type.Integer({ description: 'To be sealed next.' }),
    alarms: Type.Array(Type.String(), { description: 'What an operator should look into, a sentence each.' }),
  },
  { description: 'The cluster as the node that answers sees it.' },
);

/** Who the cluster is, as this node sees it, and what changes that. */
export function clusterRoutes(app: App, deps: Deps, guards: Guards): void {
  const { driver, standing, config, clock } = deps.node;
  const own = () => ({ url: publicUrl(app, config), load: deps.node.load, version: VERSION });
  /** Of itself a node knows more than it has told the others. */
  const said = ({ replica, entry }: MemberEntry) => ({
    url: entry?.url ?? null,
    version: entry?.version ?? null,
    load: entry?.load ?? null,
    ...(replica === standing.replica ? own() : {}),
    zone: replica === standing.replica ? config.zone : (entry?.zone ?? null),
  });

  app.get(
    '/v1/nodes',
    {
      onRequest: guards.anyone,
      schema: {
        tags: ['Customer'],
        security: [{ apiKey: [] }, { token: [] }],
        operationId: 'listNodes',
        summary: 'The nodes that can be asked, and how busy they are',
        response: responses(
          { 200: Type.Object({ nodes: Type.Array(node) }, { description: 'The live nodes, this one too.' }) },
          ...AUTHENTICATION_CODES,
        ),
      },
    },
    async () => ({
      nodes: liveEntries(driver).flatMap((entry) => {
        const { url: at, zone: room, load: busy } = said(entry);
        const { replica, transportKey } = entry;
        return at === null || busy === null ? [] : [{ replica, url: at, zone: room, load: busy, transportKey }];
      }),
    }),
  );

  app.get(
    '/v1/cluster',
    {
      onRequest: guards.role('operator'),
      schema: {
        tags: ['Operator'],
        security: [{ token: [] }],
        operationId: 'getCluster',
        summary: 'The cluster as this node sees it: members and roster',
        description: 'Nobody is in charge: two nodes may see different things, and each says what it sees.',
        response: responses({ 200: cluster }, ...AUTHENTICATION_CODES),
      },
    },
    async () => ({
      cluster: standing.cluster.id,
      origin: standing.cluster.origin,
      self: standing.replica,
      asOf: rfc3339(clock.nowMs()),
      members: memberEntries(driver).map((entry) => ({
        member: entry.member,
        replica: entry.replica,
        state: entry.state,
        since: entry.sinceMs === null ? null : rfc3339(clock.nowMs() - clock.monotonicMs() + entry.sinceMs),
        incarnation: entry.incarnation,
        status: entry.status,
        ...said(entry),
        addresses: entry.entry?.addresses ?? [],
        lag: { controlMs: entry.lag.control, usageMs: entry.lag.usage },
      })),
      roster: driver.roster.map(({ replica }) => replica),
      openEpoch: driver.openEpoch,
      sealingEpoch: driver.sealingEpoch,
      alarms: [
        ...deps.node.alarms.texts(driver.openEpoch),
        ...alarmsOf(driver, clock.monotonicMs(), deps.node.accusations.all),
      ],
    }),
  );
  inviteRoutes(app, deps, guards);
}

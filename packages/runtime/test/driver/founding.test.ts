import { cpSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { utf8, WaggleError, type ReplicaId } from '@waggle/protocol/base';
import { createInvite, encodeFacts, parseFact, replicaIdOf, type Admit } from '@waggle/protocol/authority';
import { encodeGenesis, epochAt } from '@waggle/protocol/sealing';
import { takeStanding, type InviteSource, type Standing, type StandingOptions } from '../../src/driver/founding.ts';
import {
  entropy,
  nodeCrypto,
  readNodeKeys,
  readOperatorKey,
  signerFromSeed,
  systemClock,
  type Store,
} from '../../src/index.ts';
import { decodeJoinFrame, encodeJoinFrame, encodeTold } from '../../src/joining/frames.ts';
import { memberKey, type Transport } from '../../src/transport/index.ts';
import { keyText } from '../joining/support.ts';
import { temporaryDirectories } from '../support.ts';

const temporary = temporaryDirectories();
const coded = (code: string, message = '') =>
  expect.objectContaining({ code, message: expect.stringContaining(message) });
const ADDRESS = { host: '10.0.0.1', port: 7070 };

/** A cluster that admits everybody, whose founder's directory is `directory`. */
interface TestCluster {
  readonly directory: string;
  readonly founder: Standing;
  readonly asked: ReplicaId[];
  readonly invite: () => string;
  readonly transport: Pick<Transport, 'join'>;
}
let cluster: TestCluster;

/** A point at which the process ends. */
class Crash extends Error {}
const crash = (): never => {
  throw new Crash('crash');
};

interface Start {
  readonly directory: string;
  readonly invite?: string | InviteSource | null;
  readonly isMoved?: boolean;
  readonly transport?: Pick<Transport, 'join'>;
  readonly commit?: (store: Pick<Store, 'commit'>, batch: Parameters<Store['commit']>[0]) => Promise<void>;
  readonly openTransport?: StandingOptions<Pick<Transport, 'join'>>['openTransport'];
  /** How far the clock is ahead. */
  readonly aheadMs?: number;
}

const nobody: Pick<Transport, 'join'> = { join: () => Promise.reject(new Error('it should not ask')) };

/** Stands for a store: `meta` as one file of the directory. (Real ones, with transports, are in the tests of joining.) */
function metaFile(directory: string): Pick<Store, 'commit'> & { readonly meta: () => ReadonlyMap<string, string> } {
  const path = join(directory, 'meta.json');
  const read = (): [string, string][] =>
    existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as [string, string][]) : [];
  return {
    meta: () => new Map(read()),
    commit: async ({ meta = [] }) => writeFileSync(path, JSON.stringify([...new Map([...read(), ...meta])])),
  };
}

const given = (text: string): InviteSource => ({ needed: () => text, atHand: () => text });

/** One start, as far as its standing. */
async function start(options: Start): Promise<Standing> {
  const { directory, invite = null, isMoved = false, transport = nobody, commit, openTransport, aheadMs = 0 } = options;
  const store = metaFile(directory);
  const { standing } = await takeStanding({
    directory,
    store: commit === undefined ? store : { commit: (batch) => commit(store, batch) },
    meta: store.meta(),
    founding: { name: 'test.example', epochMs: 60_000, sealGraceMs: 0 },
    invite: invite === null ? null : typeof invite === 'string' ? given(invite) : invite,
    isMoved,
    random: entropy,
    clock: { ...systemClock, nowMs: () => systemClock.nowMs() + aheadMs },
    openTransport: openTransport ?? (() => Promise.resolve(transport)),
  });
  return standing;
}

async function testCluster(): Promise<TestCluster> {
  const directory = temporary();
  const founder = await start({ directory });
  const asked: ReplicaId[] = [];
  const transport: Pick<Transport, 'join'> = {
    join: async (member, _, handlers) => ({
      key: member,
      allow: () => undefined,
      close: () => undefined,
      send: (bytes) => {
        const frame = decodeJoinFrame(founder.cluster.id, bytes);
        const fact = parseFact(frame.type === 'ask' ? frame.fact : '') as Admit;
        asked.push(fact.replica);
        const told = encodeTold({
          genesis: utf8(encodeGenesis(founder.cluster.genesis)),
          facts: encodeFacts([fact]),
          addresses: [{ transportKey: keyText(founder.keys), ...ADDRESS }],
          openEpoch: 5,
        });
        const page = encodeJoinFrame(founder.cluster.id, { type: 'page', total: told.length, offset: 0, bytes: told });
        setImmediate(() => handlers.message(page));
        return true;
      },
    }),
  };
  const invite = (): string =>
    createInvite({
      cluster: founder.cluster,
      operator: readOperatorKey(directory)!,
      addresses: [{ transportKey: keyText(founder.keys), ...ADDRESS }],
      nowMs: systemClock.nowMs(),
      crypto: nodeCrypto,
      random: entropy,
      signerFromSeed,
    }).invite;
  return { directory, founder, asked, invite, transport };
}

beforeAll(async () => {
  cluster = await testCluster();
});

/** A directory that has joined the cluster. */
async function joined(aheadMs = 0): Promise<{ readonly directory: string; readonly standing: Standing }> {
  const directory = temporary();
  const invite = cluster.invite();
  return { directory, standing: await start({ directory, invite, transport: cluster.transport, aheadMs }) };
}
function copyOf(directory: string): string {
  const copy = join(temporary(), 'copy');
  cpSync(directory, copy, { recursive: true });
  return copy;
}
const replicaOf = (standing: Pick<Standing, 'keys'>): ReplicaId => replicaIdOf(keyText(standing.keys), nodeCrypto);

describe('a first start', () => {
  it('founds a cluster without an invite, and goes on with it', async () => {
    const directory = temporary();
    const first = await start({ directory });
    expect(first).toMatchObject({ founded: true, firstEpoch: 0, facts: [], hints: new Map() });
    const second = await start({ directory });
    expect(second).toMatchObject({ founded: false, replica: first.replica, cluster: first.cluster });
    expect(second.run).toBeGreaterThan(first.run);
    expect(existsSync(join(directory, 'operator.key'))).toBe(true);
  });

  it('founds nothing when it cannot listen, and founds at the next start', async () => {
    const directory = temporary();
    const inUse = (): Promise<never> => Promise.reject(new WaggleError('PORT_IN_USE'));
    await expect(start({ directory, openTransport: inUse })).rejects.toThrow(coded('PORT_IN_USE'));
    expect(await start({ directory })).toMatchObject({ founded: true });
  });

  it('joins with one, and remembers where it lies', async () => {
    const { directory, standing } = await joined(10 * 60_000);
    expect(standing).toMatchObject({ founded: false, firstEpoch: 5, cluster: cluster.founder.cluster });
    expect(standing.replica).toBe(replicaOf(standing));
    expect(standing.facts.map(({ key }) => key)).toEqual([`roster/${standing.replica}/admit`]);
    expect([...standing.hints]).toEqual([[keyText(cluster.founder.keys), [ADDRESS]]]);
    expect(readdirSync(directory)).toEqual(expect.arrayContaining(['keys.json', 'place.json']));
    for (const name of ['operator.key', 'joining.json']) expect(readdirSync(directory)).not.toContain(name);
    expect(statSync(join(directory, 'place.json')).mode & 0o777).toBe(0o600);
    const again = await start({ directory });
    expect(again).toMatchObject({
      replica: standing.replica,
      facts: standing.facts,
      hints: standing.hints,
      firstEpoch: 5,
    });
  });

  it('does not begin with an epoch that is far ahead, as a member with a wrong clock says', async () => {
    const { standing } = await joined(60_000);
    const epoch = epochAt(standing.cluster.genesis, systemClock.nowMs());
    expect([epoch + 2, epoch + 1]).toContain(standing.firstEpoch);
    expect(standing.firstEpoch).toBeLessThan(5);
  });

  it('opens its transport where members may be: the invite says, and later what was told', async () => {
    const seeds: unknown[] = [];
    const directory = temporary();
    for (const invite of [cluster.invite(), null])
      await start({
        directory,
        invite,
        openTransport: (id, keys, at) => {
          seeds.push([id, memberKey(keys.transport.publicKey) === keyText(keys), at]);
          return Promise.resolve(cluster.transport);
        },
      });
    expect(seeds).toEqual([1, 2].map(() => [cluster.founder.cluster.id, true, [ADDRESS]]));
  });

  it('goes on as the same replica wherever it ended', async () => {
    const invite = cluster.invite();
    const afterCommit: Start['commit'] = async (store, batch) => {
      await store.commit(batch);
      crash();
    };
    const points: Partial<Start>[] = [
      { openTransport: crash },
      { transport: { join: () => Promise.reject(new Crash('crash')) } },
      { commit: () => Promise.reject(new Crash('crash')) },
      { commit: afterCommit },
    ];
    for (const point of points) {
      const directory = temporary();
      const before = cluster.asked.length;
      await expect(start({ directory, invite, transport: cluster.transport, ...point })).rejects.toThrow('crash');
      const drawn = JSON.parse(readFileSync(join(directory, 'joining.json'), 'utf8')) as {
        transport: { publicKey: string };
      };
      const { replica } = await start({ directory, invite, transport: cluster.transport });
      expect(replica).toBe(replicaIdOf(drawn.transport.publicKey, nodeCrypto));
      for (const asked of cluster.asked.slice(before)) expect(asked).toBe(replica);
      expect(existsSync(join(directory, 'joining.json'))).toBe(false);
      expect((await start({ directory })).replica).toBe(replica);
    }
  });

  it('goes on from its keys twice written, and without an invite once its standing is on disk', async () => {
    const directory = temporary();
    const commit: Start['commit'] = async (store, batch) => {
      await store.commit(batch);
      crash();
    };
    await expect(start({ directory, invite: cluster.invite(), transport: cluster.transport, commit })).rejects.toThrow(
      'crash',
    );
    const joining = readFileSync(join(directory, 'joining.json'));
    const { replica } = await start({ directory });
    writeFileSync(join(directory, 'joining.json'), joining);
    expect((await start({ directory })).replica).toBe(replica);
    expect(existsSync(join(directory, 'joining.json'))).toBe(false);
  });

  it('neither founds where joining was begun, nor joins where founding was', async () => {
    const joining = temporary();
    const begun = { directory: joining, invite: cluster.invite(), openTransport: crash };
    await expect(start(begun)).rejects.toThrow('crash');
    await expect(start({ directory: joining })).rejects.toThrow(coded('CONFIG_INVALID', cluster.founder.cluster.id));
    const founding = temporary();
    await expect(start({ directory: founding, openTransport: crash })).rejects.toThrow('crash');
    await expect(start({ directory: founding, invite: cluster.invite() })).rejects.toThrow(coded('CONFIG_INVALID'));
  });

  it('draws other keys for another cluster, and for a copy of what was begun', async () => {
    const directory = temporary();
    await expect(start({ directory, invite: cluster.invite(), openTransport: crash })).rejects.toThrow('crash');
    const copy = copyOf(directory);
    const other = await testCluster();
    const standings = [
      await start({ directory: copy, invite: cluster.invite(), transport: cluster.transport }),
      await start({ directory: copyOf(directory), invite: other.invite(), transport: other.transport }),
      await start({ directory, invite: cluster.invite(), transport: cluster.transport }),
    ];
    expect(new Set(standings.map(({ replica }) => replica)).size).toBe(3);
  });

  it('refuses an invite that is none', async () => {
    await expect(start({ directory: temporary(), invite: 'wgi_nonsense' })).rejects.toThrow(coded('INVITE_INVALID'));
  });

  it('reads the invite once it needs it, and leaves nothing behind where that fails', async () => {
    const invite = { needed: crash, atHand: () => null };
    const directory = temporary();
    await expect(start({ directory, invite })).rejects.toThrow('crash');
    expect(readdirSync(directory)).toEqual([]);
  });
});

describe('a directory with a standing', () => {
  it('passes an invite of its cluster over, and refuses one of another', async () => {
    const { directory, standing } = await joined();
    const before = cluster.asked.length;
    expect((await start({ directory, invite: cluster.invite() })).replica).toBe(standing.replica);
    expect(cluster.asked).toHaveLength(before);
    const other = await testCluster();
    await expect(start({ directory, invite: other.invite() })).rejects.toThrow(
      coded('CONFIG_INVALID', other.founder.cluster.id),
    );
  });

  it.each([null, 'wgi_nonsense'])('reads no invite, and does not mind one that is none: %s', async (text) => {
    const { directory, standing } = await joined();
    const invite = { needed: crash, atHand: () => text };
    expect((await start({ directory, invite })).replica).toBe(standing.replica);
  });

  it('refuses keys that are not those of its replica, or none', async () => {
    const [a, b] = [await joined(), await joined()];
    for (const { directory } of [a, { directory: cluster.directory }]) {
      const copy = copyOf(directory);
      writeFileSync(join(copy, 'keys.json'), readFileSync(join(b.directory, 'keys.json')));
      await expect(start({ directory: copy, isMoved: true })).rejects.toThrow(coded('DATA_DAMAGED', 'found others'));
      rmSync(join(copy, 'keys.json'));
      await expect(start({ directory: copy, isMoved: true })).rejects.toThrow(coded('DATA_DAMAGED', 'missing'));
    }
  });

  it('gets a place when it has none, as from before there were any', async () => {
    const { directory, standing } = await joined();
    rmSync(join(directory, 'place.json'));
    expect((await start({ directory })).replica).toBe(standing.replica);
    await expect(start({ directory: copyOf(directory) })).rejects.toThrow(coded('DATA_COPIED'));
  });
});

describe('a directory that members have more of than itself', () => {
  it('becomes a new replica by an invite, even where it lies, and does not start without', async () => {
    const { directory, standing } = await joined();
    await metaFile(directory).commit({ meta: [['overtaken', standing.replica]] });
    for (const isMoved of [false, true])
      await expect(start({ directory, isMoved })).rejects.toThrow(coded('DATA_COPIED', 'older copy'));
    const after = await start({ directory, invite: cluster.invite(), transport: cluster.transport });
    expect(after.replica).not.toBe(standing.replica);
    expect((await start({ directory })).replica).toBe(after.replica);
  });
});

describe('a copied directory', () => {
  it('does not start, says the two ways on, and writes nothing', async () => {
    const { directory, standing } = await joined();
    const copy = copyOf(directory);
    const files = (): string[] => ['keys.json', 'place.json'].map((name) => readFileSync(join(copy, name), 'utf8'));
    const before = files();
    for (const words of [standing.replica, 'inode', '--data-moved', '--join'])
      await expect(start({ directory: copy })).rejects.toThrow(coded('DATA_COPIED', words));
    expect(files()).toEqual(before);
    expect((await start({ directory })).replica).toBe(standing.replica);
  });

  it('goes on as who it is when it was moved, with nothing said at the next start', async () => {
    for (const directory of [(await joined()).directory, cluster.directory]) {
      const { replica } = await start({ directory });
      const moved = copyOf(directory);
      expect((await start({ directory: moved, isMoved: true })).replica).toBe(replica);
      expect((await start({ directory: moved })).replica).toBe(replica);
    }
  });

  it('becomes a new replica by an invite, and leaves the old one alone', async () => {
    const { directory, standing } = await joined();
    const copy = copyOf(directory);
    const renewed = await start({ directory: copy, invite: cluster.invite(), transport: cluster.transport });
    expect(renewed.replica).toBe(replicaOf(renewed));
    expect(renewed.replica).not.toBe(standing.replica);
    expect(renewed.run).toBeGreaterThan(standing.run);
    // From then on it is like any other, and the original as well.
    expect((await start({ directory: copy })).replica).toBe(renewed.replica);
    expect((await start({ directory })).replica).toBe(standing.replica);
    expect(keyText(readNodeKeys(directory)!)).toBe(keyText(standing.keys));
  });

  it('becomes one new replica wherever it ended meanwhile', async () => {
    const { directory, standing } = await joined();
    const invite = cluster.invite();
    const afterCommit: Start['commit'] = async (store, batch) => {
      await store.commit(batch);
      crash();
    };
    for (const point of [{ openTransport: crash }, { commit: crash as never }, { commit: afterCommit }]) {
      const copy = copyOf(directory);
      const before = cluster.asked.length;
      await expect(start({ directory: copy, invite, transport: cluster.transport, ...point })).rejects.toThrow('crash');
      const { replica } = await start({ directory: copy, invite, transport: cluster.transport });
      expect(replica).not.toBe(standing.replica);
      expect(new Set(cluster.asked.slice(before))).toEqual(new Set([replica]));
      expect((await start({ directory: copy })).replica).toBe(replica);
    }
  });

  it('of which a joining was not finished is a copy all the same', async () => {
    const directory = temporary();
    const commit: Start['commit'] = async (store, batch) => {
      await store.commit(batch);
      crash();
    };
    await expect(start({ directory, invite: cluster.invite(), transport: cluster.transport, commit })).rejects.toThrow(
      'crash',
    );
    const [copy, moved] = [copyOf(directory), copyOf(directory)];
    await expect(start({ directory: copy })).rejects.toThrow(coded('DATA_COPIED'));
    const { replica } = await start({ directory });
    expect((await start({ directory: moved, isMoved: true })).replica).toBe(replica);
    const renewed = await start({ directory: copy, invite: cluster.invite(), transport: cluster.transport });
    expect(renewed.replica).not.toBe(replica);
  });

  it('forgets a joining that it gave up', async () => {
    const { directory, standing } = await joined();
    const copy = copyOf(directory);
    await expect(start({ directory: copy, invite: cluster.invite(), openTransport: crash })).rejects.toThrow('crash');
    expect((await start({ directory: copy, isMoved: true })).replica).toBe(standing.replica);
    expect(existsSync(join(copy, 'joining.json'))).toBe(false);
  });
});

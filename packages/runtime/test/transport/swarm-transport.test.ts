import { createSocket } from 'node:dgram';
import type { SecretStream } from 'hyperdht';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { base64, seededRandom, utf8 } from '@waggle/protocol/base';
import { createNodeKeys, entropy, systemClock } from '../../src/index.ts';
import { MESSAGE_BYTES_MAX, openTransport, type Address } from '../../src/transport/index.ts';
import { temporaryDirectories } from '../support.ts';
import { describeTransport } from './compliance.ts';
import { ended, hostileNode, nestedBatch, openChannel, type Hostile } from './hostile.ts';
import { CLUSTER, EventLog, keyOf, seedOf, until, type TestNode } from './network.ts';
import { freePort, realNetwork, type RealNetwork } from './real.ts';

describeTransport("Hyperswarm's stack", () => realNetwork(4));

const temporary = temporaryDirectories();

const up = (node: TestNode, n: number): Promise<void> =>
  until(() => expect(node.transport.links()).toContain(keyOf(n)));

describe('a node that is attacked', () => {
  let network: RealNetwork;
  let victim: TestNode;
  /** Node 2, which has a link to the victim all the time. */
  let friend: TestNode;
  /** Has the key of member 4. */
  let hostile: Hostile;
  /** Has the key of nobody. */
  let stranger: Hostile;

  beforeAll(async () => {
    network = await realNetwork(2);
    const joiner = () => ({ message: () => undefined, closed: () => undefined });
    [victim, friend] = await Promise.all([network.open(1, { joiner }), network.open(2)]);
    victim.transport.setAdmitted(
      new Map([
        [keyOf(2), [network.addressOf(2)]],
        [keyOf(4), []],
      ]),
    );
    friend.transport.setAdmitted(new Map([[keyOf(1), []]]));
    await up(victim, 2);
    [hostile, stranger] = await Promise.all([hostileNode(4), hostileNode(99)]);
  });
  afterAll(async () => {
    await Promise.all([hostile.close(), stranger.close(), network.close()]);
  });
  afterEach(async () => {
    expect(victim.log.linksOf(keyOf(2))).toMatch(/^(\+-)*\+$/);
    const before = friend.log.messages.length;
    expect(victim.transport.send(keyOf(2), utf8('still here'))).toBe(true);
    await until(() => expect(friend.log.messages).toHaveLength(before + 1));
  });

  const connect = (from: Hostile): Promise<SecretStream> => from.connect(keyOf(1), network.addressOf(1));
  /** What became of links to the hostile one since the last call. */
  let seen = 0;
  const linksSince = (): string => {
    const links = victim.log.linksOf(keyOf(4)).slice(seen);
    seen += links.length;
    return links;
  };
  const linksAre = (links: string): Promise<void> =>
    until(() => expect(victim.log.linksOf(keyOf(4)).slice(seen)).toBe(links));

  const random = seededRandom(5);
  const garbage: Readonly<Record<string, () => Buffer[]>> = {
    'frames of chance': () => Array.from({ length: 200 }, () => Buffer.from(random.bytes(1 + random.below(300)))),
    'a message that is too long': () => [Buffer.concat([Buffer.from([1, 0]), Buffer.alloc(MESSAGE_BYTES_MAX + 1)])],
    'a frame that is far too long': () => [Buffer.alloc(1024 * 1024, 1)],
    'an empty message': () => [Buffer.from([1, 0])],
    'batches in batches': () => [nestedBatch(60_000)],
    'batches in batches, with the long form of zero': () => [
      Buffer.concat([Buffer.from([0xfd, 0, 0, 0xfd, 0, 0]), nestedBatch(60_000).subarray(2)]),
    ],
    'channels without end': () =>
      Array.from({ length: 100 }, (_, i) => Buffer.from([0, 1, i + 2, 1, 0x61 + (i % 26), 0])),
    'a frame of one byte': () => [Buffer.from([1])],
  };

  it.each(Object.keys(garbage))('drops a member that sends %s', async (name) => {
    const before = victim.transport.counters().malformed;
    const stream = await connect(hostile);
    await openChannel(stream, 'member');
    await linksAre('+');
    for (const frame of garbage[name]!()) stream.write(frame);
    await ended(stream);
    await linksAre('+-');
    linksSince();
    expect(victim.transport.counters().malformed).toBeGreaterThan(before);
  });

  it('drops strangers that send garbage instead of asking, and those that ask for what is the members’', async () => {
    for (const frame of [nestedBatch(60_000), Buffer.alloc(100, 7), Buffer.alloc(MESSAGE_BYTES_MAX * 2)]) {
      const stream = await connect(stranger);
      stream.write(frame);
      await ended(stream);
    }
    const stream = await connect(stranger);
    void openChannel(stream, 'member');
    await ended(stream);
    expect(victim.log.links.has(keyOf(99))).toBe(false);
  });

  it('takes so many strangers and no more', async () => {
    const refused = (): number => victim.transport.counters().handshakesRefused;
    const before = refused();
    for (let i = 0; i < 100; i++) void connect(stranger).catch(() => undefined);
    await until(() => expect(refused()).toBeGreaterThan(before));
  });

  it('drops datagrams that are no datagrams, and keeps the link', async () => {
    const before = victim.transport.counters().malformed;
    const stream = await connect(hostile);
    await openChannel(stream, 'member');
    await linksAre('+');
    await until(() => {
      stream.trySend(Buffer.alloc(0));
      stream.trySend(Buffer.from('fine'));
      expect(victim.log.datagrams.length).toBeGreaterThan(0);
      expect(victim.transport.counters().malformed).toBeGreaterThan(before);
    });
    for (const { bytes } of victim.log.datagrams) expect(bytes).toEqual(utf8('fine'));
    expect(linksSince()).toBe('+');
    stream.destroy();
    await linksAre('-');
    linksSince();
  });

  it('keeps the newest connection of a key', async () => {
    const streams = [];
    for (const links of ['+', '+-+', '+-+-+']) {
      const stream = await connect(hostile);
      await openChannel(stream, 'member');
      await linksAre(links);
      streams.push(stream);
    }
    linksSince();
    await ended(streams[0]!);
    await ended(streams[1]!);
    expect(streams[2]!.destroyed).toBe(false);
    expect(victim.transport.send(keyOf(4), utf8('x'))).toBe(true);
    streams[2]!.destroy();
    await linksAre('-');
    linksSince();
  });

  it('gives no link to a connection on which nobody proves to be there, and ends it', async () => {
    await ended(await connect(hostile));
    expect(linksSince()).toBe('');
  });

  it('outlives garbage on its port', async () => {
    const socket = createSocket('udp4');
    const { host, port } = network.addressOf(1);
    const bytes = seededRandom(6);
    for (let i = 0; i < 3_000; i++) {
      const datagram = bytes.bytes(1 + bytes.below(400));
      // Half of them begin as a request or a reply of the DHT does.
      if (i % 2 === 0) datagram[0] = i % 4 === 0 ? 0x03 : 0x13;
      await new Promise((resolve) => socket.send(datagram, port, host, resolve));
    }
    socket.close();
  });
});

describe('a node on the network', () => {
  let network: RealNetwork;
  beforeEach(async () => {
    network = await realNetwork(3, 3);
  });
  afterEach(() => network.close());

  const address = (n: number): readonly Address[] => [network.addressOf(n)];

  it('finds a member that has moved, by the address it is told', async () => {
    const node = await network.open(1);
    const echo = await network.echo(2, [1]);
    node.transport.setAdmitted(new Map([[keyOf(2), address(2)]]));
    await up(node, 2);
    await echo.kill();
    await until(() => expect(node.log.linksOf(keyOf(2))).toMatch(/-$/));
    await network.move(2);
    const moved = await network.open(2);
    moved.transport.setAdmitted(new Map([[keyOf(1), []]]));
    node.transport.setAdmitted(new Map([[keyOf(2), address(2)]]));
    await up(node, 2);
  });

  it('finds a member of which it knows no address, by the topic', async () => {
    const [, one, two] = await Promise.all([network.open(3), network.open(1), network.open(2)]);
    one.transport.setAdmitted(new Map([[keyOf(2), []]]));
    two.transport.setAdmitted(new Map([[keyOf(1), []]]));
    await Promise.all([up(one, 2), up(two, 1)]);
  });

  it('has the key that the node signs with', async () => {
    const keys = createNodeKeys(temporary(), entropy);
    const host = '127.0.0.1';
    const transport = await openTransport({
      seed: keys.transportSeed,
      cluster: CLUSTER,
      address: { host, port: await freePort() },
      host,
      seeds: [],
      clock: systemClock,
      random: entropy,
      handlers: new EventLog().handlers(),
    });
    expect(transport.key).toBe(base64.encode(keys.transport.publicKey));
    await transport.close();
  });

  it('does not start on a port that is taken or where it cannot listen', async () => {
    await network.open(1);
    await expect(network.open(1)).rejects.toMatchObject({ code: 'PORT_IN_USE' });
    const host = '127.0.0.1';
    const open = (port: number, change: { host?: string; address?: Address; seeds?: Address[] }) =>
      openTransport({
        seed: seedOf(9),
        cluster: CLUSTER,
        address: { host, port },
        host,
        seeds: [],
        clock: systemClock,
        random: entropy,
        handlers: new EventLog().handlers(),
        ...change,
      });
    const port = await freePort();
    for (const change of [
      { address: { host, port: 40_000 } },
      { address: { host: '0.0.0.0', port } },
      { address: { host: 'localhost', port } },
      { host: '::1' },
      { seeds: [{ host: '::1', port }] },
      { seeds: [{ host, port: 70_000 }] },
    ])
      await expect(open(port, change), JSON.stringify(change)).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    const { transport } = await network.open(2);
    for (const wrong of [
      { host: 'nowhere', port: 1 },
      { host, port: 1.5 },
    ])
      expect(() => transport.setAdmitted(new Map([[keyOf(1), [wrong]]]))).toThrow(
        expect.objectContaining({ code: 'CONFIG_INVALID' }),
      );
  });
});

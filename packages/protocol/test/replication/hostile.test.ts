import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  concat,
  WaggleError,
  WireReader,
  WireWriter,
  type ClusterId,
  type Digest,
  type Run,
} from '../../src/base/index.ts';
import { encodeControlDelta, MESSAGE_BYTES_MAX, signControl } from '../../src/lattice/index.ts';
import { VERSION_MAJOR, VERSION_MAJOR_MIN, VERSION_MINOR } from '../../src/replication/constants.ts';
import { decodeFrame, encodeFrame, VERSION_LAST, type Frame } from '../../src/replication/frames.ts';
import { nodeCrypto } from '../support.ts';
import { mutate, mutation } from '../lattice/support.ts';
import { cheapCrypto, cheapSigner, CLUSTER, contentOf, effectsOf, Network, type Node } from './support.ts';

/** A network that has said everything there is to say. */
function talkative(seed = 1): Network {
  const network = new Network({ nodes: 4, seed, breaksPerMille: 50, delayMs: [1, 200] });
  const content = contentOf(network.random, 70_000);
  network.node(3).disk.set(content.digest, content.bytes);
  network.input(network.node(0), { type: 'want', digest: content.digest });
  network.input(network.node(0), { type: 'want', digest: 'ab'.repeat(32) as Digest });
  for (let epoch = 0; epoch < 5; epoch++)
    network.node(3).sealed.push({ epoch, header: network.random.bytes(300), checkpoint: `checkpoint ${epoch}` });
  network.input(network.node(0), { type: 'behind', from: 2, hint: network.node(3).id });
  network.input(network.node(1), { type: 'runs', member: network.node(2).id, newest: 9 as Run, older: 3 as Run });
  say(network, frame(VERSION_MAJOR + 1, 0, 1), network.node(2));
  for (let i = 0; i < 60; i++) {
    if (i % 10 === 0) network.input(network.node(i % 4), { type: 'follow', of: 'control', version: i });
    if (i % 10 === 5) network.input(network.node(i % 4), { type: 'follow', of: 'usage', version: i });
    network.writeControl(i % 4, `k${i % 7}`);
    network.writeUsage(i % 4, i % 2, `c${i % 5}`);
    network.run(100);
  }
  network.settle(20_000);
  return network;
}

const digests = ({ control, usage }: Node): string => control.digest(nodeCrypto) + usage.digest(nodeCrypto);
const say = (network: Network, bytes: Uint8Array, to = network.node(0)) => {
  to.effects.length = 0;
  network.input(to, { type: 'message', from: network.node(1).id, bytes });
};

/** What follows the version in a frame. */
function afterMinor(bytes: Uint8Array): Uint8Array {
  const wire = new WireReader(bytes);
  wire.raw(8);
  wire.varint();
  wire.varint();
  return Uint8Array.from(wire.raw(wire.left));
}

/** `cluster[8] ‖ major ‖ minor ‖ type ‖ body` */
const frame = (major: number, minor: number, type: number, body = new Uint8Array(), cluster: string = CLUSTER) =>
  concat(
    Buffer.from(cluster.slice(0, 16), 'hex'),
    new WireWriter().varint(major).varint(minor).varint(type).finish(),
    body,
  );

describe('frames', () => {
  const seeds = talkative().frames;

  it('of every type occur in a cluster, and are the one encoding of what they say', () => {
    const types = new Set<string>();
    for (const bytes of seeds) {
      const decoded = decodeFrame(CLUSTER, bytes) as Frame;
      types.add(decoded.type);
      expect(encodeFrame(CLUSTER, decoded)).toEqual(bytes);
    }
    const all =
      'rumor open answer vector want deltas done ask have lack get chunk follow holds epochs sealed runs versions';
    expect([...types].sort()).toEqual(all.split(' ').sort());
  });

  it('carry entries with windows and versions up to the last', () => {
    const version = fc.nat({ max: Number.MAX_SAFE_INTEGER - 1 });
    const entry = fc.uniqueArray(version, { minLength: 4, maxLength: 40 }).map((numbers) => {
      const [upTo, reached, after, ...pending] = numbers.sort((a, b) => a - b) as [number, number, number, number];
      return { upTo, reached, after, through: pending.at(-1)! % 2 === 0 ? VERSION_LAST : pending.at(-1)!, pending };
    });
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 5 }), fc.constantFrom('control', 'usage'), (entries, name) => {
        const writer = name === 'control' ? 'ab'.repeat(16) : `${'ab'.repeat(16)}/7`;
        const written: Frame = {
          type: 'vector',
          exchange: 5,
          class: name,
          isLast: true,
          page: { after: writer, through: null, entries: entries.map((each) => ({ writer, ...each })) },
        };
        expect(decodeFrame(CLUSTER, encodeFrame(CLUSTER, written))).toEqual(written);
      }),
    );
  });

  it('that are broken are refused with DECODE_FAILED, or are other frames', () => {
    const broken = fc.oneof(
      fc.tuple(fc.constantFrom(...seeds), mutation).map(([bytes, change]) => mutate(bytes, change)),
      fc.uint8Array({ maxLength: 200 }).map((bytes) => frame(1, 0, (bytes[0] ?? 0) % 20, bytes)),
      fc.uint8Array({ maxLength: 200 }),
    );
    fc.assert(
      fc.property(broken, (bytes) => {
        try {
          const decoded = decodeFrame(CLUSTER, bytes);
          if (['foreignCluster', 'foreignVersion', 'unknownType'].includes(decoded.type)) return;
          // The minor is the only thing that may differ.
          expect(afterMinor(encodeFrame(CLUSTER, decoded as Frame))).toEqual(afterMinor(bytes));
        } catch (error) {
          expect((error as WaggleError).code).toBe('DECODE_FAILED');
        }
      }),
      { numRuns: 3_000 },
    );
  });

  it('announce no more than they bring', () => {
    const count = new WireWriter().varint(2 ** 40).finish();
    for (const type of [1, 5, 6]) expect(() => decodeFrame(CLUSTER, frame(1, 0, type, count))).toThrow(WaggleError);
    const have: Frame = { type: 'have', digest: 'ab'.repeat(32) as Digest, length: 2 ** 40 };
    expect(() => decodeFrame(CLUSTER, encodeFrame(CLUSTER, have))).toThrow('at most');
  });
});

describe('a node', () => {
  it('is not changed by a frame that it refuses, whatever was recorded and broken', () => {
    const network = talkative(2);
    const target = network.node(0);
    const { frames } = talkative(3);
    const history = new Set(
      [...network.controlHistory.values()].flat().map(({ key, version, value }) => `${key} ${version} ${value}`),
    );
    fc.assert(
      fc.property(fc.constantFrom(...frames, ...network.frames), mutation, (bytes, change) => {
        const before = digests(target);
        const { misbehaviours } = target.replication.stats;
        say(network, mutate(bytes, change), target);
        const refused = target.replication.stats.misbehaviours > misbehaviours;
        expect(effectsOf(target, 'misbehaviour')).toHaveLength(refused ? 1 : 0);
        if (refused) expect(digests(target)).toBe(before);
        // Nothing that nobody signed.
        for (const { changes } of effectsOf(target, 'joined').filter((effect) => effect.class === 'control'))
          for (const { register } of changes)
            expect(history).toContain(
              `${register.key} ${register.version} ${'value' in register ? register.value : ''}`,
            );
      }),
      { numRuns: 2_000 },
    );
    expect(target.replication.stats.misbehaviours).toBeGreaterThan(100);
  });

  it('is not changed by repeats of everything that was ever said, in any order', () => {
    const network = talkative();
    const before = network.nodes.map(digests);
    fc.assert(
      fc.property(fc.shuffledSubarray(network.frames), fc.nat(3), (frames, to) => {
        for (const bytes of frames.slice(0, 200)) say(network, bytes, network.node(to));
        expect(digests(network.node(to))).toBe(before[to]);
        expect(effectsOf(network.node(to), 'misbehaviour')).toEqual([]);
      }),
      { numRuns: 20 },
    );
  });

  it('verifies nothing twice, nor what was overwritten since', () => {
    let verified = 0;
    const crypto = {
      ...cheapCrypto,
      ed25519Verify: (...args: Parameters<typeof cheapCrypto.ed25519Verify>) => {
        verified++;
        return cheapCrypto.ed25519Verify(...args);
      },
    };
    const network = new Network({ nodes: 2, seed: 1, crypto });
    for (let i = 0; i < 20; i++) {
      network.writeControl(0, `k${i % 3}`);
      network.run(300);
    }
    expect(verified).toBe(20);
    for (const bytes of network.frames) {
      // Those of the other are none of its own business.
      if (decodeFrame(CLUSTER, bytes).type === 'rumor') say(network, bytes, network.node(1));
    }
    expect(verified).toBe(20);
  });

  it('concludes nothing from an exchange in which something was wrong', () => {
    const network = new Network({ nodes: 2, seed: 1, filter: (_, { type }) => type !== 'message' });
    const [first, second] = network.nodes;
    const written = network.writeControl(1, 'a');
    const delta = encodeControlDelta({ writer: second!.id, from: 0, to: 1, end: 1, registers: [written] });
    const answer = (bad: boolean): number | null => {
      network.frames.length = 0;
      network.run(6_000, () => network.frames.some((bytes) => bytes[10] === 2));
      const opened = network.frames.map((bytes) => decodeFrame(CLUSTER, bytes)).find(({ type }) => type === 'open');
      const { exchange } = opened as Extract<Frame, { type: 'open' }>;
      const entry = { writer: second!.id, upTo: 1, reached: 1, after: 1, through: VERSION_LAST, pending: [] };
      const page = { after: null, through: null, entries: [entry] };
      const frames: Frame[] = [
        { type: 'answer', exchange, same: { control: false, usage: true } },
        { type: 'vector', exchange, class: 'control', isLast: true, page },
        { type: 'deltas', exchange, class: 'control', deltas: bad ? [new Uint8Array(3)] : [delta] },
        { type: 'done', exchange, class: 'control', isReply: true, more: false, frames: 1 },
      ];
      for (const each of frames)
        first!.replication.handle(
          { type: 'message', from: second!.id, bytes: encodeFrame(CLUSTER, each) },
          network.nowMs,
        );
      return first!.replication.lag(second!.id, network.nowMs).control;
    };
    network.input(second!, { type: 'members', live: [], dead: [], left: [] });
    expect(answer(true)).toBeNull();
    expect(answer(false)).toBe(0);
  });

  it('counts what is not for it, and what it does not know yet, and holds it against no one', () => {
    const network = new Network({ nodes: 2, seed: 1 });
    const { replication } = network.node(0);
    const other = 'c2'.repeat(32) as ClusterId;
    say(
      network,
      encodeFrame(other, {
        type: 'open',
        exchange: 1,
        digests: { control: new Uint8Array(16), usage: new Uint8Array(16) },
      }),
    );
    say(network, frame(VERSION_MAJOR + 1, 0, 1));
    expect(effectsOf(network.node(0), 'foreignVersion')).toEqual([
      { type: 'foreignVersion', from: network.node(1).id, major: VERSION_MAJOR + 1 },
    ]);
    // Whoever speaks a newer one understands this.
    const answers = (): Frame[] => network.frames.map((bytes) => decodeFrame(CLUSTER, bytes) as Frame);
    expect(answers()).toEqual([{ type: 'versions', least: VERSION_MAJOR_MIN, most: VERSION_MAJOR }]);
    say(network, frame(0, 0, 1));
    expect(answers()).toHaveLength(1);
    say(network, frame(VERSION_MAJOR, VERSION_MINOR + 1, 99, new Uint8Array(100)));
    const { foreignCluster, foreignVersion, unknownType, misbehaviours } = replication.stats;
    expect({ foreignCluster, foreignVersion, unknownType, misbehaviours }).toEqual({
      foreignCluster: 1,
      foreignVersion: 2,
      unknownType: 1,
      misbehaviours: 0,
    });
  });

  it('is never blamed for a frame of its own that is too long', () => {
    const delta = new Uint8Array(MESSAGE_BYTES_MAX);
    const encode = (): Uint8Array => encodeFrame(CLUSTER, { type: 'rumor', deltas: [delta] });
    expect(encode).toThrow('fits into a message');
    expect(encode).not.toThrow(WaggleError);
  });

  it('refuses what is too long, of no known type, truncated or not signed', () => {
    const network = new Network({ nodes: 2, seed: 1 });
    const [first, second] = network.nodes;
    const forged = encodeControlDelta({
      writer: second!.id,
      from: 0,
      to: 1,
      end: 1,
      registers: [signControl(cheapSigner('someone else'), CLUSTER, second!.id, { key: 'a', version: 1, value: '1' })],
    });
    const good = encodeControlDelta({
      writer: second!.id,
      from: 1,
      to: 2,
      end: 2,
      registers: [signControl(second!.signer, CLUSTER, second!.id, { key: 'b', version: 2, value: '2' })],
    });
    const cases: [Uint8Array, string][] = [
      [new Uint8Array(MESSAGE_BYTES_MAX + 1), 'DECODE_FAILED'],
      [new Uint8Array(), 'DECODE_FAILED'],
      [frame(VERSION_MAJOR, VERSION_MINOR, 99), 'DECODE_FAILED'],
      [frame(VERSION_MAJOR, VERSION_MINOR, 2), 'DECODE_FAILED'],
      [encodeFrame(CLUSTER, { type: 'rumor', deltas: [good, forged] }), 'SIGNATURE_INVALID'],
      [
        encodeFrame(CLUSTER, { type: 'deltas', exchange: 0, class: 'control', deltas: [good, new Uint8Array(3)] }),
        'DECODE_FAILED',
      ],
    ];
    for (const [bytes, code] of cases) {
      say(network, bytes);
      expect(effectsOf(first!, 'misbehaviour')).toEqual([{ type: 'misbehaviour', from: second!.id, code }]);
      // Not even the good half of it.
      expect(first!.control.writers()).toEqual([]);
    }
  });
});

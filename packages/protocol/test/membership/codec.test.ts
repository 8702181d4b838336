import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { equalBytes, hex, seededRandom, WaggleError, type Run } from '../../src/base/index.ts';
import {
  DATAGRAM_UPDATE_BYTES,
  decodeDatagram,
  decodeExchange,
  encodeDatagram,
  encodeExchange,
  isOurs,
  updateBytesMax,
  type Datagram,
  type Message,
} from '../../src/membership/codec.ts';
import {
  DATAGRAM_BYTES_MAX,
  EXCHANGE_BYTES_MAX,
  EXCHANGE_UPDATES_MAX,
  INCARNATION_MAX,
} from '../../src/membership/constants.ts';
import { memberOf, Membership, type MemberId } from '../../src/membership/index.ts';
import { toMemberId, type Update } from '../../src/membership/member.ts';
import { CLUSTER, memberNamed, Network } from './network.ts';

const cluster = hex.decode(CLUSTER);
const id = fc.uint8Array({ minLength: 48, maxLength: 48 }).map(toMemberId);
const incarnation = fc.integer({ min: 0, max: INCARNATION_MAX });
const number = fc.maxSafeNat();
const update: fc.Arbitrary<Update> = fc.oneof(
  fc.record({ state: fc.constantFrom('alive', 'dead', 'left'), member: id, incarnation }),
  fc.record({ state: fc.constant('suspect' as const), member: id, incarnation, accuser: id }),
);
const message: fc.Arbitrary<Message> = fc.oneof(
  fc.record({ type: fc.constantFrom('ping', 'pingRequest'), number, target: id }),
  fc.record({ type: fc.constantFrom('ack', 'nack', 'gossip'), number }),
);
const datagram: fc.Arbitrary<Datagram> = fc.record({
  sender: id,
  run: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }) as fc.Arbitrary<Run>,
  sequence: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  incarnation,
  message,
  updates: fc.array(update, { maxLength: 10 }),
});

const refused = (decode: () => unknown): boolean => {
  try {
    decode();
    return false;
  } catch (error) {
    expect(error).toBeInstanceOf(WaggleError);
    expect((error as WaggleError).code).toBe('DECODE_FAILED');
    return true;
  }
};

/** Frames of a small cluster in which much happens. */
function recorded(): Uint8Array[] {
  const frames: Uint8Array[] = [];
  const network = new Network({ seed: 7, loss: 10 });
  const members = ['a', 'b', 'c', 'd', 'e'].map((name) => memberNamed(name));
  network.found(members);
  network.tap((bytes) => frames.push(bytes));
  network.at(3_000, () => network.crash(members[0]!));
  network.at(20_000, () => network.input(network.process(members[1]!), { type: 'leave' }));
  network.run(30_000);
  for (const { core } of network.up) frames.push(...core.exchangeFrames());
  return frames;
}

describe('a datagram', () => {
  it('comes back as it went', () => {
    fc.assert(
      fc.property(datagram, (value) => {
        expect(decodeDatagram(encodeDatagram(cluster, value))).toEqual(value);
      }),
    );
  });

  it('is at most 1 200 bytes when its updates fill their room, whatever the figures', () => {
    const filled = fc.array(update, { maxLength: 30 }).map((updates) => {
      let left = DATAGRAM_UPDATE_BYTES;
      return updates.filter((one) => {
        if (updateBytesMax(one) > left) return false;
        left -= updateBytesMax(one);
        return true;
      });
    });
    fc.assert(
      fc.property(datagram, filled, (value, updates) => {
        const bytes = encodeDatagram(cluster, { ...value, updates });
        expect(bytes.length).toBeLessThanOrEqual(DATAGRAM_BYTES_MAX);
        expect(decodeDatagram(bytes).updates).toEqual(updates);
      }),
    );
  });

  it('holds what it says and not a byte more or less', () => {
    fc.assert(
      fc.property(datagram, fc.nat(), (value, cut) => {
        const bytes = encodeDatagram(cluster, value);
        expect(refused(() => decodeDatagram(bytes.subarray(0, cut % bytes.length)))).toBe(true);
        expect(refused(() => decodeDatagram(new Uint8Array([...bytes, 0])))).toBe(true);
      }),
    );
  });

  it('is refused with a run, a sequence number, an incarnation or a state that there is not', () => {
    const value = fc.sample(datagram, { numRuns: 1, seed: 1 })[0]!;
    for (const wrong of [{ run: 0 as Run }, { sequence: 0 }, { incarnation: INCARNATION_MAX + 1 }])
      expect(refused(() => decodeDatagram(encodeDatagram(cluster, { ...value, ...wrong })))).toBe(true);
    const alive: Update = { state: 'alive', member: value.sender, incarnation: 1 };
    const bytes = encodeDatagram(cluster, { ...value, message: { type: 'ack', number: 1 }, updates: [alive] });
    bytes[bytes.length - 50] = 4;
    expect(refused(() => decodeDatagram(bytes))).toBe(true);
  });

  it('is refused above 1 200 bytes before it is looked at', () => {
    expect(refused(() => decodeDatagram(new Uint8Array(DATAGRAM_BYTES_MAX + 1)))).toBe(true);
  });
});

describe('a frame of an exchange', () => {
  it('comes back as it went, and is no datagram', () => {
    fc.assert(
      fc.property(id, fc.array(update, { maxLength: 40 }), (sender, updates) => {
        const bytes = encodeExchange(cluster, { sender, updates });
        expect(decodeExchange(bytes)).toEqual({ sender, updates });
        expect(refused(() => decodeDatagram(bytes))).toBe(true);
      }),
    );
  });

  it('fits a message of 64 KiB when full, and is refused when fuller', () => {
    const sender = '\u00ff'.repeat(48) as MemberId;
    const one: Update = { state: 'suspect', member: sender, incarnation: INCARNATION_MAX, accuser: sender };
    const frame = (count: number): Uint8Array =>
      encodeExchange(cluster, { sender, updates: Array.from({ length: count }, () => one) });
    const full = frame(EXCHANGE_UPDATES_MAX);
    expect(full.length).toBeLessThanOrEqual(EXCHANGE_BYTES_MAX);
    expect(decodeExchange(full).updates).toHaveLength(EXCHANGE_UPDATES_MAX);
    expect(refused(() => decodeExchange(frame(EXCHANGE_UPDATES_MAX + 1)))).toBe(true);
  });
});

describe('any other bytes', () => {
  it('are refused with DECODE_FAILED, or are the one encoding of what they decode to', () => {
    const frames = recorded();
    const random = seededRandom(11);
    let decoded = 0;
    for (let i = 0; i < 20_000; i++) {
      const bytes = mutate(frames[random.below(frames.length)]!, random);
      refused(() => isOurs(bytes, cluster));
      const frameCluster = bytes.subarray(1, 33);
      refused(() => {
        expect(equalBytes(encodeDatagram(frameCluster, decodeDatagram(bytes)), bytes)).toBe(true);
        decoded++;
      });
      refused(() => {
        expect(equalBytes(encodeExchange(frameCluster, decodeExchange(bytes)), bytes)).toBe(true);
        decoded++;
      });
    }
    expect(decoded).toBeGreaterThan(100);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        expect(refused(() => decodeDatagram(bytes)) && refused(() => decodeExchange(bytes))).toBe(true);
      }),
    );
  });

  it('never make a node throw, nor send more than 1 200 bytes', () => {
    const frames = recorded();
    const random = seededRandom(13);
    const members = ['a', 'b', 'c', 'd', 'e'].map((name) => memberNamed(name));
    const self = members[4]!;
    const core = new Membership({ cluster: CLUSTER, self, run: 99 as Run, random });
    core.handle({ type: 'known', members }, 0);
    core.handle({ type: 'join', seeds: members }, 0);
    let sent = 0;
    for (let i = 0; i < 20_000; i++) {
      const bytes = mutate(frames[random.below(frames.length)]!, random);
      const type = random.below(4) === 0 ? 'exchange' : 'datagram';
      for (const effect of core.handle({ type, from: members[random.below(5)]!.key, bytes }, i))
        if (effect.type === 'send') {
          sent++;
          expect(effect.bytes.length).toBeLessThanOrEqual(DATAGRAM_BYTES_MAX);
        }
    }
    expect(sent).toBeGreaterThan(10);
    const { malformed, foreign, unknown, replayed } = core.counts;
    expect(Math.min(malformed, foreign, unknown, replayed)).toBeGreaterThan(10);
    expect(core.members().length).toBeLessThanOrEqual(5);
  });
});

function mutate(frame: Uint8Array, random: ReturnType<typeof seededRandom>): Uint8Array {
  const bytes = frame.slice();
  for (let times = random.below(3); times > 0; times--) bytes[random.below(bytes.length)] = random.below(256);
  return random.below(8) === 0 ? bytes.slice(0, random.below(bytes.length + 1)) : bytes;
}

describe('a member', () => {
  it('is its key and its replica id', () => {
    const one = memberNamed('one');
    expect(memberOf(one.key, one.replica)).toEqual(one);
    expect(memberNamed('one', 1).id).not.toBe(one.id);
    expect(memberOf(memberNamed('two').key, one.replica).id).not.toBe(one.id);
    for (const [key, replica] of [
      ['', one.replica],
      ['AAAA', one.replica],
      [one.key, 'ff'],
    ] as const)
      expect(refused(() => memberOf(key, replica))).toBe(true);
  });
});

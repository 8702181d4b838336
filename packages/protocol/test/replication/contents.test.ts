import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../src/base/index.ts';
import {
  CHUNK_BYTES,
  CHUNKS_PER_GET,
  CONTENT_BYTES_MAX,
  CONTENT_CACHE_BYTES_MAX,
  FETCHES_MAX,
  STALLS_MAX,
  WINDOWS_BYTES_MAX,
} from '../../src/replication/constants.ts';
import { decodeFrame, encodeFrame } from '../../src/replication/frames.ts';
import type { ReplicationInput } from '../../src/replication/index.ts';
import { nodeCrypto } from '../support.ts';
import { CLUSTER, contentOf, effectsOf, Network, type Node } from './support.ts';

const random = seededRandom(1);
const typeOf = (input: ReplicationInput): string =>
  input.type === 'message' ? decodeFrame(CLUSTER, input.bytes).type : input.type;
const quiet = (_: Node, { type }: ReplicationInput) => type !== 'exchange';

function wants(network: Network, index: number, content: ReturnType<typeof contentOf>, ms = 60_000): boolean {
  const node = network.node(index);
  network.input(node, { type: 'want', digest: content.digest });
  const arrived = () => effectsOf(node, 'content').find(({ digest }) => digest === content.digest);
  network.run(ms, () => arrived() !== undefined);
  const bytes = arrived()?.bytes;
  if (bytes !== undefined) expect(nodeCrypto.sha256(bytes)).toEqual(nodeCrypto.sha256(content.bytes));
  return bytes !== undefined;
}

describe('contents', () => {
  it.each([0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 40 * CHUNK_BYTES + 17])(
    'of %i bytes come from the one node of seven that has them',
    (length) => {
      const network = new Network({ nodes: 7, seed: 3, filter: quiet });
      const content = contentOf(random, length);
      network.node(5).disk.set(content.digest, content.bytes);
      expect(wants(network, 0, content)).toBe(true);
      expect(effectsOf(network.node(0), 'content')).toHaveLength(1);
      // And can be served at once by who has them now.
      expect(wants(network, 1, content)).toBe(true);
    },
  );

  it('are asked for until someone has them', () => {
    const network = new Network({ nodes: 3, seed: 3, filter: quiet });
    const content = contentOf(random, 1_000);
    expect(wants(network, 0, content, 10_000)).toBe(false);
    network.input(network.node(2), { type: 'held', digest: content.digest, bytes: content.bytes });
    network.run(10_000);
    expect(effectsOf(network.node(0), 'content')).toHaveLength(1);
  });

  it('are asked of everyone before anyone is asked twice, and first of who is said to have them', () => {
    const network = new Network({ nodes: 40, seed: 3, filter: quiet });
    const content = contentOf(random, 1_000);
    const asked = (index: number) => network.trace.filter((line) => line.split(' ')[1] === `0>${index}`).length;
    network.input(network.node(0), { type: 'want', digest: content.digest, from: network.node(17).id });
    network.run(30, () => asked(17) > 0);
    expect(asked(17)).toBe(1);
    network.run(900, () => network.nodes.every(({ index }) => index === 0 || asked(index) > 0));
    for (let index = 1; index < 40; index++) expect(asked(index)).toBe(1);
    // Nobody has it: less and less often.
    network.run(60_000);
    expect(asked(17)).toBeGreaterThan(5);
    expect(asked(17)).toBeLessThan(15);
  });

  it('spread from one node to forty in no time', () => {
    const network = new Network({ nodes: 40, seed: 3, filter: quiet });
    const contents = Array.from({ length: 20 }, () => contentOf(random, 10_000));
    for (const { digest, bytes } of contents) {
      network.node(0).disk.set(digest, bytes);
      for (const node of network.nodes) if (node.index > 0) network.input(node, { type: 'want', digest });
    }
    network.run(2_500);
    for (const node of network.nodes) expect(effectsOf(node, 'content')).toHaveLength(node.index === 0 ? 0 : 20);
  });

  it('that are large wait for each other', () => {
    const network = new Network({ nodes: 4, seed: 3, filter: quiet });
    const digests = Array.from({ length: 4 }, () => contentOf(random, 10).digest);
    for (const digest of digests) network.input(network.node(0), { type: 'want', digest });
    const gets = digests.flatMap((digest, i) => {
      const have = encodeFrame(CLUSTER, { type: 'have', digest, length: CONTENT_BYTES_MAX / 2 });
      const from = network.node(1 + (i % 3)).id;
      return network.node(0).replication.handle({ type: 'message', from, bytes: have }, 0);
    });
    expect(gets.filter(({ type }) => type === 'send')).toHaveLength(2);
  });

  it.each(['stays', 'dies', 'breaks', 'is silent', 'lacks some'] as const)(
    'are asked of one member so many bytes at once, and none gets stuck when it %s',
    (fate) => {
      let [waiting, most, isSilent] = [0, 0, false];
      const sizes = [3_000_000, 200_000, CHUNK_BYTES, 1_500_000];
      const contents = Array.from({ length: 12 }, (_, i) => contentOf(random, sizes[i % sizes.length]!));
      const lengths = new Map(contents.map(({ digest, bytes }) => [digest, bytes.length]));
      const network = new Network({
        nodes: 3,
        seed: 3,
        delayMs: [20, 20],
        loses: (from, _, bytes) => {
          const frame = decodeFrame(CLUSTER, bytes);
          if (frame.type === 'get') {
            waiting += Math.min(lengths.get(frame.digest)! - frame.offset, CHUNKS_PER_GET * CHUNK_BYTES);
            most = Math.max(most, waiting);
          }
          return isSilent && from.index === 1;
        },
        filter: (node, input) => {
          if (input.type !== 'message') return quiet(node, input);
          const frame = decodeFrame(CLUSTER, input.bytes);
          if (frame.type === 'chunk') waiting -= frame.bytes.length;
          return true;
        },
      });
      const [first, second, third] = network.nodes as [Node, Node, Node];
      for (const { digest, bytes } of contents) {
        network.input(second, { type: 'held', digest, bytes });
        network.input(first, { type: 'want', digest });
      }
      const arrived = () => effectsOf(first, 'content').length;
      network.run(30_000, () => arrived() > 3);
      expect(most).toBeGreaterThan(WINDOWS_BYTES_MAX / 2);
      expect(most).toBeLessThanOrEqual(WINDOWS_BYTES_MAX);
      for (const { digest, bytes } of contents) third.disk.set(digest, bytes);
      isSilent = fate === 'is silent';
      if (fate === 'dies') network.stop(1);
      if (fate === 'breaks') network.breakLink(first, second);
      if (fate === 'lacks some')
        for (const { digest } of contents.slice(0, 9)) {
          const bytes = encodeFrame(CLUSTER, { type: 'lack', digest });
          network.input(first, { type: 'message', from: second.id, bytes });
        }
      network.run(30_000, () => arrived() === contents.length);
      expect(arrived()).toBe(contents.length);
    },
  );

  it('are no longer asked for when they have come another way', () => {
    const network = new Network({ nodes: 3, seed: 3, filter: quiet });
    const { digest, bytes } = contentOf(random, 10);
    network.input(network.node(0), { type: 'want', digest });
    network.run(3_000);
    network.input(network.node(0), { type: 'held', digest, bytes });
    network.run(2_000);
    const sent = network.trace.length;
    network.run(10_000);
    expect(network.trace.length).toBe(sent);
    expect(effectsOf(network.node(0), 'content')).toEqual([]);
  });

  it('are no longer asked for when they are not needed, while asked for and on their way, and may be wanted anew', () => {
    const network = new Network({ nodes: 3, seed: 3, filter: quiet });
    const node = network.node(0);
    const { digest, bytes } = contentOf(random, 3 * CHUNKS_PER_GET * CHUNK_BYTES);
    network.input(node, { type: 'want', digest });
    network.run(3_000);
    network.node(1).disk.set(digest, bytes);
    expect(node.replication.wanted).toBe(1);
    network.run(10_000, () => network.trace.some((line) => Number(line.split(' ').at(-1)) > CHUNK_BYTES));
    network.input(node, { type: 'unwant', digest });
    expect(node.replication.wanted).toBe(0);
    network.run(2_000);
    const sent = network.trace.length;
    network.run(60_000);
    expect(network.trace.length).toBe(sent);
    expect(effectsOf(node, 'content')).toEqual([]);
    expect(wants(network, 0, { digest, bytes })).toBe(true);
  });

  it('that are wanted again have nothing to do with the timers of before', () => {
    const network = new Network({ nodes: 2, seed: 1, filter: quiet });
    const node = network.node(0);
    const { digest } = contentOf(random, 10);
    const input = (each: ReplicationInput) => node.replication.handle(each, network.nowMs);
    const timers = input({ type: 'want', digest }).flatMap((effect) => (effect.type === 'timer' ? [effect.input] : []));
    expect(timers).toHaveLength(1);
    input({ type: 'unwant', digest });
    expect(input({ type: 'want', digest })).not.toEqual([]);
    expect(input(timers[0]!)).toEqual([]);
  });

  it('that are wrong cost their sender, and come from another', () => {
    const content = contentOf(random, 3 * CHUNK_BYTES);
    for (const wrong of [content.bytes.with(7, content.bytes[7]! ^ 1), content.bytes.slice(1), new Uint8Array()]) {
      const network = new Network({ nodes: 3, seed: 2, filter: quiet, delayMs: [5, 5] });
      network.node(1).disk.set(content.digest, wrong);
      network.node(2).disk.set(content.digest, content.bytes);
      // The wrong one answers first.
      network.input(network.node(1), { type: 'held', digest: content.digest, bytes: wrong });
      expect(wants(network, 0, content)).toBe(true);
      const [misbehaviour] = effectsOf(network.node(0), 'misbehaviour');
      expect(misbehaviour).toEqual({ type: 'misbehaviour', from: network.node(1).id, code: 'DECODE_FAILED' });
      expect(network.node(0).replication.stats.contentsFailed).toBe(1);
    }
  });

  it('come from another when the first stalls, or dies on the way', () => {
    for (const fault of ['stall', 'die', 'break'] as const) {
      let gets = 0;
      const network = new Network({
        nodes: 3,
        seed: 2,
        delayMs: [5, 5],
        filter: (node, input) => {
          if (node.index !== 1 || typeOf(input) !== 'get') return quiet(node, input);
          return ++gets === 1 || fault !== 'stall';
        },
      });
      const content = contentOf(random, 64 * CHUNK_BYTES);
      network.input(network.node(1), { type: 'held', digest: content.digest, bytes: content.bytes });
      network.node(2).disk.set(content.digest, content.bytes);
      network.input(network.node(0), { type: 'want', digest: content.digest });
      network.run(10_000, () => gets > 0);
      network.run(30);
      if (fault === 'die') network.stop(1);
      if (fault === 'break') network.breakLink(network.node(0), network.node(1));
      network.run(20_000);
      expect(effectsOf(network.node(0), 'content')).toHaveLength(1);
      expect(network.node(0).replication.stats.contentsFailed).toBe(1);
      if (fault === 'stall') expect(gets).toBe(1 + STALLS_MAX);
    }
  });

  it('of any number come in the end, a few at once, those that nobody has not in the way', () => {
    const network = new Network({ nodes: 4, seed: 2, filter: quiet });
    const contents = Array.from({ length: 60 }, () => contentOf(random, 200_000));
    contents.forEach(({ digest, bytes }, i) => {
      // The first forty nobody has.
      if (i >= 40) network.node(1 + (i % 3)).disk.set(digest, bytes);
      network.input(network.node(0), { type: 'want', digest });
    });
    const asks = network.frames.filter((frame) => decodeFrame(CLUSTER, frame).type === 'ask');
    expect(asks).toHaveLength(3 * FETCHES_MAX);
    network.run(20_000);
    expect(effectsOf(network.node(0), 'content')).toHaveLength(20);
  });

  it('larger than what is kept of them, and than what one member is served in a second, come through', () => {
    const network = new Network({ nodes: 2, seed: 2, delayMs: [1, 1], filter: quiet });
    const { digest } = contentOf(random, 1);
    const bytes = new Uint8Array(CONTENT_CACHE_BYTES_MAX + 1);
    const large = { digest: Buffer.from(nodeCrypto.sha256(bytes)).toString('hex') as typeof digest, bytes };
    network.node(1).disk.set(large.digest, bytes);
    expect(wants(network, 0, large)).toBe(true);
    expect(network.node(0).replication.stats.contentsFailed).toBe(0);
  });

  it('are taken from nobody who was not asked', () => {
    const network = new Network({ nodes: 3, seed: 2, filter: quiet });
    const content = contentOf(random, 10);
    const say = (frame: Parameters<typeof encodeFrame>[1]) =>
      network
        .node(0)
        .replication.handle(
          { type: 'message', from: network.node(1).id, bytes: encodeFrame(CLUSTER, frame) },
          network.nowMs,
        );
    const { digest, bytes } = content;
    expect(say({ type: 'have', digest, length: 10 })).toEqual([]);
    expect(say({ type: 'chunk', digest, offset: 0, bytes })).toEqual([]);
    expect(say({ type: 'lack', digest })).toEqual([]);
    expect(say({ type: 'get', digest, offset: 0 })).toHaveLength(1);
    // Wanted now, and asked of the other.
    network.input(network.node(0), { type: 'members', live: [network.node(2).id], dead: [], left: [] });
    network.input(network.node(0), { type: 'want', digest });
    expect(say({ type: 'have', digest, length: 10 })).toEqual([]);
  });

  it('are kept in memory for others only so far, and loaded again when asked for', () => {
    const network = new Network({ nodes: 2, seed: 2, filter: quiet });
    const bytes = new Uint8Array(CONTENT_CACHE_BYTES_MAX / 8);
    const digests = Array.from({ length: 20 }, (_, i) => contentOf(seededRandom(i), 1).digest);
    for (const digest of digests) network.input(network.node(0), { type: 'held', digest, bytes });
    const kinds = digests.map((digest) => {
      const ask = encodeFrame(CLUSTER, { type: 'ask', digest });
      const effects = network.node(0).replication.handle({ type: 'message', from: network.node(1).id, bytes: ask }, 0);
      return effects.map(({ type }) => type).join();
    });
    const cached = CONTENT_CACHE_BYTES_MAX / bytes.length;
    expect(kinds).toEqual([...Array(20 - cached).fill('load'), ...Array(cached).fill('send')]);
  });
});

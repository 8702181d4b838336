import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AssertionError, seededRandom, utf8, fromUtf8 } from '@waggle/protocol/base';
import type { MemberKey } from '@waggle/protocol/membership';
import {
  DATAGRAM_BYTES_MAX,
  MESSAGE_BYTES_MAX,
  QUEUE_BYTES_MAX,
  type Address,
  type JoinLink,
} from '../../src/transport/index.ts';
import { CLUSTER, keyOf, OTHER_CLUSTER, until, type NetworkUnderTest, type TestNode } from './network.ts';

const sizes = [1, 2, 100, 1_024, 16_384, 65_535, MESSAGE_BYTES_MAX];

/** What every transport keeps to, run by each. */
export function describeTransport(name: string, newNetwork: () => NetworkUnderTest | Promise<NetworkUnderTest>): void {
  describe(`a transport: ${name}`, () => {
    let network: NetworkUnderTest;
    beforeEach(async () => {
      network = await newNetwork();
    });
    afterEach(() => network.close());

    const members = (...numbers: number[]): Map<MemberKey, readonly Address[]> =>
      new Map(numbers.map((n) => [keyOf(n), [network.addressOf(n)]]));

    /** Two nodes that have a link, and will have no other: the one has dialled before the other could. */
    async function linked(): Promise<[TestNode, TestNode]> {
      const [a, b] = await Promise.all([network.open(1), network.open(2)]);
      b.transport.setAdmitted(new Map([[keyOf(1), []]]));
      a.transport.setAdmitted(members(1, 2));
      await up(a, 2);
      await up(b, 1);
      b.transport.setAdmitted(members(1, 2));
      return [a, b];
    }

    const up = (node: TestNode, n: number): Promise<void> =>
      until(() => expect(node.transport.links()).toContain(keyOf(n)));
    const down = (node: TestNode, n: number): Promise<void> =>
      until(() => expect(node.transport.links()).not.toContain(keyOf(n)));

    it('delivers messages of every size whole and in order, both ways', async () => {
      const [a, b] = await linked();
      const random = seededRandom(7);
      const sent = Array.from({ length: 60 }, (_, i) => random.bytes(sizes[i % sizes.length]!));
      for (const [from, to] of [
        [a, b],
        [b, a],
      ] as const) {
        for (const bytes of sent) await until(() => expect(from.transport.send(to.transport.key, bytes)).toBe(true));
        await until(() => expect(to.log.messages).toHaveLength(sent.length));
        expect(to.log.messages.map(({ bytes }) => Buffer.from(bytes).toString('hex'))).toEqual(
          sent.map((bytes) => Buffer.from(bytes).toString('hex')),
        );
        expect(new Set(to.log.messages.map((message) => message.from))).toEqual(new Set([from.transport.key]));
      }
      expect(a.transport.counters()).toMatchObject({ links: 1, messagesOut: 60, messagesIn: 60, malformed: 0 });
    });

    it('delivers datagrams whole or not at all', async () => {
      const [a, b] = await linked();
      const random = seededRandom(8);
      const sent = new Set<string>();
      await until(() => {
        const bytes = random.bytes(1 + random.below(DATAGRAM_BYTES_MAX));
        for (const datagram of [bytes, random.bytes(DATAGRAM_BYTES_MAX), random.bytes(1)]) {
          sent.add(Buffer.from(datagram).toString('hex'));
          expect(a.transport.sendDatagram(keyOf(2), datagram)).toBe(true);
        }
        expect(b.log.datagrams.filter(({ bytes: { length } }) => length === DATAGRAM_BYTES_MAX).length).toBeGreaterThan(
          3,
        );
      });
      for (const { from, bytes } of b.log.datagrams) {
        expect(from).toBe(keyOf(1));
        expect(sent).toContain(Buffer.from(bytes).toString('hex'));
      }
    });

    it('keeps to its sizes, and sends nothing where there is no link', async () => {
      const [a] = await linked();
      for (const size of [0, MESSAGE_BYTES_MAX + 1])
        expect(() => a.transport.send(keyOf(2), new Uint8Array(size))).toThrow(AssertionError);
      for (const size of [0, DATAGRAM_BYTES_MAX + 1])
        expect(() => a.transport.sendDatagram(keyOf(2), new Uint8Array(size))).toThrow(AssertionError);
      expect(a.transport.send(keyOf(3), utf8('x'))).toBe(false);
      expect(a.transport.sendDatagram(keyOf(3), utf8('x'))).toBe(false);
    });

    it('refuses what would wait too long, and delivers all that it took', async () => {
      const [a, b] = await linked();
      const taken: number[] = [];
      const bytesOf = (i: number): Uint8Array => new Uint8Array(MESSAGE_BYTES_MAX).fill(i % 256);
      let refused = 0;
      for (let i = 0; refused === 0; i++) {
        if (a.transport.send(keyOf(2), bytesOf(i))) taken.push(i);
        else refused++;
        expect(taken.length * MESSAGE_BYTES_MAX).toBeLessThan(2 * QUEUE_BYTES_MAX);
      }
      // However small: nothing arrives that was sent after what did not.
      for (; refused < 3; refused++) expect(a.transport.send(keyOf(2), utf8('after'))).toBe(false);
      await until(() => expect(b.log.messages).toHaveLength(taken.length));
      for (const [i, { bytes }] of b.log.messages.entries()) expect(Buffer.compare(bytes, bytesOf(taken[i]!))).toBe(0);
      expect(a.transport.counters().sendsRefused).toBe(refused);
      await until(() => expect(a.transport.send(keyOf(2), utf8('again'))).toBe(true));
      await until(() => expect(b.log.messages).toHaveLength(taken.length + 1));
    });

    it('has one link for each pair when all dial each other at once', async () => {
      const numbers = [1, 2, 3, 4];
      const nodes = await Promise.all(numbers.map((n) => network.open(n)));
      for (const { transport } of nodes) transport.setAdmitted(members(...numbers));
      await until(() => {
        for (const { transport } of nodes) expect(transport.links()).toHaveLength(3);
      });
      // Each asks each, over whatever links were left in the end.
      await until(() => {
        for (const { transport } of nodes)
          for (const key of transport.links()) transport.send(key, utf8(transport.key));
        for (const { transport, log } of nodes) {
          const heard = new Set(log.messages.map(({ from }) => from));
          expect([...heard].sort()).toEqual(
            numbers
              .map(keyOf)
              .filter((key) => key !== transport.key)
              .sort(),
          );
        }
      });
      for (const { log, transport } of nodes) {
        for (const { from, bytes } of log.messages) expect(fromUtf8(bytes)).toBe(from);
        for (const key of transport.links()) expect(log.linksOf(key)).toMatch(/^(\+-)*\+$/);
      }
    });

    it('refuses a key that is not admitted, until it is', async () => {
      const [a, b] = await Promise.all([network.open(1), network.open(2)]);
      b.transport.setAdmitted(members(1));
      await until(() => expect(a.transport.counters().handshakesRefused).toBeGreaterThan(0));
      expect([a.transport.links(), b.transport.links()]).toEqual([[], []]);
      a.transport.setAdmitted(new Map([[keyOf(2), []]]));
      await up(a, 2);
      await up(b, 1);
    });

    it('closes the link to a key that is admitted no more, and refuses it from then on', async () => {
      const [a, b] = await linked();
      a.transport.setAdmitted(members());
      expect(a.transport.links()).toEqual([]);
      expect(a.log.linksOf(keyOf(2))).toMatch(/\+-$/);
      expect(a.transport.send(keyOf(2), utf8('x'))).toBe(false);
      await until(() => expect(a.transport.counters().handshakesRefused).toBeGreaterThan(0));
      expect(b.log.linksOf(keyOf(1))).toMatch(/-$/);
      a.transport.setAdmitted(members(2));
      await up(a, 2);
      await up(b, 1);
    });

    it('tells a key that is admitted no more why, before the link is closed and whenever it dials', async () => {
      const joiner = () => ({ message: () => undefined, closed: () => undefined });
      const farewell = (key: MemberKey) => (key === keyOf(2) ? utf8('for good') : null);
      const [a, b, c] = await Promise.all([network.open(1, { joiner, farewell }), network.open(2), network.open(3)]);
      a.transport.setAdmitted(members(2, 3));
      for (const node of [b, c]) node.transport.setAdmitted(members(1));
      await up(a, 2);
      await up(a, 3);
      a.transport.setAdmitted(members());
      expect(a.transport.links()).toEqual([]);
      expect(a.log.linksOf(keyOf(2))).toMatch(/\+-$/);
      await until(() => expect(b.log.messages.length).toBeGreaterThanOrEqual(2));
      for (const { from, bytes } of b.log.messages) expect([from, fromUtf8(bytes)]).toEqual([keyOf(1), 'for good']);
      expect(a.log.messages).toEqual([]);
      expect(a.log.linksOf(keyOf(2))).toMatch(/\+-$/);
      expect(c.log.messages).toEqual([]);
    });

    it('has no link to a member of another cluster', async () => {
      const [a, b, c] = await Promise.all([
        network.open(1),
        network.open(2, { cluster: OTHER_CLUSTER }),
        network.open(3),
      ]);
      for (const node of [a, b, c]) node.transport.setAdmitted(members(1, 2, 3));
      await up(a, 3);
      await until(() => expect(b.transport.counters().dialsFailed).toBeGreaterThan(1));
      expect(b.log.links.size).toBe(0);
    });

    it('says when a member is gone, told or not, and finds it again', async () => {
      const a = await network.open(1);
      for (const kill of [true, false]) {
        const before = a.log.messages.length;
        const echo = kill ? await network.echo(2, [1]) : await network.open(2);
        a.transport.setAdmitted(members(1, 2));
        if ('transport' in echo) echo.transport.setAdmitted(members(1));
        await up(a, 2);
        expect(a.transport.send(keyOf(2), utf8('hello'))).toBe(true);
        if ('transport' in echo) await echo.transport.close();
        else {
          await until(() => expect(a.log.messages).toHaveLength(before + 1));
          await echo.kill();
        }
        await down(a, 2);
        expect(a.transport.send(keyOf(2), utf8('hello'))).toBe(false);
      }
      expect(a.log.linksOf(keyOf(2))).toMatch(/^(\+-){2,}$/);
    });

    it('closes for good, and as often as asked', async () => {
      const [a, b] = await linked();
      await Promise.all([a.transport.close(), a.transport.close()]);
      expect(a.transport.links()).toEqual([]);
      expect(a.transport.send(keyOf(2), utf8('x'))).toBe(false);
      await down(b, 1);
      const again = await network.open(1);
      again.transport.setAdmitted(members(2));
      await up(again, 2);
      await up(b, 1);
    });

    describe('for strangers', () => {
      it('has a link on which they can ask, and nothing else', async () => {
        const asked: { key: MemberKey; bytes: Uint8Array }[] = [];
        const ended: string[] = [];
        let theirs: JoinLink | undefined;
        const a = await network.open(1, {
          joiner: (link) => {
            theirs = link;
            return {
              message: (bytes) => {
                asked.push({ key: link.key, bytes });
                link.allow(10_000);
                link.send(utf8('welcome'));
                link.close();
              },
              closed: () => ended.push('member'),
            };
          },
        });
        const b = await network.open(2);
        const answers: string[] = [];
        const link = await b.transport.join(keyOf(1), network.addressOf(1), {
          message: (bytes) => answers.push(fromUtf8(bytes)),
          closed: () => ended.push('joiner'),
        });
        expect(link.key).toBe(keyOf(1));
        expect(link.send(utf8('please'))).toBe(true);
        await until(() => expect(ended.sort()).toEqual(['joiner', 'member']));
        expect(answers).toEqual(['welcome']);
        expect(asked.map(({ key, bytes }) => [key, fromUtf8(bytes)])).toEqual([[keyOf(2), 'please']]);
        expect([link.send(utf8('x')), theirs?.send(utf8('x'))]).toEqual([false, false]);
        expect([a.log.links.size, a.log.messages.length, b.log.links.size]).toEqual([0, 0, 0]);
        // Admitted, it has a link like anyone.
        a.transport.setAdmitted(members(2));
        b.transport.setAdmitted(members(1));
        await up(a, 2);
        await up(b, 1);
      });

      it('closes on whoever shows nothing', async () => {
        const ended: string[] = [];
        const a = await network.open(1, {
          joiner: () => ({ message: () => undefined, closed: () => ended.push('member') }),
        });
        const b = await network.open(2);
        await b.transport.join(a.transport.key, network.addressOf(1), {
          message: () => undefined,
          closed: () => ended.push('joiner'),
        });
        await until(() => expect(ended.sort()).toEqual(['joiner', 'member']));
      });

      it('has none where nobody takes them, in another cluster, or under another key', async () => {
        const joiner = () => ({ message: () => undefined, closed: () => undefined });
        await Promise.all([
          network.open(1),
          network.open(2, { cluster: OTHER_CLUSTER, joiner }),
          network.open(3, { joiner }),
        ]);
        const { transport } = await network.open(4, { cluster: CLUSTER });
        const handlers = { message: () => undefined, closed: () => expect.unreachable('it was never open') };
        const asks = await Promise.allSettled([
          transport.join(keyOf(1), network.addressOf(1), handlers),
          transport.join(keyOf(2), network.addressOf(2), handlers),
          transport.join(keyOf(1), network.addressOf(3), handlers),
        ]);
        const refused = { status: 'rejected', reason: expect.objectContaining({ code: 'NOT_READY' }) };
        expect(asks).toEqual([refused, refused, refused]);
      });
    });
  });
}

import { describe, expect, it } from 'vitest';
import { base64, seededRandom, utf8, WaggleError, type ReplicaId } from '@waggle/protocol/base';
import { createInvite, encodeFacts, parseInvite, replicaIdOf, type JoinerKeys } from '@waggle/protocol/authority';
import { clusterOf, encodeGenesis, type Cluster } from '@waggle/protocol/sealing';
import { nodeCrypto, signerFromSeed, type Clock } from '../../src/index.ts';
import { encodeJoinFrame, encodeTold, type JoinFrame } from '../../src/joining/frames.ts';
import { joinCluster } from '../../src/joining/index.ts';
import { memberKey, type JoinHandlers, type JoinLink, type Transport } from '../../src/transport/index.ts';

const NOW_MS = 1_700_000_000_000;
const signer = (n: number) => signerFromSeed(seededRandom(n).bytes(32));
const text = (n: number): string => base64.encode(signer(n).publicKey);
const keys: JoinerKeys = { transport: signer(11), log: signer(12), cosigner: signer(13) };
const clusterNamed = (name: string): Cluster =>
  clusterOf(
    {
      format: 1,
      name,
      operatorKey: text(1),
      startMs: 0,
      epochMs: 60_000,
      sealGraceMs: 0,
      roster: [{ replica: 'aa'.repeat(16) as ReplicaId, transportKey: text(2), logKey: text(3), cosignerKey: text(4) }],
    },
    nodeCrypto,
  );
const cluster = clusterNamed('test.example');
const addresses = [1, 2, 3].map((port) => ({ transportKey: text(2), host: '10.0.0.1', port }));
const invite = parseInvite(
  createInvite({
    cluster,
    operator: signer(1),
    addresses,
    nowMs: NOW_MS,
    crypto: nodeCrypto,
    random: seededRandom(9),
    signerFromSeed,
  }).invite,
  nodeCrypto,
  signerFromSeed,
);
/** Waits for nothing. */
const clock: Clock = {
  nowMs: () => NOW_MS,
  monotonicMs: () => 0,
  after: (_, fn) => {
    setImmediate(fn);
    return () => undefined;
  },
};

type Script = (say: (frame: JoinFrame) => void, handlers: JoinHandlers) => void;
const silent: Script = (_, handlers) => handlers.closed();
const told = (of: Cluster) =>
  encodeTold({ genesis: utf8(encodeGenesis(of.genesis)), facts: encodeFacts([]), addresses, openEpoch: 5 });
const telling =
  (of = cluster): Script =>
  (say) => {
    const bytes = told(of);
    say({ type: 'page', total: bytes.length, offset: 0, bytes });
  };
const refusing =
  (code: string, reason = 'no'): Script =>
  (say) =>
    say({ type: 'refused', code, reason });

/** Joins over a network on which each attempt meets the next of these, by port; null: nobody is there. */
function join(scripts: readonly (Script | null)[], time = clock) {
  const asked: number[] = [];
  let closes = 0;
  const transport: Pick<Transport, 'join'> = {
    join: async (member, { port }, handlers) => {
      const script = scripts[asked.length] ?? null;
      asked.push(port);
      if (script === null) throw new WaggleError('NOT_READY', 'nobody is there');
      const link: JoinLink = {
        key: memberKey(base64.decode(member)),
        allow: () => undefined,
        close: () => void closes++,
        send: () => {
          setImmediate(() => script((frame) => handlers.message(encodeJoinFrame(cluster.id, frame)), handlers));
          return true;
        },
      };
      return link;
    },
  };
  const joined = joinCluster({ transport, invite, keys, clock: time, random: seededRandom(1) });
  return { joined, asked, closes: () => closes };
}

describe('joinCluster', () => {
  it('gives what the member told, with the fact that it may not have shown yet', async () => {
    const { joined, closes } = join([telling()]);
    const { facts, ...rest } = await joined;
    expect(rest).toEqual({ cluster, addresses, openEpoch: 5 });
    const replica = replicaIdOf(base64.encode(keys.transport.publicKey), nodeCrypto);
    expect(facts).toEqual([expect.objectContaining({ kind: 'admit', replica })]);
    expect(closes()).toBe(1);
  });

  it('puts pages together', async () => {
    const bytes = told(cluster);
    let held = 0;
    const paging: Script = (say) => {
      const part = bytes.subarray(held, held + 100);
      say({ type: 'page', total: bytes.length, offset: held, bytes: part });
      held += part.length;
    };
    expect((await join([paging]).joined).openEpoch).toBe(5);
    expect(held).toBe(bytes.length);
  });

  it('asks each address in turn, and again, until one answers', async () => {
    const { joined, asked } = join([null, silent, refusing('STORE_FULL'), null, telling()]);
    expect((await joined).openEpoch).toBe(5);
    expect(asked).toEqual([1, 2, 3, 1, 2]);
  });

  it('gives up after three rounds, and says where it asked and what came', async () => {
    const { joined, asked } = join([]);
    await expect(joined).rejects.toThrow(
      expect.objectContaining({
        code: 'PEER_UNREACHABLE',
        message: expect.stringMatching(/10\.0\.0\.1:3.*nobody is there/),
      }),
    );
    expect(asked).toHaveLength(9);
  });

  it.each(['INVITE_INVALID', 'INVITE_EXPIRED', 'INVITE_USED', 'FACT_REFUSED', 'SIGNATURE_INVALID'])(
    'asks no second member when one says %s',
    async (code) => {
      const { joined, asked, closes } = join([refusing(code, 'no \u001b[31m way')]);
      await expect(joined).rejects.toThrow(
        expect.objectContaining({ code, message: expect.stringMatching(/^no \?\[31m way/) }),
      );
      expect([asked, closes()]).toEqual([[1], 1]);
    },
  );

  it.each([
    ['INVITE_USED', 0, 'INVITE_USED', /another with `waggle invite`/],
    ['INVITE_EXPIRED', 0, 'INVITE_EXPIRED', /good for 3600 s more: check that clock/],
    ['FACT_REFUSED', 3_660_000, 'INVITE_EXPIRED', /expired 60 s ago: check that clock/],
    ['FACT_REFUSED', 0, 'FACT_REFUSED', /^no$/],
  ] as const)('says what to do about %s, with a clock that is %i ms ahead', async (code, aheadMs, expected, words) => {
    const { joined } = join([refusing(code, 'no')], { ...clock, nowMs: () => NOW_MS + aheadMs });
    await expect(joined).rejects.toThrow(
      expect.objectContaining({ code: expected, message: expect.stringMatching(words) }),
    );
  });

  it.each<[string, Script]>([
    ['the genesis of another cluster', telling(clusterNamed('other.example'))],
    ['a code that nobody knows', refusing('__proto__')],
    ['a frame that only a newcomer sends', (say) => say({ type: 'next', offset: 0 })],
    ['a page that is not the next', (say) => say({ type: 'page', total: 9, offset: 1, bytes: new Uint8Array(1) })],
    ['pages without an end', (say) => say({ type: 'page', total: 9, offset: 0, bytes: new Uint8Array() })],
    ['rubbish', (say) => say({ type: 'page', total: 9, offset: 0, bytes: new Uint8Array(9) })],
    ['bytes that are no frame', (_, handlers) => handlers.message(new Uint8Array(7))],
  ])('leaves a member that answers with %s, for the next', async (_, script) => {
    const { joined, asked, closes } = join([script, telling()]);
    expect((await joined).cluster).toEqual(cluster);
    expect([asked, closes()]).toEqual([[1, 2], 2]);
  });
});

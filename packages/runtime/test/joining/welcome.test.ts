import { describe, expect, it } from 'vitest';
import { base64, seededRandom, utf8, WaggleError, type Digest, type ReplicaId } from '@waggle/protocol/base';
import {
  Authority,
  createAdmit,
  createBan,
  createInvite,
  createRetire,
  encodeFact,
  factKey,
  parseInvite,
  replicaIdOf,
  type Admit,
  type Invite,
  type JoinerKeys,
  type RosterFact,
} from '@waggle/protocol/authority';
import type { MemberKey } from '@waggle/protocol/membership';
import { clusterOf, encodeGenesis } from '@waggle/protocol/sealing';
import { nodeCrypto, signerFromSeed } from '../../src/index.ts';
import {
  decodeJoinFrame,
  decodeTold,
  encodeJoinFrame,
  PAGE_BYTES_MAX,
  type JoinFrame,
} from '../../src/joining/frames.ts';
import { Welcome, type WelcomeOptions } from '../../src/joining/index.ts';
import { MESSAGE_BYTES_MAX } from '../../src/transport/index.ts';

const NOW_MS = 1_700_000_000_000;
const keysOf = (n: number): JoinerKeys => {
  const [transport, log, cosigner] = [0, 1, 2].map((i) => signerFromSeed(seededRandom(10 * n + i).bytes(32)));
  return { transport: transport!, log: log!, cosigner: cosigner! };
};
const operator = signerFromSeed(seededRandom(1).bytes(32));
const founder = keysOf(1);
const text = (signer: { readonly publicKey: Uint8Array }): string => base64.encode(signer.publicKey);
const cluster = clusterOf(
  {
    format: 1,
    name: 'test.example',
    operatorKey: text(operator),
    startMs: 0,
    epochMs: 60_000,
    sealGraceMs: 0,
    roster: [
      {
        replica: 'aa'.repeat(16) as ReplicaId,
        transportKey: text(founder.transport),
        logKey: text(founder.log),
        cosignerKey: text(founder.cosigner),
      },
    ],
  },
  nodeCrypto,
);
const address = { transportKey: text(founder.transport), host: '10.0.0.1', port: 7070 };

const invite = (uses = 1, seed = 9): Invite =>
  parseInvite(
    createInvite({
      cluster,
      operator,
      addresses: [address],
      uses,
      nowMs: NOW_MS,
      crypto: nodeCrypto,
      random: seededRandom(seed),
      signerFromSeed,
    }).invite,
    nodeCrypto,
    signerFromSeed,
  );
const admitOf = (n: number, by = invite()): Admit => createAdmit(by, keysOf(n), NOW_MS, nodeCrypto);

/** A member, and links of newcomers to it that keep what becomes of them. */
function member(options: Partial<WelcomeOptions> = {}) {
  const authority = new Authority({ cluster, crypto: nodeCrypto });
  const fold = (fact: RosterFact): void => void authority.fold(factKey(fact), encodeFact(fact));
  const joined: string[] = [];
  const refused: string[] = [];
  const welcome = new Welcome({
    cluster,
    authority,
    clock: { nowMs: () => NOW_MS },
    addresses: () => [address],
    openEpoch: () => 3,
    admit: async (fact) => {
      await Promise.resolve();
      fold(fact);
    },
    joined: (replica) => joined.push(replica),
    refused: (_, { code }) => refused.push(code),
    ...options,
  });
  const visit = (n: number) => {
    const sent: JoinFrame[] = [];
    const allowed: number[] = [];
    let closes = 0;
    const handlers = welcome.joiner({
      key: text(keysOf(n).transport) as MemberKey,
      send: (bytes) => {
        expect(bytes.length).toBeLessThanOrEqual(MESSAGE_BYTES_MAX);
        sent.push(decodeJoinFrame(cluster.id, bytes));
        return true;
      },
      allow: (ms) => allowed.push(ms),
      close: () => void closes++,
    });
    const say = async (frame: JoinFrame): Promise<void> => {
      handlers.message(encodeJoinFrame(cluster.id, frame));
      await settled();
    };
    return {
      sent,
      allowed,
      handlers,
      say,
      ask: (fact: RosterFact) => say({ type: 'ask', fact: encodeFact(fact) }),
      closes: () => closes,
    };
  };
  return { authority, fold, joined, refused, visit };
}

/** Lets every promise that is due come to its end. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const refusal = (code: string) => expect.objectContaining({ type: 'refused', code });

describe('a member that is asked', () => {
  it('writes the fact, then tells all, and lets the link go on for so long only', async () => {
    const { authority, joined, refused, visit } = member();
    const newcomer = visit(2);
    const fact = admitOf(2);
    await newcomer.ask(fact);
    const [page] = newcomer.sent;
    expect(newcomer.sent).toEqual([expect.objectContaining({ type: 'page', offset: 0 })]);
    const told = decodeTold((page as Extract<JoinFrame, { type: 'page' }>).bytes);
    expect(told).toEqual({
      genesis: utf8(encodeGenesis(cluster.genesis)),
      facts: authority.facts().bytes,
      addresses: [address],
      openEpoch: 3,
    });
    expect(newcomer.allowed).toEqual([30_000, 10_000]);
    expect([joined, refused]).toEqual([[fact.replica], []]);
    expect(authority.statusOf(fact.replica)).toBe('admitted');
  });

  it('tells nothing before the fact is on disk, and nothing but the code when the disk is full', async () => {
    let fail: (error: Error) => void = () => undefined;
    const { joined, refused, visit } = member({
      admit: () =>
        new Promise((_, reject) => {
          fail = reject;
        }),
    });
    const newcomer = visit(2);
    await newcomer.ask(admitOf(2));
    expect(newcomer.sent).toEqual([]);
    fail(new WaggleError('STORE_FULL'));
    await settled();
    expect(newcomer.sent).toEqual([refusal('STORE_FULL')]);
    expect([joined, refused, newcomer.closes()]).toEqual([[], ['STORE_FULL'], 1]);
  });

  it('pages what does not fit into a message, one page for each call', async () => {
    const facts = { bytes: seededRandom(3).bytes(2 * PAGE_BYTES_MAX + 5), digest: '' as Digest };
    const view = new Authority({ cluster, crypto: nodeCrypto });
    const authority: WelcomeOptions['authority'] = {
      checkJoin: (fact, nowMs) => view.checkJoin(fact, nowMs),
      replicaOf: (key) => view.replicaOf(key),
      statusOf: (replica) => view.statusOf(replica),
      facts: () => facts,
    };
    const { visit } = member({ authority });
    const newcomer = visit(2);
    await newcomer.ask(admitOf(2));
    const pages = () => newcomer.sent.filter((frame) => frame.type === 'page');
    const { total } = pages()[0]!;
    expect(total).toBeGreaterThan(2 * PAGE_BYTES_MAX);
    for (let held = PAGE_BYTES_MAX; held < total; held += PAGE_BYTES_MAX)
      await newcomer.say({ type: 'next', offset: held });
    expect(pages().map(({ offset }) => offset)).toEqual(pages().map((_, i) => i * PAGE_BYTES_MAX));
    const whole = Buffer.concat(pages().map(({ bytes }) => bytes));
    expect(Buffer.compare(decodeTold(whole).facts, facts.bytes)).toBe(0);
    // There is no more, and no second time.
    await newcomer.say({ type: 'next', offset: total });
    expect(newcomer.sent.at(-1)).toEqual(refusal('DECODE_FAILED'));
  });

  it('tells whom it admitted again, whatever became of the invite', async () => {
    let nowMs = NOW_MS;
    const { joined, visit } = member({ clock: { nowMs: () => nowMs } });
    await visit(2).ask(admitOf(2));
    nowMs += 365 * 86_400_000;
    const again = visit(2);
    await again.ask(admitOf(2));
    expect(again.sent).toEqual([expect.objectContaining({ type: 'page' })]);
    expect(joined).toHaveLength(1);
  });

  it('refuses what does not belong to the key of the link, a member that is admitted included', async () => {
    const { fold, refused, visit } = member();
    fold(admitOf(3));
    const thief = visit(2);
    await thief.ask(admitOf(3));
    const liar = visit(2);
    await liar.ask({ ...admitOf(2, invite(1, 5)), replica: admitOf(3).replica });
    for (const { sent, closes } of [thief, liar]) {
      expect(sent.map(({ type }) => type)).toEqual(['refused']);
      expect(closes()).toBe(1);
    }
    expect(refused[0]).toBe('FACT_REFUSED');
    expect(replicaIdOf(text(keysOf(3).transport), nodeCrypto)).toBe(admitOf(3).replica);
  });

  it('refuses a fact that was changed, and those who were retired or banned', async () => {
    const { fold, joined, visit } = member();
    const forged = visit(2);
    await forged.ask({ ...admitOf(2), joinedMs: NOW_MS - 1 });
    const [retired, banned] = [admitOf(3, invite(2)), admitOf(4, invite(2))];
    for (const fact of [retired, banned]) fold(fact);
    fold(createRetire(cluster.id, retired.replica, operator));
    fold(createBan(cluster.id, banned.replica, operator));
    const visits = [visit(3), visit(4)];
    await visits[0]!.ask(retired);
    await visits[1]!.ask(banned);
    for (const { sent } of [forged, ...visits]) expect(sent.map(({ type }) => type)).toEqual(['refused']);
    for (const { sent } of visits) expect(sent).toEqual([refusal('FACT_REFUSED')]);
    expect(joined).toEqual([]);
  });

  it('takes one request for each link, of the form that it has', async () => {
    const { refused, visit } = member();
    const twice = visit(2);
    await twice.ask(admitOf(2));
    await twice.ask(admitOf(2));
    expect(twice.sent.map(({ type }) => type)).toEqual(['page', 'refused']);
    const early = visit(3);
    await early.say({ type: 'next', offset: 0 });
    const other = visit(3);
    await other.ask(createRetire(cluster.id, 'bb'.repeat(16) as ReplicaId, operator));
    for (const { sent } of [early, other]) expect(sent.map(({ type }) => type)).toEqual(['refused']);
    for (const bytes of [new Uint8Array(1), seededRandom(4).bytes(MESSAGE_BYTES_MAX), utf8('GET / HTTP/1.1\r\n\r\n')]) {
      const broken = visit(3);
      broken.handlers.message(bytes);
      broken.handlers.message(bytes);
      expect(broken.sent).toEqual([refusal('DECODE_FAILED')]);
      expect([broken.allowed, broken.closes()]).toEqual([[], 1]);
    }
    expect(refused).toHaveLength(6);
  });

  it('admits one of two that ask at once with a single-use invite, the second one to hear of it', async () => {
    const { joined, visit } = member();
    const [first, second] = [visit(2), visit(3)];
    await Promise.all([first.ask(admitOf(2)), second.ask(admitOf(3))]);
    expect([first.sent, second.sent]).toEqual([[expect.objectContaining({ type: 'page' })], [refusal('INVITE_USED')]]);
    expect(joined).toEqual([admitOf(2).replica]);
  });

  it('does nothing for a newcomer that has left while it waited', async () => {
    let finish: () => void = () => undefined;
    const { joined, visit } = member({
      admit: () =>
        new Promise((resolve) => {
          finish = resolve;
        }),
    });
    const by = invite(3);
    const [first, second] = [visit(2), visit(3)];
    await first.ask(admitOf(2, by));
    await second.ask(admitOf(3, by));
    first.handlers.closed();
    second.handlers.closed();
    finish();
    await settled();
    expect(joined).toEqual([admitOf(2).replica]);
    expect([...first.sent, ...second.sent]).toEqual([]);
  });

  it('says that something went wrong inside, and no more, when that is so', async () => {
    const { refused, visit } = member({ admit: () => Promise.reject(new Error('secret: hunter2')) });
    const newcomer = visit(2);
    await newcomer.ask(admitOf(2));
    expect(newcomer.sent).toEqual([refusal('INTERNAL')]);
    expect(JSON.stringify(newcomer.sent)).not.toContain('hunter2');
    expect(refused).toEqual(['INTERNAL']);
  });
});

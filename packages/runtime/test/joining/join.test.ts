import { cpSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { base64, WaggleError } from '@waggle/protocol/base';
import { INVITE_MS } from '@waggle/protocol/authority';
import { entropy, systemClock, type Store } from '../../src/index.ts';
import { decodeJoinFrame, type JoinFrame } from '../../src/joining/frames.ts';
import { memberKey, MESSAGE_BYTES_MAX, openTransport } from '../../src/transport/index.ts';
import { EventLog } from '../transport/network.ts';
import { freePort } from '../transport/real.ts';
import {
  addressOf,
  inviteFrom,
  keyText,
  OPEN_EPOCH,
  testNodes,
  type StartOptions,
  type TestMember,
} from './support.ts';

const nodes = testNodes();
const coded = (code: string) => expect.objectContaining({ code });

/** A cluster of one, and an invite to it. */
async function founded(options: Partial<StartOptions> = {}): Promise<{
  readonly directory: string;
  readonly founder: TestMember;
  readonly invite: (of?: Parameters<typeof inviteFrom>[3], members?: readonly TestMember[]) => string;
}> {
  const directory = nodes.temporary();
  const founder = await nodes.start({ directory, ...options });
  const invite: Awaited<ReturnType<typeof founded>>['invite'] = (of, members = [founder]) =>
    inviteFrom(directory, founder.standing.cluster, members.map(addressOf), of);
  return { directory, founder, invite };
}

const onDisk = async ({ store }: TestMember): Promise<string[]> => {
  const keys: string[] = [];
  await store.loadControl((rows) => keys.push(...rows.map(({ key }) => key)));
  return keys;
};

/** A disk that fails, before or after what it was told. */
const failing =
  (when: 'before' | 'after') =>
  (store: Store): Pick<Store, 'commit'> => ({
    commit: async (batch) => {
      if (when === 'after') await store.commit(batch);
      throw new WaggleError('STORE_FAILED', 'crash');
    },
  });

describe('joining a cluster', () => {
  it('gives a newcomer the genesis, the facts and the addresses, and keeps them over a restart', async () => {
    const { founder, invite } = await founded();
    const directory = nodes.temporary();
    const text = invite();
    const newcomer = await nodes.start({ directory, invite: text });
    const { standing } = newcomer;
    expect(standing.cluster).toEqual(founder.standing.cluster);
    expect([standing.founded, standing.firstEpoch]).toEqual([false, OPEN_EPOCH]);
    expect(standing.facts.map(({ key }) => key)).toEqual([`roster/${standing.replica}/admit`]);
    expect([...standing.hints]).toEqual([[keyText(founder.standing.keys), [founder.address]]]);
    expect(founder.authority.statusOf(standing.replica)).toBe('admitted');
    expect(newcomer.authority.mayConnect(keyText(founder.standing.keys))).toBe(true);
    expect(await onDisk(founder)).toEqual([`roster/${standing.replica}/admit`]);
    expect([founder.joined, founder.refused]).toEqual([[standing.replica], []]);
    expect(existsSync(join(directory, 'operator.key'))).toBe(false);
    expect(existsSync(join(directory, 'joining.json'))).toBe(false);
    await newcomer.stop();
    await founder.stop();
    // The invite is still on the command line, and nobody is there to ask.
    const again = (await nodes.start({ directory, invite: text })).standing;
    expect(again).toEqual({ ...standing, run: again.run, keys: expect.anything() });
    expect(again.run).toBeGreaterThan(standing.run);
    expect(keyText(again.keys)).toBe(keyText(standing.keys));
  });

  it('refuses an invite that is used up, and takes whom it admitted with it again', async () => {
    const { founder, invite } = await founded();
    const text = invite();
    const directory = nodes.temporary();
    await expect(nodes.start({ directory, invite: text, wrap: failing('before') })).rejects.toThrow('crash');
    const [replica] = founder.joined;
    await expect(nodes.start({ directory: nodes.temporary(), invite: text })).rejects.toThrow(coded('INVITE_USED'));
    expect(founder.refused).toEqual(['INVITE_USED']);
    expect((await nodes.start({ directory, invite: text })).standing.replica).toBe(replica);
    expect(founder.joined).toEqual([replica]);
  });

  it('refuses an invite that has expired, but tells whom it admitted before', async () => {
    let aheadMs = 0;
    const { founder, invite } = await founded({ nowMs: () => systemClock.nowMs() + aheadMs });
    const text = invite();
    const directory = nodes.temporary();
    await expect(nodes.start({ directory, invite: text, wrap: failing('before') })).rejects.toThrow('crash');
    aheadMs = INVITE_MS + 1_000;
    await expect(nodes.start({ directory: nodes.temporary(), invite: text })).rejects.toThrow(coded('INVITE_EXPIRED'));
    expect((await nodes.start({ directory, invite: text })).standing.replica).toBe(founder.joined[0]);
  });

  it('refuses an invite that an operator of another cluster signed', async () => {
    const [ours, theirs] = await Promise.all([founded(), founded()]);
    // Of our cluster by its text, but not signed by our operator: only who holds the other operator key could want that.
    const forged = {
      ...ours.founder.standing.cluster.genesis,
      operatorKey: theirs.founder.standing.cluster.genesis.operatorKey,
    };
    const text = inviteFrom(theirs.directory, { ...ours.founder.standing.cluster, genesis: forged }, [
      addressOf(ours.founder),
    ]);
    await expect(nodes.start({ directory: nodes.temporary(), invite: text })).rejects.toThrow(coded('INVITE_INVALID'));
    expect(ours.founder.joined).toEqual([]);
  });

  it('admits one of many that ask at once with a single-use invite', async () => {
    const { founder, invite } = await founded();
    const text = invite();
    const all = await Promise.allSettled(
      Array.from({ length: 4 }, () => nodes.start({ directory: nodes.temporary(), invite: text })),
    );
    const codes = all.map((one) => (one.status === 'fulfilled' ? 'joined' : (one.reason as WaggleError).code));
    expect(codes.sort()).toEqual(['INVITE_USED', 'INVITE_USED', 'INVITE_USED', 'joined']);
    expect(founder.joined).toHaveLength(1);
  });

  it('asks another member, as the same replica, when the first one dies before it has answered', async () => {
    let isDying = false;
    const { founder, invite } = await founded({ afterAdmit: ({ transport }) => isDying && transport.close() });
    const second = await nodes.start({ directory: nodes.temporary(), invite: invite() });
    isDying = true;
    const third = await nodes.start({ directory: nodes.temporary(), invite: invite({}, [founder, second]) });
    const { replica } = third.standing;
    expect([founder.joined.at(-1), second.joined]).toEqual([replica, [replica]]);
    expect([...third.standing.hints]).toEqual([[keyText(second.standing.keys), [second.address]]]);
    expect(third.standing.facts.map(({ key }) => key).sort()).toEqual(
      [second, third].map(({ standing }) => `roster/${standing.replica}/admit`).sort(),
    );
  });

  it('makes a new replica of a copy, which keeps what it holds of the old one', async () => {
    const { founder, invite } = await founded();
    const directory = nodes.temporary();
    const original = await nodes.start({ directory, invite: invite() });
    const row = {
      replica: original.standing.replica,
      key: 'node/self',
      version: 1,
      value: '{}',
      signature: base64.encode(new Uint8Array(64)),
    };
    await original.store.commit({ control: [row] });
    await original.stop();
    const copy = join(nodes.temporary(), 'copy');
    cpSync(directory, copy, { recursive: true });
    await expect(nodes.start({ directory: copy })).rejects.toThrow(coded('DATA_COPIED'));
    const renewed = await nodes.start({ directory: copy, invite: invite() });
    expect(renewed.standing.replica).not.toBe(row.replica);
    const rows: unknown[] = [];
    await renewed.store.loadControl((chunk) => rows.push(...chunk));
    expect(rows).toEqual([row]);
    const back = await nodes.start({ directory });
    expect(back.standing.replica).toBe(row.replica);
    expect(founder.joined).toEqual([row.replica, renewed.standing.replica]);
  });

  it('sends strangers away that say nothing of use, and takes newcomers meanwhile', async () => {
    const { founder, invite } = await founded();
    const stranger = await openTransport({
      seed: entropy.bytes(32),
      cluster: founder.standing.cluster.id,
      address: { host: '127.0.0.1', port: await freePort() },
      host: '127.0.0.1',
      seeds: [],
      handlers: new EventLog().handlers(),
      clock: systemClock,
      random: entropy,
    });
    try {
      const answers: JoinFrame[][] = [];
      const newcomer = nodes.start({ directory: nodes.temporary(), invite: invite() });
      for (const bytes of [null, new Uint8Array(1), entropy.bytes(MESSAGE_BYTES_MAX)]) {
        const heard: JoinFrame[] = [];
        answers.push(heard);
        await new Promise<void>((resolve, reject) => {
          const handlers = {
            message: (frame: Uint8Array) => heard.push(decodeJoinFrame(founder.standing.cluster.id, frame)),
            closed: resolve,
          };
          const key = memberKey(founder.standing.keys.transport.publicKey);
          stranger.join(key, founder.address, handlers).then((link) => bytes !== null && link.send(bytes), reject);
        });
      }
      await newcomer;
      const refusal = expect.objectContaining({ type: 'refused', code: 'DECODE_FAILED' });
      expect(answers).toEqual([[], [refusal], [refusal]]);
      expect(founder.joined).toHaveLength(1);
    } finally {
      await stranger.close();
    }
  });

  it('refuses a second node on the directory of one that runs, with its path and why', async () => {
    const { directory, founder } = await founded();
    const locked = expect.objectContaining({ code: 'DATA_LOCKED', message: expect.stringContaining(directory) });
    await expect(nodes.start({ directory })).rejects.toThrow(locked);
    await expect(nodes.start({ directory, isMoved: true })).rejects.toThrow(locked);
    expect(founder.transport.links()).toEqual([]);
  });
});

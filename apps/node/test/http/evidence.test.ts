import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { base64, type ReplicaId, type Signer } from '@waggle/protocol/base';
import { createAdmit, encodeFact, factKey, parseInvite } from '@waggle/protocol/authority';
import { encodeControlDelta, signControl, verifyControl, type ControlRegister } from '@waggle/protocol/lattice';
import type { MemberKey } from '@waggle/protocol/membership';
import { entropy, nodeCrypto, signerFromSeed } from '@waggle/runtime';
import { encodeEnvelope } from '../../../../packages/protocol/src/member/envelope.ts';
import { encodeFrame } from '../../../../packages/protocol/src/replication/frames.ts';
import { openTestNode, until, type TestNode } from './support.ts';

/* What a member sends that no correct one does, from the wire to what an operator sees. */

interface Liar {
  readonly replica: ReplicaId;
  readonly transport: Signer;
}

/** A member without a vote, of which the node hears only what is sent in its name. */
async function admitted({ node, operator }: TestNode): Promise<Liar> {
  const signer = () => signerFromSeed(entropy.bytes(32));
  const keys = { transport: signer(), log: signer(), cosigner: signer() };
  const { invite } = (await operator('POST', '/v1/cluster/invites')).json<{ invite: string }>();
  const fact = createAdmit(parseInvite(invite, nodeCrypto, signerFromSeed), keys, Date.now(), nodeCrypto);
  await node.driver.write([{ key: factKey(fact), value: encodeFact(fact) }]);
  return { replica: fact.replica, transport: keys.transport };
}

const BALLOT = '{"accepted":null,"frontier":null,"promised":{"replica":"","round":0}}';
const ballotOf = ({ node }: TestNode, { replica, transport }: Liar): ControlRegister =>
  signControl(transport, node.standing.cluster.id, replica, { key: 'ballot/0', version: 1, value: BALLOT });

function send({ node }: TestNode, { replica, transport }: Liar, register: ControlRegister): void {
  const { version } = register;
  const delta = { writer: replica, from: version - 1, to: version, end: version, registers: [register] };
  const frame = encodeFrame(node.standing.cluster.id, { type: 'rumor', deltas: [encodeControlDelta(delta)] });
  const message = encodeEnvelope({ channel: 'replication', wallMs: Date.now(), frame });
  node.driver.transportHandlers.message(base64.encode(transport.publicKey) as MemberKey, message);
}

async function open(data?: string): Promise<TestNode> {
  const test = await openTestNode(data === undefined ? {} : { data });
  await test.node.announce('http://127.0.0.1:8080', '0.1.0');
  await until(() => !test.node.isSettling);
  return test;
}

const alarmsOf = async ({ operator }: TestNode): Promise<string[]> =>
  (await operator('GET', '/v1/cluster')).json<{ alarms: string[] }>().alarms;
const metric = async ({ operator }: TestNode, name: string): Promise<string | undefined> =>
  (await operator('GET', '/metrics')).payload
    .split('\n')
    .find((line) => line.startsWith(`${name} `))
    ?.slice(name.length + 1);

it('a register with a wrong signature changes nothing, and is an alarm and a metric', async () => {
  const test = await open();
  onTestFinished(() => test.close());
  const liar = await admitted(test);
  const register = ballotOf(test, liar);
  const forged = { ...register, value: register.value.replace('"round":0', '"round":1') };
  for (let i = 0; i < 2; i++) send(test, liar, forged);
  expect(await alarmsOf(test)).toEqual([
    expect.stringMatching(
      new RegExp(
        `^Replica ${liar.replica} sent 2 frames that no correct node sends \\(SIGNATURE_INVALID\\), the last at .*Z: they changed nothing\\.$`,
      ),
    ),
  ]);
  expect(await metric(test, 'waggle_misbehaviours_total{code="SIGNATURE_INVALID"}')).toBe('2');
  expect(await metric(test, 'waggle_sealing_evidence')).toBe('0');
});

it('a ballot without a vote is kept with its signature, and told before and after a restart', async () => {
  const first = await open();
  const liar = await admitted(first);
  const { path, cluster } = { path: first.node.config.data, cluster: first.node.standing.cluster.id };
  const register = ballotOf(first, liar);
  send(first, liar, register);
  const text = `Replica ${liar.replica} voted without a vote, in epoch 0 (DECODE_FAILED): it was refused.`;
  const file = join(path, 'evidence.jsonl');
  expect(await alarmsOf(first)).toContain(text);
  await until(async () => (await metric(first, 'waggle_alarms_total{what="evidence"}')) === '1');
  expect(await metric(first, 'waggle_sealing_evidence')).toBe('1');
  const lines = readFileSync(file, 'utf8');
  const kept = JSON.parse(lines) as { registers: [ControlRegister] };
  expect(kept).toMatchObject({ epoch: 0, replica: liar.replica, what: 'noVote', registers: [register] });
  // As somebody else would who has the file and the member's key.
  verifyControl(nodeCrypto, liar.transport.publicKey, cluster, liar.replica, kept.registers[0]);
  await first.app.close();
  await first.node.close();

  const second = await open(path);
  onTestFinished(() => second.close());
  expect((await alarmsOf(second)).filter((alarm) => alarm === text)).toHaveLength(1);
  expect(await metric(second, 'waggle_sealing_evidence')).toBe('1');
  second.node.accusations.look();
  expect(readFileSync(file, 'utf8')).toBe(lines);
  expect(await metric(second, 'waggle_alarms_total{what="evidence"}')).toBeUndefined();
});

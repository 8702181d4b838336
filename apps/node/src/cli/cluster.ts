import { createPrivateKey, createPublicKey, sign as ed25519 } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { base64, base64url, hex, type ReplicaId, type Signer } from '@waggle/protocol/base';
import { createBan, createInvite, createRetire, INVITE_ADDRESSES_MAX } from '@waggle/protocol/authority';
import { clusterOf, parseGenesis, type Cluster as Founded } from '@waggle/protocol/sealing';
import { inviteWarnings } from '../cluster.ts';
import { asking, Client, type ClientOptions } from './client.ts';
import { CommandError, fields, note, show } from './output.ts';
import { isLive, type Cluster } from './status.ts';

interface KeyOptions extends ClientOptions {
  readonly operatorKey?: string;
}
interface InviteOptions extends KeyOptions {
  readonly uses?: string;
  readonly expires?: string;
}
interface BanOptions extends KeyOptions {
  readonly force?: true;
}
interface Invited {
  readonly invite: string;
  readonly expiresAt: string;
  readonly uses: number;
  readonly warnings: readonly string[];
}

const UNITS_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const KEY_OPTION = [
  '--operator-key <FILE>',
  'the operator key, where the node does not have it in its data directory',
] as const;

/** `waggle invite`, `waggle retire` and `waggle ban`: for operators, with the operator key. */
export function clusterCommands(program: Command): void {
  asking(program.command('invite'), 'token')
    .description('make an invite, with which a new node joins (operator)')
    .option('--uses <N>', 'how many nodes may join with it (default: 1)')
    .option('--expires <TIME>', 'how long it is good for, as 90s, 30m, 1h, 7d (default: 1h)')
    .option(...KEY_OPTION)
    .option('-q, --quiet', 'print the invite only')
    .action(invite);
  asking(program.command('retire <replica>'), 'token')
    .description('take the vote of a member that is gone for good (operator)')
    .option(...KEY_OPTION)
    .action((replica: string, options: KeyOptions) => putOut('retire', replica, options));
  asking(program.command('ban <replica>'), 'token')
    .description('shut a member out for ever: no vote, no connection (operator)')
    .option('--force', 'even if too few voters are left to seal an epoch')
    .option(...KEY_OPTION)
    .action((replica: string, options: BanOptions) => putOut('ban', replica, options));
}

async function invite(options: InviteOptions): Promise<void> {
  const client = Client.open(options, 'token');
  const uses = options.uses === undefined ? undefined : wholeOf(options.uses, 'uses');
  const expiresInMs = options.expires === undefined ? undefined : durationOf(options.expires);
  const asked = { ...(uses === undefined ? {} : { uses }), ...(expiresInMs === undefined ? {} : { expiresInMs }) };
  const made =
    options.operatorKey === undefined
      ? await client.ask<Invited>('POST', '/v1/cluster/invites', asked)
      : await signInvite(client, readKey(options.operatorKey), asked);
  show(options, made, () => describe(made), made.invite);
  for (const warning of made.warnings) note(`waggle: ${warning}`);
}

const describe = ({ invite: text, expiresAt, uses }: Invited): string =>
  [
    fields({ expires: expiresAt, uses: String(uses) }),
    'It is a secret, which a command line shows to whoever looks. On the machine of the new node, start this, paste it, press Ctrl-D:',
    'npm start -- --join -',
    'Or write it into a file that only you can read: npm start -- --join @FILE',
    text,
  ].join('\n\n');

/** Makes an invite here: the key goes nowhere. */
async function signInvite(
  client: Client,
  operator: Signer,
  asked: { readonly uses?: number; readonly expiresInMs?: number },
): Promise<Invited> {
  const { entropy, nodeCrypto, signerFromSeed } = await import('@waggle/runtime');
  const { self, members } = await client.ask<Cluster>('GET', '/v1/cluster');
  const addresses = members
    .filter(isLive)
    .toSorted((a, b) => Number(b.replica === self) - Number(a.replica === self))
    .flatMap(({ member, addresses: [address] }) =>
      address === undefined ? [] : [{ transportKey: base64.encode(hex.decode(member)), ...address }],
    )
    .slice(0, INVITE_ADDRESSES_MAX);
  if (addresses.length === 0) throw new CommandError(`Expected a member with an address, ${client.url} knows none`);
  const {
    invite: text,
    expiresMs,
    uses,
  } = createInvite({
    ...asked,
    cluster: await founded(client),
    operator,
    addresses,
    nowMs: Date.now(),
    crypto: nodeCrypto,
    random: entropy,
    signerFromSeed,
  });
  return { invite: text, expiresAt: new Date(expiresMs).toISOString(), uses, warnings: inviteWarnings(addresses) };
}

async function putOut(kind: 'retire' | 'ban', replica: string, options: BanOptions): Promise<void> {
  if (!/^[0-9a-f]{32}$/.test(replica))
    throw new CommandError(
      `Expected the id of a replica, 32 hexadecimal digits, received ${JSON.stringify(replica)}`,
      2,
    );
  const client = Client.open(options, 'token');
  const signature =
    options.operatorKey === undefined
      ? {}
      : { signature: sign(kind, await founded(client), replica as ReplicaId, readKey(options.operatorKey)) };
  const body = { ...signature, ...(options.force === undefined ? {} : { force: true }) };
  const answer = await client.ask<{ status: string; warnings: readonly string[] }>(
    'POST',
    `/v1/cluster/members/${replica}/${kind}`,
    body,
  );
  show(options, answer, () => `Replica ${replica} is ${answer.status}.`);
  for (const warning of answer.warnings) note(`waggle: ${warning}`);
}

const sign = (kind: 'retire' | 'ban', { id }: Founded, replica: ReplicaId, operator: Signer): string =>
  (kind === 'retire' ? createRetire : createBan)(id, replica, operator).signature;

/** The cluster that the node belongs to. What is signed for it is good for no other. */
async function founded(client: Client): Promise<Founded> {
  const { nodeCrypto } = await import('@waggle/runtime');
  const response = await client.send('GET', '/v1/genesis');
  return clusterOf(parseGenesis(new Uint8Array(await response.arrayBuffer())), nodeCrypto);
}

/** The key of a file in PEM (PKCS #8). */
export function readKey(file: string): Signer {
  let pem: string;
  try {
    pem = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new CommandError(`Expected to read the operator key in ${file}: ${(cause as Error).message}`, 2, { cause });
  }
  try {
    const key = createPrivateKey({ key: pem, format: 'pem' });
    if (key.asymmetricKeyType === 'ed25519') {
      const publicKey = base64url.decode(createPublicKey(key).export({ format: 'jwk' }).x!);
      return { publicKey, sign: (message) => new Uint8Array(ed25519(null, message, key)) };
    }
  } catch {
    // The parser's own message may quote the file.
  }
  throw new CommandError(`Expected an Ed25519 private key in PEM (PKCS #8) in ${file}`, 2);
}

function wholeOf(text: string, name: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new CommandError(`Expected a whole number for ${name}, received ${JSON.stringify(text)}`, 2);
}

/** `90s`, `30m`, `1h`, `7d` in ms. */
function durationOf(text: string): number {
  const match = /^(\d{1,9})(ms|s|m|h|d)$/.exec(text);
  if (match !== null) return Number(match[1]) * UNITS_MS[match[2] as keyof typeof UNITS_MS];
  throw new CommandError(
    `Expected a time such as 90s, 30m, 1h or 7d for --expires, received ${JSON.stringify(text)}`,
    2,
  );
}

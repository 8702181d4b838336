import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import type { Cluster } from '@waggle/protocol/sealing';
import type { Recovery, Surviving } from '@waggle/runtime';
import { readKey } from './cluster.ts';
import { CommandError, fields, note, show, table } from './output.ts';

interface RecoverOptions {
  readonly data: string;
  readonly operatorKey?: string;
  readonly successor?: string;
  readonly reason?: string;
  readonly yes?: boolean;
  readonly json?: boolean;
}

/** How long a node may take to show its genesis, in ms. */
const GENESIS_MS_MAX = 30_000;

/** `waggle recover`: for the operator of a cluster that has lost a majority of its voters for good. */
export function recoverCommand(program: Command): void {
  program
    .command('recover')
    .description('go on without a majority of voters that is lost for good: start a successor, or follow one')
    .requiredOption('--data <DIR>', 'the data directory of a node that survived, and is stopped')
    .option('--operator-key <FILE>', 'the operator key: this node starts the successor (default: <DIR>/operator.key)')
    .option('--successor <FILE|URL>', 'the genesis of a successor, or a node of it: this node will follow it')
    .option('--reason <TEXT>', 'what the successor says for ever about why')
    .option('--yes', 'do it; without, it says what it would do')
    .option('--json', 'print the result as JSON')
    .action(recover);
}

async function recover(options: RecoverOptions): Promise<void> {
  if (options.successor !== undefined && options.operatorKey !== undefined)
    throw new CommandError(
      'Expected --operator-key to start a successor or --successor to follow one, received both',
      2,
    );
  const { entropy, openRecovery } = await import('@waggle/runtime');
  const recovery = await openRecovery({ directory: options.data, random: entropy });
  try {
    const refusal = options.successor === undefined ? nobodyLost(recovery.surviving) : null;
    if (options.yes !== true) return describe(options, recovery.surviving, refusal);
    if (refusal !== null) throw new CommandError(refusal, 2);
    const cluster = await carryOut(options, recovery);
    const { archive } = recovery.surviving;
    const answer = { cluster: cluster.id, epoch: cluster.genesis.predecessor!.epoch, archive };
    show(options, answer, () => done(options, cluster, archive));
  } finally {
    await recovery.close();
  }
}

/** Why no successor is to be founded here: this node is all that it takes to seal. Null where it is not, or votes no more. */
function nobodyLost({ cluster: { genesis }, replica, voters, isOvertaken }: Surviving): string | null {
  if (isOvertaken || voters.length !== 1 || voters[0] !== replica) return null;
  const { predecessor } = genesis;
  const already =
    predecessor === undefined
      ? ''
      : ` It was recovered already, and continues cluster ${predecessor.cluster} from epoch ${predecessor.epoch}: once it runs, ` +
        'other survivors follow it with --successor URL. For another --reason, begin again with the copy of its data directory.';
  return `Expected a majority of the voters to be lost, received the only voter: nobody is lost, and it goes on by itself. Start it.${already}`;
}

async function carryOut(options: RecoverOptions, { succeed, follow }: Recovery): Promise<Cluster> {
  const { data, successor, operatorKey = join(data, 'operator.key'), reason = '' } = options;
  const { REASON_LENGTH_MAX } = await import('@waggle/protocol/sealing');
  if (reason.length > REASON_LENGTH_MAX)
    throw new CommandError(`Expected a reason of at most ${REASON_LENGTH_MAX} characters`, 2);
  return successor === undefined ? succeed(readKey(operatorKey), reason) : follow(await readGenesis(successor));
}

/** What is held here, and what would become of it. */
function describe(options: RecoverOptions, surviving: Surviving, refusal: string | null): void {
  const { cluster, replica, sealedUpTo, nextEpoch, voters, unsealed, archive } = surviving;
  const others = voters.filter((voter) => voter !== replica);
  const sums = unsealed.map(({ replica: of, slots, usage }) => ({ replica: of, slots, requests: usage.requests }));
  const answer = { cluster: cluster.id, replica, sealedUpTo, nextEpoch, voters, unsealed: sums, archive };
  show(options, answer, () =>
    [
      fields({
        cluster: cluster.id,
        replica,
        'sealed up to': sealedUpTo === null ? 'nothing' : `epoch ${sealedUpTo}`,
        'successor from': `epoch ${nextEpoch}`,
        'other voters': others.length === 0 ? 'none' : others.join(' '),
        archive,
      }),
      'Usage that no seal has counted yet, as far as this node holds it:',
      table(
        ['REPLICA', 'SLOTS', 'REQUESTS'],
        sums.map((sum) => [sum.replica, sum.slots, sum.requests]),
      ),
    ].join('\n\n'),
  );
  const advice =
    'Do this only if a majority of the voters is gone for good, on the survivor that has sealed most: the old cluster ends ' +
    'here, and what only lost disks held is lost. With --yes it is done.';
  note(`waggle: nothing was changed. ${refusal ?? advice}`);
}

const done = ({ data, successor }: RecoverOptions, cluster: Cluster, archive: string): string => {
  const { predecessor } = cluster.genesis;
  return [
    fields({ cluster: cluster.id, continues: predecessor!.cluster, from: `epoch ${predecessor!.epoch}`, archive }),
    successor === undefined
      ? `Start the node as before. On every other survivor: waggle recover --data DIR --successor URL --yes`
      : `It needs an invite of the successor: waggle start --data ${data} --join INVITE`,
  ].join('\n\n');
};

/** The genesis in a file, or that a node shows. */
async function readGenesis(from: string): Promise<Uint8Array> {
  try {
    if (!/^https?:\/\//i.test(from)) return new Uint8Array(readFileSync(from));
    const url = new URL('v1/genesis', from.endsWith('/') ? from : `${from}/`);
    const response = await fetch(url, { redirect: 'error', signal: AbortSignal.timeout(GENESIS_MS_MAX) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    return new Uint8Array(await response.arrayBuffer());
  } catch (cause) {
    throw new CommandError(`Expected a genesis at ${from}: ${(cause as Error).message}`, 2, { cause });
  }
}

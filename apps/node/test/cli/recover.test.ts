import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { entropy, openRecovery, openStore, readOperatorKey } from '@waggle/runtime';
import { here, startNode, temporary } from './support.ts';

/** The data directory of the only node of a cluster, stopped. */
async function stopped(): Promise<string> {
  const data = join(temporary(), 'data');
  const node = await startNode(data);
  node.child.kill('SIGTERM');
  expect(await node.exit()).toBe(0);
  return data;
}

/** The cluster that a directory belongs to, as `waggle recover` shows it. */
const clusterOf = async (data: string): Promise<string> => {
  const { stdout } = await here(['recover', '--data', data, '--json']);
  return (JSON.parse(stdout) as { cluster: string }).cluster;
};

it('recovering is refused where the node is the only voter: a log that can go on is not ended, nor a successor again', async () => {
  const data = await stopped();
  const args = ['recover', '--data', data, '--yes', '--reason', 'Better said.'];
  const before = await clusterOf(data);
  expect(await here(args)).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('nobody is lost') });
  expect(await clusterOf(data)).toBe(before);

  const recovery = await openRecovery({ directory: data, random: entropy });
  const successor = await recovery.succeed(readOperatorKey(data)!, 'The building burned down.');
  await recovery.close();
  const database = readFileSync(join(data, 'waggle.db'));
  for (const flags of [args, args.slice(0, 3)]) {
    const again = await here(flags);
    expect(again.code).toBe(flags === args ? 2 : 0);
    expect(again.stderr).toContain(`It was recovered already, and continues cluster ${before} from epoch `);
    expect(again.stderr).toContain('--successor URL');
  }
  expect(await clusterOf(data)).toBe(successor.id);
  expect(readFileSync(join(data, 'waggle.db')).equals(database)).toBe(true);

  // A voter that was put back from an older copy votes no more: its log ends, though it is the only one.
  const store = await openStore({ directory: data, mayCreate: false });
  await store.commit({ meta: [['overtaken', successor.genesis.roster[0]!.replica]] });
  await store.close();
  expect(await here(args)).toMatchObject({ code: 0, stderr: '' });
  expect(await clusterOf(data)).not.toBe(successor.id);
});

import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { base64 } from '@waggle/protocol/base';
import {
  cosignerKey,
  encodeEntryBundle,
  formatPolicy,
  formatVerifierKey,
  logKey,
  statementLeaf,
  TILE_WIDTH,
  tilePath,
} from '@waggle/protocol/transparency';
import { TestCluster } from '../../../packages/protocol/test/sealing/harness.ts';
import { statementsIn } from '../../../packages/protocol/test/support.ts';
import { TileMap } from '../../../packages/protocol/test/transparency/support.ts';
import { nodeCrypto } from '../src/node-crypto.ts';
import { scratch } from './support.ts';

/* A hundred epochs of a cluster of three, held against the Go project's own implementation: nothing of it is ours. */

const run = promisify(execFile);
const SOURCE = fileURLToPath(new URL('../../../test/go', import.meta.url));
const env = { ...process.env, GO111MODULE: 'off', GOPATH: '/usr/share/gocode', GOFLAGS: '' };
const go = await run('go', ['list', 'golang.org/x/mod/sumdb/tlog'], { env }).then(
  () => true,
  () => false,
);
if (!go)
  process.stderr.write('Skipped: the check by Go needs the Debian packages golang-go and golang-golang-x-mod-dev.\n');

const EPOCHS = 100;

describe.skipIf(!go)('golang.org/x/mod/sumdb over a hundred epochs of three members', () => {
  const at = scratch();
  const epochs: { checkpoint: string; policy: string }[] = [];
  const write = (name: string, content: string | Uint8Array): void => {
    mkdirSync(dirname(at(name)), { recursive: true });
    writeFileSync(at(name), content);
  };
  const check = (): Promise<string> =>
    run(at('check'), [at()]).then(
      ({ stdout }) => stdout,
      ({ code, stderr }: { code: number; stderr: string }) => `${code} ${stderr}`,
    );

  beforeAll(async () => {
    await run('go', ['build', '-o', at('check'), '.'], { cwd: SOURCE, env });
    const test = new TestCluster({ members: 3 });
    for (let epoch = 0; epoch < EPOCHS; epoch++) {
      for (const node of test.nodes)
        for (let i = 0; i < (epoch * node.index) % 5; i++) test.meter(node, `c${i}`, 1 + epoch);
      test.sealUpTo(epoch);
    }
    const { origin } = test.cluster;
    const tiles = new TileMap();
    const leaves: Uint8Array[] = [];
    for (const { sealed } of test.nodes[0]!.disk.sealed) {
      tiles.put(sealed.tiles);
      const texts = statementsIn(sealed).map(({ text }) => text);
      leaves.push(sealed.value.header, ...texts.map((text) => statementLeaf(text, sealed.epoch, nodeCrypto)));
      const members = sealed.roster.map((member) => ({
        replica: member.replica,
        logKey: base64.decode(member.logKey),
        cosignerKey: base64.decode(member.cosignerKey),
      }));
      epochs.push({ checkpoint: sealed.checkpoint, policy: formatPolicy(nodeCrypto, origin, members) });
    }
    for (const [name, hashes] of tiles.tiles) {
      const [level, index] = name.split('/').map(Number) as [number, number];
      write(tilePath({ level, index, width: hashes.length / 32 }), hashes);
    }
    for (let first = 0; first < leaves.length; first += TILE_WIDTH) {
      const entries = leaves.slice(first, first + TILE_WIDTH);
      write(
        tilePath({ level: 'entries', index: first / TILE_WIDTH, width: entries.length }),
        encodeEntryBundle(entries),
      );
    }
    const keys = test.cluster.genesis.roster.flatMap((member) => [
      logKey(nodeCrypto, origin, base64.decode(member.logKey)),
      cosignerKey(nodeCrypto, origin, member.replica, base64.decode(member.cosignerKey)),
    ]);
    write('checkpoint', epochs.at(-1)!.checkpoint);
    write('log.vkey', keys.map((key) => `${formatVerifierKey(key)}\n`).join(''));
    for (const name of ['inclusion.json', 'consistency.json']) write(name, '[]');
    write('epochs.json', JSON.stringify(epochs));
  }, 120_000);

  it('finds each cosigned by a majority, the newest consistent with each, and every entry a leaf of the tiles', async () => {
    expect(await check()).toMatch(new RegExp(`^ok \\S+ size=\\d+ signatures=4 unknown=0 .* epochs=${EPOCHS}\n$`));
  });

  it('refuses one that lacks its majority, has another root, or is of another tree', async () => {
    const refused = async (change: (note: string) => string, epoch = 50): Promise<string> => {
      const changed = epochs.with(epoch, { ...epochs[epoch]!, checkpoint: change(epochs[epoch]!.checkpoint) });
      write('epochs.json', JSON.stringify(changed));
      return check();
    };
    // The last line is the second cosignature of two.
    expect(await refused((note) => `${note.trimEnd().split('\n').slice(0, -1).join('\n')}\n`)).toMatch(
      /^1 failed: epochs\.json \[50\]: expected the log and 2 cosigners, received \d and 1/,
    );
    expect(await refused((note) => note.replace(/\n\d+\n/, '\n77\n'))).toMatch(/^1 failed: epochs\.json \[50\]: /);
    const other = new TestCluster({ members: 3, seed: 9 });
    for (const node of other.nodes) other.meter(node, 'else', 1);
    other.sealUpTo(0);
    const [forked] = other.nodes[0]!.disk.sealed;
    expect(await refused(() => forked!.sealed.checkpoint, 0)).toMatch(/^1 failed: epochs\.json \[0\]/);
    write('epochs.json', JSON.stringify(epochs));
    write(
      tilePath({ level: 'entries', index: 0, width: TILE_WIDTH }),
      encodeEntryBundle(Array.from({ length: TILE_WIDTH }, () => new Uint8Array(3))),
    );
    expect(await check()).toMatch(/^1 failed: entry 0 is not the leaf/);
  });
});

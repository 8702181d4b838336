import { join } from 'node:path';
import Database from 'better-sqlite3';
import { expect, it } from 'vitest';
import { utf8 } from '@waggle/protocol/base';
import { statementLeaf } from '@waggle/protocol/transparency';
import { openStore, type LeafRow, type SealedEpoch, type StatementRow, type Store } from '../../src/index.ts';
import { nodeCrypto } from '../../src/node-crypto.ts';
import { compactAll } from '../../src/store/compaction.ts';
import { APPLICATION_ID, MIGRATIONS } from '../../src/store/schema.ts';
import { customerOf, sealed, statementOf } from '../store-compliance.ts';
import { temporaryDirectories } from '../support.ts';

const temporary = temporaryDirectories();

/** Statements to an epoch: so many that one transaction does not take them all. */
const COUNT = 600;
const SIZE = COUNT + 1;
const EPOCHS = [0, 1, 2];
/** The last one is on its way to disk: its row is not there. */
const STAGED = 3;

const epochRow = (epoch: number): SealedEpoch => ({
  ...sealed(epoch),
  firstLeaf: epoch * SIZE,
  treeSize: (epoch + 1) * SIZE,
});
const rowsIn = (epoch: number): StatementRow[] =>
  Array.from({ length: COUNT }, (_, n) => ({
    customer: customerOf(n),
    epoch,
    // Some are late.
    origin: Math.max(0, n % 100 === 7 ? epoch - 1 : epoch),
    leafIndex: epoch * SIZE + 1 + n,
    bytes:
      n === 9
        ? utf8('{"something":"else"}')
        : statementOf(customerOf(n), epoch, Math.max(0, n % 100 === 7 ? epoch - 1 : epoch)),
  }));
const leavesIn = (epoch: number): LeafRow[] => [
  { index: epoch * SIZE, data: utf8(epochRow(epoch).header) },
  ...rowsIn(epoch).map((row) => ({
    index: row.leafIndex,
    data: statementLeaf(Buffer.from(row.bytes).toString(), epoch, nodeCrypto),
  })),
];

/** A store as it was when statements and leaves were kept as they are. */
function former(version: number): { directory: string; database: Database.Database } {
  const directory = temporary();
  const database = new Database(join(directory, 'waggle.db'));
  database.pragma('journal_mode = WAL');
  database.pragma(`application_id = ${APPLICATION_ID}`);
  for (const { sql } of MIGRATIONS.slice(0, version)) database.exec(sql);
  database.pragma(`user_version = ${version}`);
  const statement = database.prepare('INSERT INTO statement VALUES (?, ?, ?, ?, ?)');
  const leaf = database.prepare('INSERT INTO leaf VALUES (?, ?)');
  const epochOf = database.prepare('INSERT INTO sealed VALUES (?, ?, ?, ?, ?, ?, ?)');
  database.transaction(() => {
    for (const epoch of [...EPOCHS, STAGED]) {
      for (const row of rowsIn(epoch)) statement.run(row.leafIndex, row.customer, row.epoch, row.origin, row.bytes);
      for (const { index, data } of leavesIn(epoch)) leaf.run(index, data);
    }
    for (const { epoch, firstLeaf, treeSize, root, header, checkpoint, details } of EPOCHS.map(epochRow))
      epochOf.run(epoch, firstLeaf, treeSize, root, header, checkpoint, details);
  })();
  return { directory, database };
}

const plain = ({ bytes, ...row }: StatementRow) => ({ ...row, text: Buffer.from(bytes).toString() });
const textOf = ({ index, data }: LeafRow) => ({ index, text: Buffer.from(data).toString() });

async function allStatements(store: Store): Promise<StatementRow[]> {
  const rows: StatementRow[] = [];
  let page: StatementRow[];
  do {
    page = await store.statementsFrom((rows.at(-1)?.leafIndex ?? -1) + 1, 1e9, 1_000);
    rows.push(...page);
  } while (page.length > 0);
  return rows;
}

/** That a store holds what the former one held, and shows the staged epoch once its row comes. */
async function expectWhole(directory: string): Promise<void> {
  const store = await openStore({ directory, check: 'full' });
  try {
    expect((await allStatements(store)).map(plain)).toEqual(EPOCHS.flatMap(rowsIn).map(plain));
    for (const from of [0, 256, SIZE - 100, 2 * SIZE, 3 * SIZE - 100])
      expect((await store.leaves(from, from + 256)).map(textOf)).toEqual(
        EPOCHS.flatMap(leavesIn)
          .slice(from, from + 256)
          .map(textOf),
      );
    expect((await store.statementsOf(customerOf(7), 0, 9, 10)).map(({ epoch, origin }) => [epoch, origin])).toEqual([
      [0, 0],
      [1, 0],
      [2, 1],
    ]);
    await store.commit({ sealed: [epochRow(STAGED)] });
    expect((await store.statementsOf(customerOf(8), STAGED, STAGED, 10)).map(plain)).toEqual([
      plain(rowsIn(STAGED)[8]!),
    ]);
  } finally {
    await store.close();
  }
}

it('makes the statements of a former store compact, from the first version on', async () => {
  for (const version of [1, 2]) {
    const { directory, database } = former(version);
    const before = database.pragma('page_count', { simple: true }) as number;
    database.close();
    await expectWhole(directory);
    const after = new Database(join(directory, 'waggle.db'), { readonly: true });
    expect(after.pragma('user_version', { simple: true })).toBe(MIGRATIONS.length);
    expect(after.prepare("SELECT count(*) FROM sqlite_schema WHERE name IN ('leaf', 'compact')").pluck().get()).toBe(0);
    const free = after.pragma('freelist_count', { simple: true }) as number;
    expect((after.pragma('page_count', { simple: true }) as number) - free).toBeLessThan(before / 3);
    after.close();
  }
});

it('goes on where a crash ended it', async () => {
  const crashes: ((database: Database.Database) => void)[] = [
    (database) => database.exec('DELETE FROM compact'),
    (database) => database.exec(`DELETE FROM compact WHERE leaf_index > ${SIZE + 500}`),
    () => undefined,
  ];
  for (const crash of crashes) {
    const { directory, database } = former(2);
    compactAll(database);
    crash(database);
    database.close();
    await expectWhole(directory);
  }
});

it('waits for room when the disk is full, and loses nothing', async () => {
  const { directory, database } = former(2);
  const pageCountMax = (database.pragma('page_count', { simple: true }) as number) + 20;
  database.close();
  await expect(openStore({ directory, pageCountMax })).rejects.toMatchObject({ code: 'STORE_FULL' });
  await expectWhole(directory);
});

it('lets go of no leaf that is not what its statement or header says', async () => {
  for (const index of [SIZE, 2 * SIZE + 77]) {
    const { directory, database } = former(2);
    database.prepare('UPDATE leaf SET data = ? WHERE idx = ?').run(utf8('another leaf'), index);
    database.pragma('wal_checkpoint(TRUNCATE)');
    database.close();
    const path = join(directory, 'waggle.db');
    await expect(openStore({ directory })).rejects.toMatchObject({
      code: 'DATA_DAMAGED',
      message: expect.stringContaining(`leaf ${index}`),
    });
    const after = new Database(path, { readonly: true });
    expect(after.pragma('user_version', { simple: true })).toBe(2);
    expect(after.prepare('SELECT count(*) FROM leaf').pluck().get()).toBe(4 * SIZE);
    expect(after.prepare('SELECT count(*) FROM statement').pluck().get()).toBe(4 * COUNT);
    after.close();
  }
});

import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { openDataDirectory, openRecovery, openStore, type Store, type StoreOptions } from '../src/index.ts';
import { seededRandom } from '@waggle/protocol/base';
import { damagePages, temporaryDirectories } from './support.ts';

const temporary = temporaryDirectories();

/** What happens to a store between the look at it and the first read. */
let afterOpening: ((path: string) => void) | undefined;
vi.mock('../src/store/index.ts', async (original) => {
  const actual = await original<{ openStore: typeof openStore }>();
  return {
    ...actual,
    openStore: async (options: StoreOptions): Promise<Store> => {
      const store = await actual.openStore(options);
      afterOpening?.(join(options.directory, 'waggle.db'));
      return store;
    },
  };
});

it('says that a database cannot be read, and lets go of the directory', async () => {
  const directory = join(temporary(), 'data');
  openDataDirectory(directory).close();
  const store = await openStore({ directory });
  await store.commit({ meta: [['a', '1']] });
  await store.close();
  afterOpening = damagePages;
  await expect(openRecovery({ directory, random: seededRandom(1) })).rejects.toMatchObject({
    code: 'STORE_FAILED',
    message: expect.stringContaining('SQLITE_CORRUPT'),
  });
  openDataDirectory(directory).close();
});

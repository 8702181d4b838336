import { BUNDLE_BYTES_MAX, type Bundle, type Verified } from '@waggle/protocol/audit';
import { base64, equalBytes, parseWhole, WaggleError, type Epoch } from '@waggle/protocol/base';
import { GENESIS_BYTES_MAX } from '@waggle/protocol/sealing';
import { frontierRoot, tilePath } from '@waggle/protocol/transparency';
import { openArchive } from './archive.ts';
import { parseCluster } from './cluster.ts';
import { get } from './get.ts';
import { nodeCrypto } from './node-crypto.ts';
import { UnusableError, type Item, type LogSource, type Source } from './source.ts';

/** How long an answer may take, in ms: a bundle of a gibibyte over a slow line too. */
const ANSWER_MS_MAX = 30_000;
const BUNDLE_MS_MAX = 1_800_000;
/** Bytes of a page of the list of epochs, and of a checkpoint or tile, at most. */
const SMALL_BYTES_MAX = 1_048_576;
/** Epochs in a page of the list. */
const PAGE = 100;

/** What the list says of a sealed epoch. */
interface Listed {
  readonly epoch: Epoch;
  readonly treeSize: number;
  readonly root: Uint8Array;
}

function malformed(message: string, cause?: unknown): never {
  throw new WaggleError('BUNDLE_MALFORMED', message, { cause });
}

/** Reads a page of the list: how far the epochs are sealed (null: none is), and the sealed ones of the page. */
function parsePage(
  bytes: Uint8Array,
  url: URL,
): { readonly sealedUpTo: number | null; readonly epochs: readonly Listed[] } {
  try {
    const page = JSON.parse(Buffer.from(bytes).toString('utf8')) as {
      sealedUpTo: unknown;
      epochs: Record<string, unknown>[];
    };
    return {
      sealedUpTo: page.sealedUpTo === null ? null : parseWhole(page.sealedUpTo, 'sealedUpTo'),
      epochs: page.epochs
        .filter(({ state }) => state === 'sealed')
        .map(({ epoch, treeSize, root }) => ({
          epoch: parseWhole(epoch, 'an epoch'),
          treeSize: parseWhole(treeSize, 'a tree size', 1),
          root: base64.decode(String(root)),
        })),
    };
  } catch (cause) {
    return malformed(
      `Expected a page of epochs from ${url.href}: ${cause instanceof Error ? cause.message : String(cause)}`,
      cause,
    );
  }
}

/** The epoch that a cluster begins with. */
function firstEpochOf(genesis: Uint8Array): Epoch {
  try {
    return parseCluster(genesis).genesis.predecessor?.epoch ?? 0;
  } catch {
    return 0;
  }
}

/** The node at a URL, as its API shows sealed epochs. Throws `UnusableError` if nobody answers there. */
export async function openUrl(base: URL, token: string | undefined): Promise<Source> {
  const at = (path: string): URL => new URL(path, base.href.endsWith('/') ? base : `${base.href}/`);
  const genesis = await get(at('v1/genesis'), token, GENESIS_BYTES_MAX, ANSWER_MS_MAX).catch((error: unknown) => {
    throw error instanceof WaggleError ? new UnusableError(error.message, { cause: error }) : error;
  });

  // What is no genesis is found out where it is looked into.
  const first = firstEpochOf(genesis);

  const page = async (from: Epoch): Promise<ReturnType<typeof parsePage>> => {
    const url = at(`v1/epochs?from=${from}&limit=${PAGE}`);
    return parsePage(await get(url, token, SMALL_BYTES_MAX, ANSWER_MS_MAX), url);
  };

  async function* items(state: Verified | null): AsyncGenerator<Item> {
    const from = state?.chain.epoch ?? first;
    // The last epoch that was verified before is looked at again: the log must still be at least what it was.
    let { sealedUpTo, epochs } = await page(Math.max(0, from - 1));
    const last = sealedUpTo ?? -1;
    if (state !== null) checkContinues(state, last, epochs);
    for (let epoch = from; epoch <= last; epoch++) {
      let listed = epochs.find((each) => each.epoch === epoch);
      if (listed === undefined) {
        ({ epochs } = await page(epoch));
        listed = epochs.find((each) => each.epoch === epoch);
      }
      if (listed === undefined) malformed(`Expected epoch ${epoch} in the list of sealed epochs up to ${last}`);
      const url = at(`v1/epochs/${epoch}.tar`);
      const load = async (allowOutline: boolean): Promise<Bundle> => {
        try {
          return openArchive(await get(url, token, BUNDLE_BYTES_MAX, BUNDLE_MS_MAX));
        } catch (error) {
          if (!allowOutline || !(error instanceof UnusableError) || error.code !== 'SLOTS_EXPIRED') throw error;
          const outline = at(`v1/epochs/${epoch}/outline.tar`);
          return openArchive(await get(outline, token, BUNDLE_BYTES_MAX, BUNDLE_MS_MAX));
        }
      };
      yield { epoch, where: url.href, listed, load };
    }
  }
  const small = (path: string): Promise<Uint8Array> => get(at(path), token, SMALL_BYTES_MAX, ANSWER_MS_MAX);
  const log: LogSource = {
    newest: () => small('checkpoint'),
    checkpoint: (epoch) => small(`v1/epochs/${epoch}/checkpoint`),
    readTile: (level, index, width) => small(tilePath({ level, index, width })),
  };
  return { genesis, log, items };
}

/** That the list still shows the tree that was verified before. */
function checkContinues(state: Verified, last: number, epochs: readonly Listed[]): void {
  const epoch = state.chain.epoch - 1;
  if (last < epoch)
    throw new WaggleError(
      'HISTORY_CHANGED',
      `Expected epoch ${epoch}, verified before, to be sealed; it is sealed up to ${last}`,
    );
  const listed = epochs.find((each) => each.epoch === epoch);
  const root = frontierRoot(nodeCrypto, state.frontier);
  if (listed?.treeSize !== state.frontier.size || !equalBytes(listed.root, root))
    throw new WaggleError(
      'HISTORY_CHANGED',
      `Expected tree size ${state.frontier.size} and root ${base64.encode(root)} after epoch ${epoch}, as verified before, received ${listed === undefined ? 'none' : `${listed.treeSize} and ${base64.encode(listed.root)}`}`,
    );
}

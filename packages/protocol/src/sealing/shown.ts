import { WaggleError, type Digest, type Epoch } from '../base/index.ts';
import { openNoteOf } from './certificate.ts';
import type { Contents } from './contents.ts';
import type { SealingInput } from './effects.ts';
import type { Noted } from './noted.ts';
import type { SealingOptions } from './options.ts';
import { parseHeader, type ChainState } from './value.ts';

/** Sealed epochs that others have shown and that wait for those before them: at most that many. */
const SHOWN_MAX = 1_024;

/** An epoch as another node showed it, and a majority of its roster signed. */
export type Opened = ReturnType<typeof openNoteOf> & {
  readonly digest: Digest;
  /** Digest of its statements, if its slots are not kept any more. */
  readonly statements: Digest | undefined;
};

type Learned = Extract<SealingInput, { type: 'learned' }>;

/** The sealed epochs that others have shown: nothing of them is believed but what a majority signed. */
export class Shown {
  readonly #options: Pick<SealingOptions, 'crypto' | 'cluster'>;
  readonly #noted: Noted;
  readonly #contents: Contents;
  readonly #epochs = new Map<Epoch, { readonly shown: Learned; opened: Opened | undefined }>();

  constructor(options: Pick<SealingOptions, 'crypto' | 'cluster'>, noted: Noted, contents: Contents) {
    this.#options = options;
    this.#noted = noted;
    this.#contents = contents;
  }

  /** Takes one in, unless it is sealed here or too far ahead. Throws `DECODE_FAILED`. */
  add(shown: Learned, sealingEpoch: Epoch): void {
    const { epoch } = parseHeader(shown.header);
    if (epoch >= sealingEpoch && epoch < sealingEpoch + SHOWN_MAX)
      this.#epochs.set(epoch, { shown, opened: undefined });
  }

  /** The epoch that follows on the chain, if it was shown and holds; what does not is forgotten, and evidence. */
  opened({ epoch, previous, roster }: ChainState): Opened | undefined {
    const entry = this.#epochs.get(epoch);
    if (entry === undefined) return undefined;
    const { header, checkpoint, statements } = entry.shown;
    entry.opened ??= this.#noted.reading(epoch, null, () => {
      if (parseHeader(header).previous !== previous)
        throw new WaggleError('HEADER_MISMATCH', `Expected the header of epoch ${epoch} to follow on ${previous}`);
      const { crypto, cluster } = this.#options;
      const opened = openNoteOf(crypto, cluster.origin, roster, checkpoint);
      return { ...opened, digest: this.#contents.hold(header), statements };
    });
    if (entry.opened === undefined) this.#epochs.delete(epoch);
    return entry.opened;
  }

  /** Whether it was shown. */
  forget(epoch: Epoch): boolean {
    return this.#epochs.delete(epoch);
  }
}

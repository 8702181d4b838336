import type { Digest, ReplicaId } from '../base/index.ts';
import { isFactKey, type Authority } from '../authority/index.ts';
import type { ControlRegister, Registers, WriterId } from '../lattice/index.ts';
import type { ClassName } from '../replication/index.ts';
import type { SealingInput } from '../sealing/index.ts';
import { sealingEpochOf } from './retention.ts';
import type { Loaded } from './types.ts';
import type { UsageBook } from './usage-book.ts';

/** Where what the disk held goes. */
interface Views {
  readonly authority: Authority;
  readonly control: Registers<ControlRegister, ReplicaId>;
  readonly book: UsageBook;
}

/**
 * Takes in what the disk held. Gives what sealing is to be told then, and the contents to be read to know what was counted of the
 * rows.
 */
export function load(
  { control, usage, vectors, pinned, past, facts = [] }: Loaded,
  to: Views,
): { readonly inputs: readonly SealingInput[]; readonly unknown: readonly Digest[] } {
  for (const { key, value } of facts) to.authority.fold(key, value);
  const inputs: SealingInput[] = [];
  const closes: SealingInput[] = [];
  for (const bytes of pinned) inputs.push({ type: 'content', bytes });
  for (const row of control) {
    const { replica, key, value } = row;
    to.control.restore(replica, row);
    // Closes last: with its own close a member acts, and it must know by then what it has promised and signed before.
    if (sealingEpochOf(key) !== null)
      (key.startsWith('close/') ? closes : inputs).push({ type: 'register', replica, key, value });
    else if (isFactKey(key)) to.authority.fold(key, value);
  }
  for (const row of usage) to.book.restore(row);
  const rows = [...vectors];
  const vector = <W extends string>(name: ClassName): [W, number][] =>
    rows.filter((row) => row.class === name).map(({ writer, upTo }) => [writer as W, upTo]);
  to.control.restored(vector<ReplicaId>('control'));
  const sealed = [...past].map((each) => ({ type: 'past', ...each }) as const);
  return { inputs: [...inputs, ...closes, ...sealed], unknown: to.book.restored(vector<WriterId>('usage')) };
}

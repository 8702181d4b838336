import { readFileSync } from 'node:fs';
import { WaggleError } from '@waggle/protocol/base';
import type { InviteSource } from '@waggle/runtime';

const STANDARD_INPUT = 0;
/** Bytes that are read as an invite at most. */
const BYTES_MAX = 64 * 1024;

/** The invite of the setting `join`: `-` is standard input, `@PATH` a file, everything else the invite itself; null is none. */
export function inviteOf(join: string | null): InviteSource | null {
  if (join === null) return null;
  return {
    needed: () => read(join),
    // Standard input may never end, and a file may be gone by a later start.
    atHand: () => {
      try {
        return join === '-' ? null : read(join);
      } catch {
        return null;
      }
    },
  };
}

/** Throws `CONFIG_INVALID` for what cannot be read. */
function read(join: string): string {
  if (join !== '-' && !join.startsWith('@')) return join;
  const [from, where] = join === '-' ? [STANDARD_INPUT, 'standard input'] : [join.slice(1), join.slice(1)];
  try {
    return readFileSync(from, 'utf8').trim().slice(0, BYTES_MAX);
  } catch (cause) {
    throw new WaggleError(
      'CONFIG_INVALID',
      `Expected to read the invite from ${where} (setting join): ${(cause as Error).message}`,
      { cause },
    );
  }
}

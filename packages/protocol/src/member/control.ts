import type { ReplicaId } from '../base/index.ts';
import { equalControl, Registers, type ControlRegister, type Register } from '../lattice/index.ts';

/** Keys of one writer: 100 000 customers with keys, limits and audit entries need half a million. */
const KEYS_MAX = 4_000_000;
/** Of these, what is kept for sealing and for the writes that wait. */
const KEYS_SPARE = 100_000;
/** What one writer writes at most, in bytes of memory about: others take twice as much, so they never refuse what it wrote. */
const BYTES_MAX = 1024 ** 3;
/** What a register takes beside its key and value. */
const BYTES_EXTRA = 200;

type Changing = 'apply' | 'join' | 'restart' | 'drop' | 'forget' | 'restore' | 'restored';
/** Registers to be looked at. */
export type ShownRegisters<R extends Register, W extends string> = Omit<Registers<R, W>, Changing>;

/** The control registers of all replicas, bounded for each. */
export const newControl = (): Registers<ControlRegister, ReplicaId> =>
  new Registers({
    keysMax: KEYS_MAX,
    bytesMax: 2 * BYTES_MAX,
    sizeOf: ({ key, value }) => key.length + value.length + BYTES_EXTRA,
    equal: equalControl,
  });

/** Whether a replica may write more of its own. */
export const hasRoom = (control: ShownRegisters<ControlRegister, ReplicaId>, replica: ReplicaId): boolean =>
  control.room(replica) >= KEYS_SPARE && control.bytes(replica) < BYTES_MAX;

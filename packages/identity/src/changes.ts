import { jcs, type HybridClock, type Json, type Random, type ReplicaId } from '@waggle/protocol/base';
import { randomDigits } from './credentials.ts';
import type { Write } from './facts.ts';
import type { Actor } from './principals.ts';

/** Who asks for a change, and when by the local clock, in Unix ms. */
export interface Context {
  readonly actor: Actor;
  readonly nowMs: number;
}

/** What was done to what; `details` never holds a secret. */
export interface Action {
  /** As `customer.create`. */
  readonly action: string;
  /** Id of the customer, key or token. */
  readonly target: string;
  readonly details: Json;
}

/** What writing a change needs. */
export interface ChangeDeps {
  readonly clock: HybridClock;
  readonly random: Random;
  readonly replica: ReplicaId;
}

/** A register to be written, its value as JCS. */
export const write = (key: string, value: Json): Write => ({ key, value: jcs(value) });

/** The writes with the audit entry of their change. No writes, no entry: nothing was changed. */
export const audited = (deps: ChangeDeps, context: Context, change: Action, writes: readonly Write[]): Write[] =>
  writes.length === 0 ? [] : [...writes, auditEntry(deps, context, change)];

/** The audit entry of a change. */
export function auditEntry({ clock, random, replica }: ChangeDeps, { actor, nowMs }: Context, change: Action): Write {
  const { action, target, details } = change;
  const { credential, role } = actor;
  return write(`fact/audit/${clock.now(nowMs)}-${randomDigits(random, 8)}`, {
    atMs: nowMs,
    actor: { credential, role },
    node: replica,
    action,
    target,
    details,
  });
}

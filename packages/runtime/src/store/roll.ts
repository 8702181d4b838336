import type Database from 'better-sqlite3';
import type { Epoch } from '@waggle/protocol/base';
import { freePart, type Part } from './record-file.ts';

/** Records deleted by one step: short, because commits wait meanwhile. */
const STEP_ROWS = 1_000;

/** What there is to do next; `write`: the file of the part, then `written`. */
export type RollStep =
  | { readonly kind: 'done' }
  | { readonly kind: 'write'; readonly part: Part }
  | { readonly kind: 'deleted'; readonly records: number };

/**
 * Moves records into files, in short steps. The plan for a file, which records go into it, is on disk before the file;
 * the file is in place before it is noted so; only then are records deleted. So whatever a crash interrupts is done
 * again with the same records, or gone on with.
 */
export function roller(database: Database.Database, directory: string) {
  const pending = database.prepare<[], Part & { state: 0 | 1 }>(
    'SELECT epoch, part, last_seq AS lastSeq, state FROM rolled WHERE state < 2 ORDER BY epoch, part LIMIT 1',
  );
  const oldest = database
    .prepare<[Epoch], Epoch>('SELECT epoch FROM record INDEXED BY record_epoch WHERE epoch < ? ORDER BY epoch LIMIT 1')
    .pluck();
  const lastSeq = database.prepare<[Epoch], number>('SELECT max(seq) FROM record WHERE epoch = ?').pluck();
  const lastPart = database.prepare<[Epoch], number>('SELECT ifnull(max(part), 0) FROM rolled WHERE epoch = ?').pluck();
  const plan = database.prepare<[Epoch, number, number]>('INSERT INTO rolled VALUES (?, ?, ?, 0)');
  const advance = database.prepare<[number, Epoch, number]>('UPDATE rolled SET state = ? WHERE epoch = ? AND part = ?');
  const remove = database.prepare<[Epoch, number]>(
    `DELETE FROM record WHERE seq IN (SELECT seq FROM record INDEXED BY record_epoch
      WHERE epoch = ? AND seq <= ? ORDER BY seq LIMIT ${STEP_ROWS})`,
  );

  return {
    rollStep(epochBefore: Epoch): RollStep {
      const under = pending.get();
      if (under !== undefined) {
        const { state, ...part } = under;
        if (state === 0) return { kind: 'write', part };
        const records = remove.run(part.epoch, part.lastSeq).changes;
        if (records < STEP_ROWS) advance.run(2, part.epoch, part.part);
        return { kind: 'deleted', records };
      }
      const epoch = oldest.get(epochBefore);
      if (epoch === undefined) return { kind: 'done' };
      // Under a name that no file has: none is ever replaced by other records.
      const part = { epoch, part: freePart(directory, epoch, lastPart.get(epoch)! + 1), lastSeq: lastSeq.get(epoch)! };
      plan.run(part.epoch, part.part, part.lastSeq);
      return { kind: 'write', part };
    },
    /** The file of the part is in its place. */
    rollWritten: ({ epoch, part }: Part): void => void advance.run(1, epoch, part),
  };
}

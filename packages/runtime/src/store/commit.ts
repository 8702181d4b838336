import { deflateSync, inflateSync, constants } from 'node:zlib';
import type Database from 'better-sqlite3';
import type { CustomerId, Digest, Epoch } from '@waggle/protocol/base';
import { nodeCrypto } from '../node-crypto.ts';
import { pack, unpack, usageValues, type Packed, type Row } from './rows.ts';
import { USAGE_COLUMNS } from './schema.ts';
import { statementWriter } from './statements.ts';
import { DROP_IDEMPOTENCY_MAX, DROP_MONTHS_MAX, type Batch } from './types.ts';

const counts = USAGE_COLUMNS.join(', ');
const countsGiven = USAGE_COLUMNS.map(() => '?').join(', ');
const countsTaken = USAGE_COLUMNS.map((name) => `${name} = excluded.${name}`).join(', ');
const countsAdded = USAGE_COLUMNS.map(
  (name) => `${name} = MIN(month.${name} + excluded.${name}, ${Number.MAX_SAFE_INTEGER})`,
).join(', ');

/** What a commit does, in this order; at last it writes statements. Bytes are always the last parameter. */
const STEPS = {
  dropControl: 'DELETE FROM control WHERE replica = ? AND key = ?',
  dropUsage: 'DELETE FROM usage WHERE replica = ? AND run = ? AND epoch = ?',
  dropVectors: 'DELETE FROM vector WHERE class = ? AND writer = ?',
  dropContents: 'DELETE FROM content WHERE digest = ?',
  expireContents: 'DELETE FROM content WHERE digest = ? AND epoch < ?',
  dropIdempotency: `DELETE FROM idempotency WHERE rowid IN
    (SELECT rowid FROM idempotency WHERE expires_ms < ? LIMIT ${DROP_IDEMPOTENCY_MAX})`,
  dropMonths: `DELETE FROM month WHERE (month, customer) IN
    (SELECT month, customer FROM month WHERE month < ? LIMIT ${DROP_MONTHS_MAX})`,
  meta: 'INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value',
  control: `INSERT INTO control VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET version = excluded.version, value = excluded.value, signature = excluded.signature
    WHERE excluded.version > control.version`,
  usage: `INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ${countsGiven})
    ON CONFLICT DO UPDATE SET version = excluded.version, ${countsTaken}
    WHERE excluded.version > usage.version`,
  vectors: 'INSERT INTO vector VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET up_to = excluded.up_to',
  records: `INSERT INTO record (time_ms, customer, key_id, request_id, operation, epoch, status, code, params, sku, ${counts},
    queue_us, process_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ${countsGiven}, ?, ?)`,
  idempotency: 'INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?, ?)',
  contents: 'INSERT INTO content VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET epoch = MAX(epoch, excluded.epoch)',
  sealed: `INSERT OR REPLACE INTO sealed (epoch, first_leaf, tree_size, header, checkpoint, details, root)
    VALUES (?, ?, ?, ?, ?, ?, ?)`,
  checkpoints: 'UPDATE sealed SET checkpoint = ? WHERE epoch = ?',
  tiles: 'INSERT OR REPLACE INTO tile VALUES (?, ?, ?)',
  months: `INSERT INTO month VALUES (?, ?, ${countsGiven}) ON CONFLICT DO UPDATE SET ${countsAdded}`,
} as const;
type Step = keyof typeof STEPS | 'statements';

/** A batch as it crosses to the worker. */
export type WireBatch = { readonly [step in Step]?: { readonly rows: readonly Row[]; readonly blobs?: Packed } };

/** Flattens a batch, and names the buffers that go by transfer. */
export function toWire(batch: Batch): { wire: WireBatch; transfer: ArrayBuffer[] } {
  const wire: { [step in Step]?: { rows: readonly Row[]; blobs?: Packed } } = {};
  const transfer: ArrayBuffer[] = [];
  const put = <T>(
    step: Step,
    items: readonly T[] | undefined,
    row: (item: T) => Row,
    blob?: (item: T) => Uint8Array,
  ) => {
    if (items === undefined || items.length === 0) return;
    const rows = items.map(row);
    if (blob === undefined) {
      wire[step] = { rows };
      return;
    }
    const blobs = pack(items.map(blob));
    transfer.push(blobs.bytes.buffer, blobs.lengths.buffer);
    wire[step] = { rows, blobs };
  };
  put('dropControl', batch.dropControl, (r) => [r.replica, r.key]);
  put('dropUsage', batch.dropUsage, (r) => [r.replica, r.run, r.epoch]);
  put('dropVectors', batch.dropVectors, (r) => [r.class, r.writer]);
  put('dropContents', batch.dropContents, (digest) => [digest]);
  put('expireContents', batch.expireContents, (r) => [r.digest, r.before]);
  if (batch.dropIdempotencyBeforeMs !== undefined)
    put('dropIdempotency', [batch.dropIdempotencyBeforeMs], (beforeMs) => [beforeMs]);
  if (batch.dropMonthsBefore !== undefined) put('dropMonths', [batch.dropMonthsBefore], (before) => [before]);
  put('meta', batch.meta, (r) => r);
  put('control', batch.control, (r) => [r.replica, r.key, r.version, r.value, r.signature]);
  put('usage', batch.usage, (r) => [r.replica, r.run, r.epoch, r.customer, r.sku, r.version, ...usageValues(r.usage)]);
  put('vectors', batch.vectors, (r) => [r.class, r.writer, r.upTo]);
  put('records', batch.records, (r) => [
    r.timeMs,
    r.customer,
    r.keyId,
    r.requestId,
    r.operation,
    r.epoch,
    r.status,
    r.code,
    r.params,
    r.sku,
    ...usageValues(r.usage),
    r.queueMicros,
    r.processMicros,
  ]);
  put('idempotency', batch.idempotency, (r) => [r.customer, r.key, r.requestHash, r.result, r.expiresMs, r.repeats]);
  put(
    'contents',
    batch.contents,
    (r) => [r.digest, r.epoch, r.bytes.length],
    (r) => r.bytes,
  );
  put(
    'sealed',
    batch.sealed,
    (r) => [r.epoch, r.firstLeaf, r.treeSize, r.header, r.checkpoint, r.details],
    (r) => r.root,
  );
  put('checkpoints', batch.checkpoints, (r) => [r.checkpoint, r.epoch]);
  put(
    'statements',
    batch.statements,
    (r) => [r.leafIndex, r.customer, r.epoch, r.origin],
    (r) => r.bytes,
  );
  put(
    'tiles',
    batch.tiles,
    (r) => [r.level, r.index],
    (r) => r.hashes,
  );
  put('months', batch.months, (r) => [r.month, r.customer, ...usageValues(r.usage)]);
  return { wire, transfer };
}

/** Contents up to this many bytes are kept as they are. */
const DEFLATE_BYTES_MIN = 1024;

function deflateContent(bytes: Uint8Array): Uint8Array {
  if (bytes.length <= DEFLATE_BYTES_MIN) return bytes;
  const deflated = deflateSync(bytes, { level: constants.Z_BEST_SPEED });
  return deflated.length < bytes.length ? deflated : bytes;
}

/** The content of `size` bytes that was stored so, or null when it is not what the digest says. */
export function inflateContent(digest: Digest, size: number, stored: Uint8Array): Uint8Array | null {
  let bytes = stored;
  try {
    if (stored.length < size) bytes = inflateSync(stored, { maxOutputLength: size });
  } catch {
    return null;
  }
  return Buffer.from(nodeCrypto.sha256(bytes)).toString('hex') === digest ? bytes : null;
}

/** Carries batches out, each as one durable transaction. */
export function committer(database: Database.Database): (wire: WireBatch) => void {
  const work = new Map<Step, (row: Row, blob?: Uint8Array) => void>();
  for (const [step, sql] of Object.entries(STEPS) as [keyof typeof STEPS, string][]) {
    const statement = database.prepare(sql);
    const stored = step === 'contents' ? deflateContent : (blob: Uint8Array) => blob;
    work.set(step, (row, blob) => void statement.run(blob === undefined ? row : [...row, stored(blob)]));
  }
  const writeStatement = statementWriter(database);
  work.set('statements', ([leafIndex, customer, epoch, origin], bytes) =>
    writeStatement(leafIndex as number, customer as CustomerId, epoch as Epoch, origin as Epoch, bytes!),
  );
  const run = database.transaction((wire: WireBatch): void => {
    for (const [step, carryOut] of work) {
      const part = wire[step];
      if (part === undefined) continue;
      const blobs = part.blobs === undefined ? undefined : unpack(part.blobs);
      for (const [i, row] of part.rows.entries()) carryOut(row, blobs?.[i]);
    }
  });
  return (wire) => run.immediate(wire);
}

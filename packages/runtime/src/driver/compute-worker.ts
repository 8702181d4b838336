import { parentPort } from 'node:worker_threads';
import { assert } from '@waggle/protocol/base';
import { compute, type Computed, type Job } from '@waggle/protocol/sealing';
import { nodeCrypto } from '../node-crypto.ts';

/** What the thread is asked; it answers with what became of the job. */
export type Asked = Job;
export type Answered = Computed;

const port = parentPort;
assert(port !== null, 'jobs are done in a worker thread');

/** The large pieces of a result, which go by transfer: nobody here needs them any more. */
function transferOf(result: Computed): ArrayBuffer[] {
  if (result.kind === 'slot') return wholly([result.bytes]);
  if (result.kind === 'failed') return [];
  const { bytes, ends, customers, customerEnds, epochs } = result.statements;
  return wholly([bytes, ends, customers, customerEnds, epochs]);
}

/** The buffers of arrays that have one to themselves. */
const wholly = (arrays: readonly (Uint8Array | Float64Array)[]): ArrayBuffer[] =>
  arrays.flatMap(({ buffer, byteLength }) =>
    buffer instanceof ArrayBuffer && buffer.byteLength === byteLength && byteLength > 0 ? [buffer] : [],
  );

port.on('message', (job: Asked) => {
  const result: Answered = compute(job, nodeCrypto);
  port.postMessage(result, transferOf(result));
});

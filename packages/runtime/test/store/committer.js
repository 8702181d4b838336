// Commits one record and one register at a time for ever, and prints each number once it is on disk.
import { openDataDirectory, openStore } from '../../dist/index.js';

const [, , path, first] = process.argv;
const directory = openDataDirectory(path);
const store = await openStore({ directory: directory.path });
const usage = { requests: 1, requestsFailed: 0, bytesIn: 1, bytesOut: 1, pixelsIn: 1, pixelsOut: 1, cpuMicros: 1 };
for (let n = Number(first); ; n++) {
  const record = {
    timeMs: n,
    customer: 'c',
    keyId: 'abcdefghijkl',
    requestId: `request-${n}`,
    operation: 'resize',
    epoch: 0,
    status: 200,
    code: null,
    params: '{}',
    sku: 'resize.webp',
    usage,
    queueMicros: 0,
    processMicros: 0,
  };
  const register = { replica: '0'.repeat(32), run: 1, epoch: 0, customer: 'c', sku: 'resize.webp', version: n };
  await store.commit({ records: [record], usage: [{ ...register, usage: { ...usage, requests: n } }] });
  process.stdout.write(`${n}\n`);
}

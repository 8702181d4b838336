/* A data directory with many customers, in a process of its own: `node fill.js <json>` with {data, customers, epochMs, graceMs}. */
import { fillDirectory } from '../identity.js';

const { data, customers, epochMs, graceMs } = JSON.parse(process.argv[2]);
await fillDirectory(data, customers, { epochMs, sealGraceMs: graceMs });

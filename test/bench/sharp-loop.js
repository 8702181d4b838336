/* The yardstick: sharp alone, one picture at a time in this process, as a resize worker is set. `node sharp-loop.js <file> <ms>`. */
import { readFileSync } from 'node:fs';
import sharp from 'sharp';

sharp.concurrency(1);
sharp.cache(false);
const body = readFileSync(process.argv[2]);
const end = performance.now() + Number(process.argv[3]);
const one = () => sharp(body).rotate().resize(400, 300, { fit: 'inside' }).jpeg({ quality: 80 }).toBuffer();
await one();
const cpu = process.cpuUsage();
const startedAt = performance.now();
let count = 0;
while (performance.now() < end) {
  await one();
  count++;
}
const used = process.cpuUsage(cpu);
process.stdout.write(
  JSON.stringify({
    count,
    seconds: (performance.now() - startedAt) / 1000,
    cpuSeconds: (used.user + used.system) / 1e6,
  }),
);

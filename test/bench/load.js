/*
 * A load generator in a process of its own: `node load.js <json>` with {url, clients, ms, method, path, headers, bodyFile}. Prints
 * {count, statuses, latencies (µs, sampled)}. Keep-alive connections over node:http, as little work as possible for each request.
 */
import { readFileSync } from 'node:fs';
import http from 'node:http';

const SAMPLES_MAX = 50_000;
const { url, clients, ms, method, path, headers, bodyFile } = JSON.parse(process.argv[2]);
const body = bodyFile === undefined ? undefined : readFileSync(bodyFile);
const { hostname, port } = new URL(url);
const agent = new http.Agent({ keepAlive: true, maxSockets: clients });
const statuses = {};
const latencies = [];
let count = 0;

const once = () =>
  new Promise((resolve, reject) => {
    const startedAt = performance.now();
    const sent = body === undefined ? headers : { ...headers, 'content-length': body.length };
    const request = http.request({ hostname, port, method, path, agent, headers: sent }, (response) => {
      response.resume();
      response.on('end', () => {
        count++;
        statuses[response.statusCode] = (statuses[response.statusCode] ?? 0) + 1;
        if (latencies.length < SAMPLES_MAX) latencies.push(Math.round((performance.now() - startedAt) * 1000));
        resolve();
      });
    });
    request.on('error', reject);
    request.end(body);
  });

const startedAt = performance.now();
const client = async () => {
  while (performance.now() - startedAt < ms) await once();
};
await Promise.all(Array.from({ length: clients }, client));
process.stdout.write(JSON.stringify({ count, seconds: (performance.now() - startedAt) / 1000, statuses, latencies }));
agent.destroy();

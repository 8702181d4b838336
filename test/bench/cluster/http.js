/* HTTP as the benchmarks need it: keep-alive, answers as bytes, and errors that say whether the request may have arrived. */
import http from 'node:http';

/** Idle connections that are kept to each node. */
const FREE_SOCKETS_MAX = 64;
const agent = new http.Agent({ keepAlive: true, maxFreeSockets: FREE_SOCKETS_MAX });

/** Errors with which a connection was never made: the node has not seen the request. */
const NOT_SENT = new Set(['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'EADDRNOTAVAIL']);

/**
 * One request; `{status, headers, body}`, where `body` is null if the answer was cut after its head. Rejects with an error whose
 * `wasSent` says whether the node may have seen the request.
 */
export function send(url, path, { method = 'GET', headers = {}, body, timeoutMs = 30_000 } = {}) {
  return new Promise((resolve, reject) => {
    const fail = (error) => reject(Object.assign(error, { wasSent: !NOT_SENT.has(error.code) }));
    const length = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) };
    const request = http.request(url + path, { method, agent, headers: { ...headers, ...length } }, (response) => {
      const { statusCode: status, headers: answered } = response;
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('end', () => resolve({ status, headers: answered, body: Buffer.concat(chunks) }));
      response.on('error', () => resolve({ status, headers: answered, body: null }));
    });
    request.setTimeout(timeoutMs, () =>
      request.destroy(Object.assign(new Error(`no answer for ${timeoutMs} ms`), { code: 'ETIMEDOUT' })),
    );
    request.on('error', fail);
    request.end(body);
  });
}

/** Drops the connections that are kept open. */
export const hangUp = () => agent.destroy();

/** A call of the API with a credential; the answer's JSON, undefined where there is none. Throws for other answers than 2xx. */
export async function call(url, credential, path, { method = 'GET', body, timeoutMs } = {}) {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const type = text === undefined ? {} : { 'content-type': 'application/json' };
  const answer = await send(url, path, {
    method,
    body: text,
    headers: { authorization: `Bearer ${credential}`, ...type },
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  });
  const received = answer.body?.toString() ?? '';
  if (answer.status >= 300 || answer.body === null)
    throw new Error(`${method} ${url}${path}: ${answer.status} ${received}`);
  return received === '' ? undefined : JSON.parse(received);
}

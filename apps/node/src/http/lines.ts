import { Readable } from 'node:stream';
import type { FastifyReply } from 'fastify';

/** Characters that are put together into one chunk of a stream. */
const CHUNK_LENGTH = 32 * 1024;

async function* chunked(lines: AsyncIterable<string> | Iterable<string>): AsyncGenerator<string> {
  let chunk = '';
  for await (const line of lines) {
    chunk += line;
    if (chunk.length < CHUNK_LENGTH) continue;
    yield chunk;
    chunk = '';
  }
  if (chunk !== '') yield chunk;
}

/** Sends lines, each with its line break, no faster than they are taken; reading ends when the client goes away. */
export const sendLines = (
  reply: FastifyReply,
  type: string,
  lines: AsyncIterable<string> | Iterable<string>,
): FastifyReply => reply.type(type).send(Readable.from(chunked(lines), { objectMode: false }));

import { Socket } from 'node:net';
import { Readable } from 'node:stream';
import type { FastifyRequest } from 'fastify';
import type { ServerResponse } from 'node:http';
import type { App } from './app.ts';

/**
 * Calls `release` when the request is over: when its handler has answered, and the answer has been written or its connection
 * is gone, and the stream that it came from is closed. Not before all three: a client that goes away does not end the work.
 */
export function holdUntilOver(request: FastifyRequest, release: () => void): void {
  request.held ??= [];
  request.held.push(release);
}

/**
 * Releases what the requests of a server hold, and cuts connections whose clients take nothing of their answer for
 * `writeIdleMs`. Add it before any route.
 */
export function releaseAtEnd(app: App, writeIdleMs: number): void {
  app.decorateRequest('held', null);
  app.addHook('onSend', (request, reply, payload, done) => {
    const { held } = request;
    request.held = null;
    if (held !== null) {
      const release = (): void => held.forEach((each) => each());
      atEnd(reply.raw, () => (payload instanceof Readable ? atClose(payload, release) : release()));
    }
    // Bytes that the client takes are progress. For what comes after the answer, Node sets its own timeouts.
    const { socket } = request.raw;
    if (socket instanceof Socket) socket.setTimeout(writeIdleMs);
    done();
  });
}

/** Calls `then` once: when the response has been handed to the system, or its connection is gone. */
function atEnd(response: ServerResponse, then: () => void): void {
  if (response.writableFinished || response.destroyed) return then();
  const end = (): void => {
    response.off('finish', end).off('close', end);
    then();
  };
  response.on('finish', end).on('close', end);
}

/** Of a stream made of a generator, it closes when the generator is done with its last step. */
function atClose(stream: Readable, then: () => void): void {
  if (stream.closed) then();
  else stream.once('close', then);
}

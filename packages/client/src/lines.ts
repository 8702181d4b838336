import type { Exchange } from './exchange.ts';

/** Longest line of JSON lines, in characters: a record has 4 KiB of parameters at most. */
const LINE_LENGTH_MAX = 2 ** 20;

/** JSON lines as they come; the exchange is over with the last, or when no more are taken. */
export async function* linesOf<T>(response: Response, exchange: Exchange): AsyncGenerator<T, void, undefined> {
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for await (const chunk of exchange.chunks(response)) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
      rest = lines.pop() ?? '';
      if (rest.length > LINE_LENGTH_MAX)
        throw exchange.invalid(
          response,
          `Expected lines of at most ${LINE_LENGTH_MAX} characters, received a longer one`,
        );
      for (const line of lines) if (line !== '') yield parse<T>(line, response, exchange);
    }
    if (rest !== '') throw exchange.invalid(response, 'Expected a line break at the end, received a line without');
  } finally {
    exchange.end();
  }
}

function parse<T>(line: string, response: Response, exchange: Exchange): T {
  try {
    return JSON.parse(line) as T;
  } catch (cause) {
    throw exchange.invalid(response, 'Expected lines of JSON, received something else', cause);
  }
}

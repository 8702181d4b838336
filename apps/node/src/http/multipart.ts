import { WaggleError } from '@waggle/protocol/base';

/*
 * multipart/form-data (RFC 7578, RFC 2046 §5.1) of one file, as a form of a page or `curl -F` sends it. The body is in memory
 * already, and within its limit; the file is a view of it, not a copy.
 */

const BOUNDARY = /;\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))/i;
const HEADERS_BYTES_MAX = 16 * 1024;
/** White space that may come after a delimiter; senders add none. */
const PADDING_BYTES_MAX = 1024;
const LINE_BREAK = Buffer.from('\r\n');

const invalid = (expected: string): WaggleError =>
  new WaggleError('REQUEST_INVALID', `Expected ${expected} in the multipart body`);

/** The one file of a form. Throws `REQUEST_INVALID` for anything else than one file and for any other field. */
export function fileOf(contentType: string, body: Buffer): Buffer {
  const [, quoted, plain] = BOUNDARY.exec(contentType) ?? [];
  const boundary = quoted ?? plain;
  if (boundary === undefined) throw invalid('a boundary of 1 to 70 characters in the content type, and parts by it');
  const mark = Buffer.from(`--${boundary}`, 'latin1');
  const start = delimiterAt(body, mark, 0);
  if (start === undefined || start.isLast) throw invalid('a part');
  const headersEnd = body.indexOf('\r\n\r\n', start.end - 2, 'latin1');
  if (headersEnd < 0 || headersEnd - start.end > HEADERS_BYTES_MAX)
    throw invalid(`headers of at most ${HEADERS_BYTES_MAX} bytes`);
  checkFile(body.toString('latin1', start.end, headersEnd));
  const end = delimiterAt(body, mark, headersEnd + 2);
  if (end === undefined) throw invalid('the closing delimiter');
  if (!end.isLast)
    throw invalid('one file and nothing else; parameters belong into the query. Received more than one part');
  return body.subarray(headersEnd + 4, end.start);
}

/** A delimiter: where it starts with the line break before it, and where what follows it begins. */
interface Delimiter {
  readonly start: number;
  readonly end: number;
  readonly isLast: boolean;
}

/**
 * The first delimiter from an offset on: the first line that begins with the boundary, since no line of a part may (RFC 2046
 * §5.1.1), followed by `--` or by the end of the line. One search: a body of nothing but what looks like one costs no more.
 */
function delimiterAt(body: Buffer, mark: Buffer, from: number): Delimiter | undefined {
  const isFirst = from === 0 && body.subarray(0, mark.length).equals(mark);
  const start = isFirst ? 0 : body.indexOf(Buffer.concat([LINE_BREAK, mark]), from);
  if (start < 0) return undefined;
  let end = start + (isFirst ? 0 : LINE_BREAK.length) + mark.length;
  if (body[end] === 0x2d && body[end + 1] === 0x2d) return { start, end, isLast: true };
  const endMax = end + PADDING_BYTES_MAX;
  while (end < endMax && (body[end] === 0x20 || body[end] === 0x09)) end++;
  return body[end] === 0x0d && body[end + 1] === 0x0a ? { start, end: end + 2, isLast: false } : undefined;
}

/** A part is a file if it has a name of a file or the type of a picture. */
function checkFile(headers: string): void {
  if (/^content-disposition:.*;\s*filename\*?=/im.test(headers) || /^content-type:\s*image\//im.test(headers)) return;
  const [, name] = /;\s*name="?([^";\r\n]{0,60})/i.exec(headers) ?? [];
  throw invalid(
    `one file and nothing else; parameters belong into the query. Received the field ${JSON.stringify(name ?? '')}`,
  );
}

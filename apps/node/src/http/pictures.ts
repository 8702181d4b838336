import { createHash } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Type, type TSchema } from 'typebox';
import { ERRORS, WaggleError, type ErrorCode } from '@waggle/protocol/base';
import type { Usage } from '@waggle/protocol/lattice';
import { estimateCpuMicros, planPicture, RESIZE_PARAMETERS, type Parameter, type ResizePlan } from '@waggle/images';
import type { Order, Outcome, Result } from '../work.ts';
import type { App, Deps } from './app.ts';
import { customerOf, type Guards, type Hook } from './authenticate.ts';
import { Upload } from './bodies.ts';
import { BufferPool } from './buffers.ts';
import { holdUntilOver } from './holding.ts';
import { fileOf } from './multipart.ts';
import { partyOf } from './reads.ts';
import { Room } from './room.ts';
import { choice, content, CUSTOMER_CODES, responses } from './schemas.ts';

/** Who has no room for an answer of this size, in bytes, does not get in: few pictures are larger. */
const ANSWER_BYTES = 8 * 2 ** 20;

const CODES = (Object.keys(ERRORS) as ErrorCode[]).filter((code) =>
  /^(BODY|IMAGE|OUTPUT|RESIZE|IDEMPOTENCY)_/.test(code),
);
const WORK_CODES = [
  ...CUSTOMER_CODES,
  'REQUEST_INVALID',
  'REQUEST_TIMEOUT',
  ...CODES,
  'LIMIT_EXCEEDED',
  'QUEUE_FULL',
  'DRAINING',
  'STORE_FULL',
  'STORE_FAILED',
  'STORE_BUSY',
] as const;

const MEASURED = {
  'waggle-usage': {
    type: 'string',
    description:
      'What was metered (RFC 9651 dictionary): requests=1, bytes-in=…, bytes-out=…, pixels-in=…, pixels-out=…, cpu-micros=…',
  },
  'waggle-receipt': { type: 'string', description: 'The same, signed by the node: a JWS (RFC 7515, EdDSA).' },
  'waggle-repeat': { type: 'string', description: 'true: metered before under this idempotency key, and not again.' },
  'server-timing': { type: 'string', description: 'queue, process, commit and total, in ms.' },
};

/** Headers of a picture beside the metered ones. */
const PICTURE = {
  ...MEASURED,
  etag: { type: 'string', description: 'Strong: of the SHA-256 of the picture.' },
  'waggle-width': { type: 'integer', description: 'Width of the picture in pixels.' },
  'waggle-height': { type: 'integer', description: 'Height of the picture in pixels.' },
};

/** A parameter of a resize request as JSON Schema. */
function parameterSchema(parameter: Parameter): TSchema {
  const { description } = parameter;
  switch (parameter.type) {
    case 'integer':
      return Type.Integer({
        minimum: parameter.minimum,
        maximum: parameter.maximum,
        description,
        ...defaultOf(parameter),
      });
    case 'choice':
      return choice(parameter.choices, { description, default: parameter.default });
    case 'boolean':
      return Type.Boolean({ description, default: parameter.default });
    case 'color':
      return Type.String({ maxLength: 64, description, ...defaultOf(parameter) });
  }
}

const defaultOf = (parameter: { default?: unknown }): object =>
  parameter.default === undefined ? {} : { default: parameter.default };

const resizeQuery = Type.Object(
  {
    ...Object.fromEntries(
      Object.entries(RESIZE_PARAMETERS).map(([name, entry]) => [name, Type.Optional(parameterSchema(entry))]),
    ),
    preset: Type.Optional(
      Type.String({
        maxLength: 64,
        description: 'Name of a preset of the account; what the query says goes over what it says.',
      }),
    ),
  },
  { additionalProperties: false },
);

const headers = Type.Object({
  'idempotency-key': Type.Optional(
    Type.String({
      pattern: '^[ -~]{1,255}$',
      description:
        '1 to 255 printable ASCII characters. The same request under the same key within 24 hours is metered once; at most 16 repeats.',
    }),
  ),
});

const BODY_TYPES = ['image/*', 'application/octet-stream', 'multipart/form-data'];
const pictureBody = {
  description: 'The picture: JPEG, PNG, WebP, AVIF or GIF; as multipart, the only part and a file.',
  content: {
    'image/*': { schema: { type: 'string', format: 'binary' } },
    'application/octet-stream': { schema: { type: 'string', format: 'binary' } },
    'multipart/form-data': {
      schema: { type: 'object', properties: { file: { type: 'string', format: 'binary' } }, required: ['file'] },
    },
  },
};

const inspected = {
  format: choice(['jpeg', 'png', 'webp', 'avif', 'gif']),
  width: Type.Integer({ description: 'Pixels as stored, before the EXIF orientation is applied.' }),
  height: Type.Integer(),
  frames: Type.Integer({ description: '1, or the frames of an animation.' }),
  orientation: Type.Integer({ description: 'EXIF orientation, 1 to 8.' }),
  space: Type.String({ description: 'Colour space in libvips’ names.' }),
  depth: Type.String({ description: 'Sample format in libvips’ names: uchar is 8 bits.' }),
  hasAlpha: Type.Boolean(),
  progressive: Type.Boolean({ description: 'Progressive JPEG or interlaced PNG.' }),
  bytes: Type.Integer({ description: 'Size of the body.' }),
};

/** What is asked for: an estimate is metered as the inspection that it is. */
type Service = 'resize' | 'inspect' | 'estimate';

/**
 * The routes that work on pictures. Nothing is validated by schema here, since the plan says better what is wrong; the schemas
 * describe. Bodies are read by the routes themselves, after everything that can be refused without them.
 */
export function pictureRoutes(app: App, { node, metrics, bounds }: Deps, guards: Guards): void {
  const bodies = new Room(bounds.bodiesBytesMax, 'bytes of request bodies');
  const buffers = new BufferPool();
  const answers = new Room(bounds.answersBytesMax, 'bytes of answers that were not taken yet');
  metrics.watchBodies({
    get bytes() {
      return bodies.taken + answers.taken + buffers.keptBytes;
    },
  });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, _payload, done) => done(null));
  app.setValidatorCompiler(() => (value: unknown) => ({ value }));

  const common = {
    tags: ['Customer'],
    security: [{ apiKey: [] }],
    headers,
    body: pictureBody,
  };
  /** Takes the place of the request before anything of its body is read. It stays taken until the answer is out. */
  const enter: Hook = (request, _reply, done) => {
    if (node.isDraining) throw new WaggleError('DRAINING');
    if (node.driver.isFull) throw new WaggleError('STORE_FULL');
    holdUntilOver(request, node.work.admits(customerOf(request).customer));
    done();
  };
  const onRequest = [guards.customer('resize'), enter];

  app.post(
    '/v1/resize',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'resize',
        summary: 'Resize a picture',
        description: 'The picture goes in as the body and comes back as the response.',
        querystring: resizeQuery,
        response: responses(
          { 200: Type.Unsafe({ ...content('The picture.', 'image/*'), headers: PICTURE }) },
          ...WORK_CODES,
        ),
      },
    },
    (request, reply) => serve('resize', request, reply),
  );

  app.post(
    '/v1/inspect',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'inspect',
        summary: 'Look at a picture without resizing it',
        querystring: Type.Object({}, { additionalProperties: false }),
        response: responses(
          { 200: Type.Object(inspected, { description: 'What its header says.', headers: MEASURED }) },
          ...WORK_CODES,
        ),
      },
    },
    (request, reply) => serve('inspect', request, reply),
  );

  app.post(
    '/v1/estimate',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'estimate',
        summary: 'Estimate what a resize would cost',
        description: 'Takes what resize takes, makes no picture and is metered as an inspection.',
        querystring: resizeQuery,
        response: responses(
          {
            200: Type.Object(
              {
                estimateMicros: Type.Integer({
                  description: 'Estimated CPU time in µs, right within a factor of two or so.',
                }),
                input: Type.Object(inspected),
                output: Type.Object({
                  format: inspected.format,
                  width: Type.Integer(),
                  height: Type.Integer(),
                  frames: Type.Integer(),
                }),
              },
              { description: 'The estimate.', headers: MEASURED },
            ),
          },
          ...WORK_CODES,
        ),
      },
    },
    (request, reply) => serve('estimate', request, reply),
  );

  async function serve(service: Service, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const memory = { room: bodies, party: partyOf(request), buffers };
    const upload = new Upload(request.raw, reply.raw, memory, node.clock);
    let outcome: Outcome;
    try {
      outcome = await carryOut(service, request, reply, upload);
    } finally {
      upload.release();
    }
    return answer(service, outcome, request, reply);
  }

  /** Reads the body and hands the order in. What is refused on the way is metered like any other failure. */
  async function carryOut(
    service: Service,
    request: FastifyRequest,
    reply: FastifyReply,
    upload: Upload,
  ): Promise<Outcome> {
    const { customer, keyId } = customerOf(request);
    const order = {
      operation: service === 'resize' ? 'resize' : 'inspect',
      customer,
      keyId,
      requestId: request.id,
      params: service === 'estimate' ? {} : (request.query as Record<string, unknown>),
    } as const;
    let received: Pick<Order, 'body' | 'idempotencyKey'>;
    try {
      answers.check(partyOf(request), Math.min(ANSWER_BYTES, bounds.answersBytesMax / 2));
      if (service === 'estimate') planOf(request);
      const idempotencyKey = idempotencyKeyOf(request);
      const pictureOf = pictureReader(request);
      const body = pictureOf(await upload.read(node.identity.limits(customer).bodyBytesMax));
      received = { body, idempotencyKey };
    } catch (error) {
      if (!(error instanceof WaggleError)) throw error;
      return node.work.refuse(order, upload.received, error);
    }
    return node.work.carryOut({ ...order, ...received, accept: request.headers.accept, signal: goneSignal(reply.raw) });
  }

  /** The plan of a resize with this query. Throws `REQUEST_INVALID`. */
  function planOf(request: FastifyRequest): ResizePlan {
    const { customer } = customerOf(request);
    const params = request.query as Record<string, unknown>;
    return node.work.plan({ operation: 'resize', customer, params, accept: request.headers.accept });
  }

  function answer(service: Service, outcome: Outcome, request: FastifyRequest, reply: FastifyReply): FastifyReply {
    metrics.work(outcome);
    const { error, result, receipt, isRepeat, queueMs, processMs, commitMs } = outcome;
    const durations = { queue: queueMs, process: processMs, commit: commitMs, total: reply.elapsedTime };
    reply.header('waggle-usage', usageText(outcome.usage)).header('server-timing', timing(durations));
    if (receipt !== null) reply.header('waggle-receipt', receipt);
    if (isRepeat) reply.header('waggle-repeat', 'true');
    if (error !== undefined) throw error;
    if (result === undefined) throw new WaggleError('INTERNAL');
    reply.header('cache-control', 'private, no-store');
    if (service === 'resize') return sendPicture(result, request, reply);
    if (service === 'inspect') return reply.send(result.input);
    const plan = planOf(request);
    return reply.send({
      estimateMicros: estimateCpuMicros(plan, result.input),
      input: result.input,
      output: planPicture(plan, result.input),
    });
  }

  /**
   * Memory for a picture that is made, until it is sent: room for one at least. Beyond that, whoever takes no answers gets none
   * (`QUEUE_FULL`): the picture is metered, and a repeat under its idempotency key is free.
   */
  function holdAnswer(bytes: number, request: FastifyRequest): void {
    const party = partyOf(request);
    if (answers.takenBy(party) > 0) answers.check(party, bytes);
    answers.add(party, bytes);
    holdUntilOver(request, () => answers.give(party, bytes));
  }

  function sendPicture({ picture, output }: Result, request: FastifyRequest, reply: FastifyReply): FastifyReply {
    const { format, preset } = request.query as Record<string, string>;
    const asked =
      format ??
      (preset === undefined ? undefined : node.identity.preset(customerOf(request).customer, preset)?.['format']);
    if (asked === 'auto') reply.header('vary', 'accept');
    holdAnswer(picture.length, request);
    return reply
      .type(`image/${output.format}`)
      .header('content-length', picture.length)
      .header('etag', `"${createHash('sha256').update(picture).digest('base64url')}"`)
      .header('waggle-width', output.width)
      .header('waggle-height', output.height)
      .send(picture);
  }
}

function idempotencyKeyOf({ headers: { 'idempotency-key': key } }: FastifyRequest): string | undefined {
  if (key === undefined || (typeof key === 'string' && /^[ -~]{1,255}$/.test(key))) return key;
  throw new WaggleError(
    'REQUEST_INVALID',
    'Expected 1 to 255 printable ASCII characters for idempotency-key, received others',
  );
}

/** How the picture is got out of a body, by its content type. Throws `IMAGE_UNSUPPORTED`, `REQUEST_INVALID`. */
function pictureReader({
  headers: { 'content-type': type, 'content-encoding': encoding },
}: FastifyRequest): (bytes: Buffer) => Buffer {
  if (encoding !== undefined && encoding !== 'identity')
    throw new WaggleError(
      'REQUEST_INVALID',
      `Expected no content-encoding, received ${JSON.stringify(encoding.slice(0, 60))}`,
    );
  const media = type?.split(';', 1)[0]?.trim().toLowerCase() ?? 'application/octet-stream';
  if (media === 'multipart/form-data') return (bytes) => fileOf(type ?? '', bytes);
  if (media.startsWith('image/') || media === 'application/octet-stream') return (bytes) => bytes;
  throw new WaggleError(
    'IMAGE_UNSUPPORTED',
    `Expected one of ${BODY_TYPES.join(', ')} for content-type, received ${JSON.stringify(media.slice(0, 60))}`,
  );
}

/** Aborted when the connection closes before the response is out. */
function goneSignal(response: ServerResponse): AbortSignal {
  const gone = new AbortController();
  response.once('close', () => {
    if (!response.writableFinished) gone.abort();
  });
  if (response.destroyed) gone.abort();
  return gone.signal;
}

/** The dictionary (RFC 9651 §3.2) of `waggle-usage`. */
function usageText({ requests, requestsFailed, bytesIn, bytesOut, pixelsIn, pixelsOut, cpuMicros }: Usage): string {
  const failed = requestsFailed > 0 ? `, requests-failed=${requestsFailed}` : '';
  return `requests=${requests}${failed}, bytes-in=${bytesIn}, bytes-out=${bytesOut}, pixels-in=${pixelsIn}, pixels-out=${pixelsOut}, cpu-micros=${cpuMicros}`;
}

const timing = (ms: Readonly<Record<string, number>>): string =>
  Object.entries(ms)
    .map(([name, value]) => `${name};dur=${value.toFixed(2)}`)
    .join(', ');

/**
 * The one error table of Waggle: every code, its HTTP status, its title and what became of the state.
 * docs/ERRORS.md is held against this table by a test.
 */
export interface ErrorEntry {
  /** HTTP status when the error reaches a client; 500 for errors that never should. */
  readonly status: number;
  /** One short sentence, the same for every occurrence (RFC 9457 `title`). */
  readonly title: string;
  /** What happened to the state, for whoever has to decide whether to retry. */
  readonly effect: string;
}

const NOTHING = 'Nothing was changed.';
const METERED_IF_PICTURE = 'Nothing was changed; on the picture routes it is metered as a failed request.';
const METERED = 'No picture was made; the request is metered as failed with the CPU time it used.';

export const ERRORS = {
  // Who is asking
  KEY_MISSING: { status: 401, title: 'No credential was sent.', effect: NOTHING },
  KEY_MALFORMED: { status: 401, title: 'The credential is not of the right form.', effect: NOTHING },
  KEY_UNKNOWN: {
    status: 401,
    title: 'The credential is not known at this node.',
    effect: `${NOTHING} Worth a retry within seconds of the creation of a key.`,
  },
  KEY_REVOKED: { status: 401, title: 'The credential was revoked.', effect: NOTHING },
  CUSTOMER_DELETED: { status: 403, title: 'The customer was deleted.', effect: NOTHING },
  CUSTOMER_SUSPENDED: { status: 403, title: 'The customer is suspended.', effect: NOTHING },
  ROLE_REQUIRED: { status: 403, title: 'The credential does not have the role that this needs.', effect: NOTHING },

  // What is asked
  REQUEST_INVALID: { status: 400, title: 'The request is not valid.', effect: METERED_IF_PICTURE },
  REQUEST_TIMEOUT: { status: 408, title: 'The request came too slowly.', effect: METERED_IF_PICTURE },
  BODY_EMPTY: { status: 400, title: 'The request has no body.', effect: METERED_IF_PICTURE },
  NOT_FOUND: { status: 404, title: 'There is nothing here.', effect: NOTHING },
  METHOD_NOT_ALLOWED: { status: 405, title: 'This path does not take that method.', effect: NOTHING },
  CUSTOMER_UNKNOWN: { status: 404, title: 'There is no such customer.', effect: NOTHING },
  CUSTOMER_EXISTS: { status: 409, title: 'A customer with this id exists with other values.', effect: NOTHING },
  EPOCH_UNKNOWN: { status: 404, title: 'There is no such epoch.', effect: NOTHING },
  EPOCH_NOT_SEALED: { status: 409, title: 'The epoch is not sealed yet.', effect: NOTHING },
  STATEMENT_UNKNOWN: { status: 404, title: 'There is no such statement.', effect: NOTHING },
  IDEMPOTENCY_MISMATCH: {
    status: 422,
    title: 'The idempotency key was used with another request.',
    effect: 'The first request under this key stands; this one was not carried out and is metered as failed.',
  },
  IDEMPOTENCY_EXHAUSTED: {
    status: 429,
    title: 'The request was repeated too often under one idempotency key.',
    effect: 'The first request under this key stands; this repeat was not carried out and is metered as failed.',
  },
  LIMIT_EXCEEDED: { status: 429, title: 'The customer is over one of its limits.', effect: NOTHING },

  // Pictures
  BODY_TOO_LARGE: { status: 413, title: 'The body is larger than allowed.', effect: METERED },
  IMAGE_UNSUPPORTED: { status: 415, title: 'The body is not a picture of a supported format.', effect: METERED },
  IMAGE_CORRUPT: { status: 422, title: 'The picture is truncated or corrupt.', effect: METERED },
  IMAGE_TOO_LARGE: { status: 422, title: 'The picture has more pixels than allowed.', effect: METERED },
  IMAGE_TOO_MANY_FRAMES: { status: 422, title: 'The picture has more frames than allowed.', effect: METERED },
  OUTPUT_TOO_LARGE: { status: 422, title: 'The result would be larger than allowed.', effect: METERED },
  RESIZE_MEMORY: { status: 422, title: 'The picture needs more memory than a worker may use.', effect: METERED },
  RESIZE_DEADLINE: { status: 504, title: 'The picture was not done within its deadline.', effect: METERED },
  RESIZE_CRASHED: { status: 502, title: 'The worker process ended while it had the picture.', effect: METERED },
  RESIZE_CANCELLED: { status: 499, title: 'The client went away before the picture was done.', effect: METERED },
  QUEUE_FULL: { status: 503, title: 'The node has no room for more work right now.', effect: METERED },
  NOT_READY: { status: 503, title: 'The node is not ready for requests.', effect: NOTHING },
  DRAINING: { status: 503, title: 'The node is shutting down.', effect: NOTHING },

  // The cluster
  INVITE_INVALID: { status: 400, title: 'The invite is not one of this cluster.', effect: NOTHING },
  INVITE_EXPIRED: { status: 410, title: 'The invite has expired.', effect: NOTHING },
  INVITE_USED: { status: 409, title: 'The invite is used up.', effect: NOTHING },
  FACT_REFUSED: { status: 403, title: 'The cluster does not admit this replica.', effect: NOTHING },
  PEER_UNREACHABLE: { status: 503, title: 'No member answers.', effect: NOTHING },
  MEMBER_UNKNOWN: { status: 404, title: 'There is no such member.', effect: NOTHING },
  OPERATOR_KEY_MISSING: { status: 409, title: 'This node does not have the operator key.', effect: NOTHING },
  BAN_REFUSED: { status: 409, title: 'Too few voters would be left to seal an epoch.', effect: NOTHING },
  SLOTS_EXPIRED: {
    status: 410,
    title: 'The slots of this epoch are not kept any more.',
    effect: 'Its header, checkpoint, slot list and statements are kept.',
  },

  // The node
  STORE_FULL: {
    status: 503,
    title: 'The node cannot write: its disk is full.',
    effect: 'Nothing was metered or changed. What was acknowledged before is kept.',
  },
  STORE_FAILED: {
    status: 503,
    title: 'The node cannot write its data.',
    effect:
      'It is not known whether the change reached the disk. The node stops; what was acknowledged before is kept.',
  },
  STORE_BUSY: { status: 503, title: 'Too many writes are waiting.', effect: NOTHING },
  INTERNAL: {
    status: 500,
    title: 'Something went wrong inside the node.',
    effect: 'Unknown; the log has the details.',
  },

  // Starting a node
  CONFIG_INVALID: {
    status: 500,
    title: 'The configuration is not usable.',
    effect: 'The node did not start. Nothing was written.',
  },
  DATA_LOCKED: {
    status: 500,
    title: 'Another node uses this data directory.',
    effect: 'The node did not start. Nothing was changed.',
  },
  DATA_DAMAGED: {
    status: 500,
    title: 'The data directory is damaged.',
    effect: 'The node did not start. Nothing was overwritten.',
  },
  DATA_COPIED: {
    status: 500,
    title: 'The data directory is a copy of another one.',
    effect: 'The node did not start. Nothing was written.',
  },
  DATA_NEWER: {
    status: 500,
    title: 'The data was written by a newer version.',
    effect: 'The node did not start. Nothing was written.',
  },
  PORT_IN_USE: { status: 500, title: 'The address to listen on cannot be used.', effect: 'The node did not start.' },

  // Bytes from elsewhere
  DECODE_FAILED: { status: 400, title: 'The bytes are not of the expected form.', effect: NOTHING },
  SIGNATURE_INVALID: { status: 400, title: 'A signature does not verify.', effect: NOTHING },
  CLOCK_OUT_OF_RANGE: { status: 500, title: 'The clock is outside what can be encoded.', effect: NOTHING },

  // What waggle-verify finds
  BUNDLE_MALFORMED: { status: 422, title: 'The bundle is not of the expected form.', effect: NOTHING },
  GENESIS_MISMATCH: { status: 422, title: 'The genesis is not the expected one.', effect: NOTHING },
  CHECKPOINT_INVALID: { status: 422, title: 'The checkpoint does not verify.', effect: NOTHING },
  QUORUM_MISSING: { status: 422, title: 'The checkpoint lacks a majority of its roster.', effect: NOTHING },
  ROSTER_MISMATCH: { status: 422, title: 'The roster is not the one that was decided.', effect: NOTHING },
  HEADER_MISMATCH: { status: 422, title: 'The header does not follow from what it names.', effect: NOTHING },
  SLOT_MISMATCH: { status: 422, title: 'A slot is not what the slot list names.', effect: NOTHING },
  STATEMENT_MISMATCH: { status: 422, title: 'A statement is not the sum of its slots.', effect: NOTHING },
  ROOT_MISMATCH: { status: 422, title: 'The leaves do not give the root of the checkpoint.', effect: NOTHING },
  PROOF_INVALID: { status: 422, title: 'A proof does not lead to the root.', effect: NOTHING },
  HISTORY_CHANGED: {
    status: 422,
    title: 'The log is not a continuation of what was verified before.',
    effect: NOTHING,
  },
  CONSERVATION_BROKEN: { status: 422, title: 'Figures that were counted went backwards.', effect: NOTHING },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERRORS;

/** An error with a code of the table. `message` says what was expected and what came. */
export class WaggleError extends Error {
  override readonly name = 'WaggleError';
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string = ERRORS[code].title, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/* What the HTTP API says, version 1, as types: docs/API.md has the words. */

/** What is metered: whole numbers. `cpuMicros` is CPU time in µs. */
export interface Usage {
  readonly requests: number;
  readonly requestsFailed: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly pixelsIn: number;
  readonly pixelsOut: number;
  readonly cpuMicros: number;
}

export type PictureFormat = 'jpeg' | 'png' | 'webp' | 'avif' | 'gif';

/** Parameters of a resize; ranges and defaults are in docs/API.md. The node checks them. */
export interface ResizeParams {
  /** Pixels. Alone, the height follows. */
  readonly width?: number;
  /** Pixels. Alone, the width follows. */
  readonly height?: number;
  readonly fit?: 'inside' | 'cover' | 'contain' | 'fill' | 'outside';
  readonly position?:
    | 'centre'
    | 'center'
    | 'north'
    | 'northeast'
    | 'east'
    | 'southeast'
    | 'south'
    | 'southwest'
    | 'west'
    | 'northwest'
    | 'attention'
    | 'entropy';
  /** `auto`: by the `accept` of the call. */
  readonly format?: PictureFormat | 'source' | 'auto' | 'jpg';
  /** 1 to 100. */
  readonly quality?: number;
  /** A CSS colour. */
  readonly background?: string;
  readonly enlarge?: boolean;
  readonly rotate?: 'auto' | '0' | '90' | '180' | '270' | 0 | 90 | 180 | 270;
  readonly lossless?: boolean;
  readonly flip?: boolean;
  readonly flop?: boolean;
  readonly grayscale?: boolean;
  readonly frames?: 'all' | 'first';
  /** Name of a preset of the account. */
  readonly preset?: string;
}

/** What a receipt states. */
export interface ReceiptClaims {
  readonly cluster: string;
  readonly replica: string;
  readonly customer: string;
  /** Id of the API key. */
  readonly key: string;
  readonly request: string;
  readonly epoch: number;
  readonly sku: string;
  readonly usage: Usage;
  /** RFC 3339. */
  readonly time: string;
}

/** A receipt as it came. It is not verified here: that takes the key of the node that signed it (docs/API.md, "Receipts"). */
export interface Receipt {
  /** The JWS (RFC 7515), to be kept as it is. */
  readonly text: string;
  /** Its payload, or null if it cannot be read. */
  readonly claims: ReceiptClaims | null;
}

/** What the headers of an answer say beside its content. */
export interface AnswerInfo {
  /** URL of the node that was asked. */
  readonly node: string;
  /** Replica id of the node that answered. */
  readonly replica: string | null;
  readonly requestId: string | null;
  /** What was metered; null where nothing is. Of a repeat, what was metered the first time. */
  readonly usage: Usage | null;
  readonly receipt: Receipt | null;
  /** Whether it was metered before under the same idempotency key, and not again. */
  readonly isRepeat: boolean;
  /** `server-timing`: durations in ms by name (queue, process, commit, total). */
  readonly timing: Readonly<Record<string, number>>;
}

/** What is known of a resized picture without its bytes. */
export interface PictureInfo {
  /** Media type. */
  readonly type: string;
  /** Pixels. */
  readonly width: number;
  /** Pixels. */
  readonly height: number;
  /** Strong: of the SHA-256 of the bytes. */
  readonly etag: string | null;
  readonly answer: AnswerInfo;
}

/** A resized picture. */
export interface Picture extends PictureInfo {
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** A resized picture on its way. Read `body` to its end or cancel it. */
export interface PictureStream extends PictureInfo {
  readonly body: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Bytes to come, if they were announced. */
  readonly length: number | null;
}

/** What a picture is, as stored: before its EXIF orientation is applied. */
export interface Inspection {
  readonly format: PictureFormat;
  /** Pixels. */
  readonly width: number;
  /** Pixels. */
  readonly height: number;
  readonly frames: number;
  /** EXIF orientation, 1 to 8. */
  readonly orientation: number;
  /** Colour space in libvips' names. */
  readonly space: string;
  /** Sample format in libvips' names. */
  readonly depth: string;
  readonly hasAlpha: boolean;
  readonly progressive: boolean;
  readonly bytes: number;
}

/** What a resize would cost and give. */
export interface Estimate {
  /** CPU time in µs, right within a factor of two or so. */
  readonly estimateMicros: number;
  readonly input: Inspection;
  readonly output: {
    readonly format: PictureFormat;
    readonly width: number;
    readonly height: number;
    readonly frames: number;
  };
}

/** Usage and, told apart, what a seal missed and a later one counts. */
export interface Sums {
  readonly usage: Usage;
  readonly late: Usage;
}

/** Whose figures a sum over the cluster holds. Times are RFC 3339. */
export interface Coverage {
  /** Members whose figures are in it as of a known time, of all that count. */
  readonly members: number;
  readonly of: number;
  /** The oldest of these times, of members that are not reachable too; of those that have one. */
  readonly oldest: string;
  readonly replicas: readonly {
    readonly replica: string;
    readonly url: string | null;
    readonly state: 'alive' | 'suspect' | 'dead' | 'left' | 'unheard';
    /** All that it had counted by then is in it; null: not compared since the start of the node that answers. */
    readonly asOf: string | null;
  }[];
}

/** A customer's usage over a range. */
export interface UsageReport {
  readonly customer: string;
  /** RFC 3339, start of the first epoch. */
  readonly from: string;
  /** RFC 3339, end of the last epoch. */
  readonly to: string;
  /** All that the live members had counted by then is in it; null: one of them was not compared since that node's start. */
  readonly asOf: string | null;
  /** Whose figures are in it, and how old they are. */
  readonly coverage: Coverage;
  readonly totals: Usage;
  /** With `group: 'epoch'`, the default. Only sealed figures never change. */
  readonly epochs?: readonly (Sums & {
    readonly epoch: number;
    readonly start: string;
    readonly end: string;
    readonly state: 'open' | 'sealing' | 'sealed';
  })[];
  /** With `group: 'day'`. */
  readonly days?: readonly (Sums & { readonly day: string })[];
  /** With `group: 'sku'`. */
  readonly skus?: readonly (Sums & { readonly sku: string })[];
}

/** One request. */
export interface RequestRecord {
  /** RFC 3339. */
  readonly time: string;
  readonly requestId: string;
  readonly customer: string;
  /** Id of the API key. */
  readonly key: string;
  readonly operation: string;
  readonly epoch: number;
  /** HTTP status. */
  readonly status: number;
  /** Code of the error, or null. */
  readonly code: string | null;
  readonly params: Readonly<Record<string, string>>;
  readonly sku: string;
  readonly usage: Usage;
  readonly queueMicros: number;
  readonly processMicros: number;
}

/** A statement in the list of them. */
export interface StatementEntry {
  /** The epoch whose seal counts it. */
  readonly epoch: number;
  /** The epoch in which it happened: another one if it is late. */
  readonly origin: number;
  readonly start: string;
  readonly end: string;
  readonly usage: Usage;
  /** Path of its bytes. */
  readonly statement: string;
  /** Path of its proof. */
  readonly proof: string;
}

/** Times: a `Date`, or RFC 3339. The start is included, the end is not. By default the last 24 hours. */
export interface TimeRange {
  readonly from?: Date | string;
  readonly to?: Date | string;
}

/** Epoch numbers, both included. By default the last 1 000 epochs. */
export interface EpochRange {
  readonly from?: number;
  readonly to?: number;
}

import { assert, hex, WaggleError } from '../base/index.ts';
import {
  decodeDatagram,
  decodeExchange,
  encodeDatagram,
  encodeExchange,
  isOurs,
  type Datagram,
  type Exchange,
  type Message,
} from './codec.ts';
import { DATAGRAM_BYTES_MAX, EXCHANGE_UPDATES_MAX } from './constants.ts';
import type { MemberId, MemberKey, Update } from './member.ts';
import { ReplayWindow } from './replay.ts';
import { RunWatch, type TwoRuns } from './runs.ts';
import type { MemberTable, Peer } from './table.ts';
import type { MembershipOptions } from './types.ts';

/** Frames ignored so far, by why. */
export interface FrameCounts {
  malformed: number;
  foreign: number;
  unknown: number;
  replayed: number;
}

/** Where frames come in and go out: what passes is of this cluster, from whom it says, known, and new. */
export class Frames {
  readonly #self: MemberId;
  readonly #run: Datagram['run'];
  readonly #cluster: Uint8Array;
  readonly #table: MemberTable;
  readonly #counts: FrameCounts;
  #sequence = 0;

  constructor({ cluster, self, run }: MembershipOptions, table: MemberTable, counts: FrameCounts) {
    this.#self = self.id;
    this.#run = run;
    this.#cluster = hex.decode(cluster);
    this.#table = table;
    this.#counts = counts;
  }

  /**
   * A datagram and its sender, and whether it is new; nothing, and a count, of what is to be ignored. `twoRuns` if its sender is
   * to be told that two processes speak for it.
   */
  openDatagram(
    from: MemberKey,
    bytes: Uint8Array,
    nowMs: number,
  ): { sender: Peer; datagram: Datagram; isNew: boolean; twoRuns: TwoRuns | null } | undefined {
    const datagram = this.#decode(bytes, decodeDatagram);
    const sender = datagram && this.#sender(datagram.sender, from);
    if (datagram === undefined || sender === undefined) return undefined;
    sender.window ??= new ReplayWindow();
    sender.runs ??= new RunWatch();
    const { run, sequence } = datagram;
    let twoRuns = sender.runs.heard(run, sequence, nowMs);
    if (sender.runs.isOutlived(nowMs)) {
      sender.window = new ReplayWindow();
      sender.runs = new RunWatch();
      twoRuns = sender.runs.heard(run, sequence, nowMs);
    }
    const isNew = sender.window.accept(run, sequence);
    if (!isNew) this.#counts.replayed++;
    return { sender, datagram, isNew, twoRuns };
  }

  /** A frame of an exchange and its sender; nothing, and a count, of what is to be ignored. */
  openExchange(from: MemberKey, bytes: Uint8Array): { sender: Peer; exchange: Exchange } | undefined {
    const exchange = this.#decode(bytes, decodeExchange);
    const sender = exchange && this.#sender(exchange.sender, from);
    return exchange === undefined || sender === undefined ? undefined : { sender, exchange };
  }

  /** The bytes of the next datagram. */
  datagram(incarnation: number, message: Message, updates: readonly Update[]): Uint8Array<ArrayBuffer> {
    const sequence = ++this.#sequence;
    const datagram = { sender: this.#self, run: this.#run, sequence, incarnation, message, updates };
    const bytes = encodeDatagram(this.#cluster, datagram);
    assert(bytes.length <= DATAGRAM_BYTES_MAX, `a datagram of at most ${DATAGRAM_BYTES_MAX} bytes`);
    return bytes;
  }

  /** All the updates, as frames below 64 KiB. */
  exchange(updates: readonly Update[]): Uint8Array<ArrayBuffer>[] {
    const frames: Uint8Array<ArrayBuffer>[] = [];
    for (let i = 0; i < updates.length; i += EXCHANGE_UPDATES_MAX) {
      const part = updates.slice(i, i + EXCHANGE_UPDATES_MAX);
      frames.push(encodeExchange(this.#cluster, { sender: this.#self, updates: part }));
    }
    return frames;
  }

  #decode<T>(bytes: Uint8Array, decode: (bytes: Uint8Array) => T): T | undefined {
    try {
      if (isOurs(bytes, this.#cluster)) return decode(bytes);
      this.#counts.foreign++;
    } catch (error) {
      if (!(error instanceof WaggleError) || error.code !== 'DECODE_FAILED') throw error;
      this.#counts.malformed++;
    }
    return undefined;
  }

  /** The sender that a frame names, if the transport says the same and the node directory has it. */
  #sender(id: MemberId, from: MemberKey): Peer | undefined {
    const peer = this.#table.find(id);
    if (peer?.member.key === from) return peer;
    this.#counts.unknown++;
    return undefined;
  }
}

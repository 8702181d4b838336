import type { ClusterId } from '@waggle/protocol/base';
import type { Evidence } from '@waggle/protocol/sealing';
import {
  EVIDENCE_BYTES_MAX,
  evidenceName,
  openEvidence,
  type Clock,
  type EvidenceFile,
  type EvidencePiece,
} from '@waggle/runtime';
import type { NodeAlarm } from './alarms.ts';

export interface AccusationsOptions {
  /** The data directory. */
  readonly directory: string;
  readonly cluster: ClusterId;
  readonly clock: Pick<Clock, 'nowMs'>;
  /** What was found since the start. */
  readonly found: () => readonly EvidencePiece[];
  readonly alarm: (alarm: NodeAlarm) => void;
}

/** A piece that is to be written as it was seen: its writer may write something else meanwhile. */
interface Unwritten {
  readonly piece: EvidencePiece;
  readonly seenMs: number;
}

/** What others wrote about sealing that no correct node writes: kept in the data directory, and told once each. */
export class Accusations {
  readonly #options: AccusationsOptions;
  #file: EvidenceFile | undefined;
  /** Found since the start, and not in the file before: each was told. As many as are found at most. */
  readonly #told = new Set<string>();
  /** As many as are found at most. */
  readonly #unwritten: Unwritten[] = [];
  #isFailing = false;
  #isFull = false;

  constructor(options: AccusationsOptions) {
    this.#options = options;
    this.look();
  }

  /** What is kept, and what could not be. */
  get all(): readonly Evidence[] {
    const file = this.#file;
    const others = this.#options.found().filter((piece) => file?.has(piece) !== true);
    return [...(file?.pieces ?? []), ...others];
  }

  /** Looks for what is new, tells it and writes it down. What the disk refuses is said once, and tried again the next time. */
  look(): void {
    try {
      this.#file ??= openEvidence(this.#options.directory, this.#options.cluster);
    } catch (error) {
      this.#failed(error);
    }
    this.#take();
    if (this.#file === undefined) return;
    try {
      for (let next = this.#unwritten[0]; next !== undefined; next = this.#unwritten[0]) {
        const { piece, seenMs } = next;
        if (!this.#file.add(piece, seenMs)) this.#full();
        this.#unwritten.shift();
      }
      this.#isFailing = false;
    } catch (error) {
      this.#failed(error);
    }
  }

  #take(): void {
    const { found, clock, alarm } = this.#options;
    for (const piece of found()) {
      const name = evidenceName(piece);
      if (this.#told.has(name) || this.#file?.has(piece) === true) continue;
      this.#told.add(name);
      this.#unwritten.push({ piece, seenMs: clock.nowMs() });
      const { epoch, replica, what, code } = piece;
      alarm({ what: 'evidence', evidence: { epoch, replica, what, code } });
    }
  }

  #full(): void {
    if (this.#isFull) return;
    this.#isFull = true;
    this.#options.alarm({ what: 'evidenceNotKept', why: `its ${EVIDENCE_BYTES_MAX} bytes are used up` });
  }

  #failed(error: unknown): void {
    if (this.#isFailing) return;
    this.#isFailing = true;
    this.#options.alarm({ what: 'evidenceNotKept', why: (error as Error).message });
  }
}

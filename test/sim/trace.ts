import type { Agenda } from './agenda.ts';

/** How many of the last events a failure shows. */
const LAST_EVENTS = 60;

/** What happened, in order: a hash over all of it, and the last events for people. */
export class Trace {
  readonly #agenda: Agenda;
  readonly #onLine: ((line: string) => void) | undefined;
  readonly #last: string[] = [];
  #hash = 0x811c9dc5;
  #events = 0;

  constructor(agenda: Agenda, onLine: ((line: string) => void) | undefined) {
    this.#agenda = agenda;
    this.#onLine = onLine;
  }

  /** Takes note of an event; `isLoud` ones are shown to people. */
  add(text: string, isLoud = true): void {
    const line = `${(this.#agenda.nowMs / 1000).toFixed(3).padStart(9)} ${text}`;
    this.#events++;
    // FNV-1a over the UTF-16 units.
    for (let i = 0; i < line.length; i++) this.#hash = Math.imul(this.#hash ^ line.charCodeAt(i), 0x01000193);
    if (!isLoud) return;
    this.#onLine?.(line);
    this.#last.push(line);
    if (this.#last.length > LAST_EVENTS) this.#last.shift();
  }

  get last(): readonly string[] {
    return this.#last;
  }

  /** Equal for equal runs, and hardly ever for others. */
  get fingerprint(): string {
    return `${this.#events} events, ${(this.#hash >>> 0).toString(16).padStart(8, '0')}`;
  }
}

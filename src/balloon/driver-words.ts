/** Values of the first word; 0 before the first start. */
const RUNNING = 1;
/** Or reset. */
const PAUSED = 2;

/** Places of the words. */
const MODE = 0;
const ACTUAL = 1;
const POISON = 2;
const UNKNOWN = 3;

/** The driver that starts: new, with an empty balloon; as it was when its device stopped; served before; or of an unknown past. */
export type Beginning = 'new' | 'paused' | 'running' | 'unknown';

/**
 * The driver's part of a device, in four words of the state file: whether the device runs, what the driver left behind when
 * its device stopped, and whether it has said how much it holds. A session that begins on rings that go on, as after a
 * restore, a migration or a reconnect of the VMM, knows nothing of that until the driver writes its `actual`.
 */
export class DriverWords {
  readonly #stored: { readonly words: Uint32Array };
  readonly #at: number;

  /** `at`: the place of the first of the words that are `stored`. */
  constructor(stored: { readonly words: Uint32Array }, at: number) {
    this.#stored = stored;
    this.#at = at;
  }

  get isPaused(): boolean {
    return this.#get(MODE) === PAUSED;
  }

  /** What `actual` and the poison value were when the device stopped. */
  get actual(): number {
    return this.#get(ACTUAL);
  }

  get poisonVal(): number {
    return this.#get(POISON);
  }

  /**
   * 0: the driver has said how much it holds. Else it is asked for so many pages more than its target, because a driver that
   * holds what it is asked for says nothing.
   */
  get unknown(): number {
    return this.#get(UNKNOWN);
  }

  /** The driver said how much it holds. */
  told(): void {
    this.#set(UNKNOWN, 0);
  }

  /** A driver of unknown size is asked once more, for another size than before: the last one may be what it holds. */
  askAnew(): void {
    if (this.unknown > 0) this.#set(UNKNOWN, 3 - this.unknown);
  }

  /** `resumed`: the driver is the one that was there before. `actual`: that the VMM wrote before the start; 0: nothing. */
  beginning(resumed: boolean, actual: number): Beginning {
    if (!resumed) return 'new';
    const mode = this.#get(MODE);
    if (mode === RUNNING) return 'running';
    if (mode === PAUSED) return 'paused';
    return actual > 0 ? 'new' : 'unknown';
  }

  /** The device runs, with all that follows from its beginning: a process that ends before this begins so again. */
  begin(beginning: Beginning): void {
    if (beginning === 'new') this.told();
    else if (beginning === 'unknown') this.#set(UNKNOWN, 1);
    this.#set(MODE, RUNNING);
  }

  /** The device stopped: the driver may go on, or another one may come. */
  stop(actual: number, poisonVal: number): void {
    if (this.#get(MODE) !== RUNNING) return;
    this.#set(ACTUAL, actual);
    this.#set(POISON, poisonVal);
    this.#set(MODE, PAUSED);
  }

  #get(place: number): number {
    return this.#stored.words[this.#at + place] ?? 0;
  }

  #set(place: number, value: number): void {
    this.#stored.words[this.#at + place] = value;
  }
}

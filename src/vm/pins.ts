/** Whether a device of the VMM pins guest memory: one look at the VMM's open files for all devices of a VM. */
import { findPinning, NOT_PINNED, openFileCount, searchPinning, type PinSearch } from '../host/pinned.js';
import type { Emit } from '../ops/event-log.js';

/** What was done: nothing had changed, some of a look that is to be gone on with, or all of it. */
export type Look = 'glance' | 'part' | 'whole';

/** The VMM's open files are looked at that often, even when their number stays the same. */
const LOOK_MS = 60_000;
/** Parts of such a look. */
const PART_MS = 1;

export class Pins {
  readonly #pid: number;
  readonly #proc: string;
  readonly #emit: Emit;
  readonly #changed: () => void;
  #pinnedBy: string | null = null;
  #lookedAt = -Infinity;
  #search: ReturnType<typeof searchPinning> | null = null;
  #openFiles: number | null = null;
  #unknownSaid = false;

  /** `changed` is called when a file begins or ceases to pin. */
  constructor(pid: number, proc: string, emit: Emit, changed: () => void) {
    this.#pid = pid;
    this.#proc = proc;
    this.#emit = emit;
    this.#changed = changed;
  }

  /** The file that pins guest memory, as /proc names it; null: none does. */
  get by(): string | null {
    return this.#pinnedBy;
  }

  /** The reason to discard nothing; null: there is none. */
  get reason(): string | null {
    return this.#pinnedBy === null ? null : `the VMM has ${this.#pinnedBy} open, which pins guest memory`;
  }

  /** Looks at all open files now. */
  look(): void {
    this.#done(findPinning(this.#pid, this.#proc));
  }

  /** Looks a part at a time, where something may have changed: the number of open files, or it is long ago. */
  lookAgain(mayPin: boolean): Look {
    if (this.#search === null) {
      if (!mayPin && this.#pinnedBy === null) return 'glance';
      const files = openFileCount(this.#pid, this.#proc);
      const recent = performance.now() - this.#lookedAt < LOOK_MS;
      if (files !== null && files === this.#openFiles && recent) return 'glance';
      this.#openFiles = files;
      this.#search = searchPinning(this.#pid, this.#proc);
    }
    const search = this.#search;
    for (const end = performance.now() + PART_MS; performance.now() < end;) {
      const { done, value } = search.next();
      if (done !== true) continue;
      this.#done(value);
      return 'whole';
    }
    return 'part';
  }

  /** Ends a look that is under way. */
  close(): void {
    this.#search?.return(NOT_PINNED);
    this.#search = null;
  }

  #done({ file, unknown }: PinSearch): void {
    this.close();
    this.#lookedAt = performance.now();
    if (unknown !== null && !this.#unknownSaid) {
      this.#unknownSaid = true;
      this.#emit('pin-unknown', `the VMM's open files cannot be looked at: ${unknown}`, { code: unknown });
    }
    if (file === this.#pinnedBy) return;
    this.#pinnedBy = file;
    this.#changed();
  }
}

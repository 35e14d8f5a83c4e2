/** What is told of pages that should be absent from the host, since they were discarded, and are not. */
import { formatSize } from '../../protocol/control/size.js';
import type { AbsentPages } from '../memory/absent-pages.js';
import type { Emit } from '../ops/event-log.js';
import { monotonicNow, msSince, type Monotonic } from '../os/clock.js';
import type { Diagnosis } from './diagnosis.js';

/** Pages that came back are discarded again within so long; a verdict is about those that were not. */
const PATIENCE_MS = 30_000;

type Looked = Pick<
  AbsentPages,
  'refilledBytes' | 'pinnedBytes' | 'usedBytes' | 'tellsFirst' | 'inhibited' | 'look'
>;

export class Absence {
  readonly #pages: Looked;
  readonly #emit: Emit;
  readonly #patienceMs: number;
  #refilledAt: Monotonic | null = null;
  #pinned = false;
  #used = false;

  constructor(pages: Looked, emit: Emit, patienceMs = PATIENCE_MS) {
    this.#pages = pages;
    this.#emit = emit;
    this.#patienceMs = patienceMs;
  }

  /** Null for a device whose discarded pages may come back at any time. */
  static of(absentPages: AbsentPages | null, emit: Emit): Absence | null {
    return absentPages && new Absence(absentPages, emit);
  }

  /** Memory of the balloon that came back to the host; null: not known. */
  get refilledBytes(): number | null {
    return this.#pages.refilledBytes;
  }

  /** To be called every 4 s or so: tells what began and what ended since the last call, and looks again. */
  look(): void {
    this.#tell();
    this.#pages.look();
  }

  /** What is wrong and lasts; null: nothing. */
  diagnosis(): Diagnosis | null {
    const { pinnedBytes, usedBytes } = this.#pages;
    if (usedBytes > 0) {
      return {
        code: 'pages-used',
        text: inUse(usedBytes),
        remedy:
          'restart the guest if kexec started its kernel, and update its balloon driver otherwise; nothing is discarded again until the driver starts anew',
      };
    }
    if ((pinnedBytes ?? 0) > 0) {
      return {
        code: 'pages-pinned',
        text: `${formatSize(pinnedBytes ?? 0)} of the balloon stay on the host, since something pins the huge pages that they are part of`,
        remedy:
          'look for io_uring, RDMA or vmsplice in the VMM and in whatever else maps its memory; balloond tries again every few seconds',
      };
    }
    const lasts = this.#refilledAt !== null && msSince(this.#refilledAt) >= this.#patienceMs;
    if (!lasts || this.#pages.inhibited) return null;
    return refilled(this.#pages.refilledBytes ?? 0, this.#pages.tellsFirst);
  }

  #tell(): void {
    const { refilledBytes, pinnedBytes, usedBytes } = this.#pages;
    // As long as the driver is stopped.
    if (refilledBytes === null || pinnedBytes === null) {
      this.#refilledAt = null;
      this.#pinned = false;
      return;
    }
    const fields = { refilledBytes, pinnedBytes };
    const told = this.#refilledAt !== null || this.#pinned;
    if (refilledBytes === 0) this.#refilledAt = null;
    else if (this.#refilledAt === null) {
      this.#refilledAt = monotonicNow();
      this.#emit(
        'pages-refilled',
        `${formatSize(refilledBytes)} of the balloon, which were discarded, are on the host again`,
        fields,
      );
    }
    if (pinnedBytes === 0) this.#pinned = false;
    else if (!this.#pinned) {
      this.#pinned = true;
      const size = formatSize(pinnedBytes);
      this.#emit('pages-pinned', `${size} of the balloon stay on the host, although discarded twice`, fields);
    }
    if (told && refilledBytes + pinnedBytes === 0) {
      this.#emit('pages-absent', 'all that was discarded of the balloon is absent from the host again');
    }
    if (usedBytes === 0) this.#used = false;
    else if (!this.#used) {
      this.#used = true;
      this.#emit('pages-used', inUse(usedBytes), { usedBytes });
    }
  }
}

function inUse(bytes: number): string {
  return `the guest uses pages that are in its balloon, and did not take them back first (${formatSize(bytes)} were looked at and are not empty)`;
}

function refilled(bytes: number, tellsFirst: boolean): Diagnosis {
  const size = formatSize(bytes);
  if (tellsFirst) {
    return {
      code: 'pages-refilled',
      text: `${size} of the balloon are on the host again, as often as balloond discards them`,
      remedy: "look for the program that reads or locks the VM's memory (a dump, a debugger, mem-lock)",
    };
  }
  return {
    code: 'pages-refilled',
    text: `${size} of the balloon are on the host again, and the guest's driver may use them before it tells`,
    remedy:
      'set the balloon to 0 and back, which discards them, or give the guest a driver that tells first (Linux has one)',
  };
}

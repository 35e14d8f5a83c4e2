/** What is told of a VM whose memory is on hugetlbfs: pages that are kept, and pages that the pool does not have. */
import { formatSize } from '../../protocol/control/size.js';
import type { HugePageObserver } from '../balloon/huge-page-keeper.js';
import type { Shortage } from '../memory/refill.js';
import type { Emit } from '../ops/event-log.js';
import { hugePagePool, type HugePagePool } from '../os/huge-pages.js';
import { sentence, type Diagnosis } from './diagnosis.js';

export class HugePageWatch implements HugePageObserver {
  readonly #emit: Emit;
  #shortage: { readonly guestWaits: boolean; readonly diagnosis: Diagnosis } | null = null;
  #keepsOfDriver = false;

  constructor(emit: Emit) {
    this.#emit = emit;
  }

  /** The verdict; null: there is nothing to say. `heldBytes`: the memory that is in the balloon. */
  diagnosis(balloon: { readonly heldBytes: number }): Diagnosis | null {
    if (this.#shortage !== null) return this.#shortage.diagnosis;
    if (!this.#keepsOfDriver || balloon.heldBytes === 0) return null;
    return {
      code: 'huge-pages-kept',
      text: `the host keeps ${formatSize(balloon.heldBytes)} that the guest gave up, because the memory is on hugetlbfs and the guest's driver uses it again without telling first`,
      remedy:
        'set discard-untold-huge-pages = true for this VM if the pool always has pages left, or give the guest a driver that acks VIRTIO_BALLOON_F_MUST_TELL_HOST',
    };
  }

  restarted(): void {
    this.#keepsOfDriver = false;
  }

  kept(why: 'reports' | 'driver'): void {
    this.#keepsOfDriver ||= why === 'driver';
    const which = why === 'driver' ? 'pages that its driver gives up' : 'pages that it reports free';
    const words = `the guest's memory is on hugetlbfs, so ${which} are kept: it uses them again without telling first`;
    this.#emit('huge-pages-kept', words, { why });
  }

  short({ bytes, region, error, guestWaits }: Shortage): void {
    const pool = hugePagePool(region.fd, region.file.pageBytes);
    const words = `${poolWords(pool)} (${error.message})`;
    const diagnosis = guestWaits ? waiting(bytes, words, pool) : atRisk(bytes, words, pool);
    const known = this.#shortage?.guestWaits === guestWaits;
    this.#shortage = { guestWaits, diagnosis };
    if (known) return;
    const { pageBytes, total, free, reserved } = pool;
    const figures = { bytes, pageBytes, total, free, reserved, guestWaits };
    this.#emit('huge-pages-short', sentence(diagnosis), figures);
  }

  enough(): void {
    this.#shortage = null;
    this.#emit(
      'huge-pages-enough',
      'the pool had a huge page for all of the memory that the guest took back',
    );
  }
}

function waiting(bytes: number, pool: string, { pageBytes }: HugePagePool): Diagnosis {
  return {
    code: 'huge-pages-short',
    text: `the guest takes memory back and waits for ${formatSize(bytes)} of it, because ${pool}`,
    remedy: `stop the program that took the huge pages, or reserve more (${sysfs(pageBytes)}); the guest then goes on`,
  };
}

function atRisk(bytes: number, pool: string, { pageBytes }: HugePagePool): Diagnosis {
  return {
    code: 'huge-pages-short',
    text: `the guest was reset or its VM paused, and ${formatSize(bytes)} of its memory have no huge page, because ${pool}`,
    remedy: `stop the program that took the huge pages, or reserve more (${sysfs(pageBytes)}), at once; the VMM dies of SIGBUS when the guest touches that memory`,
  };
}

function poolWords({ pageBytes, total, free, reserved, mountFree }: HugePagePool): string {
  const size = formatSize(pageBytes);
  const mount = mountFree === null ? '' : `, and the mount of its file may have ${mountFree} more`;
  if (total === null || free === null || reserved === null)
    return `the pool of ${size} pages gave none${mount}`;
  return `the pool of ${total} pages of ${size} has ${free} free and ${reserved} of these reserved${mount}`;
}

function sysfs(pageBytes: number): string {
  return `/sys/kernel/mm/hugepages/hugepages-${pageBytes / 1024}kB/nr_hugepages`;
}

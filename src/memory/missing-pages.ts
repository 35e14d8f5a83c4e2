import type { Mapping } from '../os/mapping.js';
import { PageSet } from './page-set.js';
import { StateError, type Area, type StateFile } from './state-file.js';

const AREA_UNIT = 4096;

/** Where a region lies in its mapping, in bytes, and its backing pages. */
interface Place {
  readonly lead: number;
  readonly sizeBytes: number;
  readonly pageBytes: number;
}

/**
 * The backing pages of a region on hugetlbfs that the guest may use, or is about to, and that its file may have no page for: they
 * were discarded, and a discarded page of hugetlbfs has no claim to the pool any more. One bit for each backing page of the
 * mapping, in the VM's state file: a guest that was reset is not told again which pages it misses.
 */
export class MissingPages {
  readonly units: PageSet;
  /** Where its bits are. */
  readonly area: Area;
  readonly #place: Place;
  readonly #state: StateFile;
  readonly #mapping: Mapping;

  /** `found`: the area of a process that is gone. Throws StateError when it cannot be one. */
  constructor(state: StateFile, place: Place, found: Area | null) {
    this.#place = place;
    this.#state = state;
    const count = Math.ceil((place.lead + place.sizeBytes) / place.pageBytes);
    const lenBytes = Math.ceil(PageSet.bytesFor(count) / AREA_UNIT) * AREA_UNIT;
    if (found !== null && found.lenBytes !== lenBytes) {
      throw new StateError(`missing pages in ${found.lenBytes} bytes for ${count} backing pages`);
    }
    this.area = found === null ? state.allocate(lenBytes) : state.claim(found);
    try {
      this.#mapping = state.map(this.area);
    } catch (error) {
      if (found === null) state.free(this.area);
      throw error;
    }
    this.units = new PageSet(this.#mapping.view(0, lenBytes), count);
    if (found === null) return;
    const words = new Uint32Array(lenBytes / 4);
    state.read(this.area.offset, new Uint8Array(words.buffer));
    this.units.know(0, words);
  }

  get bytes(): number {
    return this.units.size * this.#place.pageBytes;
  }

  /** The backing pages that `lenBytes` from `offset` on touch; bytes of the region. */
  add(offset: number, lenBytes: number): void {
    const { lead, pageBytes } = this.#place;
    const first = Math.floor((lead + offset) / pageBytes);
    this.units.add(first, Math.ceil((lead + offset + lenBytes) / pageBytes) - first);
  }

  /** The backing pages that lie in `lenBytes` from `offset` on as a whole; bytes of the region. */
  addWhole(offset: number, lenBytes: number): void {
    const { lead, pageBytes } = this.#place;
    const first = Math.ceil((lead + offset) / pageBytes);
    const end = Math.floor((lead + offset + lenBytes) / pageBytes);
    if (end > first) this.units.add(first, end - first);
  }

  /** The bytes of the region that a backing page holds, all of them or those inside. */
  inside(unit: number): { offset: number; lenBytes: number; whole: boolean } {
    const { lead, sizeBytes, pageBytes } = this.#place;
    const start = Math.max(0, unit * pageBytes - lead);
    const end = Math.min(sizeBytes, (unit + 1) * pageBytes - lead);
    return { offset: start, lenBytes: end - start, whole: end - start === pageBytes };
  }

  letGo(): void {
    this.#mapping.close();
  }

  close(): void {
    this.#mapping.close();
    this.#state.free(this.area);
  }
}

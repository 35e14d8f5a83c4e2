// Pages of guest memory that show whether they were lost: a page that is the guest's holds a stamp of its own,
// anew each time it is taken into use. Pages are numbered from 0 over all parts.
import { readSync } from 'node:fs';
import { closeFd, duplicateFd } from '../../src/os/fd.js';
import { allocatedBytes } from '../../src/os/file.js';
import { Mapping } from '../../src/os/mapping.js';
import { PAGE_BYTES, type GuestFile } from './guest-ram.js';

const WORDS_PER_PAGE = PAGE_BYTES / 4;
const GIVEN = 0;

export interface Part {
  /** Where in guest memory it lies; all of the file. */
  gpa: number;
  file: GuestFile;
  /** The smallest part that the file gives back. */
  unitBytes: number;
}

/** With an fd and a mapping of its own: the memory outlives the VMM. */
class OpenPart {
  readonly firstPfn: number;
  readonly unitPages: number;
  readonly first: number;
  readonly count: number;
  readonly fd: number;
  readonly mapping: Mapping;
  readonly #copy: Uint32Array;

  constructor({ gpa, file, unitBytes }: Part, first: number) {
    this.firstPfn = gpa / PAGE_BYTES;
    this.unitPages = unitBytes / PAGE_BYTES;
    this.first = first;
    this.count = file.sizeBytes / PAGE_BYTES;
    this.fd = duplicateFd(file.fd);
    this.mapping = Mapping.map(this.fd, 0, file.sizeBytes);
    this.#copy = new Uint32Array(file.sizeBytes / 4);
  }

  /** All its bytes as words. Through the file: a read through the mapping would fill the holes. */
  read(): Uint32Array {
    const { length } = this.#copy;
    if (readSync(this.fd, this.#copy, 0, 4 * length, 0) !== 4 * length) throw new Error('memory ends early');
    return this.#copy;
  }

  close(): void {
    this.mapping.close();
    closeFd(this.fd);
  }
}

export class StampedPages {
  readonly count: number;
  readonly #parts: OpenPart[] = [];
  /** What a page's stamp says, or `GIVEN`: its content is anybody's. */
  readonly #stamps: Uint32Array;
  readonly #stamp = new Uint32Array(2);
  readonly #stampBytes = new Uint8Array(this.#stamp.buffer);
  #lastStamp = GIVEN;

  /** All of them are the guest's, and in use. */
  constructor(parts: readonly Part[]) {
    let count = 0;
    for (const part of parts) {
      const open = new OpenPart(part, count);
      this.#parts.push(open);
      count += open.count;
    }
    this.count = count;
    this.#stamps = new Uint32Array(count);
    for (let page = 0; page < count; page++) this.use(page);
  }

  pfn(page: number): number {
    const { firstPfn, first } = this.#partOf(page);
    return firstPfn + page - first;
  }

  isGiven(page: number): boolean {
    return this.#stamps[page] === GIVEN;
  }

  /** The guest writes a new stamp: from now on the page is its own. */
  use(page: number): void {
    const { mapping, first } = this.#partOf(page);
    this.#stamp[0] = ~page;
    this.#stamp[1] = this.#stamps[page] = ++this.#lastStamp;
    mapping.write((page - first) * PAGE_BYTES, this.#stampBytes, 0, this.#stampBytes.length);
  }

  /** From now on nothing is promised of the page's content. */
  give(page: number): void {
    this.#stamps[page] = GIVEN;
  }

  /** Pages of the guest that do not hold their stamp. */
  lost(): number[] {
    const lost: number[] = [];
    for (const part of this.#parts) {
      const words = part.read();
      for (let page = part.first; page < part.first + part.count; page++) {
        const stamp = this.#stamps[page];
        const at = (page - part.first) * WORDS_PER_PAGE;
        if (stamp !== GIVEN && (words[at] !== ~page >>> 0 || words[at + 1] !== stamp)) lost.push(page);
      }
    }
    return lost;
  }

  /** Whether the page was never written since it was last discarded. */
  isBlank(page: number): boolean {
    const { fd, first } = this.#partOf(page);
    const word = new Uint32Array(1);
    readSync(fd, word, 0, 4, (page - first) * PAGE_BYTES);
    return word[0] === 0;
  }

  allocatedBytes(): number {
    return this.#parts.reduce((sum, { fd }) => sum + allocatedBytes(fd), 0);
  }

  /**
   * What is allocated when every backing page is discarded that holds no page of the guest; and how much of that is
   * given, and waits for the rest of its backing page.
   */
  settledBytes(): { allocated: number; waiting: number } {
    let allocated = 0;
    let waiting = 0;
    for (const { first, count, unitPages } of this.#parts) {
      for (let unit = first; unit < first + count; unit += unitPages) {
        const given = this.#stamps.subarray(unit, unit + unitPages).filter((stamp) => stamp === GIVEN).length;
        if (given === unitPages) continue;
        allocated += unitPages * PAGE_BYTES;
        waiting += given * PAGE_BYTES;
      }
    }
    return { allocated, waiting };
  }

  close(): void {
    for (const part of this.#parts) part.close();
  }

  #partOf(page: number): OpenPart {
    const part = this.#parts.find(({ first, count }) => page >= first && page < first + count);
    if (part === undefined) throw new Error(`there is no page ${page}`);
    return part;
  }
}

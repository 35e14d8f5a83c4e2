import { decodeRange, RANGE_BYTES } from '../../protocol/virtio/cache-balloon.js';
import { DriverError } from '../memory/errors.js';

/**
 * Blocks of pages in, runs of consecutive pages out: as PageRuns, for blocks of any length anywhere in 64 bits of
 * address.
 */
export class BlockRuns {
  readonly entryBytes = RANGE_BYTES;
  #blocks: { firstPfn: number; pages: number }[] = [];

  /** Adds the entries of a buffer whose length is a multiple of 8 bytes: all of them or, where it throws DriverError, none. */
  add(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const blocks = [];
    for (let at = 0; at < bytes.length; at += RANGE_BYTES) {
      const block = decodeRange(view.getUint32(at, true), view.getUint32(at + 4, true));
      if (block === null) {
        throw new DriverError(
          `0x${view.getBigUint64(at, true).toString(16)} is no aligned block of guest memory`,
        );
      }
      blocks.push(block);
    }
    for (const block of blocks) {
      const last = this.#blocks.at(-1);
      if (last !== undefined && last.firstPfn + last.pages === block.firstPfn) last.pages += block.pages;
      else this.#blocks.push(block);
    }
  }

  /** Forgets what was added. */
  clear(): void {
    this.#blocks = [];
  }

  /** The lowest and the highest page added; an empty range when there is none. */
  bounds(): { first: number; last: number } {
    let first = Infinity;
    let last = -1;
    for (const { firstPfn, pages } of this.#blocks) {
      first = Math.min(first, firstPfn);
      last = Math.max(last, firstPfn + pages - 1);
    }
    return { first, last };
  }

  /** Calls `visit` for each run, lowest first, and forgets what was added. */
  drain(visit: (firstPfn: number, pages: number) => void): void {
    const blocks = this.#blocks.sort((a, b) => a.firstPfn - b.firstPfn);
    this.#blocks = [];
    let first = 0;
    let end = -1;
    for (const { firstPfn, pages } of blocks) {
      if (firstPfn > end) {
        if (end > first) visit(first, end - first);
        first = firstPfn;
        end = firstPfn + pages;
      } else {
        end = Math.max(end, firstPfn + pages);
      }
    }
    if (end > first) visit(first, end - first);
  }
}

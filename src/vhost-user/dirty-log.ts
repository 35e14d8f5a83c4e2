import { closeFd } from '../os/fd.js';
import { describeFile } from '../os/file.js';
import { Mapping } from '../os/mapping.js';
import { FrontendError, LogError } from '../memory/errors.js';
import type { LogRegion } from '../../protocol/vhost-user/payloads.js';
import { hex, type SessionRecord } from './session-record.js';

const LOG_PAGE_BYTES = 4096;
const MAX_LOG_BYTES = 2 ** 30;

/**
 * The bitmap in which a migrating frontend wants to see which guest pages were written ("Migration" in
 * vhost-user.rst): one bit for each 4 KiB page, set atomically since others write it too. The only guest memory
 * this daemon writes is that of rings.
 */
export class DirtyLog {
  readonly region: LogRegion;
  readonly fd: number;
  readonly #mapping: Mapping;
  readonly #bits: Uint8Array;
  readonly #tooShort: (error: LogError) => void;
  #isShort = false;

  /** Owns `fd`; when it throws, that is still the caller's. `tooShort` is told once when a page is written that it has no bit for. */
  constructor(region: LogRegion, fd: number, tooShort: (error: LogError) => void) {
    this.#tooShort = tooShort;
    if (region.sizeBytes === 0n || region.sizeBytes > BigInt(MAX_LOG_BYTES)) {
      throw new FrontendError(`dirty log of ${region.sizeBytes} bytes`);
    }
    if (region.offset % BigInt(LOG_PAGE_BYTES) !== 0n || region.offset > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new FrontendError(`dirty log at offset ${region.offset} is not page-aligned`);
    }
    if (region.offset + region.sizeBytes > BigInt(describeFile(fd).sizeBytes)) {
      throw new FrontendError(`dirty log of ${region.sizeBytes} bytes is longer than its file`);
    }
    const length = Number(region.sizeBytes);
    this.#mapping = Mapping.map(fd, Number(region.offset), length);
    this.region = region;
    this.fd = fd;
    this.#bits = new Uint8Array(this.#mapping.view(0, length));
  }

  mark(gpa: number, lenBytes: number): void {
    const last = Math.floor((gpa + lenBytes - 1) / LOG_PAGE_BYTES);
    for (let page = Math.floor(gpa / LOG_PAGE_BYTES); page <= last; page++) {
      const byte = Math.floor(page / 8);
      if (byte < this.#bits.length) Atomics.or(this.#bits, byte, 1 << (page % 8));
      else this.#misses(page);
    }
  }

  #misses(page: number): void {
    if (this.#isShort) return;
    this.#isShort = true;
    const ends = `the dirty log of ${this.#bits.length} bytes ends before guest page 0x${page.toString(16)}`;
    this.#tooShort(
      new LogError(`${ends}, which was written: cancel the migration, since the page would be lost`),
    );
  }

  /** What is written down of it; `nameOf` has the name of an fd. */
  record(nameOf: (fd: number) => string): NonNullable<SessionRecord['dirtyLog']> {
    const { sizeBytes, offset } = this.region;
    return { sizeBytes: hex(sizeBytes), offset: hex(offset), fd: nameOf(this.fd) };
  }

  letGo(): void {
    this.#mapping.close();
  }

  close(): void {
    this.letGo();
    closeFd(this.fd);
  }
}

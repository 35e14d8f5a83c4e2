import {
  CACHE_CONFIG_ACTUAL,
  CACHE_CONFIG_BYTES,
  CACHE_CONFIG_LOCK,
  CACHE_CONFIG_LOCKED,
  CACHE_CONFIG_NEED_STATS,
  CACHE_CONFIG_NUM_PAGES,
  CACHE_CONFIG_PAGES_FREE,
  CACHE_CONFIG_PAGES_TOTAL,
} from '../../protocol/virtio/cache-balloon.js';

/** Frontends pass on their whole cached copy of the space with each write, so only these are taken from it. */
const DRIVERS_FIELDS: readonly number[] = [
  CACHE_CONFIG_ACTUAL,
  CACHE_CONFIG_PAGES_TOTAL,
  CACHE_CONFIG_PAGES_FREE,
  CACHE_CONFIG_LOCKED,
];

/** struct virtio_cache_balloon_config, in the first of the words that are `stored`. */
export class CacheConfig {
  readonly #stored: { readonly words: Uint32Array<ArrayBuffer> };

  constructor(stored: { readonly words: Uint32Array<ArrayBuffer> }) {
    this.#stored = stored;
  }

  get(field: number): number {
    return this.#view.getUint32(field, true);
  }

  set(field: number, value: number): void {
    this.#view.setUint32(field, value, true);
  }

  get numPages(): number {
    return this.get(CACHE_CONFIG_NUM_PAGES);
  }

  set numPages(pages: number) {
    this.set(CACHE_CONFIG_NUM_PAGES, pages);
  }

  get actual(): number {
    return this.get(CACHE_CONFIG_ACTUAL);
  }

  set actual(pages: number) {
    this.set(CACHE_CONFIG_ACTUAL, pages);
  }

  set lock(asked: boolean) {
    this.set(CACHE_CONFIG_LOCK, asked ? 1 : 0);
  }

  get lock(): boolean {
    return this.get(CACHE_CONFIG_LOCK) !== 0;
  }

  askForStats(): void {
    this.set(CACHE_CONFIG_NEED_STATS, 1);
  }

  /** Bytes beyond the structure read as zero. */
  read(offset: number, lenBytes: number): Uint8Array {
    const bytes = new Uint8Array(lenBytes);
    if (offset < CACHE_CONFIG_BYTES) {
      const { buffer, byteOffset } = this.#view;
      bytes.set(new Uint8Array(buffer, byteOffset, CACHE_CONFIG_BYTES).subarray(offset, offset + lenBytes));
    }
    return bytes;
  }

  /** A write by the driver. True when it answers the wish for statistics. */
  write(offset: number, bytes: Uint8Array): boolean {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const has = (field: number): boolean => offset <= field && field + 4 <= offset + bytes.length;
    for (const field of DRIVERS_FIELDS) {
      if (has(field)) this.set(field, view.getUint32(field - offset, true));
    }
    const asked = this.get(CACHE_CONFIG_NEED_STATS) !== 0;
    const cleared =
      has(CACHE_CONFIG_NEED_STATS) && view.getUint32(CACHE_CONFIG_NEED_STATS - offset, true) === 0;
    if (!asked || !cleared || this.get(CACHE_CONFIG_PAGES_TOTAL) === 0) return false;
    this.set(CACHE_CONFIG_NEED_STATS, 0);
    return true;
  }

  /** The driver is gone, and what it wrote. */
  forgetDriver(): void {
    for (const field of [...DRIVERS_FIELDS, CACHE_CONFIG_NEED_STATS]) this.set(field, 0);
  }

  get #view(): DataView<ArrayBuffer> {
    const { buffer, byteOffset } = this.#stored.words;
    return new DataView(buffer, byteOffset, CACHE_CONFIG_BYTES);
  }
}

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
import { ConfigSpace, type ConfigPlace, type StoredWords } from './config-space.js';

const DRIVERS_FIELDS: readonly number[] = [
  CACHE_CONFIG_ACTUAL,
  CACHE_CONFIG_PAGES_TOTAL,
  CACHE_CONFIG_PAGES_FREE,
  CACHE_CONFIG_LOCKED,
];

/** struct virtio_cache_balloon_config. */
export class CacheConfig extends ConfigSpace {
  constructor(stored: StoredWords, place?: ConfigPlace) {
    super(stored, CACHE_CONFIG_BYTES, DRIVERS_FIELDS, place);
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
    this.fill(offset, bytes);
    return bytes;
  }

  /** A write by the driver. True when it answers the wish for statistics. */
  write(offset: number, bytes: Uint8Array): boolean {
    this.take(offset, bytes);
    const asked = this.get(CACHE_CONFIG_NEED_STATS) !== 0;
    const cleared = this.written(CACHE_CONFIG_NEED_STATS, offset, bytes) === 0;
    if (!asked || !cleared || this.get(CACHE_CONFIG_PAGES_TOTAL) === 0) return false;
    this.set(CACHE_CONFIG_NEED_STATS, 0);
    return true;
  }

  override forgetDriver(): void {
    super.forgetDriver();
    this.set(CACHE_CONFIG_NEED_STATS, 0);
  }
}

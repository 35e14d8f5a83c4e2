import {
  CONFIG_ACTUAL,
  CONFIG_BYTES,
  CONFIG_NUM_PAGES,
  CONFIG_POISON_VAL,
} from '../../protocol/virtio/balloon.js';
import { ConfigSpace, type StoredWords } from './config-space.js';

/** struct virtio_balloon_config. The device writes num_pages, the driver actual and poison_val. */
export class BalloonConfig extends ConfigSpace {
  /** It is the first of the words that are `stored`. */
  constructor(stored: StoredWords = { words: new Uint32Array(CONFIG_BYTES / 4) }) {
    super(stored, CONFIG_BYTES, [CONFIG_POISON_VAL, CONFIG_ACTUAL]);
  }

  get numPages(): number {
    return this.get(CONFIG_NUM_PAGES);
  }

  set numPages(pages: number) {
    this.set(CONFIG_NUM_PAGES, pages);
  }

  get actual(): number {
    return this.get(CONFIG_ACTUAL);
  }

  set actual(pages: number) {
    this.set(CONFIG_ACTUAL, pages);
  }

  get poisonVal(): number {
    return this.get(CONFIG_POISON_VAL);
  }

  set poisonVal(value: number) {
    this.set(CONFIG_POISON_VAL, value);
  }

  /**
   * Bytes beyond the structure read as zero: some frontends ask for more, and none takes less for an answer. The driver is
   * asked for so many `morePages` than numPages says.
   */
  read(offset: number, lenBytes: number, morePages = 0): Uint8Array {
    const space = new Uint8Array(CONFIG_BYTES);
    this.fill(0, space);
    new DataView(space.buffer).setUint32(CONFIG_NUM_PAGES, this.numPages + morePages, true);
    const bytes = new Uint8Array(lenBytes);
    bytes.set(space.subarray(offset, offset + lenBytes));
    return bytes;
  }

  /** A write by the driver. Returns whether `actual` was written. */
  write(offset: number, bytes: Uint8Array): boolean {
    this.take(offset, bytes);
    return this.written(CONFIG_ACTUAL, offset, bytes) !== null;
  }
}

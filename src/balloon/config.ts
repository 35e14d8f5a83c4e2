import {
  CONFIG_ACTUAL,
  CONFIG_BYTES,
  CONFIG_NUM_PAGES,
  CONFIG_POISON_VAL,
} from '../../protocol/virtio/balloon.js';

/**
 * struct virtio_balloon_config. The device writes num_pages, the driver actual and poison_val; each side's fields
 * are safe from the other.
 */
export class BalloonConfig {
  readonly #stored: { readonly words: Uint32Array<ArrayBuffer> };

  /** It is the first of the words that are `stored`. */
  constructor(stored = { words: new Uint32Array(CONFIG_BYTES / 4) }) {
    this.#stored = stored;
  }

  get numPages(): number {
    return this.#view.getUint32(CONFIG_NUM_PAGES, true);
  }

  set numPages(pages: number) {
    this.#view.setUint32(CONFIG_NUM_PAGES, pages, true);
  }

  get actual(): number {
    return this.#view.getUint32(CONFIG_ACTUAL, true);
  }

  set actual(pages: number) {
    this.#view.setUint32(CONFIG_ACTUAL, pages, true);
  }

  get poisonVal(): number {
    return this.#view.getUint32(CONFIG_POISON_VAL, true);
  }

  set poisonVal(value: number) {
    this.#view.setUint32(CONFIG_POISON_VAL, value, true);
  }

  /**
   * Bytes beyond the structure read as zero: some frontends ask for more, and none takes less for an answer. The driver is
   * asked for so many `morePages` than numPages says.
   */
  read(offset: number, lenBytes: number, morePages = 0): Uint8Array {
    const bytes = new Uint8Array(lenBytes);
    if (offset < CONFIG_BYTES) {
      const { buffer, byteOffset } = this.#view;
      let space = new Uint8Array(buffer, byteOffset, CONFIG_BYTES);
      if (morePages > 0) {
        space = space.slice();
        new DataView(space.buffer).setUint32(CONFIG_NUM_PAGES, this.numPages + morePages, true);
      }
      bytes.set(space.subarray(offset, offset + lenBytes));
    }
    return bytes;
  }

  /**
   * A write by the driver. Frontends pass on their whole cached copy of the space, so only the driver's own
   * fields are taken, each when all of it was written. Returns whether `actual` was.
   */
  write(offset: number, bytes: Uint8Array): boolean {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const take = (field: number): boolean => {
      const whole = offset <= field && field + 4 <= offset + bytes.length;
      if (whole) this.#view.setUint32(field, view.getUint32(field - offset, true), true);
      return whole;
    };
    take(CONFIG_POISON_VAL);
    return take(CONFIG_ACTUAL);
  }

  get #view(): DataView<ArrayBuffer> {
    const { buffer, byteOffset } = this.#stored.words;
    return new DataView(buffer, byteOffset, CONFIG_BYTES);
  }
}

/** What a config space is kept in. */
export interface StoredWords {
  readonly words: Uint32Array<ArrayBuffer>;
}

/** Where a config space begins: its place in the device's own, and the first of the words that hold it. */
export interface ConfigPlace {
  readonly offset: number;
  readonly word: number;
}

/**
 * A part of a config space of le32 fields. The device writes some of them and the driver others; each side's are safe from the
 * other. Frontends pass on their whole cached copy of the space with each write, so only the driver's own fields are taken
 * from a write, each when all of it was written.
 */
export class ConfigSpace {
  readonly #stored: StoredWords;
  readonly #bytes: number;
  readonly #drivers: readonly number[];
  readonly #place: ConfigPlace;

  constructor(
    stored: StoredWords,
    bytes: number,
    drivers: readonly number[],
    place: ConfigPlace = { offset: 0, word: 0 },
  ) {
    this.#stored = stored;
    this.#bytes = bytes;
    this.#drivers = drivers;
    this.#place = place;
  }

  get(field: number): number {
    return this.#view.getUint32(field, true);
  }

  set(field: number, value: number): void {
    this.#view.setUint32(field, value, true);
  }

  /** Copies the part of the space that lies in `bytes`, which are those at `offset` of the device's. */
  fill(offset: number, bytes: Uint8Array): void {
    const { buffer, byteOffset } = this.#view;
    const space = new Uint8Array(buffer, byteOffset, this.#bytes);
    const at = this.#place.offset - offset;
    const shown = space.subarray(Math.max(0, -at), Math.max(0, bytes.length - at));
    bytes.set(shown, Math.max(0, Math.min(at, bytes.length)));
  }

  /** The value of a field in a write by the driver; null: it is not all there. */
  written(field: number, offset: number, bytes: Uint8Array): number | null {
    const at = this.#place.offset + field - offset;
    if (at < 0 || at + 4 > bytes.length) return null;
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(at, true);
  }

  /** Takes the driver's fields of a write. */
  take(offset: number, bytes: Uint8Array): void {
    for (const field of this.#drivers) {
      const value = this.written(field, offset, bytes);
      if (value !== null) this.set(field, value);
    }
  }

  /** The driver is gone, and what it wrote. */
  forgetDriver(): void {
    for (const field of this.#drivers) this.set(field, 0);
  }

  get #view(): DataView<ArrayBuffer> {
    const { buffer, byteOffset } = this.#stored.words;
    return new DataView(buffer, byteOffset + 4 * this.#place.word, this.#bytes);
  }
}

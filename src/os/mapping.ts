import { checked, SystemError } from './errors.js';
import { native, type MappingHandle } from './native.js';

/** A mapping that nobody refers to is unmapped: not before the last view of it is gone. */
const handlesInView = new WeakMap<ArrayBuffer, MappingHandle>();

const faults = new Uint32Array(native.allFaults());

/** Rises (modulo 2^32) with each page of any mapping that could not be had; looking costs no call. */
export function faultsSoFar(): number {
  return Atomics.load(faults, 0);
}

/**
 * A shared, writable mapping of a file, left out of core dumps and of child processes. JavaScript sees its bytes
 * by copies, or by views of small parts (rings, ledgers) that are detached before the memory goes away.
 */
export class Mapping {
  readonly handle: MappingHandle;
  readonly length: number;
  readonly #views = new Set<ArrayBuffer>();
  #open = true;

  private constructor(handle: MappingHandle, length: number) {
    this.handle = handle;
    this.length = length;
  }

  /**
   * `offset` and `length` in bytes; the offset is a multiple of the file's page size. A range that ends beyond the
   * file is ENXIO.
   */
  static map(fd: number, offset: number, length: number): Mapping {
    const handle = native.map(fd, offset, length);
    if (typeof handle === 'number') throw new SystemError(-handle, 'mmap', `of ${length} bytes`);
    return new Mapping(handle, length);
  }

  get closed(): boolean {
    return !this.#open;
  }

  /** How many of its pages could not be had when they were touched, since its file was cut short: they are zeros. */
  get faults(): number {
    return native.faults(this.handle);
  }

  /** At most 1 GiB. Its memory is shared with other processes: use Atomics where order matters. */
  view(offset: number, length: number): ArrayBuffer {
    const view = native.view(this.handle, offset, length);
    if (typeof view === 'number') throw new SystemError(-view, 'view', `of ${length} bytes`);
    this.#views.add(view);
    handlesInView.set(view, this.handle);
    return view;
  }

  /** Detaches a view before the mapping ends. */
  release(view: ArrayBuffer): void {
    if (this.#views.delete(view)) native.detach(view);
  }

  read(at: number, into: Uint8Array, offset: number, length: number): void {
    native.read(this.handle, at, into, offset, length);
  }

  write(at: number, from: Uint8Array, offset: number, length: number): void {
    native.write(this.handle, at, from, offset, length);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const view of this.#views) native.detach(view);
    this.#views.clear();
    checked(native.unmap(this.handle), 'munmap');
  }
}

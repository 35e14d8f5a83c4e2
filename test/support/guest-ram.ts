// Guest memory as a VMM has it: shared files mapped in regions. Reads go through the file, because a read through
// the mapping would fill the very holes a test wants to see.
import { fstatSync, readSync } from 'node:fs';
import { closeFd } from '../../src/os/fd.js';
import { Mapping } from '../../src/os/mapping.js';
import { createMemfd } from '../../src/os/memfd.js';
import type { WireRegion } from './wire.js';

export const PAGE_BYTES = 4096;
export const GIB = 1024 ** 3;

/** A file that backs guest memory; several regions may lie in one. */
export interface GuestFile {
  fd: number;
  sizeBytes: number;
}

export interface RegionOptions {
  gpa: number;
  lenBytes: number;
  /** The address the VMM says it has mapped the region at (default 0x7f0000000000 + gpa). */
  userAddress?: bigint;
  /** The file, henceforth the memory's own, and where in it the region starts; without it, a memfd. */
  file?: GuestFile;
  fileOffset?: number;
  hugePageBytes?: number;
}

/** One region, mapped here. */
export interface GuestRegion {
  gpa: number;
  lenBytes: number;
  userAddress: bigint;
  file: GuestFile;
  fileOffset: number;
  mapping: Mapping;
}

/** The region as the messages describe it. */
export function describeRegion(region: GuestRegion): WireRegion {
  return {
    gpa: BigInt(region.gpa),
    lenBytes: BigInt(region.lenBytes),
    userAddress: region.userAddress,
    mmapOffset: BigInt(region.fileOffset),
  };
}

export class GuestRam {
  readonly regions: GuestRegion[] = [];
  readonly #files = new Set<GuestFile>();

  constructor(regions: readonly RegionOptions[]) {
    for (const region of regions) this.add(region);
  }

  /** The memory of QEMU's pc machine: below `lowBytes` from address 0, the rest from 4 GiB, all in one file. */
  static likeQemu(ramBytes: number, options: { lowBytes?: number; hugePageBytes?: number } = {}): GuestRam {
    const ram = new GuestRam([]);
    const file = ram.createFile(ramBytes, options.hugePageBytes);
    const low = Math.min(ramBytes, options.lowBytes ?? 3 * GIB);
    ram.add({ gpa: 0, lenBytes: low, file });
    if (low < ramBytes) ram.add({ gpa: 4 * GIB, lenBytes: ramBytes - low, file, fileOffset: low });
    return ram;
  }

  /** A memfd that lives until `close`; for regions that share one. */
  createFile(sizeBytes: number, hugePageBytes?: number): GuestFile {
    const fd = createMemfd('guest-ram', sizeBytes, hugePageBytes === undefined ? {} : { hugePageBytes });
    const file = { fd, sizeBytes };
    this.#files.add(file);
    return file;
  }

  add(options: RegionOptions): GuestRegion {
    const file = options.file ?? this.createFile(options.lenBytes, options.hugePageBytes);
    this.#files.add(file);
    const fileOffset = options.fileOffset ?? 0;
    const region: GuestRegion = {
      gpa: options.gpa,
      lenBytes: options.lenBytes,
      userAddress: options.userAddress ?? 0x7f0000000000n + BigInt(options.gpa),
      file,
      fileOffset,
      mapping: Mapping.map(file.fd, fileOffset, options.lenBytes),
    };
    this.regions.push(region);
    return region;
  }

  /** Unmaps the region; its file stays until `close`, as a VMM's memory backend outlives its DIMM. */
  remove(region: GuestRegion): void {
    this.regions.splice(this.regions.indexOf(region), 1);
    region.mapping.close();
  }

  /** The region that holds these bytes entirely; throws where there is none. */
  find(gpa: number, lenBytes: number): GuestRegion {
    const region = this.regions.find((r) => gpa >= r.gpa && gpa + lenBytes <= r.gpa + r.lenBytes);
    if (region === undefined) {
      throw new Error(`no region holds ${lenBytes} bytes at guest address 0x${gpa.toString(16)}`);
    }
    return region;
  }

  userAddress(gpa: number, lenBytes: number): bigint {
    const region = this.find(gpa, lenBytes);
    return region.userAddress + BigInt(gpa - region.gpa);
  }

  /** Live bytes of guest memory, for rings; released by `close` at the latest. */
  view(gpa: number, lenBytes: number): { buffer: ArrayBuffer; release: () => void } {
    const region = this.find(gpa, lenBytes);
    const buffer = region.mapping.view(gpa - region.gpa, lenBytes);
    return { buffer, release: () => region.mapping.release(buffer) };
  }

  read(gpa: number, lenBytes: number): Uint8Array {
    const region = this.find(gpa, lenBytes);
    const bytes = new Uint8Array(lenBytes);
    const count = readSync(region.file.fd, bytes, 0, lenBytes, region.fileOffset + gpa - region.gpa);
    if (count !== lenBytes) throw new Error(`guest memory ends ${lenBytes - count} bytes early`);
    return bytes;
  }

  write(gpa: number, bytes: Uint8Array): void {
    const region = this.find(gpa, bytes.length);
    region.mapping.write(gpa - region.gpa, bytes, 0, bytes.length);
  }

  /** What the host has really given to the guest's files. */
  allocatedBytes(): number {
    let sum = 0;
    for (const { fd } of this.#files) sum += fstatSync(fd).blocks * 512;
    return sum;
  }

  /** Fills a page with bytes that depend on the page and the seed, none of them zero. */
  fillPage(pfn: number, seed: number): void {
    this.write(pfn * PAGE_BYTES, pattern(pfn, seed));
  }

  pageHolds(pfn: number, seed: number): boolean {
    return Buffer.compare(this.read(pfn * PAGE_BYTES, PAGE_BYTES), pattern(pfn, seed)) === 0;
  }

  pageIsZero(pfn: number): boolean {
    return this.read(pfn * PAGE_BYTES, PAGE_BYTES).every((byte) => byte === 0);
  }

  close(): void {
    for (const region of this.regions.splice(0)) region.mapping.close();
    for (const { fd } of this.#files) closeFd(fd);
    this.#files.clear();
  }
}

function pattern(pfn: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(PAGE_BYTES);
  let state = (Math.imul(pfn + 1, 0x9e3779b1) ^ Math.imul(seed + 1, 0x85ebca6b)) >>> 0;
  for (let i = 0; i < PAGE_BYTES; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = (state >>> 24) | 1;
  }
  return bytes;
}

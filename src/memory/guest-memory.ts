/**
 * Guest memory: the regions that a VMM shares, what of them is in the balloon, and how that is discarded. A session makes a
 * GuestMemory (this file) and adds a region for each message of the VMM; a device turns page numbers into regions here, notes
 * them in the region's page-ledger (bits in page-set), and has discard remove them. All of it lives in one state-file for
 * the daemon after this one. errors says whose fault a failure is.
 */
import type { RegionDescription } from '../../protocol/vhost-user/payloads.js';
import { allocatedBytes, describeFile } from '../os/file.js';
import { closeFd } from '../os/fd.js';
import { faultsSoFar } from '../os/mapping.js';
import { FrontendError } from './errors.js';
import { describeRegion, GuestRegion, regionsOverlap, samePlace, type FoundPages } from './region.js';
import { StateFile } from './state-file.js';

/** What GET_MAX_MEM_SLOTS answers: as many as the kernel's own vhost allows by default for KVM guests. */
export const MAX_MEM_SLOTS = 509;

/** A guest address that was checked once: these bytes lie inside that region. */
export interface GuestSlice {
  region: GuestRegion;
  /** Bytes from the region's first byte. */
  offset: number;
  lenBytes: number;
}

/** A guest range of which no region, or none that is asked for, holds any part. */
interface Outside {
  outside: number;
  lenBytes: number;
}

/** A region as a process that is gone had it. */
export interface FoundRegion {
  description: RegionDescription;
  fd: number;
  pages: FoundPages;
}

/**
 * The memory of one guest: regions that do not overlap, sorted by guest address. Changes are all or nothing, and
 * a refused change closes the fds it brought. What is known of its pages is kept in `state`, which belongs to it.
 */
export class GuestMemory {
  readonly state: StateFile;
  readonly #vmmPid: number | null;
  #regions: GuestRegion[] = [];
  /** One fd for each file, of which there may be many regions. */
  #files: readonly number[] = [];
  #seenFaults = faultsSoFar();
  #lost: GuestRegion | null = null;

  /** `vmmPid`: the process whose memory it is; null: not known. */
  constructor(state = StateFile.create(), vmmPid: number | null = null) {
    this.state = state;
    this.#vmmPid = vmmPid;
  }

  get regions(): readonly GuestRegion[] {
    return this.#regions;
  }

  get sizeBytes(): number {
    return this.#regions.reduce((sum, region) => sum + region.sizeBytes, 0);
  }

  /**
   * The size of the huge pages that most of the memory that can be discarded is in: freed, it goes to the pool of these pages,
   * and is not available to the rest of the host. Null: most of it is in the host's RAM, or there is none. Memory that is in
   * several places counts as if all of it were where most of it is; of two places with as much, a pool comes before the RAM.
   */
  get poolPageBytes(): number | null {
    if (this.#regions.every(({ missing }) => missing === null)) return null;
    const bytes = new Map<number | null, number>();
    for (const { discardable, missing, file, sizeBytes } of this.#regions) {
      if (!discardable) continue;
      const place = missing === null ? null : file.pageBytes;
      bytes.set(place, (bytes.get(place) ?? 0) + sizeBytes);
    }
    const most = Math.max(0, ...bytes.values());
    for (const [place, held] of bytes) if (place !== null && held === most) return place;
    return null;
  }

  /** The bytes of it that can be discarded. */
  get discardableBytes(): number {
    return this.#regions.reduce((sum, region) => sum + (region.discardable ? region.sizeBytes : 0), 0);
  }

  /**
   * A region whose file the VMM cut short, found when it was touched there. Asked after each piece of work on guest
   * memory and before anything comes of it; it makes no system call.
   */
  get lost(): GuestRegion | null {
    const faults = faultsSoFar();
    if (faults !== this.#seenFaults) {
      this.#seenFaults = faults;
      this.findLost();
    }
    return this.#lost;
  }

  findLost(): void {
    this.#lost = this.#regions.find((region) => region.lost) ?? null;
  }

  /** The host's memory that the files behind it take up now, with whatever else they hold. */
  get allocatedBytes(): number {
    return this.#files.reduce((sum, fd) => sum + allocatedBytes(fd), 0);
  }

  get balloonedPages(): number {
    return this.#regions.reduce((sum, region) => sum + region.ledger.ballooned.size, 0);
  }

  get pendingPages(): number {
    return this.#regions.reduce((sum, region) => sum + region.ledger.pending.size, 0);
  }

  /** ADD_MEM_REG. Takes `fd` over, also when it throws. */
  add(description: RegionDescription, fd: number): GuestRegion {
    try {
      if (this.#regions.length >= MAX_MEM_SLOTS) {
        throw new FrontendError(
          `more than ${MAX_MEM_SLOTS} memory regions: give the VM fewer memory devices, and larger ones`,
        );
      }
      refuseOverlap(
        this.#regions.map((region) => region.description),
        description,
      );
      const region = this.#newRegion(description, fd);
      this.#install([...this.#regions, region]);
      return region;
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  }

  /** Goes on with regions that were begun before, and takes their fds over. */
  resume(found: readonly FoundRegion[]): void {
    for (const { description, fd, pages } of found) {
      refuseOverlap(
        this.#regions.map((region) => region.description),
        description,
      );
      this.#install([...this.#regions, this.#newRegion(description, fd, pages)]);
    }
  }

  /** Of what resume() was given, and of the state: all stays as it is, and the fds are the caller's again. */
  letGo(): void {
    for (const region of this.#regions) region.letGo();
    this.#regions = [];
    this.#files = [];
    this.state.letGo();
  }

  /** REM_MEM_REG. QEMU leaves the offset at 0: "The mmap offset is ignored." */
  remove(description: RegionDescription): void {
    const region = this.#regions.find((candidate) => samePlace(candidate.description, description));
    if (region === undefined) throw new FrontendError(`no such ${describeRegion(description)}`);
    this.#install(this.#regions.filter((candidate) => candidate !== region));
    region.close();
  }

  /**
   * SET_MEM_TABLE: replaces all regions. One that is described as before, of the same file, stays as it is with
   * its ledger. Takes the fds over, also when it throws.
   */
  replace(descriptions: readonly RegionDescription[], fds: readonly number[]): void {
    const unused = new Set(fds);
    const made: GuestRegion[] = [];
    try {
      const next = descriptions.map((description, index) => {
        refuseOverlap(descriptions.slice(0, index), description);
        const fd = fds[index];
        if (fd === undefined) throw new FrontendError(`${describeRegion(description)} came without an fd`);
        const same = this.#regions.find(
          (region) =>
            samePlace(region.description, description) &&
            region.description.mmapOffset === description.mmapOffset &&
            this.#isFileOf(region, fd),
        );
        if (same !== undefined) return same;
        const region = this.#newRegion(description, fd);
        unused.delete(fd);
        made.push(region);
        return region;
      });
      const gone = this.#regions.filter((region) => !next.includes(region));
      this.#install(next);
      for (const region of gone) region.close();
    } catch (error) {
      for (const region of made) region.close();
      throw error;
    } finally {
      for (const fd of unused) closeFd(fd);
    }
  }

  /** The region that holds all of a guest range and can be discarded, if one does. */
  discardableRegion(gpa: number, lenBytes: number): GuestRegion | undefined {
    const region = this.#regionOf(gpa, lenBytes);
    return region?.discardable === true ? region : undefined;
  }

  /**
   * Splits a guest range into slices of regions that can be discarded, in order. Any other part comes as its guest address,
   * `outside`.
   */
  *discardable(gpa: number, lenBytes: number): Generator<GuestSlice | Outside> {
    for (const slice of this.slices(gpa, lenBytes)) {
      if (!('region' in slice) || slice.region.discardable) yield slice;
      else yield { outside: slice.region.gpa + slice.offset, lenBytes: slice.lenBytes };
    }
  }

  /** Splits a guest range into slices of regions, in order. A part that no region holds comes as its guest address, `outside`. */
  *slices(gpa: number, lenBytes: number): Generator<GuestSlice | Outside> {
    const end = gpa + lenBytes;
    for (let at = gpa; at < end;) {
      const region = this.#regionAt(at);
      if (region !== undefined) {
        const len = Math.min(end, region.endGpa) - at;
        yield { region, offset: at - region.gpa, lenBytes: len };
        at += len;
      } else {
        const next = this.#regions.find((candidate) => candidate.gpa > at)?.gpa ?? Infinity;
        const len = Math.min(end, next) - at;
        yield { outside: at, lenBytes: len };
        at += len;
      }
    }
  }

  /** Copies guest bytes out. Returns false, with nothing promised of `into`, when part of them is not mapped. */
  read(gpa: number, into: Uint8Array, intoOffset: number, lenBytes: number): boolean {
    const whole = this.#regionOf(gpa, lenBytes);
    if (whole?.readable === true) {
      whole.mapping.read(whole.lead + gpa - whole.gpa, into, intoOffset, lenBytes);
      return true;
    }
    let done = 0;
    for (const slice of this.slices(gpa, lenBytes)) {
      if (!('region' in slice) || !slice.region.readable) return false;
      const { region, offset } = slice;
      region.mapping.read(region.lead + offset, into, intoOffset + done, slice.lenBytes);
      done += slice.lenBytes;
    }
    return true;
  }

  /** Where a frontend's own address (SET_VRING_ADDR) lies, when `lenBytes` from there are in one region that can be read. */
  resolveUser(userAddr: bigint, lenBytes: number): GuestSlice | undefined {
    for (const region of this.#regions) {
      const offset = userAddr - region.userAddr;
      if (region.readable && offset >= 0n && offset + BigInt(lenBytes) <= BigInt(region.sizeBytes)) {
        return { region, offset: Number(offset), lenBytes };
      }
    }
    return undefined;
  }

  close(): void {
    const regions = this.#regions;
    this.#install([]);
    for (const region of regions) region.close();
    this.state.close();
  }

  #install(regions: GuestRegion[]): void {
    this.#regions = regions.sort((a, b) => a.gpa - b.gpa);
    const inMemory = regions.filter(({ discardable }) => discardable);
    this.#files = [...new Map(inMemory.map(({ file, fd }) => [`${file.dev}:${file.ino}`, fd])).values()];
    this.findLost();
  }

  #isFileOf({ file: { kind, dev, ino } }: GuestRegion, fd: number): boolean {
    const file = describeFile(fd, this.#vmmPid);
    return kind !== 'other' && kind === file.kind && file.dev === dev && file.ino === ino;
  }

  #newRegion(description: RegionDescription, fd: number, found: FoundPages | null = null): GuestRegion {
    return new GuestRegion(description, fd, this.state, { found, vmmPid: this.#vmmPid });
  }

  /** The region that holds all of a guest range, if one does. */
  #regionOf(gpa: number, lenBytes: number): GuestRegion | undefined {
    const region = this.#regionAt(gpa);
    return region !== undefined && gpa + lenBytes <= region.endGpa ? region : undefined;
  }

  #regionAt(gpa: number): GuestRegion | undefined {
    const regions = this.#regions;
    let low = 0;
    let high = regions.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const region = regions[middle];
      if (region === undefined) return undefined;
      if (gpa < region.gpa) high = middle - 1;
      else if (gpa >= region.endGpa) low = middle + 1;
      else return region;
    }
    return undefined;
  }
}

function refuseOverlap(others: readonly RegionDescription[], description: RegionDescription): void {
  const clash = others.find((other) => regionsOverlap(other, description));
  if (clash !== undefined) {
    throw new FrontendError(`${describeRegion(description)} overlaps the one at 0x${clash.gpa.toString(16)}`);
  }
}

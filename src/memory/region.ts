import type { RegionDescription } from '../../protocol/vhost-user/payloads.js';
import { closeFd } from '../os/fd.js';
import { describeFile, fileBytes, type BackingFile } from '../os/file.js';
import { Mapping } from '../os/mapping.js';
import { createMemfd } from '../os/memfd.js';
import { FrontendError } from './errors.js';
import { MissingPages } from './missing-pages.js';
import { BLOCK_PAGES, PageLedger } from './page-ledger.js';
import type { Area, StateFile } from './state-file.js';

export const PAGE_BYTES = 4096;

/** Guest addresses stay below this, so that they are exact as numbers (x86-64 and arm64 end at 2^52). */
const MAX_GPA = 2 ** 52;
/** Largest region served: its ledger is two views of 512 MiB. */
const MAX_REGION_BYTES = 2 ** 44;

/** What a process that is gone knew of a region. */
export interface FoundPages {
  ledger: Area;
  /** Of backing pages on hugetlbfs; absent: the process before this one kept none. */
  missing?: Area | undefined;
  /** Part of it was gone. */
  lost: boolean;
}

/**
 * One range of guest memory, mapped. It owns its mapping, its fd and its ledger. The mapping starts at a backing
 * page of the file, `lead` bytes before the region's own first byte.
 */
export class GuestRegion {
  readonly gpa: number;
  readonly sizeBytes: number;
  readonly userAddr: bigint;
  readonly description: RegionDescription;
  readonly lead: number;
  readonly file: BackingFile;
  readonly fd: number;
  readonly mapping: Mapping;
  readonly ledger: PageLedger;
  /** Null where a discarded page comes back by itself: everywhere but on hugetlbfs. */
  readonly missing: MissingPages | null;
  /** Whether memory that the guest gives up in it can go back to the host. */
  readonly discardable: boolean;
  /** Whether the daemon may touch its bytes: a file system that the VMM serves itself could hold whoever does for ever. */
  readonly readable: boolean;
  /** Its file was found to be too short. */
  shrunk = false;
  readonly #lostBefore: boolean;

  /**
   * Maps what `description` says of `fd`, which belongs to the region from then on; when it throws, the fd is
   * still the caller's. Throws FrontendError when the description cannot be true. The ledger is kept in `state`,
   * where it may be `found`: such a region is lost when its file was cut short in the meantime, and not refused.
   * `vmmPid`: the process that opened the file; null: it is not known.
   */
  constructor(
    description: RegionDescription,
    fd: number,
    state: StateFile,
    { found = null, vmmPid = null }: { found?: FoundPages | null; vmmPid?: number | null } = {},
  ) {
    const { gpa, sizeBytes, userAddr, mmapOffset } = description;
    const where = describeRegion(description);
    if (sizeBytes === 0n) throw new FrontendError(`${where} is empty`);
    if (gpa + sizeBytes > BigInt(MAX_GPA) || userAddr + sizeBytes > 1n << 64n) {
      throw new FrontendError(`${where} wraps around or lies beyond 2^52`);
    }
    if (sizeBytes > BigInt(MAX_REGION_BYTES)) throw new FrontendError(`${where} is larger than 16 TiB`);
    const page = BigInt(PAGE_BYTES);
    if ([gpa, sizeBytes, userAddr, mmapOffset].some((value) => value % page !== 0n)) {
      throw new FrontendError(`${where} is not aligned to 4 KiB`);
    }
    this.file = describeFile(fd, vmmPid);
    const { kind } = this.file;
    this.discardable = kind === 'shmem' || kind === 'hugetlbfs';
    this.readable = kind !== 'other';
    this.shrunk = this.readable && mmapOffset + sizeBytes > BigInt(this.file.sizeBytes);
    this.#lostBefore = found?.lost ?? false;
    if (this.shrunk && found === null) {
      throw new FrontendError(
        `${where} ends at ${mmapOffset + sizeBytes} in a file of ${this.file.sizeBytes} bytes`,
      );
    }
    this.gpa = Number(gpa);
    this.sizeBytes = Number(sizeBytes);
    this.userAddr = userAddr;
    this.description = description;
    this.lead = Number(mmapOffset) % this.file.pageBytes;
    const length = Math.ceil((this.lead + this.sizeBytes) / this.file.pageBytes) * this.file.pageBytes;
    this.mapping =
      this.shrunk || this.#lostBefore
        ? zeros(length)
        : Mapping.map(fd, Number(mmapOffset) - this.lead, length);
    try {
      const filePage = Number(mmapOffset) / PAGE_BYTES;
      this.ledger = new PageLedger(
        state,
        this.sizeBytes / PAGE_BYTES,
        filePage % BLOCK_PAGES,
        found?.ledger ?? null,
      );
    } catch (error) {
      this.mapping.close();
      throw error;
    }
    try {
      this.missing = this.#findMissing(state, found?.missing ?? null);
    } catch (error) {
      this.letGo();
      if (found === null) state.free(this.ledger.area);
      throw error;
    }
    this.fd = fd;
  }

  #findMissing(state: StateFile, found: Area | null): MissingPages | null {
    const { lead, sizeBytes, file } = this;
    if (file.kind !== 'hugetlbfs') return null;
    return new MissingPages(state, { lead, sizeBytes, pageBytes: file.pageBytes }, found);
  }

  /** Part of it is gone: what is read there is not the guest's, and the rest can only be wrong without it. */
  get lost(): boolean {
    return this.shrunk || this.#lostBefore || this.mapping.faults > 0;
  }

  /** Looks whether the file still holds all of it; false makes it lost. */
  checkFile(): boolean {
    if (!this.readable) return true;
    const end = Number(this.description.mmapOffset) + this.sizeBytes;
    this.shrunk ||= fileBytes(this.fd) < end;
    return !this.shrunk;
  }

  get endGpa(): number {
    return this.gpa + this.sizeBytes;
  }

  /** Its file, its fd and what is known of its pages stay. */
  letGo(): void {
    this.missing?.letGo();
    this.ledger.letGo();
    this.mapping.close();
  }

  close(): void {
    this.missing?.close();
    this.ledger.close();
    this.mapping.close();
    closeFd(this.fd);
  }
}

/** In the place of what is gone, whose file must not be mapped: hugetlbfs would make it longer again. */
function zeros(lenBytes: number): Mapping {
  const fd = createMemfd('lost', lenBytes);
  try {
    return Mapping.map(fd, 0, lenBytes);
  } finally {
    closeFd(fd);
  }
}

export function describeRegion(region: RegionDescription): string {
  return `memory region at 0x${region.gpa.toString(16)} of ${region.sizeBytes} bytes`;
}

/** Whether two regions meet, in the guest's addresses or in the frontend's own. */
export function regionsOverlap(a: RegionDescription, b: RegionDescription): boolean {
  return (
    (a.gpa < b.gpa + b.sizeBytes && b.gpa < a.gpa + a.sizeBytes) ||
    (a.userAddr < b.userAddr + b.sizeBytes && b.userAddr < a.userAddr + a.sizeBytes)
  );
}

/** Whether two regions are the same, in the guest's addresses and in the frontend's own. */
export function samePlace(a: RegionDescription, b: RegionDescription): boolean {
  return a.gpa === b.gpa && a.sizeBytes === b.sizeBytes && a.userAddr === b.userAddr;
}

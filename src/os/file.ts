import { fstatSync, statfsSync } from 'node:fs';

/** Magic numbers of statfs(2) (linux/magic.h). */
const HUGETLBFS_MAGIC = 0x958458f6;
const TMPFS_MAGIC = 0x01021994;
const SYSTEM_PAGE_BYTES = 4096;

/** The file behind a mapping, as far as discarding goes. */
export interface BackingFile {
  dev: bigint;
  ino: bigint;
  sizeBytes: number;
  kind: 'shmem' | 'hugetlbfs' | 'other';
  /** The smallest part that can be given back. */
  pageBytes: number;
}

export function describeFile(fd: number): BackingFile {
  const { dev, ino, size } = fstatSync(fd, { bigint: true });
  const { type, bsize } = statfsSync(`/proc/self/fd/${fd}`);
  const kind = type === HUGETLBFS_MAGIC ? 'hugetlbfs' : type === TMPFS_MAGIC ? 'shmem' : 'other';
  return {
    dev,
    ino,
    sizeBytes: Number(size),
    kind,
    pageBytes: kind === 'hugetlbfs' ? bsize : SYSTEM_PAGE_BYTES,
  };
}

/** What the file takes up now. */
export function allocatedBytes(fd: number): number {
  return fstatSync(fd).blocks * 512;
}
